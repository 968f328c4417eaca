//! A small bidder: auctions at a rate, each of which looks up the profiles of some users before its deadline.
//!
//! It is an open loop. When auctions begin is decided by a clock of its own (`arrivals`), not by how fast the answers
//! come, and a lookup's time is counted from then: a stall is felt by every auction that it delays, as it would be by
//! the exchange that holds them. Which users are asked for is the traffic's own choice, with some that do not
//! exist (`keys`). Reading is the [`Reader`]'s work; here it is only used and counted (`figures`).

mod keys;
mod arrivals;
mod figures;
mod command;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use warmcast_cache::reader::{
    Answer, MasterFallback, ReadError, ReadOptions, Reader, ReaderConfig, ReaderError,
};
use warmcast_cache::{CacheConfig, ReadFrom, UrlError};
use warmcast_proto::key::ItemKey;

pub use command::{BidderCommand, CommandError, run};
pub use figures::{Standing, Summary};
pub use keys::Users;

use crate::clients;
use crate::dynamodb::MASTER_REGION;
use figures::Figures;
use keys::Keys;

/// How long an exchange waits for a bid.
pub const AUCTION_DEADLINE: Duration = Duration::from_millis(100);
/// Auctions under way, or waiting to begin. An auction ends at its deadline, so that only a rate beyond all reason, or
/// a stall of seconds, comes to more; what is beyond is lost to the bidder, and counted.
const AUCTIONS_MAX: usize = 4_096;
/// Fills under way when the bidder stops are waited for as long.
const FILLS_PATIENCE: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How the bidder bids.
#[derive(Clone, Debug)]
pub struct BidderOptions {
    /// The table that has the profiles.
    pub table: String,
    /// Auctions a second, on average: they arrive at random.
    pub rate: f64,
    /// From an auction's beginning until the bid must be made.
    pub deadline: Duration,
    /// Profiles that an auction looks up, in one call.
    pub keys_per_auction: usize,
    /// Of a hundred profiles asked for, how many do not exist.
    pub unknown_percent: u32,
    /// Writers of the traffic: users are spread over them.
    pub writers: u64,
    /// Seeds the arrivals and the choice of users.
    pub seed: u64,
    /// A region whose watermark is further behind has stale rows; none: that is not judged.
    pub staleness_max: Option<Duration>,
    /// Which servers to read.
    pub read_from: ReadFrom,
    /// Whether the process keeps rows of its own for a moment.
    pub first_level: bool,
    /// What a miss does.
    pub on_miss: OnMiss,
}

impl BidderOptions {
    /// The usual bidder of a table.
    #[must_use]
    pub fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            rate: 200.0,
            deadline: AUCTION_DEADLINE,
            keys_per_auction: 2,
            unknown_percent: 5,
            writers: 1,
            seed: 1,
            staleness_max: Some(Duration::from_secs(10)),
            read_from: ReadFrom::Replica,
            first_level: true,
            on_miss: OnMiss::Fill,
        }
    }
}

/// What a miss does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnMiss {
    /// Nothing: the row stays away until it changes.
    Nothing,
    /// The row is read from the master after the answer: the next auction has it.
    #[default]
    Fill,
    /// The row is read from the master, and the auction waits for it as long as it can.
    Wait,
}

/// Where the bidder reads.
#[derive(Clone, Debug)]
pub struct Sources {
    /// URL of the region's Redis.
    pub redis: String,
    /// URL of the master region's DynamoDB.
    pub dynamodb: String,
}

/// Why a bidder cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BidderError {
    /// The address of the cache.
    #[error("the URL of the region's Redis: {0}")]
    Url(#[from] UrlError),
    /// The cache does not answer, or the configuration is wrong.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// No auctions, or auctions without a key.
    #[error("a bidder needs a rate above 0 and at least one key for each auction")]
    Options,
    /// The histogram could not be made.
    #[error("cannot create a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

/// A running bidder. Dropping it ends it, with the auctions under way.
#[derive(Debug)]
pub struct Bidder {
    bidding: Arc<Bidding>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// What all auctions share.
struct Bidding {
    reader: Reader,
    options: BidderOptions,
    figures: Figures,
}

impl std::fmt::Debug for Bidding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bidding").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Bidder {
    /// Connects and begins. `users` tells how many users there are.
    ///
    /// # Errors
    /// See [`BidderError`].
    pub async fn start(sources: &Sources, options: BidderOptions, users: Users) -> Result<Self, BidderError> {
        if !(options.rate > 0.0 && options.rate.is_finite()) || options.keys_per_auction == 0 {
            return Err(BidderError::Options);
        }
        let reader = Reader::connect(reader_config(sources, &options)?).await?;
        let keys = Keys::new(&options, users);
        let (rate, seed) = (options.rate, options.seed);
        let bidding = Arc::new(Bidding { reader, options, figures: Figures::new()? });
        let (due, receiver) = mpsc::channel(AUCTIONS_MAX);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let clock = Arc::clone(&bidding);
        tasks.spawn_blocking(move || arrivals::run(rate, seed, &due, || clock.figures.lose()));
        tasks.spawn(hold_auctions(Arc::clone(&bidding), keys, receiver, stop.clone()));
        Ok(Self { bidding, stop, tasks })
    }

    /// The counts now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Bidding { reader, figures, .. } = &*self.bidding;
        figures.standing(&reader.stats(), reader.lag())
    }

    /// Begins no more auctions, waits for those under way and for the fills that they began, and gives the last counts.
    pub async fn stop(mut self) -> Standing {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let deadline = Instant::now() + FILLS_PATIENCE;
        // The fills belong to the reader, which tells of them only when asked.
        while self.fills_under_way() && Instant::now() < deadline {
            sleep(POLL_INTERVAL).await;
        }
        self.standing()
    }

    fn fills_under_way(&self) -> bool {
        self.bidding.reader.stats().filler.is_some_and(|filler| filler.under_way > 0)
    }
}

fn reader_config(sources: &Sources, options: &BidderOptions) -> Result<ReaderConfig, BidderError> {
    let mut config = ReaderConfig::new(CacheConfig::from_url(&sources.redis)?);
    config.read_from = options.read_from;
    config.deadline = options.deadline;
    config.staleness_max = options.staleness_max;
    if !options.first_level {
        config.first_level = None;
    }
    if options.on_miss != OnMiss::Nothing {
        let client = clients::dynamodb_without_retries(&sources.dynamodb, MASTER_REGION);
        config.master = Some(MasterFallback::new(client));
    }
    Ok(config)
}

/// Begins each auction when it is due, until `stop`; then waits for those under way.
async fn hold_auctions(
    bidding: Arc<Bidding>,
    mut keys: Keys,
    mut due: mpsc::Receiver<Instant>,
    stop: CancellationToken,
) {
    let mut auctions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            arrival = due.recv() => {
                let Some(arrival) = arrival else { break };
                while auctions.try_join_next().is_some() {}
                if auctions.len() < AUCTIONS_MAX {
                    auctions.spawn(hold_auction(Arc::clone(&bidding), arrival, keys.choose()));
                } else {
                    bidding.figures.lose();
                }
            }
        }
    }
    drop(due);
    while auctions.join_next().await.is_some() {}
}

async fn hold_auction(bidding: Arc<Bidding>, arrival: Instant, keys: Vec<ItemKey>) {
    let Bidding { options, figures, .. } = &*bidding;
    let left = options.deadline.saturating_sub(arrival.elapsed());
    if left.is_zero() {
        return figures.note(arrival.elapsed(), options.deadline, None);
    }
    let answers = bidding.look_up(&keys, left).await;
    figures.note(arrival.elapsed(), options.deadline, answers.ok().as_deref());
}

impl Bidding {
    async fn look_up(&self, keys: &[ItemKey], deadline: Duration) -> Result<Vec<Answer>, ReadError> {
        let options = ReadOptions {
            deadline,
            wait_for_master: self.options.on_miss == OnMiss::Wait,
            ..self.reader.options()
        };
        match keys {
            [key] => Ok(vec![self.reader.get_with(&self.options.table, key, options).await?]),
            keys => self.reader.get_many_with(&self.options.table, keys, options).await,
        }
    }
}
