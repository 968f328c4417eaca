//! Dead letters in their stores, and on the way there: a real table (an embedded DynamoDB) and a real directory.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the parts of a test fail by panicking"
)]

#[path = "support/wait.rs"]
mod wait;
#[path = "dead_letters/world.rs"]
mod world;

#[path = "dead_letters/quarantine.rs"]
mod quarantine;
#[path = "dead_letters/stores.rs"]
mod stores;
#[path = "dead_letters/redrive.rs"]
mod redrive;
