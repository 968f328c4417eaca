//! The test vectors of the cache entry, `proto/testdata/entries.json`: others hold their readers against them.
//!
//! They are made here ([`vectors`]) and checked in. The tests hold the file against the codec, and the reader in
//! Python that stands beside it against the file.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the parts of a test fail by panicking"
)]

mod file;
mod vectors;

mod codec;
mod python;
