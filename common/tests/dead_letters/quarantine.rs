//! Letters on their way to their store: nothing is acknowledged before it is stored, and nothing is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use warmcast_common::consumer::ByteBudget;
use warmcast_common::consumer::SequenceNumber;
use warmcast_common::consumer::ack::ShardAcks;
use warmcast_common::dead_letter::{Counts, Filter, LetterStore, Quarantine, ReasonClass};

use super::wait::until;
use super::world::{Server, client, directory, letter, table};

/// A quarantine that runs, and how many of its letters were acknowledged.
struct Running {
    quarantine: Quarantine,
    counts: Arc<Counts>,
    acked: Arc<AtomicUsize>,
    keeper: JoinSet<()>,
}

impl Running {
    fn start(store: LetterStore) -> Self {
        let counts = Arc::new(Counts::default());
        let (quarantine, keeper) = Quarantine::new(store, "test", Arc::clone(&counts));
        let mut running = JoinSet::new();
        running.spawn(keeper.run());
        Self { quarantine, counts, acked: Arc::default(), keeper: running }
    }

    async fn set_aside(&self, positions: std::ops::Range<u32>) {
        for position in positions {
            let acked = Arc::clone(&self.acked);
            let stored = move || {
                acked.fetch_add(1, Relaxed);
            };
            self.quarantine.set_aside(letter(&position.to_string(), b"poison"), stored).await;
        }
    }

    fn acked(&self) -> usize {
        self.acked.load(Relaxed)
    }

    /// The last handle goes: it ends when everything is stored.
    async fn end(mut self) -> (Arc<Counts>, usize) {
        drop(self.quarantine);
        while let Some(ended) = self.keeper.join_next().await {
            ended.unwrap();
        }
        (self.counts, self.acked.load(Relaxed))
    }
}

async fn positions(store: &LetterStore) -> BTreeSet<u32> {
    let page = store.list(&Filter::default(), None).await.unwrap();
    assert_eq!(page.next, None);
    page.letters
        .iter()
        .map(|letter| letter.envelope.origin.position.as_ref().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn letters_are_acknowledged_when_they_are_stored_and_an_end_waits_for_all_of_them() {
    let server = Server::start().await;
    let running = Running::start(server.letters(true));
    running.set_aside(0..40).await;
    let (counts, acked) = running.end().await;
    assert_eq!((acked, counts.total(), counts.waiting()), (40, 40, 0));
    assert_eq!((counts.of(ReasonClass::Refused), counts.of(ReasonClass::UndecodableRecord)), (40, 0));
    assert_eq!(positions(&server.letters(false)).await, (0..40).collect());
}

#[tokio::test]
async fn a_store_that_is_away_loses_nothing_and_takes_all_when_it_is_back() {
    // The port is free until the server is started.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let running = Running::start(table(client(address).await, true));
    running.set_aside(0..30).await;
    until("the store was tried", async || running.counts.waiting() == 30).await;
    assert_eq!(running.acked(), 0);
    let server = Server::start_on(TcpListener::bind(address).await.unwrap()).await;
    until("all are stored", async || running.acked() == 30).await;
    running.set_aside(30..31).await;
    assert_eq!(running.end().await.1, 31);
    assert_eq!(positions(&server.letters(false)).await, (0..31).collect());
}

#[tokio::test]
async fn a_table_that_is_missing_is_named_and_taken_when_somebody_creates_it() {
    let server = Server::start().await;
    let missing = server.letters(false);
    let error = missing.prepare().await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("dead_letters.create = true"), "{error}");
    let error = missing.set_aside(&letter("1", b""), 1).await.unwrap_err();
    assert!(error.to_string().contains("dead_letters.create = true"), "{error}");
    let running = Running::start(missing);
    running.set_aside(0..3).await;
    tokio::task::yield_now().await;
    assert_eq!((running.acked(), running.counts.waiting()), (0, 3));
    server.letters(true).prepare().await.unwrap();
    until("all are stored", async || running.acked() == 3).await;
    running.end().await;
}

#[tokio::test]
async fn what_was_not_stored_when_the_process_ends_is_lost_and_so_read_again() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut running = Running::start(table(client(address).await, true));
    let (acks, budget) = (ShardAcks::new(10), ByteBudget::new(100));
    let ack = acks.track(SequenceNumber::new("1").ok(), 0, budget.reserve(10).await).await;
    running.quarantine.set_aside(letter("1", b"poison"), || ack.done()).await;
    assert!(!acks.status().lost);
    running.keeper.shutdown().await;
    assert!(acks.status().lost);
    assert_eq!(acks.status().checkpoint, None);
    // And so is what comes later.
    let ack = acks.track(SequenceNumber::new("2").ok(), 0, budget.reserve(10).await).await;
    running.quarantine.set_aside(letter("2", b"poison"), || ack.done()).await;
    assert_eq!(acks.status().pending, 2);
}

#[tokio::test]
async fn the_queue_is_bounded_and_who_comes_then_waits() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let running = Running::start(table(client(address).await, true));
    let megabyte = vec![7; 1 << 20];
    let mut taken = 0;
    loop {
        let set_aside = running.quarantine.set_aside(letter(&taken.to_string(), &megabyte), || ());
        let within = tokio::time::timeout(std::time::Duration::from_millis(300), set_aside).await;
        if within.is_err() {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, 32, "megabytes wait, and no more");
}

#[tokio::test]
async fn a_directory_takes_letters_as_a_table_does() {
    let path = tempfile::tempdir().unwrap();
    let running = Running::start(directory(path.path()).await);
    running.set_aside(0..20).await;
    running.set_aside(0..20).await;
    let (_, acked) = running.end().await;
    assert_eq!(acked, 40);
    let store = directory(path.path()).await;
    let letters = store.list(&Filter::default(), None).await.unwrap().letters;
    assert_eq!(letters.len(), 20);
    assert!(letters.iter().all(|letter| letter.attempts == 2));
}
