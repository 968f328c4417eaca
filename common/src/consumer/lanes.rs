//! The destinations of a consumer's records: each is a *lane*. The aggregator has one for each region; a daemon whose
//! records go to one place has none.

use std::fmt;

/// The most lanes of a consumer.
pub const LANES_MAX: usize = 64;

/// A set of lanes, each by its place in the consumer's list.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lanes(u64);

impl Lanes {
    /// No lane.
    pub const NONE: Self = Self(0);

    /// One lane. Places beyond [`LANES_MAX`] have no lane.
    pub const fn one(lane: usize) -> Self {
        Self(if lane < LANES_MAX { 1 << lane } else { 0 })
    }

    /// The first `count` lanes.
    pub const fn first(count: usize) -> Self {
        Self(if count < LANES_MAX { (1 << count) - 1 } else { u64::MAX })
    }

    /// Whether there is no lane in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the lane is in it.
    pub const fn contains(self, lane: usize) -> bool {
        !self.and(Self::one(lane)).is_empty()
    }

    /// How many lanes are in it.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The lanes of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The lanes of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The lanes that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The lanes, by their places, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let lane = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (lane < LANES_MAX).then_some(lane)
        })
    }
}

impl FromIterator<usize> for Lanes {
    fn from_iter<I: IntoIterator<Item = usize>>(lanes: I) -> Self {
        lanes.into_iter().fold(Self::NONE, |set, lane| set.or(Self::one(lane)))
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(
            one in prop::collection::btree_set(0..LANES_MAX, 0..10),
            other in prop::collection::btree_set(0..LANES_MAX, 0..10),
        ) {
            let lanes = |of: &BTreeSet<usize>| of.iter().copied().collect::<Lanes>();
            let (a, b) = (lanes(&one), lanes(&other));
            prop_assert_eq!(&a.iter().collect::<BTreeSet<_>>(), &one);
            prop_assert_eq!(a.len(), one.len());
            prop_assert_eq!(a.is_empty(), one.is_empty());
            prop_assert_eq!(a.and(b), lanes(&one.intersection(&other).copied().collect()));
            prop_assert_eq!(a.or(b), lanes(&one.union(&other).copied().collect()));
            prop_assert_eq!(a.without(b), lanes(&one.difference(&other).copied().collect()));
            prop_assert!((0..LANES_MAX).all(|lane| a.contains(lane) == one.contains(&lane)));
        }
    }

    #[test]
    fn the_first_lanes_are_as_many_as_asked_for() {
        assert_eq!(Lanes::first(0), Lanes::NONE);
        assert_eq!(Lanes::first(3).iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(Lanes::first(LANES_MAX).len(), LANES_MAX);
        assert!(Lanes::one(LANES_MAX).is_empty());
    }
}
