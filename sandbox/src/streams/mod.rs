//! A fake of DynamoDB Streams, at the level of the wire: the real SDK talks to it.
//!
//! The local servers there are have one shard for each table and none of the service's moods. This one has
//! thousands of shards with their lineage, and a script that rolls them over, splits and merges them, lets children
//! appear late and listings contradict themselves, throttles, and breaks answers. Its clock is the test's, so
//! iterators expire and records age out when the test says so. It also tells who read which shard when.
//!
//! In the order in which they build on each other: records, the shard and the stream are the pure model; the
//! listing is what is shown of them; the service answers requests out of all of it; the fake is the handle through
//! which tests script and watch it, and the server answers.
//!
//! Its answers are checked against Amazon's DynamoDB Local and another emulator by the same tests
//! (`sandbox/tests/streams`). What it does not have: writes to tables, signatures, and more than one parent for a
//! shard, for which the API has no field: after a merge, one parent is named and the other just ends.

mod clock;
mod error;
mod record;
mod reads;
mod shard;
mod quirks;
mod stream;
mod listing;
mod iterator;
mod calls;
mod fault;
mod request;
mod service;
mod fake;
mod script;
mod observe;
mod http;
mod server;

pub use calls::Operation;
pub use clock::Clock;
pub use error::{ErrorCode, ScriptError};
pub use fake::{FakeStreams, Options};
pub use fault::{Calls, Fault, Hang, When};
pub use quirks::Until;
pub use reads::ShardReads;
pub use record::{EventName, Record, Sequence};
pub use server::FakeStreamsServer;
