//! How a tenure begins where what was done may be lost downstream: from the checkpoint or from where the shard is
//! rewound to, and whether its first records are settling. Pure.

use super::checkpoint::Checkpoint;
use super::settling::{FROM_FIRST_RECORD, latest};
use super::store::{Lease, Onset};

/// How `lease` is to be taken. `target` is the state that what its records are done into has now; `parents` are the
/// leases of its parents, as many as there are; `whole`: nothing that was ever in the stream has been trimmed.
pub fn onset<'a>(lease: &Lease, parents: &[Lease], target: &'a str, whole: bool) -> Onset<'a> {
    match lease.target.as_deref() {
        Some(into) if into == target => Onset { target: Some(target), ..Onset::default() },
        Some(_) => rewinding(lease, rewind_checkpoint(lease), target, whole),
        None => {
            let settling_ms = first_settling_ms(lease, parents, target, whole);
            Onset { target: Some(target), settling_ms, ..Onset::default() }
        }
    }
}

/// How a lease is to be begun anew at `to`.
pub fn rewinding<'a>(lease: &Lease, to: Checkpoint, target: &'a str, whole: bool) -> Onset<'a> {
    let settling_ms = (!is_true_beginning(lease, &to, whole)).then_some(FROM_FIRST_RECORD);
    Onset { target: Some(target), settling_ms, back_to: Some(to), lanes: None }
}

/// Where a lease says that its shard is rewound to.
pub fn rewind_checkpoint(lease: &Lease) -> Checkpoint {
    lease.rewind.clone().unwrap_or_else(|| lease.beginning())
}

/// Until when a shard settles whose parents, which have all been read to their ends, are these.
pub fn settling_after(parents: &[Lease], target: &str) -> Option<u64> {
    let of_each = parents.iter().map(|parent| {
        // What came last in it may be lost, and is not read again; or it was gone before all of it was read.
        let is_in_doubt = parent.target.as_deref() != Some(target) || parent.ended.is_none();
        if is_in_doubt { Some(FROM_FIRST_RECORD) } else { parent.settling_ms }
    });
    of_each.fold(None, latest)
}

/// Until when a shard settles that was never read for this target: it was never begun, or by somebody who did not
/// tell what it was done into.
fn first_settling_ms(lease: &Lease, parents: &[Lease], target: &str, whole: bool) -> Option<u64> {
    let follows_its_parents = !lease.has_started()
        && lease.checkpoint == Checkpoint::TrimHorizon
        && !lease.parents.is_empty()
        && parents.len() == lease.parents.len();
    match follows_its_parents {
        true => settling_after(parents, target),
        false => (!is_true_beginning(lease, &lease.checkpoint, whole)).then_some(FROM_FIRST_RECORD),
    }
}

/// Whether no record was ever before this place in the shard, or in any that it descends from.
fn is_true_beginning(lease: &Lease, place: &Checkpoint, whole: bool) -> bool {
    whole && *place == Checkpoint::TrimHorizon && lease.parents.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::store::Ended;
    use super::*;

    const NOT_YET_KNOWN: Option<u64> = Some(FROM_FIRST_RECORD);

    fn lease(parents: &[&str], epoch: u64, checkpoint: &str, target: Option<&str>) -> Lease {
        Lease {
            stream: "s".into(),
            shard: "a".into(),
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            owner: None,
            epoch,
            checkpoint: checkpoint.parse().unwrap(),
            bytes_per_s: 0,
            seen_ms: 0,
            given: false,
            rewind: None,
            target: target.map(str::to_owned),
            settling_ms: None,
            ended: None,
            lanes: Default::default(),
            parked: Default::default(),
            guest: None,
            format: 1,
        }
    }

    fn parent(target: Option<&str>, settling_ms: Option<u64>) -> Lease {
        let ended = Some(Ended { at_ms: 1, watermark_ms: None });
        Lease { settling_ms, ended, ..lease(&[], 1, "shard-end", target) }
    }

    fn settling(lease: &Lease, parents: &[Lease], whole: bool) -> Option<u64> {
        let onset = onset(lease, parents, "now", whole);
        assert_eq!((onset.target, onset.back_to), (Some("now"), None));
        onset.settling_ms
    }

    #[test]
    fn a_lease_that_was_done_into_what_is_there_now_goes_on_and_another_goes_back() {
        let now = lease(&[], 3, "after:7", Some("now"));
        assert_eq!(onset(&now, &[], "now", false), Onset { target: Some("now"), ..Onset::default() });
        let before =
            Lease { rewind: Some("after:5".parse().unwrap()), ..lease(&[], 3, "after:7", Some("before")) };
        let back_to = |text: &str| Some(text.parse().unwrap());
        let onset_of = |lease: &Lease| {
            let onset = onset(lease, &[], "now", true);
            (onset.back_to, onset.settling_ms)
        };
        assert_eq!(onset_of(&before), (back_to("after:5"), NOT_YET_KNOWN));
        assert_eq!(onset_of(&Lease { rewind: None, ..before }), (back_to("trim-horizon"), None));
        let of_a_time = lease(&[], 1, "at-time:7", Some("before"));
        assert_eq!(onset_of(&of_a_time), (back_to("at-time:7"), NOT_YET_KNOWN));
    }

    #[test]
    fn only_the_beginning_of_a_stream_that_is_whole_settles_nothing_when_it_is_read_again() {
        let to =
            |lease: &Lease, to: &str, whole| rewinding(lease, to.parse().unwrap(), "now", whole).settling_ms;
        let root = lease(&[], 3, "after:7", Some("before"));
        assert_eq!(to(&root, "trim-horizon", true), None);
        assert_eq!(to(&root, "trim-horizon", false), NOT_YET_KNOWN);
        assert_eq!(to(&root, "after:1", true), NOT_YET_KNOWN);
        // What its parent had last is not read again.
        let child = lease(&["p"], 3, "after:7", Some("before"));
        assert_eq!(to(&child, "trim-horizon", true), NOT_YET_KNOWN);
    }

    #[test]
    fn a_shard_that_is_first_begun_settles_unless_nothing_was_before() {
        assert_eq!(settling(&lease(&[], 0, "trim-horizon", None), &[], true), None);
        assert_eq!(settling(&lease(&[], 0, "trim-horizon", None), &[], false), NOT_YET_KNOWN);
        assert_eq!(settling(&lease(&[], 1, "at-time:7", None), &[], true), NOT_YET_KNOWN);
        let gone = lease(&["p"], 0, "trim-horizon", None);
        assert_eq!(settling(&gone, &[], true), NOT_YET_KNOWN, "nobody knows what its parent had last");
        let of_an_older_version = lease(&[], 5, "after:7", None);
        assert_eq!(settling(&of_an_older_version, &[], true), NOT_YET_KNOWN);
    }

    #[test]
    fn a_child_settles_as_its_parents_do_if_what_they_had_is_still_there() {
        let child = lease(&["p", "q"], 0, "trim-horizon", None);
        let both = |p: Lease, q: Lease| settling(&child, &[p, q], false);
        assert_eq!(both(parent(Some("now"), None), parent(Some("now"), None)), None);
        assert_eq!(both(parent(Some("now"), None), parent(Some("now"), Some(70))), Some(70));
        assert_eq!(both(parent(Some("now"), NOT_YET_KNOWN), parent(Some("now"), Some(70))), NOT_YET_KNOWN);
        assert_eq!(both(parent(Some("now"), None), parent(Some("before"), None)), NOT_YET_KNOWN);
        let gone = Lease { ended: None, ..parent(Some("now"), None) };
        assert_eq!(both(parent(Some("now"), None), gone), NOT_YET_KNOWN);
    }
}
