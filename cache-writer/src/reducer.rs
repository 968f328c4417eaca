//! Reducers: changes of one key, in order, only the newest of them applied.
//!
//! A reducer takes whatever waits for it, keeps the newest change of each key, applies these in one call, and
//! acks them together with the ones they replaced. While a call is under way the next changes gather, so
//! batches grow with the load, and an idle reducer applies at once. Rows of backfills are no changes, and go by
//! themselves: [`backfill`].

mod backfill;

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use warmcast_cache::{Cache, CacheError, Filler, ItemId, Outcome, Refusal};
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::Ack;
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, Quarantine, ReasonClass};
use warmcast_common::fence::Fence;
use warmcast_common::log_trouble;
use warmcast_common::otlp::Span;
use warmcast_common::retry::Backoff;
use warmcast_common::telemetry::Trouble;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::encode_change;

use crate::stats::Stats;
use crate::unpack::{Place, Routed};

/// Changes that one call applies at most: so few that a healthy server is far from the call's deadline.
const CHANGES_MAX: usize = 2_048;
/// Bytes of payload that one call applies at most, one larger change aside. A call that cannot end before its deadline would be read again and again.
const CALL_BYTES_MAX: usize = 4 << 20;

/// Pauses between tries while the cache cannot be reached: short, because bidders wait for fresh entries.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Applies the changes of its keys.
#[derive(Clone)]
pub struct Reducer {
    /// The cache.
    pub cache: Cache,
    /// Fills what changes leave invalid; none: it stays a miss until a reader fills it.
    pub filler: Option<Filler>,
    /// Where changes go that the cache will never take.
    pub quarantine: Quarantine,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// Whether this process stood still.
    pub fence: Arc<Fence>,
}

/// The newest change of a key, with the acks of all that it stands for.
#[derive(Debug)]
struct Newest<A> {
    change: Change,
    /// It came late: see [`Routed::late`].
    late: bool,
    /// When the oldest of them was asked for.
    asked: Instant,
    acks: Vec<A>,
    /// Where the change came from.
    place: Place,
    /// The cache refused the change; this is the invalidation that stands for it.
    refused: bool,
    /// The way of one of them, if it is traced.
    span: Option<Box<Span>>,
}

impl Reducer {
    /// Applies what comes from `changes` until it closes and all is applied.
    pub async fn run(self, mut changes: mpsc::Receiver<Vec<Routed>>) {
        while let Some(mut routed) = changes.recv().await {
            while routed.len() < CHANGES_MAX
                && let Ok(more) = changes.try_recv()
            {
                routed.extend(more);
            }
            let (backfills, changes): (Vec<_>, Vec<_>) =
                routed.into_iter().partition(|routed| routed.change.kind == ChangeKind::Backfill);
            let received = changes.len();
            let newest = newest_of_each_key(changes);
            Stats::add(&self.stats.changes_coalesced, received - newest.len());
            // Changes first: nobody waits for what was there before. In which order does not matter to the cache.
            self.apply_all(newest).await;
            self.backfill_all(backfills).await;
        }
    }

    /// Applies until the cache has answered for each change. What it cannot answer now is applied again.
    async fn apply_all(&self, newest: Vec<Newest<Ack>>) {
        let (mut pauses, mut trouble) = (Backoff::new(RETRY_FIRST, RETRY_MAX), Trouble::default());
        let mut pending = VecDeque::from(newest);
        while !pending.is_empty() {
            // What was read before this process stood still may be another worker's by now, and superseded. Its acks
            // are dropped: its shards' leases are proven and their records read again.
            pending.retain(|newest| self.fence.passes(newest.asked));
            let len = changes_of_call(pending.iter().map(|newest| newest.change.payload.len()));
            let (again, unavailable) = self.apply(pending.drain(..len).collect()).await;
            if let Some(error) = unavailable {
                Stats::add(&self.stats.retries, again.len());
                if let Some(told) = trouble.again(Instant::now()) {
                    log_trouble!(told, %error, changes = again.len(), "changes are applied again until the cache takes them");
                }
                tokio::time::sleep(pauses.next_pause()).await;
            }
            // Their order does not matter: no two are of the same key.
            pending.extend(again);
        }
    }

    /// One call. Gives back what must be applied again, and why the cache was unavailable, if it was.
    async fn apply(&self, call: Vec<Newest<Ack>>) -> (Vec<Newest<Ack>>, Option<CacheError>) {
        let changes: Vec<&Change> = call.iter().map(|newest| &newest.change).collect();
        let answers = self.cache.apply(&changes).await;
        let mut again = Vec::new();
        let mut unavailable = None;
        let mut late = None;
        let now_ms = now_ms();
        for (newest, answer) in call.into_iter().zip(answers) {
            match answer {
                Ok(outcome) => self.settled(newest, outcome, now_ms),
                Err(CacheError::Refused { refusal, .. }) => {
                    again.extend(self.refused(newest, &refusal).await);
                }
                // Dropping the acks has the shard's lease proven and its records read again: a writer that was
                // paused past its deadline may have lost the lease.
                Err(error @ CacheError::PastDeadline { .. }) => {
                    late.get_or_insert((error, 0)).1 += 1;
                }
                Err(error @ CacheError::Unavailable { .. }) => {
                    unavailable = Some(error);
                    again.push(newest);
                }
            }
        }
        if let Some((error, changes)) = late {
            tracing::warn!(%error, changes, "changes were not applied in time: their shards are read again");
        }
        (again, unavailable)
    }

    fn settled(&self, newest: Newest<Ack>, outcome: Outcome, now_ms: u64) {
        let counter = match outcome {
            Outcome::Applied => &self.stats.changes_applied,
            Outcome::Stale => &self.stats.changes_stale,
            Outcome::LeftAbsent => &self.stats.changes_left_absent,
            Outcome::Covered => &self.stats.changes_covered,
            Outcome::Skipped => &self.stats.changes_skipped,
        };
        Stats::add(counter, 1);
        if outcome == Outcome::Applied {
            self.stats.lags.apply.observe_lag(newest.change.created_ms, now_ms, 1);
        }
        // Stale, too: it may be this very change that was applied, by a call whose answer was lost or by a process that
        // died before it asked. A key that has its item is found so by one call, and the master is not asked.
        if matches!(outcome, Outcome::Applied | Outcome::Stale)
            && newest.change.kind == ChangeKind::Invalidate
        {
            self.ask_master(&newest.change.table, &newest.change.key);
        }
        if let Some(mut span) = newest.span {
            span.set("warmcast.outcome", outcome.as_str());
            span.end(SystemTime::now());
        }
        newest.acks.into_iter().for_each(Ack::done);
    }

    /// An entry without its item is filled from the master, after the change is done: fills are shed when there are
    /// too many, changes never.
    fn ask_master(&self, table: &Arc<str>, key: &Bytes) {
        let Some(filler) = &self.filler else { return };
        let taken = filler.offer([ItemId::new(table.clone(), key.clone())]);
        Stats::add(&self.stats.fills_asked, taken);
        Stats::add(&self.stats.fills_shed, 1 - taken);
    }

    /// A change that the cache will never take is set aside, and its key is invalidated instead, which is always
    /// safe. If even that is refused, the key holds something that is not ours: readers cannot take it for an
    /// entry either.
    async fn refused(&self, newest: Newest<Ack>, refusal: &Refusal) -> Option<Newest<Ack>> {
        let Newest { change, late, asked, acks, place, refused, span } = newest;
        if refused {
            acks.into_iter().for_each(Ack::done);
            return None;
        }
        Stats::add(&self.stats.changes_failed, 1);
        let letter = letter(&place.origin, place.index, &change, refusal.to_string());
        // Done when the letter is stored and the key is invalid.
        let parts = acks.into_iter().filter_map(|ack| <[Ack; 2]>::try_from(ack.split(2)).ok());
        let (acks, of_letter): (Vec<Ack>, Vec<Ack>) = parts.map(|[ack, of_letter]| (ack, of_letter)).unzip();
        self.quarantine.set_aside(letter, || of_letter.into_iter().for_each(Ack::done)).await;
        let change = Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change };
        Some(Newest { change, late, asked, acks, place, refused: true, span })
    }
}

fn letter(origin: &Origin, index: u32, change: &Change, reason: String) -> Letter {
    let envelope = Envelope {
        origin: origin.clone(),
        index: Some(index),
        table: Some(change.table.clone()),
        key: Some(change.key.to_vec()),
        class: ReasonClass::Refused,
        reason,
        form: Form::Change,
    };
    Letter::new(envelope, &encode_change(change))
}

/// How many of these changes, in order, one call applies; at least one if there is one.
fn changes_of_call(payload_bytes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    payload_bytes
        .take(CHANGES_MAX)
        .enumerate()
        .take_while(|(index, payload)| {
            bytes += payload;
            *index == 0 || bytes <= CALL_BYTES_MAX
        })
        .count()
}

/// The newest change of each key, in the order in which the keys first came, with the acks of all its changes. One that
/// came late only says that its item is not known any more.
fn newest_of_each_key<A>(changes: Vec<Routed<A>>) -> Vec<Newest<A>> {
    let mut newest: Vec<Newest<A>> = Vec::new();
    let mut by_key: HashMap<(Arc<str>, Bytes), usize> = HashMap::new();
    for Routed { change, late, asked, place, ack, span } in changes {
        let index = *by_key.entry((change.table.clone(), change.key.clone())).or_insert(newest.len());
        match newest.get_mut(index) {
            None => newest.push(Newest { change, late, asked, acks: vec![ack], place, refused: false, span }),
            Some(held) => {
                match change.position.cmp(&held.change.position) {
                    Ordering::Greater => (held.change, held.late, held.place) = (change, late, place),
                    // A duplicate: what came in time counts.
                    Ordering::Equal => held.late &= late,
                    Ordering::Less => {}
                }
                held.asked = held.asked.min(asked);
                held.acks.push(ack);
                held.span = held.span.take().or(span);
            }
        }
    }
    for held in newest.iter_mut().filter(|held| held.late) {
        (held.change.kind, held.change.payload) = (ChangeKind::Invalidate, Bytes::new());
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use warmcast_proto::frame::decode_change;
    use warmcast_proto::position::Position;

    fn change(table: &str, key: u8, sequence: u32) -> Change {
        Change {
            table: table.into(),
            key: vec![key].into(),
            position: Position::new(1, sequence.to_string().parse().unwrap()).unwrap(),
            kind: ChangeKind::Put,
            created_ms: 1,
            payload: sequence.to_string().into(),
        }
    }

    fn place(index: u32) -> Place {
        let origin = Origin { source: "test".into(), stream: "s".into(), shard: None, position: None };
        Place { origin: Arc::new(origin), index }
    }

    proptest! {
        /// Whatever the order of delivery, what is applied is what a sequential application would leave, and
        /// every ack is carried by exactly one change of its own key.
        #[test]
        fn the_newest_of_each_key_stands_for_all_of_its_changes(
            input in prop::collection::vec((prop::bool::ANY, 0u8..5, 0u32..20, prop::bool::ANY), 0..60)
        ) {
            let table = |second: &bool| if *second { "other" } else { "profiles" };
            let changes: Vec<Change> = input.iter().map(|(t, key, n, _)| change(table(t), *key, *n)).collect();
            let mut expected = BTreeMap::new();
            for change in &changes {
                let held = expected.entry((change.table.clone(), change.key.clone())).or_insert(change.position);
                *held = (*held).max(change.position);
            }
            let routed = changes.iter().cloned().zip(&input).enumerate();
            let routed = routed.map(|(ack, (change, (_, _, sequence, late)))| Routed { change, late: *late, asked: Instant::now(), place: place(*sequence), ack, span: None }).collect();
            let newest = newest_of_each_key(routed);
            let mut acks = Vec::new();
            for Newest { change, late, acks: carried, place, .. } in &newest {
                prop_assert_eq!(change.position.sequence().to_string(), place.index.to_string());
                let newest = carried.iter().filter(|&&i| changes[i].position == change.position);
                prop_assert_eq!(*late, newest.clone().all(|&i| input[i].3));
                prop_assert_eq!(change.kind == ChangeKind::Invalidate, *late);
                prop_assert_eq!(expected.remove(&(change.table.clone(), change.key.clone())), Some(change.position));
                let payload = if *late { String::new() } else { change.position.sequence().to_string() };
                prop_assert_eq!(&change.payload, &Bytes::from(payload));
                prop_assert!(carried.iter().all(|&i| changes[i].key == change.key && changes[i].table == change.table));
                acks.extend(carried.iter().copied());
            }
            prop_assert!(expected.is_empty());
            acks.sort_unstable();
            prop_assert_eq!(acks, (0..changes.len()).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn a_call_has_no_more_than_ends_before_its_deadline(
            payloads in prop::collection::vec(0usize..1_500_000, 0..30),
            small in prop::collection::vec(0usize..100, 0..3_000),
        ) {
            for sizes in [payloads, small] {
                let len = changes_of_call(sizes.iter().copied());
                let bytes = |n: usize| sizes[..n].iter().sum::<usize>();
                prop_assert!(len <= CHANGES_MAX && bytes(len) <= CALL_BYTES_MAX);
                prop_assert!(len == sizes.len() || len == CHANGES_MAX || bytes(len + 1) > CALL_BYTES_MAX);
            }
            prop_assert_eq!(changes_of_call([CALL_BYTES_MAX + 1, 0].into_iter()), 1);
        }
    }

    #[test]
    fn a_letter_of_a_change_says_which_it_was_and_has_it_whole() {
        let change = change("profiles", 1, 7);
        let letter = letter(&place(3).origin, 3, &change, "too large".to_owned());
        let envelope = &letter.envelope;
        assert_eq!((envelope.index, envelope.key.as_deref()), (Some(3), Some([1].as_slice())));
        assert_eq!(decode_change(letter.bytes.to_vec().into(), &"profiles".into()), Ok(change));
    }
}
