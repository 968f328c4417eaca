//! Each fault does what it says, between the real SDK and the embedded Kinesis.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::put_records::{PutRecordsError, PutRecordsOutput};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ScalingType, ShardIteratorType};
use tokio::time::{Instant, timeout};
use warmcast_proto::key::{Buckets, explicit_hash_key};

use super::*;
use crate::clients;
use crate::kinesis::Kinesis;

const STREAM: &str = "warmcast";
const REGION: &str = "eu-west-1";
const SHARDS: u32 = 4;
/// Longer than any call that is answered, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to be sure that nothing comes.
const A_WHILE: Duration = Duration::from_millis(300);

struct World {
    kinesis: Kinesis,
    proxy: FaultProxy,
    client: Client,
}

type Put = Result<PutRecordsOutput, SdkError<PutRecordsError>>;

impl World {
    async fn start() -> Self {
        let kinesis = Kinesis::start(REGION).await.unwrap();
        kinesis.create_stream(STREAM, SHARDS.try_into().unwrap()).await.unwrap();
        let proxy = FaultProxy::start(&kinesis.url(), 1).await.unwrap();
        let client = clients::kinesis_without_retries(&proxy.url(), REGION);
        Self { kinesis, proxy, client }
    }

    /// Puts entries of so many bytes, each for the shard of its own.
    async fn put(&self, entries: &[(u32, usize)]) -> Put {
        let shards = Buckets::new(SHARDS).unwrap();
        let entry = |(index, (shard, bytes)): (usize, &(u32, usize))| {
            let number = u8::try_from(index % 256).unwrap();
            PutRecordsRequestEntry::builder()
                .data(Blob::new(vec![number; *bytes]))
                .partition_key("p")
                .explicit_hash_key(explicit_hash_key(*shard, shards).to_string())
                .build()
                .unwrap()
        };
        let entries = entries.iter().enumerate().map(entry).collect();
        self.client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await
    }

    /// The first bytes of the records that the server has.
    async fn landed(&self) -> Vec<u8> {
        let client = self.kinesis.client();
        let shards = client.list_shards().stream_name(STREAM).send().await.unwrap().shards.unwrap();
        let mut landed = Vec::new();
        for shard in shards {
            let oldest = client.get_shard_iterator().stream_name(STREAM).shard_id(&shard.shard_id);
            let oldest = oldest.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
            let read = client.get_records().set_shard_iterator(oldest.shard_iterator).send().await.unwrap();
            landed.extend(read.records.iter().map(|record| record.data.as_ref()[0]));
        }
        landed.sort_unstable();
        landed
    }

    async fn landed_become(&self, count: usize) {
        let becoming = async {
            while self.landed().await.len() < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, becoming).await.expect("the records reach the server");
    }
}

fn codes(answer: &PutRecordsOutput) -> Vec<Option<&str>> {
    answer.records.iter().map(|record| record.error_code.as_deref()).collect()
}

fn loss(reaching: f64) -> Option<Loss> {
    Some(Loss { share: 1.0, reaching })
}

#[tokio::test]
async fn without_faults_everything_passes_and_is_counted() {
    let world = World::start().await;
    let answer = world.put(&[(0, 10), (3, 20)]).await.unwrap();
    assert_eq!((codes(&answer), answer.failed_record_count), (vec![None, None], Some(0)));
    let read = world.client.list_shards().stream_name(STREAM).send().await.unwrap();
    assert_eq!(read.shards.unwrap().len(), 4);
    assert_eq!(world.landed().await, [0, 1]);
    let total = world.proxy.total();
    assert_eq!((total.calls, total.calls_failed), (2, 0));
    assert_eq!((total.entries, total.entries_taken, total.entries_rejected), (2, 2, 0));
    // Base64 of 30 bytes and what is around it.
    assert!((200..600).contains(&total.body_bytes), "{total:?}");
    let seconds = world.proxy.seconds();
    assert_eq!(seconds.iter().map(|second| second.entries_taken).sum::<u64>(), 2);
}

#[tokio::test]
async fn a_shard_beyond_its_capacity_rejects_its_entries_and_the_others_land() {
    let world = World::start().await;
    let capacity = Capacity { bytes_per_second: 1_000, records_per_second: 1_000_000 };
    world.proxy.set(Faults { capacity: Some(capacity), ..Faults::default() });
    // Of shard 1 the third is too much, of shard 2 nothing.
    let answer = world.put(&[(1, 400), (2, 400), (1, 400), (1, 900), (2, 400)]).await.unwrap();
    let throttled = Some("ProvisionedThroughputExceededException");
    assert_eq!(codes(&answer), [None, None, None, throttled, None]);
    assert_eq!(answer.failed_record_count, Some(1));
    assert!(answer.records[3].error_message.as_deref().unwrap().contains("shardId-000000000001"));
    assert_eq!(answer.records[4].shard_id.as_deref(), Some("shardId-000000000002"));
    assert_eq!(world.landed().await, [0, 1, 2, 4]);
    let total = world.proxy.total();
    assert_eq!((total.entries, total.entries_taken, total.entries_rejected), (5, 4, 1));

    // A call of which nothing passes does not reach the server.
    let answer = world.put(&[(1, 900), (2, 900)]).await.unwrap();
    assert_eq!((codes(&answer), answer.failed_record_count), (vec![throttled; 2], Some(2)));
    assert_eq!(world.landed().await.len(), 4);
    world.proxy.clear();
    assert_eq!(codes(&world.put(&[(1, 900), (2, 900)]).await.unwrap()), [None, None]);
}

#[tokio::test]
async fn records_are_limited_beside_bytes() {
    let world = World::start().await;
    let capacity = Capacity { bytes_per_second: 1 << 20, records_per_second: 3 };
    world.proxy.set(Faults { capacity: Some(capacity), ..Faults::default() });
    let answer = world.put(&[(0, 1); 10]).await.unwrap();
    assert_eq!(codes(&answer).iter().filter(|code| code.is_none()).count(), 3);
}

#[tokio::test]
async fn a_shard_that_was_split_has_the_capacity_of_two() {
    let world = World::start().await;
    let capacity = Capacity { bytes_per_second: 100, records_per_second: 100 };
    world.proxy.set(Faults { capacity: Some(capacity), ..Faults::default() });
    world.put(&[(0, 1)]).await.unwrap();
    let client = world.kinesis.client();
    let count = i32::try_from(2 * SHARDS).unwrap();
    let update = client.update_shard_count().stream_name(STREAM).target_shard_count(count);
    update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
    // The first entries that land in the new shards tell of them.
    let known = async {
        loop {
            let _probed = world.put(&[(0, 1), (3, 1)]).await;
            let answer = world.put(&[(0, 90), (3, 90)]).await;
            let Ok(answer) = answer else { continue };
            let shard = |of: usize| answer.records[of].shard_id.clone();
            if let (Some(a), Some(b)) = (shard(0), shard(1)) {
                assert!(a != b);
                if a.as_str() > "shardId-000000000003" && b.as_str() > "shardId-000000000003" {
                    return;
                }
            }
        }
    };
    timeout(PATIENCE, known).await.expect("entries land in the new shards");
}

#[tokio::test]
async fn a_share_of_the_entries_fails_and_the_rest_lands() {
    let world = World::start().await;
    world.proxy.set(Faults { entry_failures: 0.3, ..Faults::default() });
    let answer = world.put(&[(0, 1); 200]).await.unwrap();
    let failed = codes(&answer).iter().filter(|code| **code == Some("InternalFailure")).count();
    assert!((30..90).contains(&failed), "{failed}");
    assert_eq!(codes(&answer).iter().flatten().count(), failed);
    assert_eq!(answer.failed_record_count, i32::try_from(failed).ok());
    let expected: Vec<u8> =
        (0u8..200).filter(|number| codes(&answer)[usize::from(*number)].is_none()).collect();
    assert_eq!(world.landed().await, expected);
}

#[tokio::test]
async fn lost_entries_are_answered_as_taken_and_never_reach_the_server() {
    let world = World::start().await;
    world.proxy.set(Faults { entry_losses: 0.5, ..Faults::default() });
    let answer = world.put(&[(0, 1); 200]).await.unwrap();
    assert_eq!((codes(&answer), answer.failed_record_count), (vec![None; 200], Some(0)));
    assert!(
        answer.records.iter().all(|record| record.shard_id.is_some() && record.sequence_number.is_some())
    );
    let landed = world.landed().await.len() as u64;
    assert!((60..140).contains(&landed), "{landed}");
    let total = world.proxy.total();
    assert_eq!((total.entries, total.entries_taken, total.entries_rejected), (200, landed, 0));
    assert_eq!(total.entries_lost, 200 - landed);

    // A call of which nothing is left does not reach the server.
    world.proxy.set(Faults::losing_records());
    assert_eq!(codes(&world.put(&[(1, 1), (2, 1)]).await.unwrap()), [None, None]);
    world.proxy.clear();
    world.put(&[(1, 1)]).await.unwrap();
    assert_eq!(world.landed().await.len() as u64, landed + 1);
}

#[tokio::test]
async fn whole_calls_fail_with_the_services_errors() {
    let world = World::start().await;
    for (error, code, status) in [
        (CallError::InternalFailure, "InternalFailure", 500),
        (CallError::ServiceUnavailable, "ServiceUnavailable", 503),
        (CallError::LimitExceeded, "LimitExceededException", 400),
    ] {
        let errors = CallErrors { share: 1.0, error };
        world.proxy.set(Faults { call_errors: Some(errors), ..Faults::default() });
        let refused = world.put(&[(0, 1)]).await.unwrap_err();
        assert_eq!(refused.raw_response().unwrap().status().as_u16(), status);
        assert_eq!(refused.as_service_error().unwrap().code(), Some(code));
    }
    assert_eq!(world.proxy.total().calls_failed, 3);
    assert!(world.landed().await.is_empty());
}

#[tokio::test]
async fn latency_delays_every_answer() {
    let world = World::start().await;
    let latency = Latency { least: A_WHILE, jitter: A_WHILE };
    world.proxy.set(Faults { latency: Some(latency), ..Faults::default() });
    let since = Instant::now();
    world.put(&[(0, 1)]).await.unwrap();
    assert!(since.elapsed() >= A_WHILE);
}

#[tokio::test]
async fn a_black_hole_answers_nothing_and_the_server_sees_nothing() {
    let world = World::start().await;
    world.put(&[(0, 1)]).await.unwrap();
    world.proxy.set(Faults::black_hole());
    let mut hanging = Box::pin(world.put(&[(0, 1), (0, 1)]));
    assert!(timeout(A_WHILE, &mut hanging).await.is_err());
    let mut listing = Box::pin(world.client.list_shards().stream_name(STREAM).send());
    assert!(timeout(A_WHILE, &mut listing).await.is_err());
    // What was swallowed stays so; what comes afterwards passes.
    world.proxy.clear();
    assert!(timeout(A_WHILE, &mut hanging).await.is_err());
    timeout(PATIENCE, world.put(&[(1, 1)])).await.unwrap().unwrap();
    assert_eq!(world.landed().await.len(), 2);
    let total = world.proxy.total();
    assert_eq!((total.calls, total.calls_failed, total.entries, total.entries_taken), (4, 2, 4, 2));
}

#[tokio::test]
async fn cut_connections_end_what_hangs() {
    let world = World::start().await;
    world.proxy.set(Faults::black_hole());
    let mut hanging = Box::pin(world.put(&[(0, 1)]));
    assert!(timeout(A_WHILE, &mut hanging).await.is_err());
    world.proxy.clear();
    world.proxy.cut_connections();
    timeout(PATIENCE, hanging).await.expect("the call ends").expect_err("and not well");
    world.put(&[(0, 1)]).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_swallowed_makes_a_duplicate_of_the_retry() {
    let world = World::start().await;
    world.proxy.set(Faults { black_hole: loss(1.0), ..Faults::default() });
    assert!(timeout(A_WHILE, world.put(&[(0, 1)])).await.is_err());
    world.landed_become(1).await;
    world.proxy.clear();
    world.put(&[(0, 1)]).await.unwrap();
    assert_eq!(world.landed().await, [0, 0]);
}

#[tokio::test]
async fn a_reset_is_an_error_at_once_and_the_next_connection_works() {
    let world = World::start().await;
    for (reaching, landed) in [(0.0, 0), (1.0, 1)] {
        world.proxy.set(Faults { resets: loss(reaching), ..Faults::default() });
        let cut = timeout(PATIENCE, world.put(&[(0, 1)])).await.unwrap().unwrap_err();
        assert!(matches!(cut, SdkError::DispatchFailure(_)), "{cut:?}");
        assert!(format!("{cut:?}").contains("ConnectionReset"), "{cut:?}");
        assert_eq!(world.landed().await.len(), landed);
    }
    world.proxy.clear();
    world.put(&[(0, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_gone_refuses_connections_and_comes_back_at_the_same_place() {
    let world = World::start().await;
    for _ in 0..3 {
        world.put(&[(0, 1)]).await.unwrap();
        world.proxy.set(Faults { refused: true, ..Faults::default() });
        let refused = async {
            loop {
                let error = world.put(&[(0, 1)]).await.unwrap_err();
                // The first may find its connection ended.
                if format!("{error:?}").contains("ConnectionRefused") {
                    return;
                }
            }
        };
        timeout(PATIENCE, refused).await.expect("connections are refused");
        world.proxy.clear();
        let back = async { while world.put(&[(0, 1)]).await.is_err() {} };
        timeout(PATIENCE, back).await.expect("connections are accepted again");
    }
}

#[tokio::test]
async fn the_same_seed_rejects_the_same_entries() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let world = World::start().await;
        world.proxy.set(Faults { entry_failures: 0.5, ..Faults::default() });
        let answer = world.put(&[(0, 1); 60]).await.unwrap();
        seen.push(codes(&answer).iter().map(Option::is_some).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
}
