//! `import-kcl`: the region's stream, taken over from a KCL application.

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::kcl::{Import, ImportArgs};
use warmcast_common::consumer::store::StateStore;
use warmcast_common::daemon::{ConfigArgs, Outcome};

use crate::config::Config;
use crate::source::KinesisStream;

/// The flags of `import-kcl`.
#[derive(Args, Clone, Debug)]
pub struct ImportKcl {
    /// Which stream, where the state table is and how the services are reached.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What is taken over, and how.
    #[command(flatten)]
    pub kcl: ImportArgs,
}

/// Takes the checkpoints of a KCL application over.
///
/// # Errors
/// When it was refused, or cannot be done.
pub async fn import_kcl(args: ImportKcl, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    let import = Box::pin(import(&args, &config));
    shutdown.run_until_cancelled(import).await.context("stopped by a signal; it can be run again")?
}

async fn import(args: &ImportKcl, config: &Config) -> Result<Outcome, anyhow::Error> {
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
    let import = Import {
        source: &KinesisStream::find(kinesis, &config.kinesis.stream).await?,
        store: &StateStore::new(dynamodb, &config.state.table),
        create: config.state.create,
        table: None,
    };
    Ok(import.run(&args.kcl, &config.dynamodb).await?)
}
