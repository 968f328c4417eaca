//! The full looks at the streams' shards: when they are due, whose they are, what came of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError};
use tokio::time::Instant;

use crate::log_trouble;
use crate::retry::Backoff;
use crate::telemetry::Trouble;

use super::super::assignment::Member;
use super::super::audit::{Audit, AuditError, Audited};
use super::super::kin::Kin;
use super::super::lineage::Lineage;
use super::super::listings::Listings;
use super::super::orphans::find_children;
use super::super::processor::Processor;
use super::super::source::StreamSource;
use super::super::store::Lease;
use super::super::worker::WorkerConfig;
use super::{Consumer, Subscription};

/// Finished shards whose children are looked for one by one: more of them are sooner found by a listing.
const ORPHANS_MAX: usize = 20;

/// A stream that is consumed.
pub(super) struct Stream<S, P> {
    pub(super) source: Arc<S>,
    pub(super) processor: Arc<P>,
    pub(super) kin: Kin,
    from_trim_horizon: bool,
    pub(super) superseded: bool,
    listings: Arc<Listings>,
    disabled: bool,
    /// Finished shards without a child, as last seen.
    childless: BTreeSet<String>,
    /// The search for the children of some of them.
    seeking: Option<AbortHandle>,
    /// Looks that are repeated soon, for what the last one did not find.
    repeats: u32,
    auditing: Option<AbortHandle>,
    next_audit: Instant,
    audit_errors: Backoff,
    audit_trouble: Trouble,
}

impl<S, P> Consumer<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Begins the full looks that are due and ours to make.
    pub(super) fn audit(&mut self) {
        let now = Instant::now();
        let (members, config) = (self.worker.members(), self.worker.config());
        for (name, stream) in &mut self.streams {
            let is_auditor = is_auditor(self.worker.id(), name, &members);
            let missing = self.failed.iter().filter(|(key, failed)| key.stream == *name && failed.not_found);
            let not_found: BTreeSet<String> = missing.map(|(key, _)| key.shard.to_string()).collect();
            let is_ours = is_auditor || !not_found.is_empty();
            if let Some(auditing) = &stream.auditing {
                // Two workers that start together both take themselves for the first.
                if !is_ours {
                    auditing.abort();
                }
                continue;
            }
            if !is_ours || now < stream.next_audit {
                continue;
            }
            let audit = Audit {
                source: Arc::clone(&stream.source),
                worker: Arc::clone(&self.worker),
                from_trim_horizon: stream.from_trim_horizon,
                superseded: stream.superseded,
                valid_for: 2 * (config.listing_interval + config.lease_duration),
                listings: Arc::clone(&stream.listings),
                not_found,
                lanes: Arc::clone(&self.lanes),
            };
            let task = self.audits.spawn(audit.run());
            self.auditing.insert(task.id(), Arc::clone(name));
            stream.auditing = Some(task);
        }
    }

    /// Looks for the children of finished shards that nobody looks after, if that is ours to do.
    pub(super) fn seek(&mut self, name: &str, orphans: Vec<Lease>, members: &[Member]) {
        let is_auditor = is_auditor(self.worker.id(), name, members);
        let Some(stream) = self.streams.get_mut(name) else { return };
        let is_seeking = stream.seeking.as_ref().is_some_and(|seeking| !seeking.is_finished());
        if is_auditor && !is_seeking && !orphans.is_empty() {
            let seeking = find_children(Arc::clone(&stream.source), Arc::clone(&self.worker), orphans);
            stream.seeking = Some(self.seeks.spawn(seeking));
        }
    }

    pub(super) fn audited(&mut self, audited: Result<(Id, Result<Audited, AuditError>), JoinError>) {
        let id = audited.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(name) = self.auditing.remove(&id) else { return };
        let Some(stream) = self.streams.get_mut(&name) else { return };
        stream.auditing = None;
        let (now, config) = (Instant::now(), self.worker.config());
        let error = match audited {
            Ok((_, Ok(found))) => {
                stream.repeats = match found.without_children || found.unconnected || !found.listed {
                    true => stream.repeats + 1,
                    false => 0,
                };
                stream.next_audit = now + next_listing(stream.repeats, config);
                stream.audit_errors.reset();
                stream.audit_trouble.over();
                stream.disabled = found.disabled;
                for (_, failed) in self.failed.iter_mut().filter(|(key, _)| key.stream == name) {
                    failed.not_found = false;
                }
                if found.changed {
                    self.look_soon();
                    self.worker.report_change();
                }
                self.fleet.audited(&name, found.over);
                if found.over {
                    self.streams.remove(&name);
                    self.report_streams();
                }
                let worker = Arc::clone(&self.worker);
                self.chores.spawn(async move { worker.forget_the_dead().await });
                return;
            }
            Ok((_, Err(error))) => error.to_string(),
            Err(stopped) if stopped.is_cancelled() => return,
            Err(panicked) => panicked.to_string(),
        };
        let pause = stream.audit_errors.next_pause();
        stream.next_audit = now + pause;
        if let Some(told) = stream.audit_trouble.again(now) {
            let (stream, pause_ms) = (&*name, pause.as_millis());
            log_trouble!(
                told,
                stream,
                error,
                pause_ms,
                "the stream's shards could not be looked through; trying again"
            );
        }
        self.next_sync = self.next_sync.min(stream.next_audit);
    }
}

impl<S, P> Stream<S, P> {
    /// The first full look is due at `first_audit`.
    pub(super) fn new(subscription: Subscription<S, P>, first_audit: Instant) -> Self {
        Self {
            source: Arc::new(subscription.source),
            processor: Arc::new(subscription.processor),
            kin: Kin::default(),
            from_trim_horizon: subscription.from_trim_horizon,
            superseded: subscription.superseded,
            listings: Arc::default(),
            disabled: false,
            childless: BTreeSet::new(),
            seeking: None,
            repeats: 0,
            auditing: None,
            next_audit: first_audit,
            audit_errors: Backoff::default(),
            audit_trouble: Trouble::default(),
        }
    }

    /// Has the next full look by `at`.
    pub(super) fn audit_by(&mut self, at: Instant) {
        self.next_audit = self.next_audit.min(at);
    }

    /// Finished shards without a child, in a stream that goes on. More of them than before have the whole stream
    /// listed by `at`. Returned are those that nobody looks after: their reader is not there any more, or has long
    /// looked in vain.
    pub(super) fn orphans(&mut self, leases: &[Lease], members: &[Member], at: Instant) -> Vec<Lease> {
        if self.disabled {
            return Vec::new();
        }
        let lineage = Lineage::of(leases);
        let childless: BTreeSet<&str> = lineage.without_children().collect();
        if childless.len() > self.childless.len() {
            self.audit_by(at);
        }
        let present = |owner: &str| members.iter().any(|member| member.id == owner && !member.leaving);
        let is_looked_after = |lease: &Lease| {
            lease.owner.as_deref().is_some_and(present) && !self.childless.contains(&*lease.shard)
        };
        let orphans =
            leases.iter().filter(|lease| childless.contains(&*lease.shard) && !is_looked_after(lease));
        let orphans = orphans.take(ORPHANS_MAX).cloned().collect();
        self.childless = childless.into_iter().map(str::to_owned).collect();
        orphans
    }
}

/// Whether `me` is the worker that looks after a stream as a whole: the first by name that reads it.
fn is_auditor(me: &str, stream: &str, members: &[Member]) -> bool {
    let reads = |member: &&Member| !member.leaving && member.streams.contains(stream);
    members.iter().find(reads).is_some_and(|first| first.id == me)
}

/// The pause before the next full look: short at first when the last one lacked something.
fn next_listing(repeats: u32, config: &WorkerConfig) -> Duration {
    match repeats {
        0 => config.listing_interval,
        _ => config.sync_interval.saturating_mul(1 << (repeats - 1).min(10)).min(config.listing_interval),
    }
}
