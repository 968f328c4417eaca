//! What a scenario allows: which things happen, how often, and the protocol's durations in its small unit of time.

/// A scenario's bounds and the protocol's parameters. Times are in a unit that stands for a second as well as for
/// hours: only their order matters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) time_max: u64,
    pub(crate) keys: u8,

    // The master table and its log.
    pub(crate) writes_max: u8,
    pub(crate) deletes_max: u8,
    /// Of the writes, how many come without the item's image.
    pub(crate) incomplete_max: u8,
    /// Items expire one unit after they are written.
    pub(crate) items_expire: bool,
    /// A change's creation time may be one unit before its commit, as it is rounded down.
    pub(crate) creation_rounds: bool,
    /// Records that are delivered again, out of order: a PutRecords that was sent again.
    pub(crate) duplicates_max: u8,
    /// Times that the aggregator starts again from an earlier change.
    pub(crate) replays_max: u8,
    /// First deliveries may be held up on their way, so that they count as late.
    pub(crate) held_up: bool,

    // The cache-writers.
    /// Time passes between a call's sending, its landing key by key, and its answer.
    pub(crate) calls_linger: bool,
    /// A shard begins again without waiting for the calls of its earlier run, which land as they like.
    pub(crate) calls_stray: bool,
    /// Records that one call carries at most.
    pub(crate) call_max: usize,
    /// The old writer may be stopped in the middle and lose its lease to the new one.
    pub(crate) pauses: bool,
    /// Times that a writer starts again from its checkpoint, a call of its under way.
    pub(crate) restarts_max: u8,
    /// Checkpoints are written some time after the ack.
    pub(crate) checkpoints_lag: bool,
    pub(crate) answers_lost_max: u8,

    // Readers and the backfill.
    pub(crate) readers: u8,
    pub(crate) fills_max: u8,
    pub(crate) pages_max: u8,
    /// An entry's payload goes wrong, and a verification finds it.
    pub(crate) corruptions_max: u8,
    pub(crate) invalidations_max: u8,

    // The server.
    pub(crate) evictions_max: u8,
    /// The server loses everything.
    pub(crate) flushes_max: u8,
    /// The server is replaced by its replica, which lacks the latest writes.
    pub(crate) failovers_max: u8,
    /// One key is deleted by hand: nobody learns of it.
    pub(crate) deletions_by_hand_max: u8,

    // The table's policy.
    pub(crate) present: bool,
    /// Rule 4's margin; under `present` always given.
    pub(crate) margin: Option<u64>,
    /// Zero: live entries stay.
    pub(crate) live_ttl: u64,
    pub(crate) negative_ttl: u64,

    // The protocol's durations.
    pub(crate) floor_ttl: u64,
    pub(crate) create_age_max: u64,
    pub(crate) hold: u64,
    pub(crate) deadline: u64,
    pub(crate) lease: u64,
    /// A record that arrives so long after its stamp may create; later, not.
    pub(crate) late_after: u64,
    /// Replication is behind by no more than this, or the rewind does not reach back far enough.
    pub(crate) rewind: u64,
    /// What clocks may differ by: changes made so long after the loss horizon do not create either.
    pub(crate) horizon_margin: u64,
    /// What a backfill adds to the loss horizon, and how old its page may be.
    pub(crate) page_margin: u64,
    pub(crate) page_age_max: u64,

    /// A rule that is taken away.
    pub(crate) without: Option<Without>,
}

/// What an ablation takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// Rule 3: a fill is written to a key that is absent or held, whoever holds it.
    TokenCheck,
    /// Rule 6: calls land whenever they arrive.
    Deadline,
    /// Rule 6: the deadline is reckoned from the moment of the call, not from the lease.
    DeadlineOfTheLease,
    /// Rule 5: a deletion deletes the key.
    Tombstones,
    /// Rule 1: evictions are not looked at.
    LossHorizon,
    /// Rule 1: evictions since the last look are not looked at.
    EvictionCount,
    /// Rule 1: evictions before the last look are not looked at.
    HorizonOfTheLastLook,
    /// Rule 1: what one process knows of evictions it keeps for itself.
    HorizonInMarker,
    /// Rule 1: changes of any age create.
    AgeBound,
    /// Rule 1: late records create.
    LateBound,
    /// Rule 1: late records are told by when their frame was closed, not by when the lease was held.
    StampOfTheLease,
    /// Rule 1: a change may be written over any lower floor, whatever left it.
    ProofByStream,
    /// Rule 1: what comes late is written where an entry with a floor is.
    DoubtOfLate,
    /// Rule 9: after a rewind, records create from its beginning on.
    FloorsAfterRewind,
    /// Rule 1: a change that is left absent leaves a held entry alone.
    VoidByLeftAbsent,
    /// Policy `present`: a change that comes to a held entry is skipped and leaves it alone.
    VoidBySkipped,
    /// Policy `present`: a change is written wherever there is an entry.
    DoubtUnderPresent,
    /// Entries kept for their floor: a fill's negative entry is as short-lived over a floor as without.
    FloorOfNegative,
    /// Rule 4: what is covered keeps its time to live.
    FloorOfCovered,
    /// Rule 7: an entry is invalidated only if it is older than what is known to be wrong.
    UnconditionalInvalidate,
    /// Rule 8: evictions are not looked at.
    PageHorizon,
    /// Rule 9: writers go on after a failover.
    Rewind,
    /// Rule 9: how far the rewind goes is reckoned by the clock alone.
    RewindByArrival,
    /// Rule 9: the checkpoint does not say which data it was made for.
    EpochOfCheckpoint,
    /// Rule 9: the rewind is not written to the lease before it begins.
    RewindWrittenFirst,
    /// A call counts as done when its first entry has landed.
    WholePipeline,
}

impl Scenario {
    /// Nothing happens but changes of one item, delivered once to one writer.
    pub(crate) const fn quiet(name: &'static str) -> Self {
        Self {
            name,
            time_max: 0,
            keys: 1,
            writes_max: 2,
            deletes_max: 1,
            incomplete_max: 0,
            items_expire: false,
            creation_rounds: false,
            duplicates_max: 0,
            replays_max: 0,
            held_up: false,
            calls_linger: false,
            calls_stray: false,
            call_max: 1,
            pauses: false,
            restarts_max: 0,
            checkpoints_lag: false,
            answers_lost_max: 0,
            readers: 0,
            fills_max: 0,
            pages_max: 0,
            corruptions_max: 0,
            invalidations_max: 0,
            evictions_max: 0,
            flushes_max: 0,
            failovers_max: 0,
            deletions_by_hand_max: 0,
            present: false,
            margin: None,
            live_ttl: 0,
            negative_ttl: 1,
            floor_ttl: 100,
            create_age_max: 99,
            hold: 1,
            deadline: 1,
            lease: 2,
            late_after: 1,
            rewind: 1,
            horizon_margin: 1,
            page_margin: 1,
            page_age_max: 1,
            without: None,
        }
    }

    pub(crate) const fn without(mut self, rule: Without) -> Self {
        self.without = Some(rule);
        self
    }

    pub(crate) fn lacks(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    /// Whether the server may evict: its policy, as writers see it.
    pub(crate) const fn evicts(&self) -> bool {
        self.evictions_max > 0
    }

    /// Whether it matters when records came.
    pub(crate) const fn tells_late(&self) -> bool {
        self.loses_data() || self.held_up
    }

    /// Whether data may be lost, so that writers look how far to rewind.
    pub(crate) const fn loses_data(&self) -> bool {
        self.flushes_max > 0 || self.failovers_max > 0
    }
}

impl Scenario {
    /// The bounds in one line: what is not there does not happen.
    pub(crate) fn bounds(&self) -> String {
        let counts = [
            ("time", self.time_max),
            ("keys", u64::from(self.keys)),
            ("writes", u64::from(self.writes_max)),
            ("deletes", u64::from(self.deletes_max)),
            ("incomplete", u64::from(self.incomplete_max)),
            ("duplicates", u64::from(self.duplicates_max)),
            ("replays", u64::from(self.replays_max)),
            ("records a call", self.call_max as u64),
            ("restarts", u64::from(self.restarts_max)),
            ("answers lost", u64::from(self.answers_lost_max)),
            ("readers", u64::from(self.readers)),
            ("fills", u64::from(self.fills_max)),
            ("pages", u64::from(self.pages_max)),
            ("corruptions", u64::from(self.corruptions_max)),
            ("invalidations", u64::from(self.invalidations_max)),
            ("evictions", u64::from(self.evictions_max)),
            ("total losses", u64::from(self.flushes_max)),
            ("failovers", u64::from(self.failovers_max)),
            ("deletions by hand", u64::from(self.deletions_by_hand_max)),
        ];
        let switches = [
            ("present", self.present),
            ("strict", self.margin.is_some() && !self.present),
            ("an old writer paused, a new one takes over", self.pauses),
            ("calls linger", self.calls_linger),
            ("given-up calls land", self.calls_stray),
            ("checkpoints lag", self.checkpoints_lag),
            ("first deliveries held up", self.held_up),
            ("creation times rounded", self.creation_rounds),
            ("items expire", self.items_expire),
        ];
        let counts =
            counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what} {count}"));
        let switches = switches.iter().filter(|(_, on)| *on).map(|(what, _)| (*what).to_owned());
        counts.chain(switches).collect::<Vec<_>>().join(", ")
    }
}
