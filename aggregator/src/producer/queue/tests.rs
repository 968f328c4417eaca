//! Requests, lines and what goes back into them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use warmcast_common::limits::{FRAME_BYTES_MAX, PUT_RECORDS_BYTES_MAX};

use super::*;

const LIMITS: ShardLimits = ShardLimits { bytes_per_second: 1_048_576.0, records_per_second: 1_000.0 };
/// So high that no rate holds anything up.
const UNLIMITED: ShardLimits = ShardLimits { bytes_per_second: 1e15, records_per_second: 1e12 };

/// Buckets 0 to 9 land in shard "0", 10 to 19 in "1", and so on.
fn routes(now: Instant) -> Routes {
    let mut routes = Routes::default();
    for bucket in 0..100 {
        routes.learn(bucket, &(bucket / 10).to_string(), now, now);
    }
    routes
}

fn payloads(group: Option<Group<u32>>) -> Vec<u32> {
    group.map_or_else(Vec::new, |group| group.entries.into_iter().map(|entry| entry.payload).collect())
}

#[test]
fn a_throttled_shard_holds_up_no_other() {
    let now = Instant::now();
    let (mut queue, routes) = (Queue::new(LIMITS), routes(now));
    for number in 0..100 {
        queue.push(number % 2 * 10, 100, number, &routes, now);
    }
    queue.on_throttled(Some(&"0".into()), now, 0.0, &routes, now);
    let odd: Vec<u32> = (0..100).filter(|number| number % 2 == 1).collect();
    assert_eq!(payloads(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, now)), odd);
    assert!(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, now).is_none());
    let later = queue.next_at(now).unwrap();
    assert!(later > now && later < now + Duration::from_millis(200), "{:?}", later - now);
    let even: Vec<u32> = (0..100).filter(|number| number % 2 == 0).collect();
    let sent = payloads(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, later));
    assert!(!sent.is_empty() && sent.len() < 50 && even.starts_with(&sent), "{sent:?}");
}

#[test]
fn what_failed_is_sent_again_in_its_old_place_and_not_before_it_may() {
    let now = Instant::now();
    let (mut queue, routes) = (Queue::new(UNLIMITED), routes(now));
    (0..4).for_each(|number| queue.push(number * 10, 100, number, &routes, now));
    let mut failed = queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, now).unwrap().entries;
    queue.push(50, 100, 4, &routes, now);
    let until = now + Duration::from_millis(5);
    queue.rest(failed.remove(0), until);
    queue.put_back(failed.remove(1), &routes, now);
    assert_eq!(payloads(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, now)), [2, 4]);
    queue.push(60, 100, 5, &routes, now);
    assert_eq!(payloads(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, until)), [0, 5]);
    assert!(queue.is_empty());
}

#[test]
fn a_group_is_sent_as_it_is_before_all_others() {
    let now = Instant::now();
    let (mut queue, routes) = (Queue::new(UNLIMITED), routes(now));
    (0..5).for_each(|number| queue.push(number, 100, number, &routes, now));
    let mut first = queue.next_request(350, &routes, now).unwrap();
    assert_eq!(first.entries.len(), 3);
    let entries = first.entries.split_off(1);
    queue.push_group(Group { entries, is_tried: false });
    queue.push_group(Group { is_tried: true, ..first });
    assert_eq!(queue.len(), 5);
    assert_eq!(queue.sweep(|number| *number == 1), [1]);
    for expected in [vec![0], vec![2], vec![3, 4]] {
        assert_eq!(payloads(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, now)), expected);
    }
    assert!(queue.is_empty());
}

#[test]
fn what_waits_for_a_shard_that_was_split_waits_for_its_children() {
    let now = Instant::now();
    let (mut queue, mut routes) = (Queue::new(LIMITS), routes(now));
    (0..10).for_each(|number| queue.push(number, 100, number, &routes, now));
    queue.on_throttled(Some(&"0".into()), now, 0.0, &routes, now);
    assert!(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, now).is_none());
    let sent = now + Duration::from_millis(1);
    for (bucket, child) in [(0, "left"), (4, "left"), (5, "right"), (9, "right")] {
        routes.learn(bucket, child, sent, sent);
    }
    queue.route(&routes, sent);
    assert_eq!(
        payloads(queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, sent)),
        (0..10).collect::<Vec<_>>()
    );
}

#[test]
fn a_backlog_is_measured_by_the_longest_line_at_its_rate() {
    let now = Instant::now();
    let (mut queue, routes) = (Queue::new(LIMITS), routes(now));
    assert_eq!(queue.time_to_send(), Duration::ZERO);
    (0..500).for_each(|number| queue.push(0, 10, number, &routes, now));
    (0..100).for_each(|number| queue.push(10, 10, number, &routes, now));
    assert_eq!(queue.time_to_send(), Duration::from_millis(500));
    queue.on_throttled(Some(&"0".into()), now, 0.0, &routes, now);
    assert_eq!(queue.time_to_send(), Duration::from_secs(1));
    queue.sweep(|_| true);
    assert_eq!((queue.time_to_send(), queue.len()), (Duration::ZERO, 0));
}

#[test]
fn the_line_of_a_forgotten_shard_goes_when_nothing_waits_in_it() {
    let now = Instant::now();
    let (mut queue, routes) = (Queue::new(UNLIMITED), routes(now));
    queue.push(0, 10, 1, &routes, now);
    queue.push(10, 10, 2, &routes, now);
    let none = Routes::default();
    queue.forget(&none);
    assert_eq!(queue.lines.len(), 2);
    queue.sweep(|number| *number == 1);
    queue.forget(&none);
    assert_eq!(queue.lines.len(), 1);
}

proptest! {
    #[test]
    fn a_request_is_filled_to_the_services_limits_and_never_beyond(
        frames in prop::collection::vec(1usize..=FRAME_BYTES_MAX, 1..40),
        small in prop::collection::vec(1usize..100, 0..1_000),
    ) {
        for sizes in [frames, small] {
            let now = Instant::now();
            let (mut queue, routes) = (Queue::new(UNLIMITED), routes(now));
            sizes.iter().for_each(|&bytes| queue.push(0, bytes, bytes, &routes, now));
            let fit = queue.next_request(PUT_RECORDS_BYTES_MAX, &routes, now).map_or(0, |group| group.entries.len());
            let bytes = |n: usize| sizes[..n].iter().map(|size| size + PARTITION_KEY_BYTES_MAX).sum::<usize>();
            prop_assert!(fit <= PUT_RECORDS_ENTRIES_MAX && bytes(fit) <= PUT_RECORDS_BYTES_MAX);
            let filled = fit == sizes.len() || fit == PUT_RECORDS_ENTRIES_MAX || bytes(fit + 1) > PUT_RECORDS_BYTES_MAX;
            prop_assert!(filled);
        }
    }

    /// Whatever fails and however the stream is resharded: each entry comes out once, and oldest first in its line.
    #[test]
    fn nothing_is_lost_or_doubled_and_lines_keep_their_order(
        buckets in prop::collection::vec(0u32..100, 1..200),
        fates in prop::collection::vec((0u8..5, 0u32..100), 1..400),
    ) {
        let mut now = Instant::now();
        let (mut queue, mut routes) = (Queue::new(UNLIMITED), Routes::default());
        for (number, bucket) in (0u32..).zip(&buckets) {
            queue.push(*bucket, 10, number, &routes, now);
        }
        let (mut out, mut fates) = (BTreeSet::new(), fates.into_iter().chain(std::iter::repeat((4, 0))));
        for _ in 0..10_000 {
            if queue.is_empty() {
                break;
            }
            now += Duration::from_millis(5);
            let Some(request) = queue.next_request(200, &routes, now) else { continue };
            let numbers: Vec<u32> = request.entries.iter().map(|entry| entry.payload).collect();
            prop_assert!(request.is_tried || numbers.is_sorted(), "{:?}", numbers);
            for entry in request.entries {
                match fates.next() {
                    Some((0, _)) => queue.put_back(entry, &routes, now),
                    Some((1, wait_ms)) => queue.rest(entry, now + Duration::from_millis(u64::from(wait_ms))),
                    Some((2, _)) => queue.push_group(Group { entries: vec![entry], is_tried: true }),
                    Some((3, shard)) => {
                        routes.learn(entry.bucket, &shard.to_string(), now, now);
                        queue.route(&routes, now);
                        queue.put_back(entry, &routes, now);
                    }
                    _ => prop_assert!(out.insert(entry.payload), "{} twice", entry.payload),
                }
            }
        }
        prop_assert_eq!(out.len(), buckets.len());
        prop_assert!(queue.is_empty() && queue.time_to_send() == Duration::ZERO);
    }
}
