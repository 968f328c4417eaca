//! Changes to apply, and what must have become of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use warmcast_cache::{Cache, CacheError, EntryReads, Outcome};
use warmcast_proto::{
    change::{Change, ChangeKind},
    entry::EntryHeader,
    key::cache_key,
    position::Position,
};

pub(crate) const TABLE: &str = "profiles";

/// How long a cache may take to be usable again, on a busy machine.
pub(crate) const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

pub(crate) fn put(key: &str, sequence: u64) -> Change {
    Change {
        table: TABLE.into(),
        key: key.to_owned().into(),
        position: Position::new(1, sequence.to_string().parse().unwrap()).unwrap(),
        kind: ChangeKind::Put,
        created_ms: now_ms(),
        payload: Bytes::from(format!("{key} as of {sequence}")),
    }
}

pub(crate) fn redis_key(key: &str) -> Vec<u8> {
    cache_key("wc:", TABLE, key.as_bytes())
}

pub(crate) async fn apply(cache: &Cache, changes: &[Change]) -> Vec<Result<Outcome, CacheError>> {
    cache.apply(&changes.iter().collect::<Vec<_>>()).await
}

/// Applies changes until each has an answer that is final.
pub(crate) async fn apply_at_last(cache: &Cache, changes: &[Change]) -> Vec<Outcome> {
    let deadline = Instant::now() + RECOVERED_WITHIN;
    let mut outcomes = vec![None; changes.len()];
    loop {
        let open: Vec<usize> = (0..changes.len()).filter(|index| outcomes[*index].is_none()).collect();
        if open.is_empty() {
            return outcomes.into_iter().flatten().collect();
        }
        let again: Vec<&Change> = open.iter().map(|index| &changes[*index]).collect();
        let mut failure = None;
        for (index, answer) in open.into_iter().zip(cache.apply(&again).await) {
            match answer {
                Ok(outcome) => outcomes[index] = Some(outcome),
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    failure = Some(error);
                }
            }
        }
        if let Some(error) = failure {
            assert!(Instant::now() < deadline, "unavailable for {RECOVERED_WITHIN:?}: {error}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What readers find: the payload.
pub(crate) async fn payloads(reads: &EntryReads, keys: &[String]) -> Vec<Result<Option<String>, CacheError>> {
    let redis_keys: Vec<Vec<u8>> = keys.iter().map(|key| redis_key(key)).collect();
    let payload = |value: Bytes| {
        let (_, payload) = EntryHeader::decode(&value).unwrap();
        String::from_utf8(payload.to_vec()).unwrap()
    };
    let found = reads.get_many(&redis_keys).await.into_iter();
    found.map(|answer| answer.map(|value| value.map(payload))).collect()
}

/// As [`payloads`], once each key has an answer.
pub(crate) async fn payloads_at_last(reads: &EntryReads, keys: &[String]) -> Vec<Option<String>> {
    let deadline = Instant::now() + RECOVERED_WITHIN;
    loop {
        let found: Result<Vec<_>, _> = payloads(reads, keys).await.into_iter().collect();
        match found {
            Ok(found) => return found,
            Err(error) => assert!(Instant::now() < deadline, "no answers for {RECOVERED_WITHIN:?}: {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("user-{number}")).collect()
}

/// Between two rounds of a writer.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes change after change of each key, and remembers all, until it is told to stop.
pub(crate) struct Writer {
    stop: CancellationToken,
    rounds: watch::Receiver<u64>,
    task: JoinSet<Vec<Change>>,
}

impl Writer {
    pub(crate) fn start(cache: &Cache, keys: Vec<String>) -> Self {
        let (cache, stop) = (cache.clone(), CancellationToken::new());
        let mut task = JoinSet::new();
        let stopped = stop.clone();
        let (written_rounds, rounds) = watch::channel(0);
        task.spawn(async move {
            let mut written = Vec::new();
            let mut sequence = 0;
            while !stopped.is_cancelled() {
                sequence += 1;
                let changes: Vec<Change> = keys.iter().map(|key| put(key, sequence)).collect();
                let outcomes = apply_at_last(&cache, &changes).await;
                // Stale: applied by a call that had no answer.
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied | Outcome::Stale)));
                written.extend(changes);
                written_rounds.send_replace(sequence);
                sleep(PAUSE).await;
            }
            written
        });
        Self { stop, rounds, task }
    }

    /// Waits until so many more changes of each key were applied.
    pub(crate) async fn wait_for_rounds(&mut self, more: u64) {
        let until = *self.rounds.borrow() + more;
        let written = timeout(RECOVERED_WITHIN, self.rounds.wait_for(|round| *round >= until)).await;
        assert!(written.is_ok(), "no {more} rounds within {RECOVERED_WITHIN:?}");
    }

    /// All that was applied, in its order.
    pub(crate) async fn finish(mut self) -> Vec<Change> {
        self.stop.cancel();
        self.task.join_next().await.unwrap().unwrap()
    }
}

/// Applies the changes of the last minutes again, as shards do after a failover, and checks that the last change of
/// each key is there for readers.
pub(crate) async fn assert_complete(cache: &Cache, reads: &EntryReads, written: &[Change], replayed: bool) {
    if replayed {
        apply_at_last(cache, written).await;
    }
    let mut last = std::collections::BTreeMap::new();
    for change in written {
        last.insert(String::from_utf8(change.key.to_vec()).unwrap(), change.payload.clone());
    }
    let keys: Vec<String> = last.keys().cloned().collect();
    let found = payloads_at_last(reads, &keys).await;
    for ((key, payload), found) in last.iter().zip(found) {
        assert_eq!(found.as_deref().map(str::as_bytes), Some(payload.as_ref()), "{key}");
    }
}

/// The task that looks at the primaries.
pub(crate) struct Watching {
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Watching {
    pub(crate) fn start(cache: &Cache) -> Self {
        let (cache, stop) = (cache.clone(), CancellationToken::new());
        let mut task = JoinSet::new();
        let stopped = stop.clone();
        task.spawn(async move { cache.watch(stopped).await });
        Self { stop, task }
    }

    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        self.task.join_next().await.unwrap().unwrap();
    }
}

/// Waits until so many failovers were found.
pub(crate) async fn wait_for_failovers(cache: &Cache, count: u64) {
    let mut failovers = cache.failovers();
    let found = timeout(RECOVERED_WITHIN, failovers.wait_for(|found| *found >= count)).await;
    let Ok(found) = found else { panic!("no {count} failovers within {RECOVERED_WITHIN:?}") };
    assert_eq!(*found.unwrap(), count);
}
