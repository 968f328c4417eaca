//! `verify`: the region's cache against the master tables.
//!
//! Each key is looked at: the master is read (strongly consistent), then the cache, and where the two differ the
//! master once more, so that a change in between is no difference. What differs is looked at again after some
//! minutes: a change on its way is no mismatch. The modules stand in the order in which a key meets them:
//!
//! ```text
//! judge: one look → case: the looks after it → look: reads both sides → docket: what differs, and the counts
//!   → walk: where keys come from → shown, report → repair → run: the command; continuous: in the daemon
//! ```

pub mod args;
pub mod judge;
pub mod case;
pub mod look;
pub mod docket;
pub mod walk;
pub mod shown;
pub mod report;
pub mod repair;
pub mod run;
pub mod continuous;

pub use args::{EXAMPLES, Verify};
pub use run::verify;
