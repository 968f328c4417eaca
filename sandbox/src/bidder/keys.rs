//! Whose profiles are asked for: the users of the traffic, the frequent ones more often, and some whom nobody knows.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use warmcast_proto::key::ItemKey;

use super::BidderOptions;
use crate::profile::cookie_id;
use crate::workload::{Progress, choose_user};

/// Users beyond this number are never written.
const UNKNOWN_FROM: u64 = 1 << 40;
/// How many there are of them: few enough that each comes back.
const UNKNOWN_USERS: u64 = 1_000;

/// How many users there are.
#[derive(Clone, Debug)]
pub enum Users {
    /// Always as many.
    Fixed(u64),
    /// As many as the traffic has written by now.
    Written(Arc<Progress>),
}

impl Users {
    fn count(&self) -> u64 {
        match self {
            Self::Fixed(users) => *users,
            Self::Written(progress) => progress.written().keys,
        }
    }
}

/// Chooses keys.
#[derive(Debug)]
pub(super) struct Keys {
    rng: StdRng,
    users: Users,
    writers: u64,
    unknown_percent: u32,
    per_auction: usize,
}

impl Keys {
    pub(super) fn new(options: &BidderOptions, users: Users) -> Self {
        Self {
            rng: StdRng::seed_from_u64(options.seed),
            users,
            writers: options.writers,
            unknown_percent: options.unknown_percent,
            per_auction: options.keys_per_auction,
        }
    }

    /// The keys of one auction.
    pub(super) fn choose(&mut self) -> Vec<ItemKey> {
        let users = self.users.count();
        (0..self.per_auction).map(|_| self.choose_one(users)).collect()
    }

    fn choose_one(&mut self, users: u64) -> ItemKey {
        let user = if users == 0 || self.rng.random_range(0..100) < self.unknown_percent {
            UNKNOWN_FROM + self.rng.random_range(0..UNKNOWN_USERS)
        } else {
            choose_user(&mut self.rng, users, self.writers)
        };
        ItemKey::partition(cookie_id(user))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn keys(users: u64, unknown_percent: u32) -> Keys {
        let options =
            BidderOptions { writers: 4, unknown_percent, keys_per_auction: 3, ..BidderOptions::new("t") };
        Keys::new(&options, Users::Fixed(users))
    }

    #[test]
    fn so_many_of_a_hundred_keys_do_not_exist() {
        let known: HashSet<ItemKey> = (0..40).map(|user| ItemKey::partition(cookie_id(user))).collect();
        let mut chosen = keys(40, 25);
        let asked: Vec<ItemKey> = (0..2_000).flat_map(|_| chosen.choose()).collect();
        assert_eq!(asked.len(), 6_000);
        let unknown = asked.iter().filter(|key| !known.contains(key)).count();
        assert!((1_200..1_800).contains(&unknown), "{unknown} of 6000");
        assert_eq!(asked.iter().filter(|key| known.contains(key)).collect::<HashSet<_>>().len(), 40);
    }

    #[test]
    fn before_the_first_user_all_are_unknown() {
        let mut chosen = keys(0, 0);
        assert!(!chosen.choose().contains(&ItemKey::partition(cookie_id(0))));
    }
}
