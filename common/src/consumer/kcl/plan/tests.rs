use proptest::prelude::*;

use super::*;

const NOW_MS: u64 = 1_700_000_000_000;

fn lease(shard: &str, parents: &[&str], checkpoint: &str) -> KclLease {
    let checkpoint = match checkpoint {
        "TRIM_HORIZON" => KclCheckpoint::TrimHorizon,
        "LATEST" => KclCheckpoint::Latest,
        "AT_TIMESTAMP" => KclCheckpoint::AtTimestamp,
        "SHARD_END" => KclCheckpoint::ShardEnd,
        record => match record.split_once('/') {
            Some((sequence, part)) => KclCheckpoint::Within(sequence.parse().unwrap(), part.parse().unwrap()),
            None => KclCheckpoint::Record(record.parse().unwrap()),
        },
    };
    KclLease {
        stream: None,
        shard: shard.to_owned(),
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        owner: None,
        counter: 0,
        checkpoint,
    }
}

fn listing(shards: &[&str]) -> Vec<Shard> {
    shards.iter().map(|id| Shard { id: (*id).to_owned(), parents: Vec::new() }).collect()
}

fn fresh(leases: &[KclLease], listed: &[&str]) -> Plan {
    plan(leases, &listing(listed), &StreamState::default(), NOW_MS)
}

/// Our leases as an import of this plan writes them.
fn written(plan: &Plan) -> StreamState {
    let lease = |planned: &Planned| {
        let epoch = u64::from(planned.begin == Begin::Now);
        let lease = Lease::new("stream", &planned.shard.id, epoch, planned.checkpoint.clone());
        Lease { parents: planned.shard.parents.clone(), ..lease }
    };
    let leases = plan.layers().into_iter().flatten().map(lease).collect();
    StreamState { start: Some(Checkpoint::TrimHorizon), leases, ..StreamState::default() }
}

fn only(plan: Plan) -> Action {
    assert_eq!(plan.entries.len(), 1);
    plan.entries.into_iter().next().unwrap().action
}

fn imported(checkpoint: &str) -> (String, Begin<'static>, Option<Note>) {
    match only(fresh(&[lease("a", &["p"], checkpoint)], &["a"])) {
        Action::Import(planned) => {
            assert_eq!(
                (planned.shard.id.as_str(), planned.shard.parents.as_slice()),
                ("a", &["p".to_owned()][..])
            );
            (planned.checkpoint.to_string(), planned.begin, planned.note)
        }
        other => panic!("{checkpoint} is not imported: {other:?}"),
    }
}

#[test]
fn every_checkpoint_becomes_one_that_skips_nothing() {
    let from_start = "trim-horizon".to_owned();
    assert_eq!(imported("12"), ("after:12".to_owned(), Begin::Now, None));
    assert_eq!(imported("12/3"), (from_start.clone(), Begin::Now, Some(Note::WithinRecord)));
    assert_eq!(imported("SHARD_END"), ("shard-end".to_owned(), Begin::Now, None));
    assert_eq!(imported("TRIM_HORIZON"), (from_start, Begin::AfterParents, None));
    assert_eq!(imported("LATEST"), (format!("at-time:{NOW_MS}"), Begin::Now, Some(Note::FromNow)));
    let refused = only(fresh(&[lease("a", &[], "AT_TIMESTAMP")], &["a"]));
    assert_eq!(refused, Action::Skip(Skip::NoTimestamp));
}

#[test]
fn a_shard_to_be_read_from_now_still_waits_for_a_parent_that_is_not_finished() {
    let begins = |parent: &str| {
        let plan = fresh(&[lease("a", &["p"], "LATEST"), lease("p", &[], parent)], &["a", "p"]);
        match &plan.entries[0].action {
            Action::Import(planned) => planned.begin,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(begins("12"), Begin::AfterParents);
    assert_eq!(begins("SHARD_END"), Begin::Now);
}

#[test]
fn of_shards_that_are_gone_only_those_with_a_record_are_taken_over() {
    let gone = |checkpoint: &str| only(fresh(&[lease("a", &[], checkpoint)], &["b"]));
    assert!(matches!(gone("12"), Action::Import(Planned { note: Some(Note::Trimmed), .. })));
    assert!(matches!(gone("12/3"), Action::Import(Planned { note: Some(Note::Trimmed), .. })));
    assert_eq!(gone("SHARD_END"), Action::Skip(Skip::Gone));
    assert_eq!(gone("LATEST"), Action::Skip(Skip::Gone));
    assert_eq!(gone("TRIM_HORIZON"), Action::Skip(Skip::GoneUnread));
    assert_eq!(gone("AT_TIMESTAMP"), Action::Skip(Skip::GoneUnread));
    assert!(Skip::GoneUnread.is_problem() && Skip::NoTimestamp.is_problem() && !Skip::Gone.is_problem());
}

#[test]
fn an_import_that_was_done_changes_nothing_when_it_is_repeated() {
    let leases = ["12", "SHARD_END", "TRIM_HORIZON", "LATEST", "9/1"]
        .iter()
        .zip(["a", "b", "c", "d", "e"])
        .map(|(checkpoint, shard)| lease(shard, &["p"], checkpoint))
        .collect::<Vec<_>>();
    let all = ["a", "b", "c", "d", "e"];
    let state = written(&fresh(&leases, &all));
    assert_eq!(state.leases.len(), 5);
    // Later, and with a shard that was trimmed since.
    let again = plan(&leases, &listing(&all[1..]), &state, NOW_MS + 1);
    assert!(again.layers().is_empty(), "{again:?}");
    assert!(again.entries.iter().all(|entry| matches!(entry.action, Action::Unchanged(_))), "{again:?}");
    assert_eq!((again.conflicts(), again.begun_at), (0, None));
}

#[test]
fn whatever_of_ours_an_import_would_not_write_is_in_its_way() {
    let leases = [lease("a", &["p"], "12")];
    let before = fresh(&leases, &["a"]);
    let changes: [fn(&mut Lease); 5] = [
        |lease| lease.owner = Some("w1".to_owned()),
        |lease| lease.epoch += 1,
        |lease| lease.parents.clear(),
        |lease| lease.checkpoint = Checkpoint::TrimHorizon,
        |lease| lease.shard = "z".into(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut state = written(&before);
        change(&mut state.leases[0]);
        assert_eq!(plan(&leases, &listing(&["a"]), &state, NOW_MS).conflicts(), 1, "change {number}");
    }
    let state = StreamState { start: Some(Checkpoint::AtTime(5)), ..StreamState::default() };
    assert_eq!(plan(&leases, &listing(&["a"]), &state, NOW_MS).begun_at, Some(Checkpoint::AtTime(5)));
}

#[test]
fn shards_that_are_each_others_parents_are_written_all_the_same() {
    let plan = fresh(&[lease("a", &["b"], "1"), lease("b", &["a"], "1")], &["a", "b"]);
    assert_eq!(plan.layers().iter().map(Vec::len).sum::<usize>(), 2);
}

proptest! {
    #[test]
    fn parents_are_written_before_their_children_and_every_lease_once(
        parents in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..60),
        rotate: usize,
    ) {
        let name = |number: usize| format!("shard-{}", (number * 37 + rotate % 1_000) % 1_009);
        let mut leases = Vec::new();
        for (number, parents) in parents.iter().enumerate() {
            let parents: Vec<String> = match number {
                0 => Vec::new(),
                _ => parents.iter().map(|parent| name(parent.index(number))).collect(),
            };
            let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
            leases.push(lease(&name(number), &parents, "1"));
        }
        let shards: Vec<String> = leases.iter().map(|lease| lease.shard.clone()).collect();
        let plan = fresh(&leases, &shards.iter().map(String::as_str).collect::<Vec<_>>());
        let mut seen: HashSet<String> = HashSet::new();
        for layer in plan.layers() {
            for planned in &layer {
                prop_assert!(planned.shard.parents.iter().all(|parent| seen.contains(parent)));
            }
            for planned in layer {
                prop_assert!(seen.insert(planned.shard.id.clone()));
            }
        }
        prop_assert_eq!(seen.len(), leases.len());
    }
}
