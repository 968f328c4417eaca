//! Items that wait, in batches of one table: the tables take turns, and within a table the oldest goes first.
//!
//! One table in a batch, so that a table that is slow, throttled or gone fails nobody else's.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use crate::item_id::ItemId;

#[derive(Debug, Default)]
pub(crate) struct TableQueue {
    keys: HashMap<Arc<str>, VecDeque<Bytes>>,
    /// The tables that have keys here.
    turns: VecDeque<Arc<str>>,
    len: usize,
}

impl TableQueue {
    /// Keys that wait.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends an item. It must not be here yet.
    pub(crate) fn push(&mut self, id: ItemId) {
        let keys = self.keys.entry(Arc::clone(&id.table)).or_default();
        if keys.is_empty() {
            self.turns.push_back(id.table);
        }
        keys.push_back(id.key);
        self.len += 1;
    }

    /// Takes the next table's oldest keys.
    pub(crate) fn pop_batch(&mut self, keys_max: usize) -> Option<(Arc<str>, Vec<Bytes>)> {
        let table = self.turns.pop_front()?;
        let keys = self.keys.get_mut(&table)?;
        let batch: Vec<Bytes> = keys.drain(..keys.len().min(keys_max)).collect();
        self.len -= batch.len();
        if keys.is_empty() {
            self.keys.remove(&table);
        } else {
            self.turns.push_back(Arc::clone(&table));
        }
        Some((table, batch))
    }

    /// Keeps what is still wanted.
    pub(crate) fn retain(&mut self, mut is_wanted: impl FnMut(&ItemId) -> bool) {
        for (table, keys) in &mut self.keys {
            keys.retain(|key| is_wanted(&ItemId { table: Arc::clone(table), key: key.clone() }));
        }
        self.keys.retain(|_, keys| !keys.is_empty());
        self.turns.retain(|table| self.keys.contains_key(table));
        self.len = self.keys.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut TableQueue, table: &str, keys: &[&'static str]) {
        for key in keys {
            queue.push(ItemId::new(table, *key));
        }
    }

    fn pop(queue: &mut TableQueue, keys_max: usize) -> Option<(String, Vec<Bytes>)> {
        queue.pop_batch(keys_max).map(|(table, keys)| (table.to_string(), keys))
    }

    #[test]
    fn tables_take_turns_and_the_oldest_key_goes_first() {
        let mut queue = TableQueue::default();
        push(&mut queue, "a", &["1", "2", "3"]);
        push(&mut queue, "b", &["1"]);
        assert_eq!(queue.len(), 4);
        assert_eq!(pop(&mut queue, 2), Some(("a".to_owned(), vec!["1".into(), "2".into()])));
        assert_eq!(pop(&mut queue, 2), Some(("b".to_owned(), vec!["1".into()])));
        push(&mut queue, "b", &["2"]);
        assert_eq!(pop(&mut queue, 2), Some(("a".to_owned(), vec!["3".into()])));
        assert_eq!(pop(&mut queue, 2), Some(("b".to_owned(), vec!["2".into()])));
        assert_eq!(pop(&mut queue, 2), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_nobody_wants_any_more_goes() {
        let mut queue = TableQueue::default();
        push(&mut queue, "a", &["1", "2"]);
        push(&mut queue, "b", &["1"]);
        queue.retain(|id| &id.key[..] == b"2");
        assert_eq!(queue.len(), 1);
        assert_eq!(pop(&mut queue, 9), Some(("a".to_owned(), vec!["2".into()])));
        assert_eq!(pop(&mut queue, 9), None);
    }
}
