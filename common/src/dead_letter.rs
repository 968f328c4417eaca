//! Dead letters: what cannot be used is set aside with everything needed to look into it and to use it again, so that
//! nothing blocks a shard and nothing vanishes.
//!
//! A [`Letter`] is a record, a frame or a change, with where it came from and why it could not be used. Whoever meets
//! one gives it to the [`Quarantine`] together with what is to be called when it is stored, which is what acknowledges
//! it: a letter is stored before its record counts as done. Letters are kept in a [`LetterStore`]: a DynamoDB table, or
//! a local directory. The same letter met again, after a crash say, is one letter with one attempt more.
//!
//! What bounds it: [`pace`] (a deploy that makes every record bad must not turn a stream into dead letters), the
//! quarantine's queue, the retention of the table, the bytes of the directory. None of the first two loses anything:
//! the shards wait.

mod letter;
mod config;
mod encoding;
mod filter;
mod table;
mod directory;
mod store;
mod pace;
mod counts;
mod metrics;
mod quarantine;
mod selection;
mod listing;
mod shown;
mod redrive;

pub use config::{DeadLetterConfig, StoreConfig};
pub use counts::Counts;
pub use filter::Filter;
pub use letter::{Envelope, Form, Kept, Letter, LetterId, Origin, ReasonClass};
pub use listing::{Cursor, ListArgs, ListReport, list, page};
pub use metrics::register;
pub use quarantine::{Keeper, Quarantine};
pub use redrive::{
    Chosen, RedriveArgs, RedriveCommand, Redriven, SendArgs, SendReport, Sending, preview, send,
};
pub use selection::FilterArgs;
pub use shown::{LetterReport, ShowArgs, show};
pub use store::{LetterError, LetterStore, Page};
