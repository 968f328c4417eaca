use proptest::prelude::*;

use super::*;

type Attributes = HashMap<String, AttributeValue>;

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn item(attributes: &[(&str, AttributeValue)]) -> Attributes {
    attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// What every version of KCL writes.
fn lease(key: &str, checkpoint: &str, part: u64) -> Attributes {
    item(&[
        ("leaseKey", s(key)),
        ("leaseCounter", n(7)),
        ("ownerSwitchesSinceCheckpoint", n(0)),
        ("checkpoint", s(checkpoint)),
        ("checkpointSubSequenceNumber", n(part)),
    ])
}

fn with(mut attributes: Attributes, more: &[(&str, AttributeValue)]) -> Attributes {
    attributes.extend(item(more));
    attributes
}

fn decoded(attributes: &Attributes) -> KclLease {
    match decode(attributes) {
        Ok(Decoded::Lease(lease)) => lease,
        other => panic!("not a lease: {other:?}"),
    }
}

#[test]
fn a_lease_of_kcl_1_is_read() {
    let one = with(
        lease("shardId-000000000003", "49590338271490256608559692538361571095921575989136588898", 0),
        &[
            ("leaseOwner", s("localhost:5b3f")),
            ("parentShardId", AttributeValue::Ss(vec!["shardId-000000000001".to_owned()])),
        ],
    );
    let lease = decoded(&one);
    assert_eq!((lease.stream, lease.shard.as_str()), (None, "shardId-000000000003"));
    assert_eq!(lease.parents, ["shardId-000000000001"]);
    assert_eq!((lease.owner.as_deref(), lease.counter), (Some("localhost:5b3f"), 7));
    assert_eq!(lease.checkpoint.to_string(), "49590338271490256608559692538361571095921575989136588898");
}

#[test]
fn a_lease_of_kcl_2_is_read_without_its_pending_checkpoint() {
    let two = with(
        lease("shardId-000000000003", "100", 0),
        &[
            ("pendingCheckpoint", s("200")),
            ("pendingCheckpointSubSequenceNumber", n(0)),
            ("startingHashKey", s("0")),
            ("endingHashKey", s("170141183460469231731687303715884105727")),
            ("childShardIds", AttributeValue::Ss(vec!["shardId-000000000005".to_owned()])),
        ],
    );
    let lease = decoded(&two);
    assert_eq!(lease.checkpoint, KclCheckpoint::Record("100".parse().unwrap()));
    assert_eq!((lease.owner, lease.parents), (None, Vec::new()));
}

#[test]
fn a_lease_of_kcl_3_is_read_with_or_without_its_type() {
    let three = with(
        lease("shardId-000000000003", "SHARD_END", 0),
        &[("throughputKBps", AttributeValue::N("12.5".to_owned())), ("checkpointOwner", s("w2"))],
    );
    let typed = with(three.clone(), &[("entityType", s("LEASE"))]);
    assert_eq!(decoded(&three).checkpoint, KclCheckpoint::ShardEnd);
    assert_eq!(decoded(&three), decoded(&typed));
}

#[test]
fn what_kcl_3_5_keeps_beside_the_leases_is_told_apart() {
    for other in ["STREAM", "LEADER", "CLIENT_VERSION_MIGRATION", "TABLE_MIGRATION", "WORKER_METRIC_STATS"] {
        let attributes = item(&[("leaseKey", s("worker-1")), ("entityType", s(other)), ("lut", n(1))]);
        assert_eq!(decode(&attributes), Ok(Decoded::Other), "{other}");
    }
    for key in ["Leader", "Migration3.0", "TableMigration3.5"] {
        assert_eq!(decode(&item(&[("leaseKey", s(key)), ("cv", s("3"))])), Ok(Decoded::Other), "{key}");
    }
}

#[test]
fn a_lease_of_one_of_several_streams_is_read_with_or_without_the_parts_of_its_key() {
    let name = "123456789012:clicks:1700000000";
    let bare = lease(&format!("{name}:shardId-000000000003"), "LATEST", 0);
    let whole = with(bare.clone(), &[("streamName", s(name)), ("shardId", s("shardId-000000000003"))]);
    let lease = decoded(&whole);
    assert_eq!(lease.stream, KclStream::parse(name));
    assert_eq!((lease.shard.as_str(), &lease.checkpoint), ("shardId-000000000003", &KclCheckpoint::Latest));
    assert_eq!(decoded(&bare), lease);
}

#[test]
fn a_lease_of_the_adapter_for_dynamodb_streams_is_read() {
    let name = "123456789012:us-east-1$123456789012$profiles$2024-02-03T11_22_33.456:1";
    let shard = "shardId-00000001706959353456-8a1b2c3d";
    let lease = decoded(&with(
        lease(&format!("{name}:{shard}"), "100000000012345678901", 0),
        &[("streamName", s(name)), ("shardId", s(shard)), ("entityType", s("LEASE"))],
    ));
    assert_eq!((lease.stream.unwrap().to_string().as_str(), lease.shard.as_str()), (name, shard));
}

#[test]
fn every_form_of_a_checkpoint_is_read() {
    let read = |text, part| decoded(&lease("a", text, part)).checkpoint;
    for text in ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END", "12"] {
        assert_eq!(read(text, 0).to_string(), text);
    }
    assert_eq!(read("12", 3), KclCheckpoint::Within("12".parse().unwrap(), 3));
    assert_eq!(read("SHARD_END", 3), KclCheckpoint::ShardEnd);
    let mut old = lease("a", "12", 0);
    old.remove("checkpointSubSequenceNumber");
    assert_eq!(decoded(&old).checkpoint, KclCheckpoint::Record("12".parse().unwrap()));
}

#[test]
fn what_is_wrong_with_an_item_is_said_with_its_key() {
    let good = lease("a", "12", 0);
    let wrong = [
        (item(&[("key", s("Leader"))]), "leaseKey"),
        (with(good.clone(), &[("checkpoint", s("12x"))]), "\"12x\" is not a checkpoint"),
        (with(good.clone(), &[("checkpoint", n(12))]), "checkpoint is not a string"),
        (with(good.clone(), &[("checkpointSubSequenceNumber", s("0"))]), "checkpointSubSequenceNumber"),
        (with(good.clone(), &[("leaseCounter", AttributeValue::N("1.5".to_owned()))]), "leaseCounter"),
        (with(good.clone(), &[("parentShardId", s("p"))]), "parentShardId is not a set"),
        (with(good.clone(), &[("streamName", s("1:b:2")), ("shardId", s("c"))]), "streamName:shardId"),
        (with(good.clone(), &[("leaseKey", s("x:b"))]), "ACCOUNT:STREAM:EPOCH"),
        (with(good, &[("leaseKey", s("1:b:2:"))]), "names no shard"),
    ];
    for (attributes, part) in wrong {
        let error = decode(&attributes).unwrap_err();
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
        let has_key = attributes.get("leaseKey").map_or("", |key| key.as_s().unwrap());
        assert_eq!(error.key, has_key);
    }
}

fn value() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        "[ -~]{0,40}".prop_map(AttributeValue::S),
        "[0-9.eE+-]{0,10}".prop_map(AttributeValue::N),
        prop::collection::vec("[a-z:-]{0,8}", 0..3).prop_map(AttributeValue::Ss),
        any::<bool>().prop_map(AttributeValue::Bool),
        Just(AttributeValue::Null(true)),
    ]
}

proptest! {
    #[test]
    fn a_lease_survives_whatever_its_parts_are(
        stream in prop::option::of(("[0-9]{1,12}", "[a-zA-Z0-9_.$-]{1,30}", any::<u32>())),
        shard in "[a-zA-Z0-9-]{1,30}",
        sequence: u128,
        part: u64,
        counter: u64,
        owner in prop::option::of("[ -~]{1,20}"),
        parents in prop::collection::btree_set("[a-zA-Z0-9-]{1,10}", 0..3),
    ) {
        let name = stream.map(|(account, name, epoch)| format!("{account}:{name}:{epoch}"));
        let key = name.as_ref().map_or_else(|| shard.clone(), |name| format!("{name}:{shard}"));
        prop_assume!(!COORDINATOR_KEYS.contains(&key.as_str()));
        let mut attributes = with(lease(&key, &sequence.to_string(), part), &[("leaseCounter", n(counter))]);
        if let Some(name) = &name {
            attributes.extend(item(&[("streamName", s(name)), ("shardId", s(&shard))]));
        }
        if let Some(owner) = &owner {
            attributes.insert("leaseOwner".to_owned(), s(owner));
        }
        if !parents.is_empty() {
            attributes.insert("parentShardId".to_owned(), AttributeValue::Ss(parents.iter().cloned().collect()));
        }
        let sequence: SequenceNumber = sequence.to_string().parse().unwrap();
        let expected = KclLease {
            stream: name.as_deref().and_then(KclStream::parse),
            shard,
            parents: parents.into_iter().collect(),
            owner,
            counter,
            checkpoint: if part == 0 { KclCheckpoint::Record(sequence) } else { KclCheckpoint::Within(sequence, part) },
        };
        prop_assert_eq!(decode(&attributes), Ok(Decoded::Lease(expected)));
    }

    #[test]
    fn no_item_makes_it_panic(attributes in prop::collection::hash_map(
        prop::sample::select(vec![
            "leaseKey", "leaseCounter", "leaseOwner", "checkpoint", "checkpointSubSequenceNumber", "parentShardId",
            "streamName", "shardId", "entityType",
        ]),
        value(),
        0..9,
    )) {
        let attributes: Attributes =
            attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Ok(Decoded::Lease(lease)) = decode(&attributes) {
            prop_assert!(!lease.shard.is_empty());
        }
    }
}
