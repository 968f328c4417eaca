//! The metrics of what was set aside. docs/metrics.md says what they mean.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;

use super::counts::Counts;
use super::letter::ReasonClass;
use crate::metrics::{Collector, Families, Registry};

#[derive(Debug)]
struct Letters(Arc<Counts>);

/// Registers the counts of letters.
pub fn register(registry: &mut Registry, counts: Arc<Counts>) {
    registry.register_collector(Box::new(Letters(counts)));
}

impl Collector for Letters {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families::new(encoder);
        let counts = ReasonClass::ALL.map(|class| ([("reason", class.as_str())], self.0.of(class)));
        to.counters("dead_letters", "Records, changes and frames set aside, by why", counts)?;
        to.gauge("dead_letters_waiting", "Of these, those that are not stored yet", self.0.waiting())
    }
}
