//! What a stream's listings have shown lately: one listing may lack what the others have.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::source::Shard;

/// A shard that so many listings in a row lack is no longer counted as listed.
const LACKING_MAX: u32 = 20;

/// The shards of the last listings.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listings: u32,
    last_at: Option<Instant>,
    /// With the number of the listing that had it last.
    shards: HashMap<String, (Shard, u32)>,
}

impl Listings {
    /// Takes in a listing. Returns what it and those before it have, and whether there was one in the last
    /// `valid_for`: an older one says nothing of shards that came since.
    pub(super) fn add(&self, listing: &[Shard], now: Instant, valid_for: Duration) -> (Vec<Shard>, bool) {
        let mut state = self.0.lock();
        state.listings += 1;
        let number = state.listings;
        for shard in listing {
            state.shards.insert(shard.id.clone(), (shard.clone(), number));
        }
        state.shards.retain(|_, (_, last)| *last + LACKING_MAX > number);
        let shards = state.shards.values().map(|(shard, _)| shard.clone()).collect();
        let last_at = state.last_at.replace(now);
        (shards, last_at.is_some_and(|at| now.duration_since(at) <= valid_for))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_remembered_through_listings_that_lack_it_but_not_for_ever() {
        let shard = |id: &str| Shard { id: id.to_owned(), parents: Vec::new() };
        let (listings, both, one) = (Listings::default(), [shard("a"), shard("b")], [shard("a")]);
        let (now, valid_for) = (Instant::now(), Duration::from_secs(1));
        assert!(!listings.add(&both, now, valid_for).1);
        for _ in 1..LACKING_MAX {
            let (shards, repeated) = listings.add(&one, now, valid_for);
            assert_eq!((shards.len(), repeated), (2, true));
        }
        assert_eq!(listings.add(&one, now, valid_for).0, one);
        assert!(!listings.add(&one, now + 2 * valid_for, valid_for).1);
    }
}
