//! Calls that are throttled, fail, break or take long: nothing is lost, nothing is read again, no shard ends early.

use std::time::Duration;

use warmcast_sandbox::streams::{Calls, ErrorCode, Fault, Operation, When};

use crate::life::*;

/// AWS: an iterator lives 15 minutes.
const ITERATOR_LIFE: Duration = Duration::from_secs(16 * 60);

const OPERATIONS: [Operation; 3] =
    [Operation::GetRecords, Operation::GetShardIterator, Operation::DescribeStream];

/// Three shards under an aggregator, of which one is replaced by its child in each round.
struct Rounds {
    life: Life,
    shards: Vec<String>,
    closed: Vec<String>,
}

impl Rounds {
    async fn start() -> Self {
        let mut life = Life::new().await;
        let shards: Vec<String> = (0..3).map(|_| life.add_shard(None)).collect();
        life.start_workers(1, Tuning::default());
        let mut rounds = Self { life, shards, closed: Vec::new() };
        rounds.put();
        rounds.life.arrivals().await;
        rounds
    }

    fn put(&mut self) {
        for (n, shard) in self.shards.iter().enumerate() {
            self.life.put_each(shard, &keys(&format!("family-{n}"), 2), 2);
        }
    }

    /// Every operation meets the fault some times, while shards are read, listed, and sought anew.
    async fn meet(&mut self, fault: Fault) {
        for operation in OPERATIONS {
            self.life.fake().inject(fault, Calls::of(operation), When::Next(4));
        }
        self.life.fake().clock().advance(ITERATOR_LIFE);
        self.put();
        let ending = self.shards.remove(0);
        self.shards.push(self.life.rollover(&ending));
        self.shards.rotate_right(1);
        self.closed.push(ending);
        self.put();
        self.life.arrivals().await;
    }

    /// All arrived, and what has ended is what was closed.
    async fn finish(self) {
        let Self { life, shards, closed } = self;
        life.assert_all_arrives_once().await;
        life.ended(&closed.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for open in &shards {
            assert_eq!(life.master.ended_at(&life.arn, open), None, "{open} is open\n{}", life.tails());
        }
        assert!(!life.has_logged(&["shard failed"]), "{}", life.tails());
        assert_eq!(life.master.gaps(&life.arn).await, []);
        life.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_in_both_forms_is_waited_out() {
    let mut rounds = Rounds::start().await;
    for code in [ErrorCode::LimitExceeded, ErrorCode::Throttling] {
        rounds.meet(Fault::Error(code)).await;
        let share = When::Share { probability: 0.4, seed: 7 };
        rounds.life.fake().inject(Fault::Error(code), Calls::any(), share);
        rounds.put();
        rounds.life.arrivals().await;
        rounds.life.fake().clear_faults();
    }
    rounds.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_errors_or_broken_are_asked_for_again() {
    let mut rounds = Rounds::start().await;
    let faults = [Fault::Error(ErrorCode::InternalServer), Fault::Cut, Fault::CutBody, Fault::Garbage];
    for fault in faults {
        rounds.meet(fault).await;
    }
    rounds.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_are_waited_for() {
    let mut rounds = Rounds::start().await;
    rounds.meet(Fault::Delay(Duration::from_millis(700))).await;
    rounds.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_iterators_are_made_anew_from_where_the_reader_is() {
    let mut rounds = Rounds::start().await;
    // Shards that were never read have no position yet.
    let calls = || Calls::of(Operation::GetRecords);
    rounds.life.fake().inject(Fault::Error(ErrorCode::ExpiredIterator), calls(), When::Next(12));
    for _ in 0..2 {
        let fresh = rounds.life.add_shard(None);
        rounds.shards.push(fresh);
    }
    rounds.put();
    rounds.life.arrivals().await;
    // An empty one whose iterators expire by themselves has none either.
    let empty = rounds.life.add_shard(None);
    let is_read = |rounds: &Rounds| rounds.life.reads(&empty).is_some();
    rounds.life.until("the empty shard is read", |_| is_read(&rounds)).await;
    rounds.life.fake().clock().advance(ITERATOR_LIFE);
    rounds.shards.push(empty);
    rounds.put();
    rounds.life.arrivals().await;
    rounds.finish().await;
}
