//! What an operator wants to know of a fleet: who works, who reads what, how far behind it is, and what needs a look. From
//! the state table alone, so it answers also when no worker does.
//!
//! [`Survey`] looks, [`Observer`] remembers what earlier looks saw, [`Summary`] says what follows: pure. [`watch()`] shows
//! it once, or again and again. Whether a worker lives is criteria as the fleet does it, by its heartbeat that is seen to
//! move, on this machine's monotonic clock. How far behind something is, is a difference between this machine's clock and
//! the times that services and workers wrote.
//!
//! **How far behind a shard is** is not in the table; what is, bounds it from above: its lease says when everything that
//! had come was last known to be done (an idle shard's is written twice an hour or so), and its owner's heartbeat says
//! before which time everything is done in all its leases. The later of the two counts.

mod args;
mod observer;
mod letters;
mod survey;
mod shards;
mod versions;
mod regions;
mod problem;
mod summary;
mod text;
mod render;
mod watch;

pub use args::StatusArgs;
pub use letters::{LetterCount, letter_store};
pub use observer::{Liveness, Observer};
pub use problem::Problem;
pub use regions::{LanesLook, RegionStatus};
pub use render::watermark as watermark_text;
pub use shards::StreamStatus;
pub use summary::{Criteria, Summary, WatermarkStatus, WorkerStatus, watermark};
pub use survey::{Look, StreamLook, StreamName, Survey};
pub use text::{Table, ago};
pub use versions::{LockStatus, VersionsStatus};
pub use watch::{Shown, watch};
