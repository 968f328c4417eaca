//! How a table is cached: what is written, in which form, and for how long.
//!
//! Whoever writes entries and whoever reads them must agree on a table's policy: the cache-writer and the bidders'
//! `Reader` are given the same.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long an entry that holds a floor stays, however short its item lives: tombstones, invalid entries, and what
/// is held or negative over a floor. It outlives the 24 hours in which a change can be delivered again (AWS:
/// DynamoDB Streams, data retention).
pub const FLOOR_TTL: Duration = Duration::from_hours(26);

/// The age beyond which a change creates no entry where entries stay for [`FLOOR_TTL`] or longer (`G` of the cache
/// protocol).
pub const CREATE_AGE_MAX: Duration = Duration::from_hours(25);

/// The shortest time that live entries may stay. A change that is older does not create an entry, and a shorter
/// time would leave the stream no chance to.
pub const LIVE_TTL_MIN: Duration = Duration::from_mins(1);

const _: () = assert!(FLOOR_TTL.as_secs() > CREATE_AGE_MAX.as_secs(), "a floor outlives what it must refuse");

/// Which changes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum WritePolicy {
    /// Every change: the cache holds the whole table.
    #[default]
    All,
    /// Only changes of keys that the cache has an entry for: it holds what is read.
    Present,
}

/// What a live entry's payload is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum PayloadForm {
    /// The item as protobuf: [`warmcast_proto::item::Item`].
    #[default]
    Item,
    /// The raw bytes of this attribute: a string's UTF-8, a number's text, a binary's bytes.
    Attribute(String),
}

/// How one table is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePolicy {
    /// Which changes are written.
    pub write: WritePolicy,
    /// How long a live entry stays after it was last written; none: until it is evicted or deleted. At least
    /// [`LIVE_TTL_MIN`].
    pub live_ttl: Option<Duration>,
    /// How long it is believed that the master has no such item, after a fill found none.
    pub negative_ttl: Duration,
    /// A number attribute that has the item's own expiry in seconds since the Unix epoch, as DynamoDB's Time to
    /// Live has it. From then on readers see the item as absent.
    pub expiry_attribute: Option<String>,
    /// The attributes that are cached; none: all.
    pub attributes: Option<Vec<String>>,
    /// What the payload is.
    pub payload: PayloadForm,
    /// Put before the table's keys, in place of the cache's prefix.
    pub key_prefix: Option<String>,
    /// Strict mode: a change made so much before a fill's read only raises the entry's floor, so that readers do
    /// not see an item go back and forth. Creation times are whole seconds, and clocks differ: seconds, not
    /// milliseconds. None: such a change is applied; the changes after it bring the entry to where it was.
    pub strict_margin: Option<Duration>,
}

impl Default for TablePolicy {
    fn default() -> Self {
        Self {
            write: WritePolicy::All,
            live_ttl: None,
            negative_ttl: Duration::from_mins(1),
            expiry_attribute: None,
            attributes: None,
            payload: PayloadForm::Item,
            key_prefix: None,
            strict_margin: None,
        }
    }
}

impl TablePolicy {
    /// The age beyond which a change may not create an entry (`G`). A change that was superseded is known by the
    /// floor of the one that superseded it, for as long as floors stay: here at least for `live_ttl`.
    #[must_use]
    pub fn create_age_max(&self) -> Duration {
        match self.live_ttl {
            Some(live_ttl) if live_ttl < FLOOR_TTL => live_ttl * 25 / 26,
            _ => CREATE_AGE_MAX,
        }
    }

    /// How long a live entry stays in the server; none: until it is evicted. An item with an expiry of its own
    /// stays beyond it, because its entry holds a floor.
    #[must_use]
    pub fn live_entry_ttl(&self, expires_ms: Option<u64>, now_ms: u64) -> Option<Duration> {
        let until_expiry = expires_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
        match (self.live_ttl, until_expiry.map(|left| left + FLOOR_TTL)) {
            (Some(ttl), Some(stays)) => Some(ttl.min(stays)),
            (ttl, stays) => ttl.or(stays),
        }
    }

    /// Nobody has to look into an item to know its entry.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.payload == PayloadForm::Item && self.attributes.is_none() && self.expiry_attribute.is_none()
    }
}

/// The policies of all tables.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tables {
    /// Of tables that are not named.
    pub default: TablePolicy,
    /// By table.
    pub named: BTreeMap<Arc<str>, TablePolicy>,
}

impl Tables {
    /// The policy of a table.
    #[must_use]
    pub fn policy(&self, table: &str) -> &TablePolicy {
        self.named.get(table).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_floor_goes_before_the_changes_that_it_must_refuse() {
        for hours in [None, Some(1), Some(25), Some(26), Some(48)] {
            let live_ttl = hours.map(Duration::from_hours);
            let policy = TablePolicy { live_ttl, ..TablePolicy::default() };
            for expires_ms in [None, Some(0), Some(2_000_000)] {
                let stays = policy.live_entry_ttl(expires_ms, 1_000_000);
                assert!(
                    stays.is_none_or(|stays| stays > policy.create_age_max()),
                    "{hours:?} {expires_ms:?}"
                );
            }
            assert!(policy.create_age_max() <= CREATE_AGE_MAX);
        }
    }
}
