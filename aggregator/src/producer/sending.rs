//! The state of a producer at work: what it sends next, and what becomes of what it sent.

use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::ParkReason;
use warmcast_common::limits::{KINESIS_ON_DEMAND_ROUND_BYTES, KINESIS_PUT_UNIT_BYTES};
use warmcast_common::log_trouble;
use warmcast_common::retry::Class;
use warmcast_common::telemetry::{LogLimiter, Trouble};

use super::Producer;
use super::call::{Call, Made};
use super::paced::{Paced, Settled};
use super::queue::Group;
use crate::fanout::RegionFrame;
use crate::stats::Stats;
use crate::target::{EntryAnswer, StreamSummary};
use crate::trace;

/// A copy that waited for longer is not sent (again). The cache-writer takes what is older than a minute for late and
/// has to look twice at it; the way there takes up to a call's timeout.
const COPY_AGE_MAX: Duration = Duration::from_secs(40);
/// A region whose queue takes longer than this to send is not ready for more than what is new ...
const BACKLOG_MAX: Duration = Duration::from_secs(2);
/// ... until it takes less than this.
const BACKLOG_SHORT: Duration = Duration::from_secs(1);
/// Pause between two looks for what is too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two looks at how the stream is set up.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(300);
/// The state of a producer at work.
pub(super) struct Sending<'a> {
    producer: &'a Producer,
    pub(super) paced: Paced<RegionFrame>,
    /// What the stream refuses for what it is, and why: to be set aside.
    pub(super) refused: Vec<(RegionFrame, String)>,
    is_ready: bool,
    swept: Instant,
    look_at: Instant,
    /// The distribution that was reported last.
    reported_self_distributing: bool,
    complaints: LogLimiter,
    /// With looking how the stream is set up.
    trouble: Trouble,
}

impl<'a> Sending<'a> {
    pub(super) fn new(producer: &'a Producer, now: Instant) -> Self {
        Self {
            producer,
            paced: Paced::new(&producer.config),
            refused: Vec::new(),
            is_ready: true,
            swept: now,
            look_at: now,
            reported_self_distributing: false,
            complaints: LogLimiter::default(),
            trouble: Trouble::default(),
        }
    }

    pub(super) fn take_in(&mut self, frames: impl Iterator<Item = RegionFrame>, now: Instant) {
        for frame in frames {
            self.paced.queue.push(frame.bucket, frame.bytes.len(), frame, &self.paced.routes, now);
        }
    }

    pub(super) fn next_call(&mut self, in_flight: usize, now: Instant) -> Option<Call> {
        let at = self.paced.health.next_at(in_flight, self.producer.config.puts_in_flight_max, now)?;
        if at > now {
            return None;
        }
        loop {
            let request =
                self.paced.queue.next_request(self.paced.health.request_bytes(), &self.paced.routes, now);
            let Some(mut group) = request else { break };
            let clock_ms = now_ms();
            let out = group.entries.extract_if(.., |entry| is_out(&entry.payload, clock_ms));
            let out: Vec<_> = out.map(|entry| entry.payload).collect();
            self.leave_out(out, clock_ms);
            if !group.entries.is_empty() {
                return Some(Call { group, sent: now });
            }
        }
        // A region that is back should be noticed also when there is nothing to send to it.
        let is_probe_due = in_flight == 0 && self.paced.health.probe_at().is_some_and(|at| at <= now);
        is_probe_due.then(|| Call { group: Group { entries: Vec::new(), is_tried: false }, sent: now })
    }

    /// When there is something to do at the latest, if nothing happens.
    pub(super) fn next_at(&self, in_flight: usize, now: Instant) -> Instant {
        let may_call = self.paced.health.next_at(in_flight, self.producer.config.puts_in_flight_max, now);
        let call = may_call.and_then(|may| self.paced.queue.next_at(now).map(|at| at.max(may)));
        let probe = self
            .paced
            .health
            .probe_at()
            .filter(|_| in_flight == 0)
            .zip(may_call)
            .map(|(at, may)| at.max(may));
        let sweep = self.swept + SWEEP_INTERVAL;
        [call, probe].into_iter().flatten().fold(sweep, Instant::min)
    }

    pub(super) fn on_call(&mut self, ended: Result<Made, JoinError>, now: Instant) {
        if let Ok(made) = &ended {
            self.count_call(made, now);
        }
        match ended {
            Ok(Made { group, sent, answers: Ok(answers), .. }) => self.settle(group, &answers, sent, now),
            Ok(Made { group, answers: Err(error), stream, .. })
                if error.class == Class::Permanent && !group.entries.is_empty() =>
            {
                self.refused(group, &error, stream, now);
            }
            Ok(Made { group, sent, answers: Err(error), .. }) => {
                let frames = group.entries.len();
                self.paced.send_again(group, &error, sent, now);
                // A probe has none, and fails all the same.
                self.producer.stats.retries.add(error.class.as_str(), frames.max(1) as u64);
                self.complain(frames, &error.to_string(), now);
            }
            // Its acks are gone with it: the records are read again.
            Err(panicked) => {
                tracing::error!(region = self.region(), error = %panicked, "put task panicked");
            }
        }
    }

    /// Each entry gets what its answer says.
    fn settle(&mut self, group: Group<RegionFrame>, answers: &[EntryAnswer], sent: Instant, now: Instant) {
        let Settled { landed, throttled, failed, trouble } = self.paced.settle(group, answers, sent, now);
        let stats = &self.producer.stats;
        stats.entries.add("ok", landed.len() as u64);
        stats.entries.add("throttled", throttled as u64);
        stats.entries.add("failed", failed as u64);
        stats.retries.add("throttled", throttled as u64);
        stats.retries.add("internal", failed as u64);
        self.landed(landed);
        if let Some(error) = trouble {
            self.complain(throttled + failed, &error, now);
        }
        self.report_distribution(now);
    }

    /// The service refuses the call. One of its entries may be the reason: which shows when each half is sent by
    /// itself. Only what is refused after the stream was seen to be there is refused for what it is.
    fn refused(
        &mut self,
        mut group: Group<RegionFrame>,
        error: &CallError,
        stream: Option<Result<StreamSummary, CallError>>,
        now: Instant,
    ) {
        if group.entries.len() > 1 {
            tracing::warn!(
                region = self.region(),
                %error,
                frames = group.entries.len(),
                "call refused; its halves are sent"
            );
            let entries = group.entries.split_off(group.entries.len() / 2);
            self.paced.queue.push_group(Group { entries, is_tried: false });
            self.paced.queue.push_group(Group { is_tried: false, ..group });
            return;
        }
        match stream {
            Some(Ok(_)) => self.paced.queue.push_group(Group { is_tried: true, ..group }),
            Some(Err(unusable)) => {
                self.paced.health.on_failure(now, now);
                self.producer.stats.retries.add(unusable.class.as_str(), 1);
                self.complain(1, &format!("{error}; {unusable}"), now);
                // By itself again, and before all others: they would only be refused as well.
                self.paced.queue.push_group(group);
            }
            None => {
                self.producer.stats.entries.add("refused", group.entries.len() as u64);
                self.refused.extend(group.entries.into_iter().map(|entry| (entry.payload, error.to_string())))
            }
        }
    }

    fn complain(&mut self, frames: usize, error: &str, now: Instant) {
        if let Some(repeats) = self.complaints.due(now) {
            let error = error.to_owned();
            tracing::warn!(region = self.region(), frames, repeats, error, "frames are sent again");
        }
    }

    fn count_call(&self, made: &Made, now: Instant) {
        let stats = &self.producer.stats;
        let result = match &made.answers {
            Ok(_) => "ok",
            Err(error) => match error.class {
                Class::Throttled => "throttled",
                Class::Permanent => "refused",
                Class::Transient | Class::Denied | Class::NotFound => "failed",
            },
        };
        stats.calls.add(result, 1);
        if made.answers.is_ok() {
            stats.call_times.observe(now.saturating_duration_since(made.sent).as_secs_f64());
        }
    }

    fn landed(&self, frames: Vec<RegionFrame>) {
        let (stats, clock_ms) = (&self.producer.stats, now_ms());
        Stats::add(&stats.frames_sent, frames.len());
        for mut frame in frames {
            if let Some(put) = frame.span.take() {
                trace::landed(*put, self.region(), self.producer.target.stream());
            }
            Stats::add(&stats.bytes_sent, frame.bytes.len());
            Stats::add(&stats.changes_sent, frame.changes());
            let rounds = |bytes: u32| frame.bytes.len().div_ceil(bytes as usize).max(1);
            Stats::add(&stats.put_units, rounds(KINESIS_PUT_UNIT_BYTES));
            let round_bytes = KINESIS_ON_DEMAND_ROUND_BYTES;
            Stats::add(&stats.on_demand_bytes, rounds(round_bytes) * round_bytes as usize);
            for (created_ms, changes) in frame.created() {
                stats.send_lag.observe_lag(created_ms, clock_ms, changes);
            }
            frame.done();
        }
    }

    /// What is due at intervals, and what others are told.
    pub(super) fn keep(&mut self, now: Instant) {
        if now >= self.swept + SWEEP_INTERVAL {
            self.swept = now;
            let clock_ms = now_ms();
            let out = self.paced.queue.sweep(|frame| is_out(frame, clock_ms));
            self.leave_out(out, clock_ms);
            self.paced.routes.forget(now);
            self.paced.queue.forget(&self.paced.routes);
        }
        let stats = &self.producer.stats;
        let (answers, backlog) = (self.paced.health.answers(), self.paced.queue.time_to_send());
        self.is_ready = answers && backlog < if self.is_ready { BACKLOG_MAX } else { BACKLOG_SHORT };
        self.producer.readiness.set(self.is_ready);
        self.producer.answers.send_if_modified(|told| std::mem::replace(told, answers) != answers);
        let queue = (self.paced.queue.len(), self.paced.queue.bytes());
        stats.set_state(answers, queue, self.paced.queue.share_min());
    }

    fn leave_out(&self, frames: Vec<RegionFrame>, clock_ms: u64) {
        for frame in frames {
            if is_old(&frame, clock_ms) {
                Stats::add(&self.producer.stats.given_up, 1);
                frame.give_up(ParkReason::TooOld);
            } else {
                Stats::add(&self.producer.stats.worthless, 1);
            }
        }
    }

    pub(super) fn is_look_due(&self, now: Instant) -> bool {
        now >= self.look_at
    }

    pub(super) fn on_look(
        &mut self,
        ended: Result<Result<StreamSummary, CallError>, JoinError>,
        now: Instant,
    ) {
        self.look_at = now + SUMMARY_INTERVAL;
        match ended {
            Ok(Ok(summary)) => {
                self.trouble.over();
                if let Some(is_on_demand) = summary.is_on_demand {
                    self.producer.stats.set_on_demand(is_on_demand);
                }
                if let Some(is_self_distributing) = summary.is_self_distributing {
                    self.paced.routes.set_self_distributing(is_self_distributing);
                    self.report_distribution(now);
                }
            }
            Ok(Err(error)) => {
                let told = self.trouble.again(now);
                let (region, stream) = (self.region(), self.producer.target.stream());
                if let Some(told) = told {
                    log_trouble!(told, region, stream, %error, "the target stream cannot be used yet; puts are tried until it can");
                }
                // Other errors say nothing of puts: permissions, for one, are given call by call.
                if matches!(error.class, Class::Transient | Class::NotFound) {
                    self.paced.health.on_failure(now, now);
                }
            }
            Err(panicked) => tracing::error!(region = self.region(), error = %panicked, "look panicked"),
        }
    }

    fn report_distribution(&mut self, now: Instant) {
        let is_self_distributing = self.paced.routes.is_self_distributing();
        if is_self_distributing == self.reported_self_distributing {
            return;
        }
        self.reported_self_distributing = is_self_distributing;
        self.producer.stats.set_self_distributing(is_self_distributing);
        self.paced.queue.route(&self.paced.routes, now);
        if is_self_distributing {
            tracing::warn!(
                region = self.region(),
                stream = self.producer.target.stream(),
                "the stream distributes records by itself (RecordDistributionStrategy AUTO): nothing is lost, but \
                 a key's changes are spread over all shards and its shards cannot be paced one by one; \
                 USER_PARTITION_KEY is better here"
            );
            // What was seen may have another reason: the service knows.
            self.look_at = now;
        }
    }

    fn region(&self) -> &str {
        self.producer.target.region()
    }
}

fn is_out(frame: &RegionFrame, clock_ms: u64) -> bool {
    is_old(frame, clock_ms) || frame.is_worthless()
}

fn is_old(frame: &RegionFrame, clock_ms: u64) -> bool {
    u128::from(clock_ms.saturating_sub(frame.read_ms)) > COPY_AGE_MAX.as_millis()
}
