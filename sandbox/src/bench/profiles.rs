//! The profiles in the cache, and which of them each call asks for.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::item::{self, Item, Value};
use warmcast_proto::key::ItemKey;
use warmcast_proto::position::Position;

use super::BenchError;
use crate::entry::{self, now_ms};
use crate::profile::cookie_id;
use crate::redis_server::RedisServer;

/// The table that the entries are of.
pub(super) const TABLE: &str = "profiles";
/// As many as one auction may need, and one call can fetch at little more than the cost of one.
pub(super) const KEYS_PER_CALL: usize = 32;
/// Calls chosen beforehand, so that no time goes into choosing.
const CALLS: usize = 512;
const ENTRIES_PER_PIPELINE: usize = 1_000;

/// What is stored, and what is asked for.
#[derive(Clone, Debug)]
pub(super) struct Profiles {
    calls: std::sync::Arc<[Call]>,
    payload_bytes: usize,
}

/// The keys of one call, as either client wants them.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// As they are in Redis.
    pub(super) redis_keys: Vec<Vec<u8>>,
    /// As a bidder knows them.
    pub(super) item_keys: Vec<ItemKey>,
}

impl Profiles {
    /// Stores `count` profiles of about `bytes` bytes, and chooses the calls.
    pub(super) async fn store(server: &RedisServer, count: usize, bytes: usize) -> Result<Self, BenchError> {
        let mut connection = server.connect().await?;
        let mut rng = StdRng::seed_from_u64(1);
        let header = EntryHeader::new(EntryKind::Live, Position::ZERO, now_ms())?.encode();
        let payload = profile(&mut rng, bytes);
        let entry = [header.as_ref(), &payload].concat();
        for first in (0..count).step_by(ENTRIES_PER_PIPELINE) {
            let mut pipeline = redis::pipe();
            for user in first..count.min(first + ENTRIES_PER_PIPELINE) {
                pipeline.set(redis_key(user), &entry).ignore();
            }
            let () = pipeline.query_async(&mut connection).await?;
        }
        // The bench lasts for minutes: rows are judged by a watermark that does not move.
        let () =
            redis::cmd("SET").arg(entry::WATERMARK_KEY).arg(now_ms()).query_async(&mut connection).await?;
        let calls = (0..CALLS).map(|_| Call::choose(&mut rng, count)).collect();
        Ok(Self { calls, payload_bytes: payload.len() })
    }

    /// The calls, in an order that begins elsewhere for each caller.
    pub(super) fn calls_of(&self, caller: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().cycle().skip(caller * 37 % CALLS)
    }

    /// Bytes of each profile without its header.
    pub(super) const fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }
}

impl Call {
    fn choose(rng: &mut StdRng, count: usize) -> Self {
        let users: Vec<usize> = (0..KEYS_PER_CALL).map(|_| rng.random_range(0..count)).collect();
        Self {
            redis_keys: users.iter().map(|&user| redis_key(user)).collect(),
            item_keys: users.iter().map(|&user| item_key(user)).collect(),
        }
    }
}

fn redis_key(user: usize) -> Vec<u8> {
    entry::redis_key(TABLE, &cookie_id(user as u64))
}

fn item_key(user: usize) -> ItemKey {
    ItemKey::partition(cookie_id(user as u64))
}

/// An item of one binary attribute: what is in it makes no difference to anyone here.
fn profile(rng: &mut StdRng, bytes: usize) -> Bytes {
    let segments: Vec<u8> = (0..bytes).map(|_| rng.random()).collect();
    let attribute = ("segments".to_owned(), Value::B(segments.into()).into());
    item::encode(&Item { attributes: [attribute].into() })
}
