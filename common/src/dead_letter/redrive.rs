//! `redrive`: what both daemons' commands have in common. Letters are listed, shown, and tried again at a rate.
//!
//! What trying a letter means is the daemon's part. A letter that was put to use is deleted there, one that fails again
//! stays with one attempt more; so a run that is stopped leaves nothing to clean up, and another one goes on with the
//! letters that are left.

use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU64;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::filter::Filter;
use super::letter::LetterId;
use super::listing::{ListArgs, ListReport, page};
use super::selection::FilterArgs;
use super::shown::{LetterReport, ShowArgs};
use super::store::{LetterError, LetterStore};
use crate::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use crate::tool::{Progress, Throttle, report};

/// Letters that are being tried at a time.
const AT_ONCE: usize = 8;
/// Letters that failed again and are told one by one.
const FAILURES_TOLD_MAX: usize = 20;

/// Letters that a dry run lists.
const PREVIEW_LETTERS: usize = 20;

/// The flags of `redrive`.
#[derive(Args, Clone, Debug)]
pub struct RedriveArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RedriveCommand,
}

/// What to do about dead letters.
#[derive(Subcommand, Clone, Debug)]
pub enum RedriveCommand {
    /// List dead letters, newest first, with why each was set aside.
    List(ListArgs),
    /// Show everything about a dead letter, its content as far as it can be read.
    Show(ShowArgs),
    /// Try dead letters again: those that can be used by now are used and deleted.
    Send(SendArgs),
}

/// The flags of `redrive send`.
#[derive(Args, Clone, Debug)]
pub struct SendArgs {
    /// Where the letters are, and what they are sent to.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The letters, as they are listed; or choose by the flags below.
    #[arg(value_name = "ID")]
    pub ids: Vec<LetterId>,
    /// Which letters, if they are not named.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Every letter of this daemon.
    #[arg(long)]
    pub all: bool,
    /// Say which letters would be tried, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Letters a second.
    #[arg(long, value_name = "LETTERS", default_value = "50")]
    pub rate: NonZeroU64,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// Each of its changes, so many, is where it should be. The letter is deleted.
    Done(usize),
    /// It still cannot be used, or not all of it, for this reason. It stays, with one attempt more.
    FailedAgain(String),
    /// There is no such letter, or no more.
    Gone,
}

/// Which letters are tried, and how fast.
#[derive(Clone, Debug)]
pub struct Sending {
    /// These.
    pub letters: Chosen,
    /// Letters a second.
    pub throttle: Throttle,
    /// Where it is told how far it is.
    pub progress: Progress,
}

/// Letters that are to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// By name.
    Ids(Vec<LetterId>),
    /// All that are meant.
    Filter(Filter),
}

/// What trying letters came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SendReport {
    /// Letters that were put to use, and are gone.
    pub done: u64,
    /// Changes that they had.
    pub changes: u64,
    /// Letters that failed again, and stay.
    pub failed_again: u64,
    /// The first of them, with their reasons.
    pub failures: Vec<FailureReport>,
    /// Letters that were gone by then.
    pub gone: u64,
    /// Why it ended before every letter was tried: run it again.
    pub ended_by: Option<String>,
}

/// A letter that failed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureReport {
    /// Its name.
    pub id: String,
    /// Why.
    pub reason: String,
}

impl SendArgs {
    /// The letters that are meant: those of `source`, the daemon's own, where nothing else is said.
    ///
    /// # Errors
    /// Nothing says which.
    pub fn chosen(&self, source: &str) -> Result<Chosen, ConfigError> {
        let mut filter = self.filter.filter();
        let is_filtered = filter != Filter::default();
        filter.source.get_or_insert_with(|| source.to_owned());
        let refuse = |problem: &str| Err(ConfigError { problems: vec![problem.to_owned()] });
        match (self.ids.is_empty(), is_filtered, self.all) {
            (false, false, false) => Ok(Chosen::Ids(self.ids.clone())),
            (true, true, false) | (true, false, true) => Ok(Chosen::Filter(filter)),
            (true, false, false) => {
                refuse("which letters? Name them, choose them by --source, --table and so on, or say --all")
            }
            _ => refuse("letters are named, or chosen by flags, or --all: one of these"),
        }
    }
}

impl Sending {
    /// Letters at a rate, with a bar.
    pub fn new(letters: Chosen, rate: NonZeroU64) -> Self {
        let total = match &letters {
            Chosen::Ids(ids) => Some(ids.len() as u64),
            Chosen::Filter(_) => None,
        };
        let progress = Progress::start("redrive", "letters", total);
        Self { letters, throttle: Throttle::per_s(rate), progress }
    }
}

impl SendReport {
    /// What it means for whoever asked.
    ///
    /// # Errors
    /// Not every letter was tried.
    pub fn outcome(&self) -> Result<Outcome, anyhow::Error> {
        match &self.ended_by {
            Some(why) => Err(anyhow!("{why}; run it again for the letters that are left")),
            None if self.failed_again > 0 => Ok(Outcome::Problems),
            None => Ok(Outcome::Done),
        }
    }

    /// For people.
    pub fn lines(&self) -> String {
        let told = |failure: &FailureReport| format!("{}  failed again: {}\n", failure.id, failure.reason);
        let mut text: String = self.failures.iter().map(told).collect();
        if self.failed_again > self.failures.len() as u64 {
            text +=
                &format!("and {} more that failed again\n", self.failed_again - self.failures.len() as u64);
        }
        let Self { done, changes, failed_again, gone, .. } = self;
        text += &format!("sent {done} letters with {changes} changes; {failed_again} failed again and stay");
        if *gone > 0 {
            text += &format!("; {gone} were gone");
        }
        text.push('\n');
        text
    }

    fn count(&mut self, id: LetterId, outcome: Redriven) {
        match outcome {
            Redriven::Done(changes) => {
                self.done += 1;
                self.changes += changes as u64;
            }
            Redriven::FailedAgain(reason) => {
                self.failed_again += 1;
                if self.failures.len() < FAILURES_TOLD_MAX {
                    self.failures.push(FailureReport { id: id.to_string(), reason });
                }
            }
            Redriven::Gone => self.gone += 1,
        }
    }
}

/// Prints which letters would be tried.
///
/// # Errors
/// The store cannot be read.
pub async fn preview(
    store: &LetterStore,
    chosen: &Chosen,
    output: OutputFormat,
) -> Result<Outcome, anyhow::Error> {
    let listed = match chosen {
        Chosen::Filter(filter) => page(store, filter, PREVIEW_LETTERS, None).await?,
        Chosen::Ids(ids) => {
            let mut letters = Vec::new();
            for id in ids {
                letters.extend(store.get(*id).await?.map(|(kept, _)| LetterReport::from(&kept)));
            }
            let total = letters.len() as u64;
            ListReport { total, stored: total, letters, next: None }
        }
    };
    let human = || format!("{}would be tried again; nothing was changed\n", listed.lines());
    report(output, &listed, human)?;
    Ok(Outcome::Done)
}

/// Tries letters again by `redrive`, until all were, `shutdown`, or something fails that is no letter's fault: then those
/// under way are tried to their end, and the report says why it ended.
pub async fn send<F>(
    store: &LetterStore,
    sending: Sending,
    shutdown: &CancellationToken,
    redrive: impl Fn(LetterId) -> F,
) -> SendReport
where
    F: Future<Output = Result<Redriven, anyhow::Error>>,
{
    let Sending { letters, throttle, progress } = sending;
    let (mut letters, mut report) = (Letters::new(letters), SendReport::default());
    let mut trying = FuturesUnordered::new();
    loop {
        while trying.len() < AT_ONCE && report.ended_by.is_none() {
            match letters.next(store).await {
                Ok(Some(id)) => {
                    let (throttle, redriven) = (throttle.clone(), &redrive);
                    trying.push(async move {
                        let turn = shutdown.run_until_cancelled(throttle.take(1)).await;
                        match turn {
                            Some(()) => (id, Some(redriven(id).await)),
                            None => (id, None),
                        }
                    });
                }
                Ok(None) => break,
                Err(error) => report.ended_by = Some(error.to_string()),
            }
        }
        match trying.next().await {
            None => {
                progress.finish();
                return report;
            }
            Some((id, Some(Ok(outcome)))) => report.count(id, outcome),
            Some((_, Some(Err(error)))) => {
                report.ended_by.get_or_insert_with(|| format!("{error:#}"));
            }
            Some((_, None)) => {
                report.ended_by.get_or_insert_with(|| "stopped by a signal".to_owned());
            }
        }
        progress.add(1);
    }
}

/// The names of letters, one after the other.
struct Letters {
    ready: VecDeque<LetterId>,
    /// What is listed when there are no more, and from where; none: nothing.
    rest: Option<(Filter, Option<String>)>,
}

impl Letters {
    fn new(chosen: Chosen) -> Self {
        match chosen {
            Chosen::Ids(ids) => Self { ready: ids.into(), rest: None },
            Chosen::Filter(filter) => Self { ready: VecDeque::new(), rest: Some((filter, None)) },
        }
    }

    async fn next(&mut self, store: &LetterStore) -> Result<Option<LetterId>, LetterError> {
        while self.ready.is_empty()
            && let Some((filter, from)) = self.rest.take()
        {
            let page = store.list(&filter, from.as_deref()).await?;
            self.ready.extend(page.letters.into_iter().map(|kept| kept.id));
            self.rest = page.next.map(|next| (filter, Some(next)));
        }
        Ok(self.ready.pop_front())
    }
}
