//! The state table itself: which writes are taken and which are refused.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use warmcast_common::consumer::coverage::{Coverage, LeaseSet};
use warmcast_common::consumer::store::{Begin, Ended, Lease, Onset, Progressed, Report, StoreError};
use warmcast_common::consumer::{Checkpoint, Shard};
use warmcast_common::retry::Class;

use super::table::Table;

const STREAM: &str = "stream";

fn after(number: u64) -> Checkpoint {
    Checkpoint::After(number.to_string().parse().unwrap())
}

async fn created(table: &Table, shard: &str, parents: &[&str]) -> Lease {
    let parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
    let shard = Shard { id: shard.to_owned(), parents };
    table.store.create_lease(STREAM, &shard, &Checkpoint::TrimHorizon, Begin::AfterParents).await.unwrap();
    table.lease(STREAM, &shard.id).await.unwrap()
}

fn assert_fenced<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert!(error.is_fenced(), "{error}");
}

#[tokio::test]
async fn a_missing_table_is_created_only_if_that_is_allowed() {
    let table = Table::start_without_table().await;
    let error = table.store.ensure_table(false).await.unwrap_err();
    assert_eq!(error.class, Class::NotFound);
    assert!(error.to_string().contains("state table state"), "it names the table: {error}");
    table.store.ensure_table(true).await.unwrap();
    table.store.ensure_table(true).await.expect("a table that is there is taken as it is");
    table.store.ensure_table(false).await.unwrap();
    assert_eq!(table.leases(STREAM).await, []);
}

#[tokio::test]
async fn a_lease_that_is_there_is_not_created_again() {
    let table = Table::start().await;
    let mut lease = created(&table, "a", &["p", "q"]).await;
    lease.parents.sort();
    assert_eq!(lease.parents, ["p", "q"]);
    assert_eq!((lease.owner.as_deref(), lease.epoch, &lease.checkpoint), (None, 0, &Checkpoint::TrimHorizon));
    let taken = table.store.take_lease(&lease, "w1").await.unwrap();
    table.store.checkpoint(&taken, &after(7), Progressed::default()).await.unwrap();
    let again = created(&table, "a", &[]).await;
    assert_eq!((again.owner.as_deref(), again.epoch, again.checkpoint), (Some("w1"), 1, after(7)));
    assert_eq!(again.parents.len(), 2);
}

#[tokio::test]
async fn a_lease_is_taken_only_as_it_was_read() {
    let table = Table::start().await;
    let free = created(&table, "a", &[]).await;
    let first = table.store.take_lease(&free, "w1").await.unwrap();
    assert_eq!((first.owner.as_deref(), first.epoch), (Some("w1"), 1));
    assert_fenced(table.store.take_lease(&free, "w2").await);
    let second = table.store.take_lease(&first, "w1").await.unwrap();
    assert_eq!(second.epoch, 2);
    // The same owner, an older epoch.
    assert_fenced(table.store.take_lease(&first, "w2").await);
    assert_eq!(table.lease(STREAM, "a").await.unwrap(), second);
}

#[tokio::test]
async fn a_lease_is_taken_with_the_checkpoint_of_the_table_not_of_the_copy() {
    let table = Table::start().await;
    let owned = table.store.take_lease(&created(&table, "a", &["p"]).await, "w1").await.unwrap();
    // w2 has read the lease; w1 goes on for a moment.
    table.store.checkpoint(&owned, &after(9), Progressed::default()).await.unwrap();
    let taken = table.store.take_lease(&owned, "w2").await.unwrap();
    assert_eq!(taken.checkpoint, after(9), "a checkpoint must not go back with the lease");
    assert_eq!(Some(taken), table.lease(STREAM, "a").await);
}

#[tokio::test]
async fn a_former_owner_cannot_checkpoint() {
    let table = Table::start().await;
    let former = table.store.take_lease(&created(&table, "a", &[]).await, "w1").await.unwrap();
    table.store.checkpoint(&former, &after(3), Progressed::default()).await.unwrap();
    let now = table.store.take_lease(&former, "w2").await.unwrap();
    let before = table.lease(STREAM, "a").await;
    assert_fenced(table.store.checkpoint(&former, &after(5), Progressed::default()).await);
    assert_fenced(table.store.checkpoint(&former, &Checkpoint::ShardEnd, Progressed::default()).await);
    assert_eq!(table.lease(STREAM, "a").await, before);
    table.store.checkpoint(&now, &after(4), Progressed::default()).await.unwrap();
    // Back with the former owner, but in another tenure.
    let back = table.store.take_lease(&now, "w1").await.unwrap();
    assert_fenced(table.store.checkpoint(&former, &after(5), Progressed::default()).await);
    assert_eq!(back.checkpoint, after(4));
}

#[tokio::test]
async fn a_rewound_lease_takes_no_checkpoint_of_the_tenure_before_and_only_one_rewinds_it() {
    let table = Table::start().await;
    let first = table.store.take_lease(&created(&table, "a", &[]).await, "w1").await.unwrap();
    let done = Progressed { rewind: Some(after(3)), ..Progressed::default() };
    table.store.checkpoint(&first, &after(9), done).await.unwrap();
    let back = |to| Onset { back_to: Some(after(to)), target: Some("t"), settling_ms: Some(0), lanes: None };
    let rewound = table.store.begin_tenure(&first, "w1", &back(5)).await.unwrap();
    assert_eq!((rewound.epoch, &rewound.checkpoint, &rewound.rewind), (2, &after(5), &Some(after(5))));
    assert_eq!((rewound.target.as_deref(), rewound.settling_ms), (Some("t"), Some(0)));
    assert_eq!(rewound.owner, first.owner);
    assert_fenced(table.store.checkpoint(&first, &after(10), Progressed::default()).await);
    assert_fenced(table.store.begin_tenure(&first, "w1", &back(4)).await);
    table.store.checkpoint(&rewound, &after(6), Progressed::default()).await.unwrap();

    let second = table.store.take_lease(&rewound, "w2").await.unwrap();
    assert_eq!((&second.checkpoint, &second.rewind), (&after(6), &Some(after(5))));
    assert_eq!((second.target.as_deref(), second.settling_ms), (Some("t"), Some(0)), "as it was");
    assert_fenced(table.store.begin_tenure(&rewound, "w1", &back(1)).await);
}

#[tokio::test]
async fn until_when_a_shard_settles_goes_with_its_checkpoint_and_with_its_child() {
    let table = Table::start().await;
    let lease = table.store.take_lease(&created(&table, "a", &[]).await, "w1").await.unwrap();
    assert_eq!((&lease.target, lease.settling_ms), (&None, None));
    let settling = Progressed { settling_ms: Some(70), ..Progressed::default() };
    table.store.checkpoint(&lease, &after(1), settling).await.unwrap();
    table.store.checkpoint(&lease, &after(2), Progressed::default()).await.unwrap();
    assert_eq!(table.lease(STREAM, "a").await.unwrap().settling_ms, Some(70));

    let child = Shard { id: "b".to_owned(), parents: vec!["a".to_owned()] };
    let onset = Onset { target: Some("t"), settling_ms: Some(70), ..Onset::default() };
    let begin = Begin::OwnedBy("w1");
    let child = table.store.create_child_lease(&lease, &child, begin, &onset).await.unwrap();
    assert_eq!(table.lease(STREAM, "b").await, child);
    let child = child.unwrap();
    assert_eq!((child.target.as_deref(), child.settling_ms), (Some("t"), Some(70)));
}

#[tokio::test]
async fn a_finished_shard_is_not_rewound_and_says_when_and_how_it_ended() {
    let table = Table::start().await;
    let lease = table.store.take_lease(&created(&table, "a", &[]).await, "w1").await.unwrap();
    let ended = Ended { at_ms: 1_700, watermark_ms: Some(1_600) };
    table.store.finish_lease(&lease, ended, Progressed::default()).await.unwrap();
    table.store.finish_lease(&lease, ended, Progressed::default()).await.expect("again after a lost answer");
    let back = Onset { back_to: Some(after(1)), ..Onset::default() };
    assert_fenced(table.store.begin_tenure(&lease, "w1", &back).await);
    let finished = table.lease(STREAM, "a").await.unwrap();
    assert_eq!((finished.checkpoint, finished.ended), (Checkpoint::ShardEnd, Some(ended)));
}

#[tokio::test]
async fn a_heartbeat_says_how_far_its_leases_are_and_one_of_an_older_version_does_not() {
    let table = Table::start().await;
    let told = |watermark_ms, parked: &[&str]| {
        let leases = LeaseSet { leases: 7, digest: u64::MAX };
        let parked = parked.iter().map(|lane| (*lane).to_owned()).collect();
        Report { coverage: Some(Coverage { leases, watermark_ms, parked }), ..Report::default() }
    };
    let read = async || table.store.heartbeats().await.unwrap().remove(0).report;
    table.store.announce("w1", "i", &Report::default()).await.unwrap();
    assert_eq!(read().await.coverage, None);
    for report in [told(Some(1_700), &["west"]), told(None, &[])] {
        table.store.beat("w1", "i", &report).await.unwrap();
        assert_eq!(read().await, report);
    }
    table.store.beat("w1", "i", &Report::default()).await.unwrap();
    assert_eq!(read().await, Report::default());
}

#[tokio::test]
async fn an_end_stays_an_end_whatever_lands_late() {
    let table = Table::start().await;
    let lease = table.store.take_lease(&created(&table, "a", &[]).await, "w1").await.unwrap();
    table.store.checkpoint(&lease, &Checkpoint::ShardEnd, Progressed::default()).await.unwrap();
    table
        .store
        .checkpoint(&lease, &Checkpoint::ShardEnd, Progressed::default())
        .await
        .expect("written again after a lost answer");
    assert_fenced(table.store.checkpoint(&lease, &after(7), Progressed::default()).await);
    assert_eq!(table.lease(STREAM, "a").await.unwrap().checkpoint, Checkpoint::ShardEnd);
}

#[tokio::test]
async fn a_released_lease_is_free_at_once() {
    let table = Table::start().await;
    let owned = table.store.take_lease(&created(&table, "a", &[]).await, "w1").await.unwrap();
    table.store.release_lease(&owned, None, Progressed::default(), None).await.unwrap();
    let free = table.lease(STREAM, "a").await.unwrap();
    assert_eq!((free.owner.as_deref(), free.epoch), (None, 1));
    assert_fenced(table.store.checkpoint(&owned, &after(1), Progressed::default()).await);
    let taken = table.store.take_lease(&free, "w2").await.unwrap();
    assert_fenced(table.store.release_lease(&owned, None, Progressed::default(), None).await);
    assert_eq!(table.lease(STREAM, "a").await.unwrap(), taken);
}

#[tokio::test]
async fn only_the_lease_of_an_ended_shard_is_deleted() {
    let table = Table::start().await;
    let owned = table.store.take_lease(&created(&table, "a", &[]).await, "w1").await.unwrap();
    assert_fenced(table.store.delete_lease(&owned).await);
    let retaken = table.store.take_lease(&owned, "w2").await.unwrap();
    table.store.checkpoint(&retaken, &Checkpoint::ShardEnd, Progressed::default()).await.unwrap();
    assert_fenced(table.store.take_lease(&retaken, "w3").await);
    assert_fenced(table.store.delete_lease(&owned).await);
    assert!(table.lease(STREAM, "a").await.is_some());
    table.store.delete_lease(&retaken).await.unwrap();
    assert_eq!(table.leases(STREAM).await, []);
}

#[tokio::test]
async fn the_leases_of_a_stream_are_not_those_of_another() {
    let table = Table::start().await;
    created(&table, "a", &[]).await;
    let shard = Shard { id: "b".to_owned(), parents: Vec::new() };
    table.store.create_lease("stream2", &shard, &Checkpoint::AtTime(5), Begin::AfterParents).await.unwrap();
    let shards: Vec<String> =
        table.leases(STREAM).await.into_iter().map(|lease| lease.shard.to_string()).collect();
    assert_eq!(shards, ["a"]);
    assert_eq!(table.leases("stream2").await[0].checkpoint, Checkpoint::AtTime(5));
}

#[tokio::test]
async fn more_leases_than_one_answer_holds_are_all_read() {
    let table = Table::start().await;
    // Two hundred of them with 8 KiB of parents each: more than the 1 MiB that a query answers with.
    let parents: Vec<String> = (0..64).map(|i| format!("{i:0>128}")).collect();
    for i in 0..200 {
        let shard = Shard { id: format!("shard-{i:04}"), parents: parents.clone() };
        table
            .store
            .create_lease(STREAM, &shard, &Checkpoint::TrimHorizon, Begin::AfterParents)
            .await
            .unwrap();
    }
    let first = table
        .client
        .query()
        .table_name("state")
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", AttributeValue::S(format!("stream#{STREAM}")))
        .send()
        .await
        .unwrap();
    assert!(first.last_evaluated_key().is_some(), "the test must need more than one page");
    assert_eq!(table.leases(STREAM).await.len(), 200);
}

#[tokio::test]
async fn the_generation_of_a_stream_is_stable_and_grows_with_each_new_stream() {
    let table = Table::start().await;
    assert_eq!(table.store.generation("profiles", "arn:1").await.unwrap(), 1);
    assert_eq!(table.store.generation("profiles", "arn:2").await.unwrap(), 2);
    assert_eq!(table.store.generation("profiles", "arn:1").await.unwrap(), 1);
    assert_eq!(table.store.generation("profiles", "arn:2").await.unwrap(), 2);
    assert_eq!(table.store.generation("others", "arn:9").await.unwrap(), 1);
}

#[tokio::test]
async fn concurrent_callers_agree_on_every_generation() {
    let table = Table::start().await;
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..12 {
        let (store, stream) = (table.store.clone(), format!("arn:{}", call % 3));
        calls.spawn(async move { (stream.clone(), store.generation("profiles", &stream).await.unwrap()) });
    }
    let mut answers = calls.join_all().await;
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 3, "each stream has one generation: {answers:?}");
    let mut numbers: Vec<u32> = answers.into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn announcing_a_name_again_fences_the_former_process() {
    let table = Table::start().await;
    table.store.announce("w1", "first", &Report::default()).await.unwrap();
    table.store.beat("w1", "first", &Report::default()).await.unwrap();
    table.store.announce("w2", "other", &Report::default()).await.unwrap();
    let counter = |beats: &[warmcast_common::consumer::store::Heartbeat], worker: &str| {
        beats.iter().find(|beat| beat.worker == worker).unwrap().counter
    };
    let before = table.store.heartbeats().await.unwrap();
    assert_eq!(before.len(), 2);
    table.store.announce("w1", "second", &Report::default()).await.unwrap();
    assert_fenced(table.store.beat("w1", "first", &Report::default()).await);
    let between = table.store.heartbeats().await.unwrap();
    assert!(counter(&between, "w1") > counter(&before, "w1"), "announcing is a sign of life");
    table.store.beat("w1", "second", &Report::default()).await.unwrap();
    let afterwards = table.store.heartbeats().await.unwrap();
    assert!(counter(&afterwards, "w1") > counter(&between, "w1"));
    assert_eq!(counter(&afterwards, "w2"), counter(&before, "w2"));
    let beat = afterwards.iter().find(|beat| beat.worker == "w1").unwrap();
    assert_eq!(beat.instance, "second");
}

#[tokio::test]
async fn a_worker_that_was_never_announced_cannot_beat() {
    let table = Table::start().await;
    assert_fenced(table.store.beat("w1", "first", &Report::default()).await);
    assert_eq!(table.store.heartbeats().await.unwrap(), []);
}

#[tokio::test]
async fn gaps_are_kept_one_by_one() {
    let table = Table::start().await;
    let lease = created(&table, "a", &[]).await;
    table.store.record_gap(&lease, &BTreeSet::new(), &after(7), 1_000).await.unwrap();
    table.store.record_gap(&lease, &BTreeSet::new(), &Checkpoint::TrimHorizon, 2_000).await.unwrap();
    let expected = [("a".to_owned(), "after:7".to_owned()), ("a".to_owned(), "trim-horizon".to_owned())];
    assert_eq!(table.gaps(STREAM).await, expected);
    assert_eq!(table.gaps("stream2").await, []);
}

#[tokio::test]
async fn a_job_goes_on_where_it_was_stopped_until_it_is_done_or_forgotten() {
    const WEEK_MS: u64 = 7 * 86_400_000;
    let table = Table::start().await;
    let begin = |name, now_ms| table.store.begin_job(name, "replay of profiles", now_ms);
    assert!(begin("replay-1", 1_000).await.unwrap().places.is_empty());
    for (part, place) in [("shard-a", "after:7"), ("shard-b", "trim-horizon"), ("shard-a", "after:9")] {
        table.store.job_place("replay-1", part, place).await.unwrap();
    }
    table.store.job_place("replay-2", "shard-a", "after:1").await.unwrap();
    let again = begin("replay-1", 5_000).await.unwrap();
    let places = [("shard-a", "after:9"), ("shard-b", "trim-horizon")];
    let places = places.map(|(part, place)| (part.to_owned(), place.to_owned()));
    assert_eq!((again.began_ms, again.what.as_str()), (1_000, "replay of profiles"));
    assert_eq!(again.places, places.into());
    assert_eq!(table.store.jobs().await.unwrap().into_keys().collect::<Vec<_>>(), ["replay-1"]);

    let forgotten = begin("replay-1", 1_000 + WEEK_MS).await.unwrap();
    assert!(forgotten.places.is_empty() && forgotten.began_ms == 1_000 + WEEK_MS, "{forgotten:?}");
    table.store.job_place("replay-1", "shard-a", "after:1").await.unwrap();
    table.store.end_job("replay-1").await.unwrap();
    table.store.end_job("replay-1").await.expect("what is ended stays ended");
    assert!(table.store.jobs().await.unwrap().is_empty());
    assert!(begin("replay-1", 1).await.unwrap().places.is_empty());
}
