//! `verify`: the region's cache against the master tables.
//!
//! Each key is looked at: the master is read (strongly consistent), then the cache, and where the two differ the
//! master once more, so that a change in between is no difference. What differs is looked at again after some
//! minutes: a change on its way is no mismatch. The modules stand in the order in which a key meets them:
//!
//! ```text
//! judge: one look → case: the looks after it
//! ```

pub mod judge;
pub mod case;
