//! Applying changes: each is written if it is newer than what the cache holds, and gets an answer of its own.
//!
//! What this gives: applying a change twice, late, or after a newer one does no harm (rule 1 of the cache
//! protocol), so whoever is in doubt applies again. What it asks for: an answer of [`CacheError::Unavailable`] is
//! no answer. The change may or may not have been applied, and must be applied again before it is acknowledged.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use warmcast_proto::{
    change::{Change, ChangeKind},
    entry::{EntryHeader, EntryKind},
};

use crate::{
    cache::{Cache, ItemRef},
    call::{ApplyArguments, Arguments, Call, Entry, duration_ms},
    outcome::{CacheError, Outcome, Refusal},
    policy::{FLOOR_TTL, TablePolicy, WritePolicy},
    shape::{Shaped, shape_encoded, wall_clock_ms},
};

/// How far the time of a change and the time of a read may be off against each other, where a table's policy does
/// not say: creation times are whole seconds, rounded down, and clocks differ.
const FILL_MARGIN: Duration = Duration::from_secs(3);

impl Cache {
    /// Applies changes in their order, in pipelines, and gives one answer for each, in the same order.
    ///
    /// The whole call has one deadline (see [`hold_until`](Self::hold_until)), so that a process that is stopped in
    /// the middle of it and resumed lands nothing more: give it what takes the servers a fraction of that. What
    /// comes late is answered with [`CacheError::PastDeadline`].
    ///
    /// A change that cannot be shaped as its table's policy says, or is too large, is answered with
    /// [`CacheError::Refused`]: apply it as [`ChangeKind::Invalidate`] at its position instead, so that readers miss.
    /// Do the same with a change that was long on its way from the table's stream: it may be one that is delivered
    /// again, after a newer one that the cache has since lost.
    pub async fn apply(&self, changes: &[&Change]) -> Vec<Result<Outcome, CacheError>> {
        let Some(deadline) = self.fence() else {
            return changes.iter().map(|_| Err(self.past_deadline())).collect();
        };
        let calls = changes.iter().map(|change| {
            let policy = self.policy(&change.table);
            let arguments = arguments(policy, change, self.config().value_bytes_max)?;
            let item = ItemRef { table: &change.table, key: &change.key };
            Ok(Call::new(self.key(policy, item)?, Arguments::Apply(arguments)))
        });
        self.send(calls, deadline, |_, value| outcome(value)).await
    }
}

/// Decides what to write. Pure, but for the clock that says when an item with an expiry may go.
fn arguments(
    policy: &TablePolicy,
    change: &Change,
    value_bytes_max: usize,
) -> Result<ApplyArguments, Refusal> {
    let (kind, shaped) = match change.kind {
        ChangeKind::Put => (EntryKind::Live, Some(shape_encoded(policy, &change.payload)?)),
        ChangeKind::Delete | ChangeKind::Expire => (EntryKind::Tombstone, None),
        ChangeKind::Invalidate => (EntryKind::Invalid, None),
        ChangeKind::Backfill => return Err(Refusal::IsBackfill),
    };
    let ttl = match &shaped {
        Some(shaped) => live_ttl(policy, shaped),
        None => Some(FLOOR_TTL),
    };
    let (expires_ms, payload) =
        shaped.map_or((None, Bytes::new()), |shaped| (shaped.expires_ms, shaped.payload));
    let header = match expires_ms {
        Some(expires_ms) => EntryHeader::expiring(kind, change.position, change.created_ms, expires_ms),
        None => EntryHeader::new(kind, change.position, change.created_ms),
    };
    let skips_absent = policy.write == WritePolicy::Present;
    let margin = policy.strict_margin.or_else(|| skips_absent.then_some(FILL_MARGIN));
    Ok(ApplyArguments {
        entry: Entry::new(header.map_err(Refusal::Header)?, payload, value_bytes_max)?,
        ttl_ms: ttl.map_or(0, duration_ms),
        created_ms: change.created_ms,
        floor_ttl_ms: duration_ms(FLOOR_TTL),
        skips_absent,
        margin_ms: margin.map(duration_ms),
        create_age_max_ms: duration_ms(policy.create_age_max()),
    })
}

/// How long an item's entry stays; none: until it is evicted.
pub(crate) fn live_ttl(policy: &TablePolicy, shaped: &Shaped) -> Option<Duration> {
    // Without an expiry the time makes no difference, and is not asked for.
    let now_ms = if shaped.expires_ms.is_some() { wall_clock_ms() } else { 0 };
    policy.live_entry_ttl(shaped.expires_ms, now_ms)
}

fn outcome(value: &Value) -> Option<Outcome> {
    match value {
        Value::Int(1) => Some(Outcome::Applied),
        Value::Int(2) => Some(Outcome::Stale),
        Value::Int(3) => Some(Outcome::LeftAbsent),
        Value::Int(6) => Some(Outcome::Covered),
        Value::Int(7) => Some(Outcome::Skipped),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use warmcast_proto::{
        entry::{HEADER_LEN, TIME_MS_MAX},
        item::{self, Item, Value as AttributeValue},
        position::Position,
    };

    use super::*;
    use crate::policy::PayloadForm;

    fn change(kind: ChangeKind, payload: impl Into<Bytes>) -> Change {
        Change {
            table: "profiles".into(),
            key: Bytes::from_static(b"user-1"),
            position: Position::MAX,
            kind,
            created_ms: 1_784_000_000_000,
            payload: payload.into(),
        }
    }

    fn of(policy: &TablePolicy, change: &Change) -> Result<ApplyArguments, Refusal> {
        arguments(policy, change, 1_000)
    }

    #[test]
    fn what_holds_a_floor_outlives_the_replays_it_must_refuse() {
        let policy = TablePolicy { live_ttl: Some(Duration::from_mins(1)), ..TablePolicy::default() };
        let floor_ttl_ms = duration_ms(FLOOR_TTL);
        for kind in [ChangeKind::Delete, ChangeKind::Expire, ChangeKind::Invalidate] {
            assert_eq!(of(&policy, &change(kind, "")).unwrap().ttl_ms, floor_ttl_ms);
        }
        assert_eq!(of(&policy, &change(ChangeKind::Put, "item")).unwrap().ttl_ms, 60_000);
        let forever = TablePolicy::default();
        assert_eq!(of(&forever, &change(ChangeKind::Put, "item")).unwrap().ttl_ms, 0);
    }

    #[test]
    fn an_item_past_its_expiry_is_written_all_the_same_for_its_floor() {
        let policy = TablePolicy { expiry_attribute: Some("ttl".to_owned()), ..TablePolicy::default() };
        let attributes = [("ttl".to_owned(), AttributeValue::N("1000".to_owned()).into())];
        let payload = item::encode(&Item { attributes: attributes.into_iter().collect() });
        let arguments = of(&policy, &change(ChangeKind::Put, payload)).unwrap();
        assert_eq!(arguments.ttl_ms, duration_ms(FLOOR_TTL));
    }

    #[test]
    fn what_cannot_be_applied_is_refused_before_it_is_sent() {
        let policy = TablePolicy::default();
        let large = change(ChangeKind::Put, vec![7; 1_001 - HEADER_LEN]);
        let refusal = of(&policy, &large).err();
        assert_eq!(refusal, Some(Refusal::TooLarge { len: 1_001, len_max: 1_000 }));
        let beyond = Change { created_ms: TIME_MS_MAX + 1, ..change(ChangeKind::Put, "") };
        assert!(matches!(of(&policy, &beyond), Err(Refusal::Header(_))));
        let payload = PayloadForm::Attribute("blob".to_owned());
        let policy = TablePolicy { payload, ..policy };
        assert!(matches!(of(&policy, &change(ChangeKind::Put, "\u{0}")), Err(Refusal::Shape(_))));
        assert!(of(&policy, &change(ChangeKind::Delete, "")).is_ok());
        let refusal = of(&policy, &change(ChangeKind::Backfill, "\u{0}")).err();
        assert_eq!(refusal, Some(Refusal::IsBackfill), "what has no position is never applied");
    }

    #[test]
    fn the_policy_says_what_is_skipped_and_what_fills_cover() {
        let margins = |write, strict_margin| {
            let policy = TablePolicy { write, strict_margin, ..TablePolicy::default() };
            let arguments = of(&policy, &change(ChangeKind::Delete, "")).unwrap();
            (arguments.skips_absent, arguments.margin_ms)
        };
        let minute = Some(Duration::from_mins(1));
        assert_eq!(margins(WritePolicy::All, None), (false, None));
        assert_eq!(margins(WritePolicy::All, minute), (false, Some(60_000)));
        assert_eq!(margins(WritePolicy::Present, None), (true, Some(3_000)));
        assert_eq!(margins(WritePolicy::Present, minute), (true, Some(60_000)));
    }

    #[test]
    fn answers_that_the_script_does_not_give_are_none() {
        for value in [Value::Int(0), Value::Int(8), Value::Nil, Value::Okay] {
            assert_eq!(outcome(&value), None);
        }
    }
}
