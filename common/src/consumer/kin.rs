//! Which children of a stream's shards have leases, as the last look at the leases saw it: shared with the shards'
//! tasks, so that a shard that ends need not ask the service for what the table tells.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::source::Shard;
use super::store::Lease;

/// The children by parent. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Kin(Arc<Mutex<HashMap<String, Vec<Shard>>>>);

impl Kin {
    /// Takes in a look at the stream's leases.
    pub(super) fn update(&self, leases: &[Lease]) {
        let mut children: HashMap<String, Vec<Shard>> = HashMap::new();
        for lease in leases {
            for parent in &lease.parents {
                let child = Shard { id: lease.shard.to_string(), parents: lease.parents.clone() };
                children.entry(parent.clone()).or_default().push(child);
            }
        }
        *self.0.lock() = children;
    }

    /// The children of a shard, as far as they have leases.
    pub(super) fn children(&self, parent: &str) -> Vec<Shard> {
        self.0.lock().get(parent).cloned().unwrap_or_default()
    }
}
