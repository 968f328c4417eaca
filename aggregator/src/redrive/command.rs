//! `aggregator redrive`: lists, shows and tries dead letters again.

use bytes::Bytes;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::daemon::Outcome;
use warmcast_common::dead_letter::{
    Form, Letter, LetterStore, RedriveArgs, RedriveCommand, SendArgs, SendReport, Sending, list, preview,
    send, show,
};
use warmcast_common::tool::report;
use warmcast_proto::show;

use super::{Routes, redrive};
use crate::config::Config;
use crate::dispatch::Dispatch;

/// What letters of the aggregator name as their source, before a slash and a region.
const SOURCE: &str = "aggregator";

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
            let config: Config = args.config.load()?;
            list(&open(&config, dynamodb(&config).await)?, &args).await
        }
        RedriveCommand::Show(args) => {
            let config: Config = args.config.load()?;
            show(&open(&config, dynamodb(&config).await)?, &args, content).await
        }
        RedriveCommand::Send(args) => {
            let config: Config = args.config.load()?;
            send_command(&args, &config, &shutdown).await
        }
    }
}

async fn dynamodb(config: &Config) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await)
}

fn open(config: &Config, dynamodb: aws_sdk_dynamodb::Client) -> Result<LetterStore, anyhow::Error> {
    Ok(LetterStore::open(&config.dead_letters, dynamodb)?)
}

/// What can be read of a letter's bytes.
fn content(letter: &Letter) -> Value {
    match letter.envelope.form {
        Form::DynamodbStreamRecord => {
            serde_json::from_slice(&letter.bytes).unwrap_or_else(|_| show::bytes(&letter.bytes))
        }
        Form::Frame | Form::KinesisRecord => show::record(Bytes::copy_from_slice(&letter.bytes)),
        Form::Change => show::bytes(&letter.bytes),
    }
}

async fn send_command(
    args: &SendArgs,
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<Outcome, anyhow::Error> {
    let chosen = args.chosen(SOURCE)?;
    let dynamodb = dynamodb(config).await;
    let store = open(config, dynamodb.clone())?;
    if args.dry_run {
        return preview(&store, &chosen, args.output).await;
    }
    let sent = redrive_letters(&store, config, &dynamodb, Sending::new(chosen, args.rate), shutdown).await?;
    report(args.output, &sent, || sent.lines())?;
    sent.outcome()
}

/// Tries letters again: what can be read goes to the regions that are to have it.
///
/// # Errors
/// A table cannot be looked at, or a region's stream is not there: nothing was sent.
pub async fn redrive_letters(
    store: &LetterStore,
    config: &Config,
    dynamodb: &aws_sdk_dynamodb::Client,
    sending: Sending,
    shutdown: &CancellationToken,
) -> Result<SendReport, anyhow::Error> {
    let state = StateStore::new(dynamodb.clone(), &config.state.table);
    let routes = Routes::find(config, dynamodb, &state).await?;
    let regions: Vec<usize> = (0..config.regions.len()).collect();
    let dispatch = Dispatch::connect(config, &regions).await?;
    dispatch.check().await?;
    let redriving = async |id| {
        let sending = async |changes, read_ms| dispatch.send(changes, read_ms).await.map(|_| ());
        Ok(redrive(store, id, &routes, sending).await?)
    };
    Ok(send(store, sending, shutdown, redriving).await)
}
