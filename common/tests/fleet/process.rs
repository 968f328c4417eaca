//! A worker as a process of its own: a thread with its runtime, its connections and its log. It can be stopped
//! gracefully, die, or be suspended as a whole, timers included, like a process under SIGSTOP.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::consumer::{ByteBudget, Consumer, Lags, Subscription, Worker, WorkerConfig};

use super::journal::Journal;
use super::sink::Sink;
use super::table::client;
use super::view::View;
use super::wire::Wire;

/// A process. Dropping it is its sudden death.
pub(crate) struct Process {
    pub(crate) wire: Wire,
    orders: mpsc::Sender<Order>,
    ended: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What a process starts with.
pub(crate) struct Program {
    pub(crate) process: String,
    pub(crate) name: String,
    pub(crate) config: WorkerConfig,
    pub(crate) subscriptions: Vec<Subscription<View, Sink>>,
    pub(crate) journal: Journal,
}

enum Order {
    Suspend(Receiver<()>),
    Stop,
    Die,
}

/// A process that is suspended; it goes on when this is dropped.
pub(crate) struct Suspended {
    _resume: SyncSender<()>,
}

impl Process {
    pub(crate) fn start(program: Program, wire: Wire) -> Self {
        let (orders, received) = mpsc::channel(4);
        let (ending, ended) = watch::channel(false);
        let address = wire.address;
        let thread = std::thread::spawn(move || {
            let log = Log { journal: program.journal.clone(), process: program.process.clone() };
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new("warmcast_common=debug"))
                .with_ansi(false)
                .without_time()
                .with_target(false)
                .with_writer(move || log.clone())
                .finish();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            tracing::subscriber::with_default(subscriber, || {
                runtime.block_on(async {
                    let store = StateStore::new(client(address).await, "state");
                    Box::pin(run(program, store, received)).await;
                });
            });
            drop(runtime);
            ending.send_replace(true);
        });
        Self { wire, orders, ended, thread: Some(thread) }
    }

    fn order(&self, order: Order) {
        // It may have ended by itself.
        let _ended = self.orders.try_send(order);
    }

    /// Suspends the whole process until the answer is dropped.
    pub(crate) fn suspend(&self) -> Suspended {
        let (resume, resumed) = sync_channel(1);
        self.order(Order::Suspend(resumed));
        Suspended { _resume: resume }
    }

    /// Tells it to stop and does not wait.
    pub(crate) fn ask_to_stop(&self) {
        self.order(Order::Stop);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Stops it and waits until it has drained, released and said good-bye.
    pub(crate) async fn stop(mut self) {
        self.ask_to_stop();
        self.join().await;
    }

    /// It dies: no drain, no release, no more heartbeats.
    pub(crate) async fn kill(mut self) {
        self.order(Order::Die);
        self.join().await;
    }

    async fn join(&mut self) {
        let deadline = std::time::Duration::from_secs(30);
        let ended = tokio::time::timeout(deadline, self.ended.wait_for(|ended| *ended)).await;
        ended.expect("a process ends in time").expect("a process does not panic");
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("a process does not panic");
    }
}

async fn run(program: Program, store: StateStore, mut orders: mpsc::Receiver<Order>) {
    let joining = Worker::join_fleet(store, false, &program.name, program.config);
    tokio::pin!(joining);
    let worker = loop {
        tokio::select! {
            worker = &mut joining => break Arc::new(worker),
            order = orders.recv() => match order {
                Some(Order::Suspend(resumed)) => suspend(&resumed),
                _ => return,
            }
        }
    };
    let (shutdown, left) = (CancellationToken::new(), CancellationToken::new());
    let consumer = Consumer::new(Arc::clone(&worker), ByteBudget::new(1 << 20), Lags::default());
    let (subscribe, subscriptions) = mpsc::channel(4);
    for subscription in program.subscriptions {
        subscribe.send(subscription).await.expect("the consumer is there");
    }
    let mut watermark = consumer.watermark();
    let (mut consuming, mut beating) = (JoinSet::new(), JoinSet::new());
    consuming.spawn(consumer.run(subscriptions, shutdown.clone()));
    let beats = left.clone();
    beating.spawn(async move { worker.beat(&beats).await });
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Suspend(resumed)) => suspend(&resumed),
                Some(Order::Stop) => shutdown.cancel(),
                Some(Order::Die) | None => return,
            },
            Ok(()) = watermark.changed() => {
                let told_ms = watermark.borrow_and_update().as_ref().map(|known| known.ms);
                program.journal.watermark(&program.process, told_ms);
            }
            Some(drained) = consuming.join_next() => {
                if let Err(panicked) = drained {
                    program.journal.violation(format!("{}: {panicked}", program.process));
                }
                left.cancel();
            }
            Some(ended) = beating.join_next() => {
                // Fenced or done: either way the process is over.
                program.journal.note(format!("{} ends: {ended:?}", program.process));
                return;
            }
        }
    }
}

/// Nothing of the process runs until it is resumed.
fn suspend(resumed: &Receiver<()>) {
    // Resumed by the end of the other side.
    let _resumed = resumed.recv();
}

/// A process's log goes into the journal.
#[derive(Clone)]
struct Log {
    journal: Journal,
    process: String,
}

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.journal.note(format!("{}: {}", self.process, String::from_utf8_lossy(line).trim()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
