//! What a store keeps, and how. What holds for both is asserted for both.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{AttributeValue, TimeToLiveStatus};
use warmcast_common::dead_letter::{Filter, Kept, LetterId, LetterStore};
use warmcast_common::limits::{
    DEAD_LETTER_BYTES_MAX, DEAD_LETTER_PART_BYTES_MAX, DEAD_LETTER_REASON_BYTES_MAX,
};

use super::world::{RETENTION_S, Server, TABLE, bare_letter, directory, letter, noise};

/// Everything that is meant, over all pages; and how many pages there were.
async fn list(store: &LetterStore, filter: &Filter) -> (Vec<Kept>, usize) {
    let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.list(filter, from.as_deref()).await.unwrap();
        found.extend(page.letters);
        pages += 1;
        match page.next {
            Some(next) => from = Some(next),
            None => return (found, pages),
        }
    }
}

async fn items(server: &Server) -> Vec<std::collections::HashMap<String, AttributeValue>> {
    let pages = server.client.scan().table_name(TABLE).into_paginator().items().send();
    pages.collect::<Result<_, _>>().await.unwrap()
}

async fn assert_keeps_letters(store: &LetterStore) {
    for (number, letter) in
        [letter("42", b"abc\x00\xff"), bare_letter(b"xyz"), bare_letter(b"")].iter().enumerate()
    {
        let first = store.set_aside(letter, 1_000).await.unwrap();
        assert_eq!((first.first_attempt_ms, first.last_attempt_ms, first.attempts), (1_000, 1_000, 1));
        assert_eq!((first.id, &first.envelope), (letter.id(), &letter.envelope));
        let mut again = letter.clone();
        again.envelope.reason = "another version's words".to_owned();
        let again_kept = store.set_aside(&again, 5_000).await.unwrap();
        let expected =
            Kept { last_attempt_ms: 5_000, attempts: 2, envelope: again.envelope.clone(), ..first };
        assert_eq!(again_kept, expected);
        assert_eq!(store.get(letter.id()).await.unwrap(), Some((expected.clone(), again)));
        let (listed, _) = list(store, &Filter::default()).await;
        assert_eq!(listed.len(), number + 1);
        assert!(listed.contains(&expected), "{listed:?}");
    }
    let id = letter("42", b"abc\x00\xff").id();
    let failed = store.failed_again(id, &"é".repeat(DEAD_LETTER_REASON_BYTES_MAX)).await.unwrap().unwrap();
    assert_eq!((failed.attempts, failed.first_attempt_ms), (3, 1_000));
    assert!(failed.last_attempt_ms > 5_000 && failed.envelope.reason.len() == DEAD_LETTER_REASON_BYTES_MAX);
    assert_eq!(store.get(id).await.unwrap().unwrap().0, failed);
    store.delete(id).await.unwrap();
    store.delete(id).await.expect("what is deleted stays deleted");
    assert_eq!(store.get(id).await.unwrap(), None);
    assert_eq!(store.failed_again(id, "x").await.unwrap(), None, "it does not come back");
    assert_eq!(list(store, &Filter::default()).await.0.len(), 2);
}

#[tokio::test]
async fn a_letter_that_is_met_again_is_one_letter_with_one_attempt_more() {
    let server = Server::start().await;
    let letters = server.letters(true);
    letters.prepare().await.unwrap();
    assert_keeps_letters(&letters).await;
    let path = tempfile::tempdir().unwrap();
    assert_keeps_letters(&directory(path.path()).await).await;
}

async fn assert_lists_by_page(store: &LetterStore, letters: usize, bytes: usize) {
    let mut expected = BTreeSet::new();
    for number in 0..letters {
        let kept = store.set_aside(&letter(&number.to_string(), &noise(bytes)), 1_000 + number as u64).await;
        expected.insert(kept.unwrap().id);
    }
    let (found, pages) = list(store, &Filter::default()).await;
    let ids: BTreeSet<LetterId> = found.iter().map(|letter| letter.id).collect();
    assert_eq!((ids, found.len()), (expected, letters));
    assert!(pages > 1, "the test must need more than one page");
    let reason = Filter { reason: Some("reason 3".to_owned()), before_ms: Some(1_010), ..Filter::default() };
    let (found, _) = list(store, &reason).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].envelope.reason, "reason 3");
    let elsewhere = Filter { table: Some("other".to_owned()), ..Filter::default() };
    assert_eq!(list(store, &elsewhere).await.0, []);
    assert!(store.list(&Filter::default(), Some("nonsense")).await.is_err());
}

#[tokio::test]
async fn a_listing_goes_page_by_page_and_finds_each_letter_once() {
    let server = Server::start().await;
    let letters = server.letters(true);
    letters.prepare().await.unwrap();
    assert_lists_by_page(&letters, 12, 200_000).await;
    let path = tempfile::tempdir().unwrap();
    assert_lists_by_page(&directory(path.path()).await, 205, 10).await;
}

#[tokio::test]
async fn bytes_of_any_size_come_back_and_each_item_is_within_the_services_limit() {
    let server = Server::start().await;
    let store = server.letters(true);
    store.prepare().await.unwrap();
    let part = DEAD_LETTER_PART_BYTES_MAX;
    // A Kinesis record of 1 MiB, and one byte over; what fits an item, and one byte over.
    for (len, items_expected) in
        [(part, 1), (part + 1, 3), (1 << 20, 4), ((1 << 20) + 1, 4), (3 * part + 1, 5)]
    {
        // With the longest of everything else, so that the embedded server refuses an item that is too large.
        let mut letter = letter("1", &noise(len));
        letter.envelope.reason = "r".repeat(DEAD_LETTER_REASON_BYTES_MAX);
        letter.envelope.key = Some(vec![7; 2_048 + 1_024 + 64]);
        letter.envelope.table = Some("t".repeat(255).into());
        letter.envelope.origin.stream = "s".repeat(1_024).into();
        letter.envelope.origin.shard = Some("x".repeat(128).into());
        let kept = store.set_aside(&letter, 1_000).await.unwrap();
        assert_eq!(kept.bytes_len, len as u64);
        assert_eq!(items(&server).await.len(), items_expected, "{len}");
        store.set_aside(&letter, 2_000).await.unwrap();
        let (again, found) = store.get(kept.id).await.unwrap().unwrap();
        assert_eq!((again.attempts, found == letter), (2, true), "{len}");
        assert_eq!(list(&store, &Filter::default()).await.0.len(), 1, "parts are no letters");
        store.delete(kept.id).await.unwrap();
        assert_eq!(items(&server).await.len(), 0, "{len}");
    }
    let large = letter("1", &vec![7; 4 << 20]);
    store.set_aside(&large, 1_000).await.unwrap();
    assert_eq!(items(&server).await.len(), 1, "it is compressed");
    assert!(store.get(large.id()).await.unwrap().unwrap().1 == large);
}

#[tokio::test]
async fn what_is_larger_than_any_record_is_cut_and_says_so() {
    let server = Server::start().await;
    let table = server.letters(true);
    table.prepare().await.unwrap();
    let path = tempfile::tempdir().unwrap();
    for store in [table, directory(path.path()).await] {
        for over in [0, 1] {
            let letter = letter("1", &vec![7; DEAD_LETTER_BYTES_MAX + over]);
            let id = store.set_aside(&letter, 1_000).await.unwrap().id;
            let (kept, found) = store.get(id).await.unwrap().unwrap();
            assert_eq!(kept.bytes_len, (DEAD_LETTER_BYTES_MAX + over) as u64);
            assert_eq!(found.bytes.len(), DEAD_LETTER_BYTES_MAX);
        }
    }
}

#[tokio::test]
async fn every_item_expires_after_the_retention_and_the_table_knows_by_which_attribute() {
    let server = Server::start().await;
    let store = server.letters(true);
    store.prepare().await.unwrap();
    store.prepare().await.expect("a table that is there is taken as it is");
    let described = server.client.describe_time_to_live().table_name(TABLE).send().await.unwrap();
    let described = described.time_to_live_description.unwrap();
    assert_eq!(described.time_to_live_status, Some(TimeToLiveStatus::Enabled));
    let attribute = described.attribute_name.unwrap();
    let large = letter("1", &noise(1 << 20));
    for at_ms in [1_700_000_000_999, 1_700_000_500_000] {
        store.set_aside(&large, at_ms).await.unwrap();
        let items = items(&server).await;
        assert_eq!(items.len(), 4);
        for item in items {
            assert_eq!(item[&attribute].as_n().unwrap(), &(at_ms / 1_000 + RETENTION_S).to_string());
        }
    }
}

#[tokio::test]
async fn a_letter_without_all_its_parts_is_an_error_and_can_be_deleted() {
    let server = Server::start().await;
    let store = server.letters(true);
    store.prepare().await.unwrap();
    let large = letter("1", &noise(1 << 20));
    let id = store.set_aside(&large, 1_000).await.unwrap().id;
    let part = |sk: &str| {
        let text = |text: String| AttributeValue::S(text);
        server
            .client
            .delete_item()
            .table_name(TABLE)
            .key("pk", text(id.to_string()))
            .key("sk", text(sk.to_owned()))
    };
    part("part#0001").send().await.unwrap();
    let error = store.get(id).await.unwrap_err().to_string();
    assert!(error.contains(&id.to_string()) && error.contains("parts are there"), "{error}");
    part("letter").send().await.unwrap();
    assert_eq!(store.get(id).await.unwrap(), None, "parts without their letter are none");
    store.delete(id).await.unwrap();
    assert_eq!(items(&server).await.len(), 0);
}
