//! What the commands of both daemons do with letters: list them, and try them again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use warmcast_common::daemon::Outcome;
use warmcast_common::dead_letter::{
    Chosen, Filter, LetterId, LetterStore, Redriven, SendReport, Sending, page, send,
};

use super::world::{Server, directory, letter, noise};

async fn fill(store: &LetterStore, letters: u64) -> Vec<LetterId> {
    let mut ids = Vec::new();
    for number in 0..letters {
        // Two in each millisecond.
        let kept = store.set_aside(&letter(&number.to_string(), &noise(10)), 1_000 + number / 2).await;
        ids.push(kept.unwrap().id);
    }
    ids
}

async fn assert_lists_newest_first(store: &LetterStore) {
    let ids = fill(store, 23).await;
    let (mut listed, mut from) = (Vec::new(), None);
    loop {
        let page = page(store, &Filter::default(), 5, from).await.unwrap();
        assert_eq!((page.total, page.stored), (23, 23));
        assert!(page.letters.len() <= 5);
        listed.extend(page.letters);
        match page.next {
            Some(next) => from = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert!(listed.is_sorted_by_key(|letter| std::cmp::Reverse(letter.last_attempt_ms)));
    let found: BTreeSet<LetterId> = listed.iter().map(|letter| letter.id.parse().unwrap()).collect();
    assert_eq!((listed.len(), found), (23, ids.into_iter().collect()));
    let some = Filter { since_ms: Some(1_011), ..Filter::default() };
    let some = page(store, &some, 5, None).await.unwrap();
    assert_eq!((some.total, some.stored, some.next), (1, 23, None));
    assert_eq!(some.letters[0].key.as_deref(), Some("user\\xff1"));
}

#[tokio::test]
async fn letters_are_listed_newest_first_page_by_page_with_their_number() {
    let server = Server::start().await;
    let table = server.letters(true);
    table.prepare().await.unwrap();
    assert_lists_newest_first(&table).await;
    let path = tempfile::tempdir().unwrap();
    assert_lists_newest_first(&directory(path.path()).await).await;
}

fn sending(letters: Chosen) -> Sending {
    Sending::new(letters, 100_000.try_into().unwrap())
}

#[tokio::test]
async fn each_letter_is_tried_once_and_what_fails_again_is_told() {
    let path = tempfile::tempdir().unwrap();
    let store = directory(path.path()).await;
    let ids = fill(&store, 250).await;
    let failing = &ids[..30];
    let try_all = async || -> SendReport {
        send(&store, sending(Chosen::Filter(Filter::default())), &CancellationToken::new(), async |id| {
            if failing.contains(&id) {
                store.failed_again(id, "of a test").await?;
                return Ok(Redriven::FailedAgain("of a test".to_owned()));
            }
            store.delete(id).await?;
            Ok(Redriven::Done(2))
        })
        .await
    };
    let report = try_all().await;
    assert_eq!((report.done, report.changes, report.failed_again), (220, 440, 30));
    assert_eq!((report.failures.len(), report.outcome().unwrap()), (20, Outcome::Problems));
    assert!(report.lines().contains("and 10 more that failed again"), "{}", report.lines());
    let again = try_all().await;
    assert_eq!((again.done, again.failed_again), (0, 30));
    let never = CancellationToken::new();
    let named = sending(Chosen::Ids(ids[100..110].to_vec()));
    let gone = send(&store, named, &never, async |_| Ok(Redriven::Gone)).await;
    assert_eq!(gone.gone, 10);
}

#[tokio::test]
async fn a_failure_that_is_no_letters_fault_or_a_signal_ends_it_and_the_rest_is_left() {
    let path = tempfile::tempdir().unwrap();
    let store = directory(path.path()).await;
    fill(&store, 100).await;
    let (tried, stop) = (AtomicUsize::new(0), CancellationToken::new());
    let report = send(&store, sending(Chosen::Filter(Filter::default())), &stop, async |_| {
        tried.fetch_add(1, Ordering::Relaxed);
        anyhow::bail!("the regions are away")
    });
    let report = report.await;
    let tried_then = tried.load(Ordering::Relaxed);
    assert!((1..=16).contains(&tried_then), "{tried_then}");
    let error = report.outcome().unwrap_err().to_string();
    assert!(error.contains("the regions are away; run it again"), "{error}");
    let report = send(&store, sending(Chosen::Filter(Filter::default())), &stop, async |id| {
        stop.cancel();
        store.delete(id).await?;
        Ok(Redriven::Done(1))
    });
    let report = report.await;
    assert_eq!(report.ended_by.as_deref(), Some("stopped by a signal"));
    let left = page(&store, &Filter::default(), 1, None).await.unwrap().total;
    assert_eq!(report.done + left, 100, "what was begun is done, and the rest is left");
    assert!(left > 80, "{left}");
}
