//! The watermark that regions are told, as it can be seen in the state table: by whoever is not one of the fleet. Pure.

use std::collections::BTreeMap;

use warmcast_common::consumer::Watermark;
use warmcast_common::consumer::coverage::Coverage;
use warmcast_common::consumer::store::{Heartbeat, Lease, StreamState};
use warmcast_common::consumer::watermark::{Hold, StreamLeases, fleet_watermark, lanes_behind};
use warmcast_common::limits::CHILDREN_SETTLE;

/// A stream of a table.
#[derive(Clone, Debug)]
pub(super) struct TableStreamState {
    pub(super) stream: String,
    /// The table has another one since.
    pub(super) superseded: bool,
    pub(super) state: StreamState,
}

/// What the fleet tells its regions, if the heartbeats are of the leases that were read. Of a worker that is dead its last
/// word counts while its leases are still its own: that word was true, and grows old.
///
/// # Errors
/// Why it is not known.
pub(super) fn watermark<'a>(
    streams: &[TableStreamState],
    heartbeats: &[Heartbeat],
    regions: impl IntoIterator<Item = &'a str>,
    tables: usize,
    now_ms: u64,
) -> Result<Watermark, Hold> {
    let found = streams.iter().filter(|of| !of.superseded).count();
    if found < tables {
        return Err(Hold::Streams { found, expected: tables });
    }
    let leases: Vec<StreamLeases<'_>> = streams.iter().map(TableStreamState::leases).collect();
    let is_open = |lease: &&Lease| !lease.checkpoint.is_end();
    let open: Vec<&Lease> = streams.iter().flat_map(|of| &of.state.leases).filter(is_open).collect();
    let is_owner = |worker: &str| open.iter().any(|lease| lease.owner.as_deref() == Some(worker));
    // Who has nothing has nothing to say, dead or alive.
    let members: BTreeMap<String, Option<Coverage>> = heartbeats
        .iter()
        .filter(|heartbeat| is_owner(&heartbeat.worker))
        .map(|heartbeat| (heartbeat.worker.clone(), heartbeat.report.coverage.clone()))
        .collect();
    let ms = fleet_watermark(&leases, &members, None, now_ms)?;
    Ok(Watermark { ms, behind: lanes_behind(&leases, &members, regions) })
}

impl TableStreamState {
    fn leases(&self) -> StreamLeases<'_> {
        let Self { stream, superseded, state } = self;
        StreamLeases { stream, state, superseded: *superseded, settle: CHILDREN_SETTLE }
    }
}
