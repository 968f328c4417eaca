//! `import-kcl`: a table's stream, taken over from a KCL application with the adapter for DynamoDB Streams.

use anyhow::{Context, anyhow};
use clap::Args;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::kcl::{Import, ImportArgs};
use warmcast_common::consumer::store::StateStore;
use warmcast_common::daemon::{ConfigArgs, Outcome};

use crate::config::Config;

use crate::describes::Describes;
use crate::source::DynamoDbStream;
use crate::table::find_stream;

/// The flags of `import-kcl`.
#[derive(Args, Clone, Debug)]
pub struct ImportKcl {
    /// Where the state table is and how the services are reached.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The table whose stream the application reads. It must be in the configuration.
    #[arg(long, value_name = "TABLE")]
    pub table: String,
    /// What is taken over, and how.
    #[command(flatten)]
    pub kcl: ImportArgs,
}

/// Takes the checkpoints of a KCL application over, for one table.
///
/// # Errors
/// When it was refused, or cannot be done.
pub async fn import_kcl(args: ImportKcl, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    if !config.tables.iter().any(|table| table.name == args.table) {
        return Err(anyhow!("--table {}: there is no [tables.{0}] in the configuration", args.table));
    }
    let import = Box::pin(import(&args, &config));
    shutdown.run_until_cancelled(import).await.context("stopped by a signal; it can be run again")?
}

async fn import(args: &ImportKcl, config: &Config) -> Result<Outcome, anyhow::Error> {
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let streams = aws_sdk_dynamodbstreams::Client::new(&sdk_config(&config.streams).await);
    let found = find_stream(&dynamodb, &args.table).await?;
    let import = Import {
        source: &DynamoDbStream::new(streams, found.stream_arn, Describes::default()),
        store: &StateStore::new(dynamodb, &config.state.table),
        create: config.state.create,
        table: Some(&found.table),
    };
    Ok(import.run(&args.kcl, &config.dynamodb).await?)
}
