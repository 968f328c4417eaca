//! One read of the server for everybody who gets the same key at the same time.
//!
//! A key that many auctions need at once is read once. The first caller reads, in its own time and without a task;
//! if it gives up, one of those who joined it goes on.

use std::{collections::HashMap, hash::BuildHasher as _, sync::Arc};

use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::outcome::CacheError;

/// What the server had under a key, and the watermark before it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) entry: Result<Option<Bytes>, CacheError>,
    pub(crate) as_of_ms: u64,
}

/// Callers of different keys rarely meet at one lock.
const SHARDS: usize = 16;

type Flights = HashMap<Box<[u8]>, Arc<OnceCell<Read>>, RandomState>;

#[derive(Clone, Debug, Default)]
pub(crate) struct JointReads {
    shards: Arc<[Mutex<Flights>; SHARDS]>,
    hasher: RandomState,
}

/// A caller's part in the read of a key.
struct Part<'a> {
    shard: &'a Mutex<Flights>,
    key: &'a [u8],
    flight: Arc<OnceCell<Read>>,
}

impl Drop for Part<'_> {
    /// Ends the flight: it has landed, or this was the last who waited for it.
    fn drop(&mut self) {
        let mut flights = self.shard.lock();
        // The map's and this one.
        let is_over = self.flight.initialized() || Arc::strong_count(&self.flight) <= 2;
        if is_over && flights.get(self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(self.key);
        }
    }
}

impl JointReads {
    /// Joins the read of this key that is under way, or makes it.
    pub(crate) async fn read<R: Future<Output = Read>>(&self, key: &[u8], read: impl FnOnce() -> R) -> Read {
        let Some(shard) = self.shard(key) else { return read().await };
        let flight = Arc::clone(shard.lock().entry(key.into()).or_default());
        let part = Part { shard, key, flight };
        part.flight.get_or_init(read).await.clone()
    }

    fn shard(&self, key: &[u8]) -> Option<&Mutex<Flights>> {
        #[expect(clippy::cast_possible_truncation, reason = "the lowest bits choose the shard")]
        let hash = self.hasher.hash_one(key) as usize;
        self.shards.get(hash % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{sync::Notify, task::JoinSet};

    use super::*;

    fn ready(as_of_ms: u64) -> std::future::Ready<Read> {
        std::future::ready(Read { entry: Ok(None), as_of_ms })
    }

    #[tokio::test]
    async fn callers_share_one_read_and_the_next_one_is_new() {
        let (joint, reads, go) =
            (JointReads::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut callers = JoinSet::new();
        for _ in 0..10 {
            let (joint, reads, go) = (joint.clone(), Arc::clone(&reads), Arc::clone(&go));
            callers.spawn(async move {
                let read = async {
                    let as_of_ms = reads.fetch_add(1, Ordering::Relaxed) as u64;
                    go.notified().await;
                    Read { entry: Ok(None), as_of_ms }
                };
                joint.read(b"a", || read).await.as_of_ms
            });
        }
        tokio::task::yield_now().await;
        go.notify_one();
        assert_eq!(callers.join_all().await, [0; 10]);
        let again = joint.read(b"a", || ready(7)).await;
        assert_eq!(again.as_of_ms, 7);
    }

    #[tokio::test]
    async fn who_joined_a_caller_that_gave_up_goes_on_and_nothing_is_left() {
        let joint = JointReads::default();
        let mut callers = JoinSet::new();
        let leading = joint.clone();
        let leader = callers.spawn(async move { leading.read(b"a", std::future::pending).await });
        tokio::task::yield_now().await;
        let joining = joint.clone();
        callers.spawn(async move { joining.read(b"a", || ready(7)).await });
        tokio::task::yield_now().await;
        leader.abort();
        assert!(callers.join_next().await.unwrap().unwrap_err().is_cancelled());
        assert_eq!(callers.join_next().await.unwrap().unwrap().as_of_ms, 7);
        let last = joint.clone();
        let last = callers.spawn(async move { last.read(b"b", std::future::pending).await });
        tokio::task::yield_now().await;
        last.abort();
        callers.join_next().await;
        assert!(joint.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
