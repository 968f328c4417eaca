//! What happened to one item: the unit that everything between the table's stream and the cache moves.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::position::Position;

/// One change of one item, as a state: the whole item after it, never a delta.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The table's name.
    pub table: Arc<str>,
    /// The canonical key bytes: see [`crate::key::ItemKey`].
    pub key: Bytes,
    /// Where the change stands in the item's history.
    pub position: Position,
    /// What happened.
    pub kind: ChangeKind,
    /// When it happened in the master table: milliseconds since the Unix epoch, rounded down to the second by
    /// DynamoDB (AWS: `StreamRecord.ApproximateCreationDateTime`). For lag and age, never for order. Of a backfill:
    /// when the read began.
    pub created_ms: u64,
    /// Put, backfill: an encoded [`Item`](crate::item::Item) of at most 400 KiB or so; else empty. Opaque after it was
    /// made: nothing on the way to the reader looks into it, so a change costs no decoding.
    pub payload: Bytes,
}

/// What happened to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Inserted or replaced.
    Put,
    /// Deleted by a client.
    Delete,
    /// Deleted by DynamoDB's Time to Live.
    Expire,
    /// Its state is unknown: readers must treat the key as a miss.
    Invalidate,
    /// Not a change: what a strongly consistent read of the master table found, which began at `created_ms` on the
    /// reader's clock, taken before the request was sent. The position is [`Position::ZERO`], because a read tells
    /// none. It is written only where nothing is, while it is young: rule 8 of `docs/cache-protocol.md`.
    Backfill,
}

impl ChangeKind {
    /// Whether there is an item in the payload.
    #[must_use]
    pub const fn has_item(self) -> bool {
        match self {
            Self::Put | Self::Backfill => true,
            Self::Delete | Self::Expire | Self::Invalidate => false,
        }
    }
}

/// Payloads are user data and can be large: their length is all that is shown.
impl fmt::Debug for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Change")
            .field("table", &self.table)
            .field("key", &self.key)
            .field("position", &self.position)
            .field("kind", &self.kind)
            .field("created_ms", &self.created_ms)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::tests::any_position;

    pub(crate) fn any_change() -> impl Strategy<Value = Change> {
        let kind = prop_oneof![
            Just(ChangeKind::Put),
            Just(ChangeKind::Delete),
            Just(ChangeKind::Expire),
            Just(ChangeKind::Invalidate),
            Just(ChangeKind::Backfill)
        ];
        let bytes = |len_max| prop::collection::vec(any::<u8>(), 0..len_max).prop_map(Bytes::from);
        ("[a-c]{0,2}", bytes(20), any_position(), kind, any::<u64>(), bytes(300)).prop_map(
            |(table, key, position, kind, created_ms, payload)| Change {
                table: table.into(),
                key,
                position,
                kind,
                created_ms,
                payload,
            },
        )
    }

    #[test]
    fn debug_shows_the_payloads_length_and_not_the_payload() {
        let change = Change {
            table: "profiles".into(),
            key: Bytes::from_static(b"user-1"),
            position: crate::position::Position::ZERO,
            kind: ChangeKind::Put,
            created_ms: 1,
            payload: Bytes::from_static(b"secret-segment"),
        };
        let text = format!("{change:?}");
        assert!(text.contains("payload_bytes: 14"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
