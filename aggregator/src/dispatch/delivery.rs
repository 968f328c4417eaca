//! The way to one region's stream: records are sent until it has all of them.
//!
//! One sends at a time, with several calls under way. Whoever comes meanwhile waits, and the next one whose turn it is
//! sends what all of them have: so many small sendings take no more time on a long way than one large.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::retry::{Backoff, Class};
use warmcast_common::tool::Throttle;
use warmcast_proto::key::{Buckets, explicit_hash_key};

use crate::producer::ProducerConfig;
use crate::producer::paced::Paced;
use crate::producer::queue::Group;
use crate::target::{EntryAnswer, PutEntry, TargetStream};

/// Tries to look at a stream before it is said to be unusable.
const CHECK_TRIES_MAX: u32 = 4;

/// A record on its way.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) bucket: u32,
    pub(super) bytes: Bytes,
}

/// One region's stream. What is learned of its shards is kept from one sending to the next.
#[derive(Debug)]
pub(super) struct Delivery {
    target: TargetStream,
    config: ProducerConfig,
    buckets: Buckets,
    pub(super) throttle: Throttle,
    pub(super) patience: Duration,
    paced: Mutex<Paced<Record>>,
    waiting: parking_lot::Mutex<Vec<Waiting>>,
}

/// What somebody wants to have sent.
#[derive(Debug)]
struct Waiting {
    records: Vec<Record>,
    /// Told what became of it. Dropped: who was to send it was dropped, and it is to be sent by another.
    done: oneshot::Sender<Result<(), DeliveryError>>,
}

/// Why a stream does not have everything.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeliveryError {
    /// It refuses a call for what it is.
    #[error("refused: {0}")]
    Refused(CallError),
    /// It takes nothing more.
    #[error("{stream} has taken nothing for {} s: {error}; run it again when it does", waited.as_secs())]
    Stuck {
        /// The stream and its region.
        stream: String,
        /// For how long.
        waited: Duration,
        /// What it answered last.
        error: String,
    },
}

/// A call that was made.
struct Made {
    group: Group<Record>,
    sent: Instant,
    answers: Result<Vec<EntryAnswer>, CallError>,
}

impl Delivery {
    pub(super) fn new(
        target: TargetStream,
        config: ProducerConfig,
        buckets: Buckets,
        patience: Duration,
    ) -> Self {
        let paced = Mutex::new(Paced::new(&config));
        let (throttle, waiting) = (Throttle::unlimited(), parking_lot::Mutex::default());
        Self { target, config, buckets, throttle, patience, paced, waiting }
    }

    /// Whether the stream is there.
    pub(super) async fn check(&self) -> Result<(), CallError> {
        let mut pauses = Backoff::default();
        for _ in 1..CHECK_TRIES_MAX {
            match self.target.summary().await {
                Err(error) if matches!(error.class, Class::Throttled | Class::Transient) => {
                    tokio::time::sleep(pauses.next_pause()).await;
                }
                answer => return answer.map(|_| ()),
            }
        }
        self.target.summary().await.map(|_| ())
    }

    /// Sends these, and returns when the stream has them.
    pub(super) async fn send(&self, records: Vec<Record>) -> Result<(), DeliveryError> {
        loop {
            let (done, mut is_done) = oneshot::channel();
            self.waiting.lock().push(Waiting { records: records.clone(), done });
            let paced = tokio::select! {
                biased;
                told = &mut is_done => match told {
                    Ok(told) => return told,
                    Err(_) => continue,
                },
                paced = self.paced.lock() => paced,
            };
            let waiting = std::mem::take(&mut *self.waiting.lock());
            let (all, told): (Vec<_>, Vec<_>) = waiting.into_iter().map(|of| (of.records, of.done)).unzip();
            let sent = self.deliver(paced, all.concat()).await;
            for done in told {
                // Who is gone need not be told.
                let _gone = done.send(sent.clone());
            }
            if let Ok(told) = is_done.await {
                return told;
            }
        }
    }

    async fn deliver(
        &self,
        paced: MutexGuard<'_, Paced<Record>>,
        records: Vec<Record>,
    ) -> Result<(), DeliveryError> {
        let mut sending = Sending { delivery: self, paced, failing: None };
        sending.take_in(records, Instant::now());
        let mut puts = JoinSet::new();
        loop {
            let now = Instant::now();
            while let Some(group) = sending.next_group(puts.len(), now) {
                puts.spawn(put(self.target.clone(), self.buckets, self.throttle.clone(), group));
            }
            if sending.paced.queue.is_empty() && puts.is_empty() {
                return Ok(());
            }
            let next_at = sending.next_at(puts.len(), now);
            tokio::select! {
                biased;
                Some(ended) = puts.join_next() => match ended {
                    Ok(made) => sending.on_put(made, Instant::now())?,
                    // Nobody aborts it: it panicked, and so does who waits for it.
                    Err(ended) => if let Ok(panic) = ended.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    },
                },
                () = sleep_until(next_at) => {}
            }
        }
    }
}

/// A sending at work.
struct Sending<'a> {
    delivery: &'a Delivery,
    paced: MutexGuard<'a, Paced<Record>>,
    /// Since when nothing was taken, as far as answers tell.
    failing: Option<Instant>,
}

impl Sending<'_> {
    fn take_in(&mut self, records: Vec<Record>, now: Instant) {
        let paced = &mut *self.paced;
        // What a sending left behind that was dropped or failed.
        drop(paced.queue.sweep(|_| true));
        paced.routes.forget(now);
        paced.queue.forget(&paced.routes);
        for record in records {
            paced.queue.push(record.bucket, record.bytes.len(), record, &paced.routes, now);
        }
    }

    fn next_group(&mut self, in_flight: usize, now: Instant) -> Option<Group<Record>> {
        let paced = &mut *self.paced;
        let at = paced.health.next_at(in_flight, self.delivery.config.puts_in_flight_max, now)?;
        if at > now {
            return None;
        }
        paced.queue.next_request(paced.health.request_bytes(), &paced.routes, now)
    }

    /// When the next call may be made; `None`: not before one has ended.
    fn next_at(&self, in_flight: usize, now: Instant) -> Option<Instant> {
        let may = self.paced.health.next_at(in_flight, self.delivery.config.puts_in_flight_max, now)?;
        self.paced.queue.next_at(now).map(|at| at.max(may))
    }

    fn on_put(&mut self, made: Made, now: Instant) -> Result<(), DeliveryError> {
        let Made { group, sent, answers } = made;
        let (is_progress, trouble) = match answers {
            Ok(answers) => {
                let settled = self.paced.settle(group, &answers, sent, now);
                (!settled.landed.is_empty(), settled.trouble)
            }
            Err(error) if error.class == Class::Permanent => return Err(DeliveryError::Refused(error)),
            Err(error) => {
                self.paced.send_again(group, &error, sent, now);
                (false, Some(error.to_string()))
            }
        };
        let Some(error) = trouble.filter(|_| !is_progress) else {
            self.failing = None;
            return Ok(());
        };
        let waited = now.saturating_duration_since(*self.failing.get_or_insert(sent));
        if waited < self.delivery.patience {
            return Ok(());
        }
        Err(DeliveryError::Stuck { stream: self.delivery.target.name(), waited, error })
    }
}

async fn put(target: TargetStream, buckets: Buckets, throttle: Throttle, group: Group<Record>) -> Made {
    let bytes = group.entries.iter().map(|entry| entry.payload.bytes.len() as u64).sum();
    throttle.take(bytes).await;
    let sent = Instant::now();
    let entries = group.entries.iter().map(|entry| PutEntry {
        data: entry.payload.bytes.clone(),
        partition_key: entry.bucket.to_string(),
        hash_key: explicit_hash_key(entry.bucket, buckets),
    });
    let answers = target.put_records(entries).await;
    Made { group, sent, answers }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
