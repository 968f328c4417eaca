//! `cache-writer redrive`: lists, shows and tries dead letters again.

use anyhow::Context as _;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use warmcast_cache::Cache;
use warmcast_common::aws::sdk_config;
use warmcast_common::daemon::Outcome;
use warmcast_common::dead_letter::{
    Form, Letter, LetterStore, RedriveArgs, RedriveCommand, SendArgs, SendReport, Sending, list, preview,
    send, show,
};
use warmcast_proto::frame::decode_change;
use warmcast_proto::show;

use super::redrive;
use crate::config::Config;
use crate::refill::{Refill, Refilled, master};

/// What trying letters again came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The letters.
    #[serde(flatten)]
    pub letters: SendReport,
    /// What became of the items that are not known; none without `[master]`.
    pub refilled: Option<Refilled>,
}

/// Carries out `redrive`.
///
/// # Errors
/// It was refused, or cannot be done.
pub async fn redrive_command(
    args: RedriveArgs,
    shutdown: CancellationToken,
) -> Result<Outcome, anyhow::Error> {
    Box::pin(carry_out(args.command, shutdown)).await
}

async fn carry_out(command: RedriveCommand, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    match command {
        RedriveCommand::List(args) => {
            let store = open(&args.config.load()?).await?;
            list(&store, &args).await
        }
        RedriveCommand::Show(args) => {
            let store = open(&args.config.load()?).await?;
            show(&store, &args, content).await
        }
        RedriveCommand::Send(args) => {
            let config: Config = args.config.load()?;
            send_command(&args, &config, &shutdown).await
        }
    }
}

async fn open(config: &Config) -> Result<LetterStore, anyhow::Error> {
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    Ok(LetterStore::open(&config.dead_letters, dynamodb)?)
}

/// What can be read of a letter's bytes.
fn content(letter: &Letter) -> Value {
    let bytes = Bytes::copy_from_slice(&letter.bytes);
    match (letter.envelope.form, &letter.envelope.table) {
        (Form::KinesisRecord | Form::Frame, _) => show::record(bytes),
        (Form::Change, Some(table)) => match decode_change(bytes.clone(), table) {
            Ok(change) => show::change(&change),
            Err(error) => json!({ "error": error.to_string(), "bytes": show::bytes(&bytes) }),
        },
        (Form::Change, None) => show::bytes(&bytes),
        (Form::DynamodbStreamRecord, _) => {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| show::bytes(&bytes))
        }
    }
}

async fn send_command(
    args: &SendArgs,
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<Outcome, anyhow::Error> {
    let chosen = args.chosen(&config.letters_source())?;
    let store = open(config).await?;
    if args.dry_run {
        return preview(&store, &chosen, args.output).await;
    }
    let cache = Cache::connect(config.redis.clone()).await.context("the cache")?;
    let sending = Sending::new(chosen, args.rate);
    let letters = redrive_letters(&store, config, &cache, sending, shutdown);
    // What it knows of evictions must not grow old.
    let report = tokio::select! {
        report = letters => report,
        () = cache.watch(CancellationToken::new()) => anyhow::bail!("the cache is not watched any more"),
    };
    warmcast_common::tool::report(args.output, &report, || report.lines())?;
    report.letters.outcome()
}

/// Tries letters again, and has those items filled from the master that are not known, if the master is configured.
pub async fn redrive_letters(
    store: &LetterStore,
    config: &Config,
    cache: &Cache,
    sending: Sending,
    shutdown: &CancellationToken,
) -> Report {
    let refill = match &config.fallback {
        Some(fallback) => Some(Refill::new(cache.clone(), master(fallback).await, fallback)),
        None => None,
    };
    let refilled = Mutex::new(Refilled::default());
    let letters = send(store, sending, shutdown, async |id| {
        let (redriven, of_letter) = redrive(store, id, cache, refill.as_ref()).await?;
        refilled.lock().add(of_letter);
        Ok(redriven)
    });
    let letters = letters.await;
    Report { letters, refilled: refill.map(|_| refilled.into_inner()) }
}

impl Report {
    fn lines(&self) -> String {
        let refilled = match &self.refilled {
            Some(refilled) => refilled.line(),
            None => {
                "no [master] is configured: items that are not known stay misses until a reader fills them\n"
                    .to_owned()
            }
        };
        self.letters.lines() + &refilled
    }
}
