//! `aggregator replay` beside a fleet: every stream of the table that is there, closed shards included.

use std::collections::BTreeMap;

use serde_json::Value;
use warmcast_proto::position::Position;
use warmcast_sandbox::streams::{EventName, Options, Record};

use crate::ledger::{Arrivals, Change};
use crate::life::*;
use crate::master::TABLE;

/// How often each change has arrived.
async fn counted(life: &Life) -> BTreeMap<Change, usize> {
    let mut counted = BTreeMap::new();
    for change in Arrivals::read(&life.kinesis).await.0 {
        *counted.entry(change).or_default() += 1;
    }
    counted
}

/// A replay that does what it should, and what it says.
async fn replayed(life: &Life, arguments: &[&str]) -> Value {
    let (code, report) = life.replay(arguments).await;
    assert_eq!(code, Some(0), "{report}");
    serde_json::from_str(&report).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_reads_closed_shards_and_older_streams_beside_the_fleet_and_within_its_limits() {
    // The service's own limits: the fleet has one of the two readers.
    let mut life = Life::with(Options {
        describes_per_second: Some(10),
        readers_per_shard: Some(2),
        ..Options::default()
    })
    .await;
    life.create_target().await;
    let first = life.add_shard(None);
    life.start_workers(1, Tuning::default());
    life.put_each(&first, &keys("early", 3), 2);
    let second = life.rollover(&first);
    life.put_each(&second, &keys("early", 3), 2);
    let halves = life.split(&second);
    for half in &halves {
        life.put_each(half, &keys("early", 3), 1);
    }
    life.arrivals().await;
    life.fake().set_disabled(&life.arn).unwrap();
    life.ended(&[&halves[0], &halves[1]]).await;
    life.stop_workers().await;

    // A new stream of the table, whose sequence numbers begin anew.
    let renewed = life.fake().create_stream(TABLE, None).unwrap();
    life.master.set_stream(&renewed);
    let shard = life.fake().add_shard(&renewed, None).unwrap();
    for key in keys("early", 3) {
        let sequences = life.fake().put(&renewed, &shard, &[change(&key)]).unwrap();
        life.ledger.expect(&key, 2, &sequences);
    }
    life.start_again();
    life.arrivals().await;

    let before = counted(&life).await;
    let all = before.len();
    assert_eq!(all, 21);
    let report = replayed(&life, &[]).await;
    assert_eq!((&report["records"], &report["wanted"]), (&all.into(), &all.into()), "{report}");
    let streams = report["streams"].as_array().unwrap();
    let shards: Vec<usize> = streams.iter().map(|of| of["shards"].as_array().unwrap().len()).collect();
    assert_eq!(shards, [4, 1], "{report}");
    let after = counted(&life).await;
    assert!(after.iter().all(|(change, times)| *times == before[change] + 1), "{after:?}");

    // The service forgets the old stream in time.
    life.fake().delete_stream(&life.arn).unwrap();
    let report = replayed(&life, &[]).await;
    assert_eq!((&report["records"], &report["streams_gone"][0]), (&3.into(), &life.arn.clone().into()));
    assert_eq!(life.died(), None);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_sends_what_was_made_in_the_time_and_names_what_cannot_be_read() {
    const HOUR_MS: u64 = 3_600_000;
    let mut life = Life::new().await;
    let shard = life.add_shard(None);
    let now_ms = life.fake().clock().now_ms();
    let made = |key: &str, hours_ago: u64| change(key).created_ms(now_ms - hours_ago * HOUR_MS);
    for (key, hours_ago) in [("old", 9), ("wanted", 5), ("also", 4), ("late", 1)] {
        let sequences = life.fake().put(&life.arn, &shard, &[made(key, hours_ago)]).unwrap();
        life.ledger.expect(key, 1, &sequences);
    }
    life.start_workers(1, Tuning::default());
    life.arrivals().await;
    let keys = |counted: BTreeMap<(String, Position), usize>| {
        let twice = counted.into_iter().filter(|(_, times)| *times == 2);
        twice.map(|((key, _), _)| key).collect::<Vec<_>>()
    };
    let within = ["--since", "6h", "--until", "3h"];
    let report = replayed(&life, &[&within[..], &["--dry-run"]].concat()).await;
    assert!(report["streams"][0]["shards"][0]["from"].as_str().unwrap().starts_with("at-time:"), "{report}");
    assert!(keys(counted(&life).await).is_empty(), "nothing was sent");
    let report = replayed(&life, &within).await;
    assert_eq!(
        (&report["records"], &report["wanted"]),
        (&2.into(), &2.into()),
        "it began at the time: {report}"
    );
    assert_eq!(keys(counted(&life).await), ["also", "wanted"]);

    // A record without the image that its stream promises.
    let poison = Record::new(EventName::Modify, r#"{"id":{"S":"poison"}}"#);
    life.fake().put(&life.arn, &shard, &[poison]).unwrap();
    let (code, report) = life.replay(&["--since", "10m"]).await;
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["undecodable"], 1, "{report}");
    let (code, said) = life.replay(&["--since", "25h"]).await;
    assert_eq!(code, Some(64), "{said}");
    life.stop().await;
}
