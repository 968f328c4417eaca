//! Walking through the items that a cache has entries of: all of them, or some at random.
//!
//! All primaries are asked, one page each in turn. SCAN gives every key that is there from the beginning to the end
//! at least once (Redis: SCAN, scan guarantees); a key may come twice. A server that failed is begun anew, because
//! its place may be another server's, with other cursors; and everything is begun anew when other servers have the
//! keys. Only keys whose slots move while they are walked through may be passed over.

use std::{collections::VecDeque, sync::Arc};

use redis::Value;

use crate::{
    item_id::ItemId,
    key_space::{KeySpace, Owner},
    node::Node,
    nodes::Nodes,
    outcome::CacheError,
    read::EntryReads,
    reply::Verdict,
};

/// Keys that a server looks at for one page: it blocks for less than a millisecond.
const KEYS_PER_PAGE: usize = 500;

/// How often everything is begun anew because other servers have the keys.
const REBEGINS_MAX: usize = 10;

/// A walk through the items of one cache.
pub struct EntryScan {
    reads: EntryReads,
    table: Option<Arc<str>>,
    /// Of the servers that are walked through.
    map_version: Option<u64>,
    rebegun: usize,
    /// The servers that are not at their end.
    walks: VecDeque<Walk>,
}

struct Walk {
    node: Arc<Node>,
    cursor: Vec<u8>,
}

/// Some of a cache's items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Items that the cache has a value for: mostly entries.
    pub items: Vec<ItemId>,
    /// Keys with the cache's prefix that no item has.
    pub strangers: Vec<Vec<u8>>,
}

impl EntryReads {
    /// Walks through the items that this cache has values for: of one table, or of all. Strangers are told only if
    /// no table is named.
    #[must_use]
    pub fn scan(&self, table: Option<&str>) -> EntryScan {
        EntryScan {
            reads: self.clone(),
            table: table.map(Arc::from),
            map_version: None,
            rebegun: 0,
            walks: VecDeque::new(),
        }
    }

    /// Up to `count` items at random, of one primary at random; some may come twice. Fewer where the server has
    /// other keys beside, or none at all.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn random(&self, count: usize) -> Result<Entries, CacheError> {
        let map = self.nodes().current_map().await;
        let turn = fastrand::usize(..map.shards().len().max(1));
        let mut found = Entries::default();
        let Some(shard) = map.shards().get(turn) else { return Ok(found) };
        let mut pipeline = redis::pipe();
        for _ in 0..count.min(KEYS_PER_PAGE) {
            pipeline.cmd("RANDOMKEY");
        }
        for answer in ask(self.nodes(), &shard.primary, &pipeline).await? {
            if let Some(key) = text(answer) {
                found.sort_in(self.keys(), key, None);
            }
        }
        Ok(found)
    }

    /// Which of these items' keys hold a value that is no string, and so no entry; reads of it find nothing. One
    /// answer for each, in their order.
    ///
    /// # Errors
    /// A server cannot be asked.
    pub async fn hold_no_string(&self, items: &[ItemId]) -> Result<Vec<bool>, CacheError> {
        let map = self.nodes().current_map().await;
        let mut answers = vec![false; items.len()];
        for shard in map.shards() {
            let mut pipeline = redis::pipe();
            let mut places = Vec::new();
            for (item, place) in items.iter().zip(&mut answers) {
                let key = self.key(item);
                if map.shard_of(&key).is_some_and(|of| Arc::ptr_eq(&of.primary, &shard.primary)) {
                    pipeline.cmd("TYPE").arg(key);
                    places.push(place);
                }
            }
            if places.is_empty() {
                continue;
            }
            let types = ask(self.nodes(), &shard.primary, &pipeline).await?;
            for (place, found) in places.into_iter().zip(types) {
                *place = text(found).is_some_and(|name| name != b"none" && name != b"string");
            }
        }
        Ok(answers)
    }
}

impl EntryScan {
    /// The next page, which may be empty; nothing: that was all. After an error the next call goes on, as far back
    /// as it must.
    pub async fn next(&mut self) -> Option<Result<Entries, CacheError>> {
        if let Err(error) = self.follow_servers().await {
            return Some(Err(error));
        }
        let walk = self.walks.pop_front()?;
        match self.page(&walk).await {
            Ok((entries, cursor)) => {
                if cursor != b"0" {
                    self.walks.push_back(Walk { cursor, ..walk });
                }
                Some(Ok(entries))
            }
            Err(error) => {
                self.walks.push_back(Walk { cursor: b"0".to_vec(), ..walk });
                Some(Err(error))
            }
        }
    }

    /// Begins, also anew, where other servers have the keys than before.
    async fn follow_servers(&mut self) -> Result<(), CacheError> {
        let map = self.reads.nodes().current_map().await;
        if self.map_version == Some(map.version()) {
            return Ok(());
        }
        if self.map_version.is_some() {
            self.rebegun += 1;
        }
        if self.rebegun > REBEGINS_MAX {
            let address = self.reads.nodes().config().servers.to_string().into();
            let reason = "its servers change too often to walk through all of its keys".into();
            return Err(CacheError::Unavailable { address, reason });
        }
        self.map_version = Some(map.version());
        let begin = |node: &Arc<Node>| Walk { node: Arc::clone(node), cursor: b"0".to_vec() };
        self.walks = map.shards().iter().map(|shard| begin(&shard.primary)).collect();
        Ok(())
    }

    async fn page(&self, walk: &Walk) -> Result<(Entries, Vec<u8>), CacheError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SCAN").arg(&walk.cursor);
        pipeline.arg("MATCH").arg(self.reads.keys().pattern(self.table.as_deref()));
        pipeline.arg("COUNT").arg(KEYS_PER_PAGE);
        let answers = ask(self.reads.nodes(), &walk.node, &pipeline).await?;
        let misfit = || CacheError::Unavailable {
            address: Arc::clone(walk.node.name()),
            reason: "SCAN was answered with something else than a cursor and keys".into(),
        };
        let Some(Value::Array(answer)) = answers.into_iter().next() else { return Err(misfit()) };
        let [cursor, Value::Array(page)] = <[Value; 2]>::try_from(answer).map_err(|_| misfit())? else {
            return Err(misfit());
        };
        let cursor = text(cursor).ok_or_else(misfit)?;
        let mut entries = Entries::default();
        for key in page.into_iter().filter_map(text) {
            entries.sort_in(self.reads.keys(), key, self.table.as_deref());
        }
        Ok((entries, cursor))
    }
}

impl std::fmt::Debug for EntryScan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("EntryScan");
        shown.field("reads", &self.reads).field("table", &self.table).finish_non_exhaustive()
    }
}

impl Entries {
    fn sort_in(&mut self, keys: &KeySpace, key: Vec<u8>, table: Option<&str>) {
        match keys.owner(&key) {
            Owner::Item(id) if table.is_none_or(|table| *id.table == *table) => self.items.push(id),
            Owner::Stranger if table.is_none() => self.strangers.push(key),
            Owner::Item(_) | Owner::Cache | Owner::Stranger => {}
        }
    }
}

fn text(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// One round trip to one server.
async fn ask(nodes: &Nodes, node: &Arc<Node>, pipeline: &redis::Pipeline) -> Result<Vec<Value>, CacheError> {
    let unavailable =
        |reason: &str| CacheError::Unavailable { address: Arc::clone(node.name()), reason: reason.into() };
    let link = nodes.link(node).await.map_err(|error| unavailable(&error.to_string()))?;
    let answers = link.exchange(pipeline).await.map_err(|reason| {
        node.give_up(&link);
        nodes.suspect();
        unavailable(&reason)
    })?;
    let read = |answer| match Verdict::read(answer) {
        Verdict::Answer(value) => Ok(value),
        Verdict::Unavailable(reason) | Verdict::ReadOnly(reason) => Err(unavailable(&reason)),
        Verdict::Refused(refusal) => Err(CacheError::Refused { address: Arc::clone(node.name()), refusal }),
        Verdict::NoScript | Verdict::Moved(_) | Verdict::Ask(_) => {
            Err(unavailable("it answered as if it had been asked for one key"))
        }
    };
    answers.into_iter().map(read).collect()
}
