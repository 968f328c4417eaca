//! What DescribeStream shows of the shards: pages of all of them, or the children of one, with the deviations from
//! the truth that are in force.

use std::collections::HashMap;
use std::sync::Arc;

use super::quirks::Quirks;
use super::record::Sequence;
use super::shard::{Shard, ShardIndex};
use super::stream::Stream;

/// One page of shards.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) shards: Vec<ListedShard>,
    /// Whether there is more behind the last one.
    pub(super) more: bool,
}

/// A shard as the listing shows it.
#[derive(Debug)]
pub(super) struct ListedShard {
    pub(super) id: Arc<str>,
    pub(super) parent: Option<Arc<str>>,
    pub(super) start: Sequence,
    pub(super) end: Option<Sequence>,
}

/// Lists up to `limit` shards from the one after `after` on: all, or the children of one.
pub(super) fn list(
    stream: &mut Stream,
    children_of: Option<&str>,
    after: Option<&str>,
    limit: usize,
    now_ms: u64,
) -> Listing {
    let quirks = std::mem::take(&mut stream.quirks);
    let mut view = View { stream, quirks, hidden: HashMap::new(), now_ms };
    let listing = match children_of {
        None => view.all(after, limit),
        Some(parent) => view.children(parent, after, limit),
    };
    let View { stream, quirks, .. } = view;
    stream.quirks = quirks;
    listing
}

struct View<'a> {
    stream: &'a mut Stream,
    quirks: Quirks,
    /// What was decided in this answer, by parent: siblings appear together.
    hidden: HashMap<ShardIndex, bool>,
    now_ms: u64,
}

impl View<'_> {
    fn all(&mut self, after: Option<&str>, limit: usize) -> Listing {
        let mut shards = Vec::with_capacity(limit);
        for (index, shard) in self.stream.listed(after) {
            if shards.len() == limit {
                return Listing { shards, more: true };
            }
            let hidden = is_hidden(self.stream, &mut self.quirks, &mut self.hidden, shard, self.now_ms);
            if !hidden && !self.quirks.is_omitted(index, self.now_ms) {
                shards.push(show(&mut self.quirks, index, shard, self.now_ms));
            }
        }
        Listing { shards, more: false }
    }

    fn children(&mut self, parent: &str, after: Option<&str>, limit: usize) -> Listing {
        let mut shards = Vec::new();
        let parent = self.stream.index(parent).and_then(|index| self.stream.shard(index));
        for index in parent.map(|parent| parent.children.as_slice()).unwrap_or_default() {
            let Some(shard) = self.stream.shard(*index) else { continue };
            let is_there = self.stream.index(&shard.id).is_some();
            let hidden = is_hidden(self.stream, &mut self.quirks, &mut self.hidden, shard, self.now_ms);
            if is_there && !hidden && after.is_none_or(|after| &*shard.id > after) {
                shards.push(show(&mut self.quirks, *index, shard, self.now_ms));
            }
        }
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        let more = shards.len() > limit;
        shards.truncate(limit);
        Listing { shards, more }
    }
}

fn is_hidden(
    stream: &Stream,
    quirks: &mut Quirks,
    decided: &mut HashMap<ShardIndex, bool>,
    shard: &Shard,
    now_ms: u64,
) -> bool {
    if !quirks.hide_any_children() && decided.is_empty() {
        return false;
    }
    let Some(parent) = shard.parent.as_deref().and_then(|parent| stream.index(parent)) else { return false };
    *decided.entry(parent).or_insert_with(|| quirks.are_children_hidden(parent, now_ms))
}

fn show(quirks: &mut Quirks, index: ShardIndex, shard: &Shard, now_ms: u64) -> ListedShard {
    let open = shard.is_open() || quirks.is_shown_open(index, now_ms);
    ListedShard {
        id: Arc::clone(&shard.id),
        parent: shard.parent.clone(),
        start: shard.start,
        end: if open { None } else { shard.end },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::quirks::Until;
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    /// A closed parent with two open children.
    fn family() -> (Stream, [ShardIndex; 3]) {
        let mut stream = Stream::new("arn".into(), "table", "label", "region", NOW_MS, 10_u128.pow(20));
        let parent = stream.add_shard(None, NOW_MS);
        stream.close(parent, NOW_MS).unwrap();
        let children = [1, 2].map(|ms| stream.add_shard(Some(parent), NOW_MS + ms));
        (stream, [parent, children[0], children[1]])
    }

    fn id(stream: &Stream, index: ShardIndex) -> Arc<str> {
        Arc::clone(&stream.shard(index).unwrap().id)
    }

    fn counts(stream: &mut Stream, parent: ShardIndex, now_ms: u64) -> (usize, usize) {
        let parent = id(stream, parent);
        let all = list(stream, None, None, 100, now_ms).shards.len();
        (all, list(stream, Some(&parent), None, 100, now_ms).shards.len())
    }

    #[test]
    fn pages_cover_all_shards_once() {
        let (mut stream, _) = family();
        stream.grow(50, 5, NOW_MS);
        let mut seen = Vec::new();
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = list(&mut stream, None, after.as_deref(), 100, NOW_MS);
            seen.extend(page.shards.iter().map(|shard| Arc::clone(&shard.id)));
            assert_eq!(page.more, page.shards.len() == 100 && seen.len() < 253);
            if !page.more {
                break;
            }
            after = page.shards.last().map(|shard| Arc::clone(&shard.id));
        }
        assert_eq!(seen.len(), 253);
        assert!(seen.is_sorted());
    }

    #[test]
    fn hidden_children_appear_together_after_so_many_answers() {
        let (mut stream, [parent, ..]) = family();
        stream.quirks.hide_children(parent, Until::Describes(2), NOW_MS);
        assert_eq!(counts(&mut stream, parent, NOW_MS), (1, 0));
        assert_eq!(counts(&mut stream, parent, NOW_MS), (3, 2));
    }

    #[test]
    fn hidden_children_appear_when_the_time_has_come() {
        let (mut stream, [parent, ..]) = family();
        stream.quirks.hide_children(parent, Until::Elapsed(Duration::from_secs(30)), NOW_MS);
        assert_eq!(counts(&mut stream, parent, NOW_MS + 29_999), (1, 0));
        assert_eq!(counts(&mut stream, parent, NOW_MS + 30_000), (3, 2));
    }

    #[test]
    fn an_omitted_shard_is_found_by_its_parent() {
        let (mut stream, [parent, child, _]) = family();
        stream.quirks.omit(child, Until::Describes(1), NOW_MS);
        assert_eq!(counts(&mut stream, parent, NOW_MS), (2, 2));
        assert_eq!(counts(&mut stream, parent, NOW_MS), (3, 2));
    }

    #[test]
    fn a_closed_parent_can_look_open_while_its_child_is_listed() {
        let (mut stream, [parent, ..]) = family();
        stream.quirks.show_open(parent, Until::Settled, NOW_MS);
        let ends = |stream: &mut Stream| {
            list(stream, None, None, 100, NOW_MS)
                .shards
                .iter()
                .map(|shard| shard.end.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(&mut stream), [false, false, false]);
        stream.quirks.settle();
        assert_eq!(ends(&mut stream), [true, false, false]);
    }
}
