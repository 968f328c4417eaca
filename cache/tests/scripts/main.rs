//! The scripts on a real server against the protocol's reference functions, and what only a real server shows.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, also in its helpers"
)]

mod calls;
mod evictions;
#[path = "../protocol/mod.rs"]
#[expect(dead_code, reason = "the model needs more of it")]
mod protocol;
mod random;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod support;
