//! The name of an item, owned: what waits in queues and stands in maps.

use std::sync::Arc;

use bytes::Bytes;

/// An item's table and its canonical key bytes ([`warmcast_proto::key::ItemKey`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// The table's name.
    pub table: Arc<str>,
    /// The key within the table.
    pub key: Bytes,
}

impl ItemId {
    /// Names an item.
    #[must_use]
    pub fn new(table: impl Into<Arc<str>>, key: impl Into<Bytes>) -> Self {
        Self { table: table.into(), key: key.into() }
    }
}
