//! Which regions can take more: what decides when a parked one is caught up.

use std::sync::Arc;

use tokio::sync::watch;
use warmcast_common::consumer::Lanes;

/// What one region's producer says of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    region: Lanes,
    all: Arc<watch::Sender<Lanes>>,
}

impl Readiness {
    /// For as many regions, of which none can take more yet; and who listens.
    pub fn of_regions(regions: usize) -> (Vec<Self>, watch::Receiver<Lanes>) {
        let (all, receiver) = watch::channel(Lanes::NONE);
        let all = Arc::new(all);
        let of = |region| Self { region: Lanes::one(region), all: Arc::clone(&all) };
        ((0..regions).map(of).collect(), receiver)
    }

    /// Whether the region answers, and little waits for it.
    pub fn set(&self, ready: bool) {
        self.all.send_if_modified(|lanes| {
            let now = if ready { lanes.or(self.region) } else { lanes.without(self.region) };
            std::mem::replace(lanes, now) != now
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_speaks_for_itself_and_only_news_are_told() {
        let (regions, mut all) = Readiness::of_regions(3);
        assert!(all.borrow_and_update().is_empty());
        regions[0].set(true);
        regions[2].set(true);
        assert_eq!(*all.borrow_and_update(), [0, 2].into_iter().collect());
        regions[2].set(true);
        assert!(!all.has_changed().unwrap());
        regions[0].set(false);
        assert_eq!(*all.borrow_and_update(), Lanes::one(2));
    }
}
