//! The regions that the fleet feeds: where one is behind, since when, and how far. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::summary::{Criteria, WatermarkStatus};
use super::survey::Look;
use super::text::count;
use crate::consumer::newcomers::late_on;
use crate::consumer::parked::{Lane, Parked};
use crate::consumer::store::{Backfill, Lease};
use crate::warm::{RegionState, Warmth};

/// The lanes that are configured.
#[derive(Clone, Debug)]
pub struct LanesLook {
    /// By their names.
    pub lanes: Vec<Lane>,
    /// For how long the streams keep their records.
    pub retention: Duration,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegionStatus {
    /// Its name.
    pub region: String,
    /// Whether the configuration has it.
    pub configured: bool,
    /// The watermark that it is told. It is not told the fleet's while it is behind on any shard.
    pub watermark: WatermarkStatus,
    /// Where it is parked, if it is.
    pub parked: Option<ParkedStatus>,
    /// Shards that are read, and not for it yet.
    pub shards_without: usize,
    /// Backfills that were asked for, and not made.
    pub backfills: Vec<BackfillStatus>,
    /// Whether readers can be sent there.
    pub warmth: Warmth,
}

/// A region that is parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedStatus {
    /// On so many shards.
    pub shards: usize,
    /// Nothing that it lacks arrived before this: milliseconds since the epoch.
    pub since_ms: u64,
    /// So it is not further behind than this, in milliseconds.
    pub behind_ms: u64,
    /// In so many milliseconds what it lacks may begin to be gone from the stream.
    pub kept_for_ms: u64,
    /// Why, with the number of shards of each reason.
    pub why: BTreeMap<String, usize>,
}

/// A backfill that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackfillStatus {
    /// Of which table.
    pub table: String,
    /// When it was asked for: milliseconds since the epoch.
    pub asked_ms: u64,
    /// Why.
    pub why: String,
}

/// Every region that is configured or known.
pub(super) fn regions(
    look: &Look,
    configured: &LanesLook,
    fleet: &WatermarkStatus,
    criteria: &Criteria,
) -> Vec<RegionStatus> {
    let now_ms = criteria.now_ms;
    let mut parked: BTreeMap<&str, Vec<&Parked>> = BTreeMap::new();
    for (name, place) in leases(look).flat_map(|lease| &lease.parked) {
        parked.entry(name).or_default().push(place);
    }
    let streams: Vec<Arc<str>> = look
        .streams
        .iter()
        .filter(|stream| stream.name.is_read)
        .map(|stream| stream.name.stream.as_str().into())
        .collect();
    let late: BTreeSet<String> = late_on(&streams, &configured.lanes, &look.lanes).into_iter().collect();
    let told = look.heartbeats.iter().filter_map(|beat| beat.report.coverage.as_ref());
    let told: BTreeSet<&String> = told.flat_map(|coverage| &coverage.parked).collect();
    let names = configured.lanes.iter().map(|lane| lane.name.to_string());
    let names: BTreeSet<String> =
        names.chain(look.lanes.keys().cloned()).chain(parked.keys().map(|name| (*name).to_owned())).collect();
    let region = |name: String| {
        let is_configured = configured.lanes.iter().any(|lane| *lane.name == *name);
        let mut status = RegionStatus {
            configured: is_configured,
            watermark: fleet.clone(),
            parked: parked
                .get(name.as_str())
                .and_then(|places| of_places(places, configured.retention, now_ms)),
            shards_without: if is_configured { shards_without(look, &name) } else { 0 },
            backfills: backfills(look, &name),
            warmth: Warmth::default(),
            region: name,
        };
        if let Some(why) = status.behind(late.contains(&status.region), told.contains(&status.region)) {
            status.watermark = WatermarkStatus { ms: None, age_ms: None, why: Some(why) };
        }
        status.warmth = status.warmth(criteria);
        status
    };
    names.into_iter().map(region).collect()
}

impl RegionStatus {
    fn warmth(&self, criteria: &Criteria) -> Warmth {
        let why = self.watermark.why.as_deref().unwrap_or("it is not known");
        let state = RegionState {
            parked: self.parked.as_ref().map_or(0, |parked| parked.shards),
            backfills: self.backfills.len(),
            watermark_ms: self.watermark.ms.ok_or(why),
        };
        state.warmth(criteria.now_ms, Duration::from_millis(criteria.watermark_bound_ms))
    }

    /// Why its watermark stands still, though the fleet's may go on.
    fn behind(&self, is_late: bool, is_told_parked: bool) -> Option<String> {
        if let Some(parked) = &self.parked {
            return Some(format!("parked on {}", count(parked.shards, "shard")));
        }
        if let Some(backfill) = self.backfills.first() {
            return Some(format!("waits for a backfill of {}", backfill.table));
        }
        if self.shards_without > 0 {
            return Some(format!("{} not read for it yet", count(self.shards_without, "shard")));
        }
        if is_late {
            return Some("not on every shard yet that was finished before it was added".to_owned());
        }
        is_told_parked.then(|| "a worker says that it is parked".to_owned())
    }
}

fn leases(look: &Look) -> impl Iterator<Item = &Lease> {
    look.streams.iter().flat_map(|stream| &stream.state.leases)
}

fn shards_without(look: &Look, name: &str) -> usize {
    let is_open = |lease: &&Lease| lease.has_started() && !lease.checkpoint.is_end();
    let read = look.streams.iter().filter(|stream| stream.name.is_read);
    let leases = read.flat_map(|stream| &stream.state.leases);
    leases.filter(is_open).filter(|lease| !lease.lanes.contains(name)).count()
}

fn of_places(places: &[&Parked], retention: Duration, now_ms: u64) -> Option<ParkedStatus> {
    let since_ms = places.iter().map(|place| place.since_ms).min()?;
    let mut why: BTreeMap<String, usize> = BTreeMap::new();
    for place in places {
        *why.entry(place.why.clone()).or_default() += 1;
    }
    let behind_ms = now_ms.saturating_sub(since_ms);
    let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    let kept_for_ms = retention_ms.saturating_sub(behind_ms);
    Some(ParkedStatus { shards: places.len(), since_ms, behind_ms, kept_for_ms, why })
}

fn backfills(look: &Look, name: &str) -> Vec<BackfillStatus> {
    let Some(lane) = look.lanes.get(name) else { return Vec::new() };
    let table = |stream: &String| {
        let known = look.streams.iter().find(|of| of.name.stream == *stream);
        known.map_or_else(|| stream.clone(), |of| of.name.label.clone())
    };
    let status = |(stream, of): (&String, &Backfill)| BackfillStatus {
        table: table(stream),
        asked_ms: of.asked_ms,
        why: of.why.clone(),
    };
    lane.backfills.iter().map(status).collect()
}
