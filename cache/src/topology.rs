//! Which server has which keys. Pure; a `directory` finds it out.

mod cluster_slots;

use std::collections::BTreeSet;

use crate::config::Address;

pub(crate) use cluster_slots::read_cluster_slots;

/// The slots of a cluster (Redis: cluster specification).
pub(crate) const SLOTS: u16 = 16_384;

/// Of a slot that nobody has.
const NOBODY: u16 = u16::MAX;

/// The slot of a key: of what stands between its first `{` and the next `}`, if anything does, or of all of it
/// (Redis: cluster specification, hash tags).
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = key.get(open + 1..)?;
    let close = rest.iter().position(|byte| *byte == b'}')?;
    rest.get(..close).filter(|tag| !tag.is_empty())
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0x1021;
    let shift = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ (u16::from(*byte) << 8), shift))
}

/// A primary and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardAddresses {
    pub(crate) primary: Address,
    pub(crate) replicas: Vec<Address>,
}

/// All shards, and which keys each has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    shards: Vec<ShardAddresses>,
    /// The index of each slot's shard; none: the only shard has everything.
    slots: Option<Box<[u16]>>,
}

impl Topology {
    pub(crate) fn single(primary: Address, replicas: Vec<Address>) -> Self {
        Self { shards: vec![ShardAddresses { primary, replicas }], slots: None }
    }

    pub(crate) fn shards(&self) -> &[ShardAddresses] {
        &self.shards
    }

    /// Keys belong to slots.
    pub(crate) const fn has_slots(&self) -> bool {
        self.slots.is_some()
    }

    /// The index of the shard that has a key; none: nobody has its slot.
    pub(crate) fn shard_of(&self, key: &[u8]) -> Option<usize> {
        match &self.slots {
            None => Some(0),
            Some(_) => self.shard_of_slot(slot_of(key)),
        }
    }

    pub(crate) fn shard_of_slot(&self, slot: u16) -> Option<usize> {
        let Some(slots) = &self.slots else { return Some(0) };
        let shard = *slots.get(usize::from(slot))?;
        (shard != NOBODY).then_some(usize::from(shard))
    }

    /// The index of the shard that has this primary.
    pub(crate) fn shard_with_primary(&self, address: &Address) -> Option<usize> {
        self.shards.iter().position(|shard| shard.primary == *address)
    }

    pub(crate) fn is_primary(&self, address: &Address) -> bool {
        self.shard_with_primary(address).is_some()
    }

    pub(crate) fn addresses(&self) -> BTreeSet<&Address> {
        self.shards.iter().flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas)).collect()
    }

    /// The primaries that had, before, what a shard has now.
    pub(crate) fn predecessors<'t>(&self, before: &'t Self, shard: usize) -> BTreeSet<&'t Address> {
        let (Some(slots), Some(slots_before)) = (&self.slots, &before.slots) else {
            return before.shards.iter().map(|shard| &shard.primary).collect();
        };
        let had = slots
            .iter()
            .zip(slots_before)
            .filter(|(now, _)| usize::from(**now) == shard)
            .map(|(_, had)| *had)
            .collect::<BTreeSet<u16>>();
        had.into_iter()
            .filter_map(|shard| before.shards.get(usize::from(shard)))
            .map(|shard| &shard.primary)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_servers_reckon() {
        // `CLUSTER KEYSLOT` of Redis 7.0.15.
        for (key, slot) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("", 0),
            ("{user1000}.following", 3443),
            ("user1000", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }
}
