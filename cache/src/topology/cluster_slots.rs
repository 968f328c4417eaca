//! Reading the answer to `CLUSTER SLOTS`. (`CLUSTER SHARDS` is not there before Redis 7.0.)

use std::collections::BTreeMap;

use redis::Value;

use super::{NOBODY, SLOTS, ShardAddresses, Topology};
use crate::config::Address;

/// None: the answer is none, or names no primary for any slot.
pub(crate) fn read_cluster_slots(answer: &Value, asked: &Address) -> Option<Topology> {
    let Value::Array(ranges) = answer else { return None };
    let mut slots = vec![NOBODY; usize::from(SLOTS)].into_boxed_slice();
    let mut shards: Vec<ShardAddresses> = Vec::new();
    let mut indices = BTreeMap::new();
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = range.as_slice() else { return None };
        let mut addresses = nodes.iter().filter_map(|node| read_node(node, asked));
        let Some(primary) = addresses.next() else { continue };
        let index = match indices.get(&primary) {
            Some(index) => *index,
            None => {
                let index = u16::try_from(shards.len()).ok().filter(|index| *index < NOBODY)?;
                shards.push(ShardAddresses { primary: primary.clone(), replicas: addresses.collect() });
                indices.insert(primary, index);
                index
            }
        };
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        slots.get_mut(first..=last)?.fill(index);
    }
    (!shards.is_empty()).then_some(Topology { shards, slots: Some(slots) })
}

fn read_node(node: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(node) = node else { return None };
    let [host, Value::Int(port), ..] = node.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => "",
    };
    let host = match (host, asked) {
        // The server does not know its own name: it is the one by which it was asked.
        ("" | "?", Address::Tcp { host, .. }) => host,
        ("" | "?", Address::Unix(_)) => return None,
        (host, _) => host,
    };
    Some(Address::Tcp { host: host.to_owned(), port: u16::try_from(*port).ok().filter(|port| *port > 0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64) -> Value {
        // Since 4.0 an id, since 7.0 more about it.
        Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let mut range = vec![Value::Int(first), Value::Int(last)];
        range.extend(nodes);
        Value::Array(range)
    }

    #[test]
    fn ranges_belong_to_primaries_which_have_replicas() {
        let answer = Value::Array(vec![
            range(0, 99, vec![node(text("a"), 1), node(text("b"), 2)]),
            range(12_182, 12_182, vec![node(Value::Nil, 3)]),
            range(100, 200, vec![node(text("a"), 1), node(text("b"), 2)]),
        ]);
        let topology = read_cluster_slots(&answer, &tcp("asked", 9)).unwrap();
        assert_eq!(
            topology.shards(),
            [
                ShardAddresses { primary: tcp("a", 1), replicas: vec![tcp("b", 2)] },
                ShardAddresses { primary: tcp("asked", 3), replicas: vec![] },
            ]
        );
        assert_eq!(topology.shard_of(b"foo"), Some(1));
        assert_eq!(topology.shard_of(b""), Some(0));
        assert_eq!(topology.shard_of(b"123456789"), None);
        assert!(topology.is_primary(&tcp("a", 1)) && !topology.is_primary(&tcp("b", 2)));
        assert_eq!(topology.addresses().len(), 3);
    }

    #[test]
    fn what_a_shard_has_was_somebodys_before() {
        let slots = |ranges: &[(i64, i64, &str)]| {
            let ranges = ranges
                .iter()
                .map(|(first, last, host)| range(*first, *last, vec![node(text(host), 1)]))
                .collect();
            read_cluster_slots(&Value::Array(ranges), &tcp("asked", 9)).unwrap()
        };
        let before = slots(&[(0, 99, "a"), (100, 199, "b")]);
        let after = slots(&[(0, 49, "a"), (50, 149, "c"), (150, 250, "b")]);
        let names = |shard| {
            let hosts = after.predecessors(&before, shard).into_iter().map(ToString::to_string);
            hosts.collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["a:1"]);
        assert_eq!(names(1), ["a:1", "b:1"]);
        assert_eq!(names(2), ["b:1"]);
        let other = Topology::single(tcp("x", 1), vec![]);
        let moved = Topology::single(tcp("y", 1), vec![]);
        assert_eq!(moved.predecessors(&other, 0).into_iter().collect::<Vec<_>>(), [&tcp("x", 1)]);
    }

    #[test]
    fn what_is_no_answer_is_no_topology() {
        for answer in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16_384, vec![node(text("a"), 1)])]),
            Value::Array(vec![range(5, 4, vec![node(text("a"), -1)])]),
            Value::Array(vec![range(-1, 4, vec![node(text("a"), 1)])]),
            Value::Array(vec![range(7, 6, vec![node(text("a"), 1)]), Value::Nil]),
        ] {
            assert_eq!(read_cluster_slots(&answer, &tcp("asked", 9)), None, "{answer:?}");
        }
    }
}
