//! The master table's DynamoDB: an embedded one, or Amazon's DynamoDB Local.
//!
//! The embedded one (dynoxide) needs nothing installed and is fast. Amazon's own is slower and needs Java, but
//! its answers are Amazon's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType,
};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::clients;
use crate::log::Log;
use crate::process::{Process, ProcessError};
use crate::server::{EmbeddedServer, free_port};

/// The master region's name. DynamoDB Local does not care.
pub const MASTER_REGION: &str = "us-east-1";

/// Names the directory that holds `DynamoDBLocal.jar`, where it is not the one that the set-up makes.
pub const DIRECTORY_VARIABLE: &str = "WARMCAST_DYNAMODB_LOCAL";

/// A JVM on a small, busy machine takes its time.
const START_PATIENCE: Duration = Duration::from_secs(60);
const START_ATTEMPTS: u32 = 3;
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// In the words of dynoxide's own queries: SQLite uses an index on an expression for the same expression only.
const STREAM_INDEX: &str = "\
    CREATE INDEX sandbox_stream_sequence \
        ON _stream_records (table_name, CAST(sequence_number AS INTEGER)); \
    CREATE INDEX sandbox_stream_shard \
        ON _stream_records (table_name, shard_id, CAST(sequence_number AS INTEGER));";

/// Which DynamoDB to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavour {
    /// dynoxide, inside this process.
    #[default]
    Embedded,
    /// Amazon's DynamoDB Local, a Java process.
    Local,
}

/// Why DynamoDB did not start, or a table could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DynamoDbError {
    /// The embedded database or its port.
    #[error("cannot start the embedded DynamoDB: {0}")]
    Embedded(String),
    /// The files of DynamoDB Local are nowhere.
    #[error(
        "DynamoDBLocal.jar is not in {}: run `sandbox/setup.sh java dynamodb-local`, \
         or set {DIRECTORY_VARIABLE} to the directory that has it",
        searched.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
    )]
    JarMissing {
        /// Directories looked at.
        searched: Vec<PathBuf>,
    },
    /// Java could not be executed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its log or its port.
    #[error("cannot prepare DynamoDB Local: {0}")]
    Prepare(#[from] io::Error),
    /// It ended, or did not answer in time.
    #[error("DynamoDB Local does not answer: {reason}. Its last lines:\n{tail}")]
    NotReady {
        /// What was seen.
        reason: String,
        /// What it printed.
        tail: String,
    },
    /// A table could not be created.
    #[error("cannot create the table {table}: {reason}")]
    CreateTable {
        /// The table's name.
        table: String,
        /// What DynamoDB answered.
        reason: String,
    },
}

/// A running DynamoDB. Dropping it stops it.
#[derive(Debug)]
pub struct DynamoDb {
    url: String,
    server: Server,
}

#[derive(Debug)]
enum Server {
    Embedded(EmbeddedServer),
    Local(Process),
}

impl DynamoDb {
    /// Starts a DynamoDB with nothing in it and waits until it answers. Its log goes to `directory`.
    ///
    /// # Errors
    /// See [`DynamoDbError`].
    pub async fn start(flavour: Flavour, directory: &Path) -> Result<Self, DynamoDbError> {
        match flavour {
            Flavour::Embedded => start_embedded(directory).await,
            Flavour::Local => start_local(directory).await,
        }
    }

    /// Where it listens, for DynamoDB and DynamoDB Streams alike.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The ids of child processes.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.server {
            Server::Embedded(_) => None,
            Server::Local(process) => process.pid(),
        }
    }

    /// Stops it.
    ///
    /// # Errors
    /// A child process that cannot be signalled.
    pub async fn stop(self) -> Result<(), ProcessError> {
        match self.server {
            Server::Embedded(server) => server.stop().await,
            Server::Local(process) => {
                process.terminate(STOP_PATIENCE).await?;
            }
        }
        Ok(())
    }
}

async fn start_embedded(directory: &Path) -> Result<DynamoDb, DynamoDbError> {
    let database = open_indexed(&directory.join("dynamodb.sqlite")).map_err(DynamoDbError::Embedded)?;
    let server = EmbeddedServer::start(|listener, stop| async move {
        let serving = dynoxide::server::serve_with_shutdown(listener, database, stop.cancelled_owned()).await;
        if let Err(error) = serving {
            tracing::error!(%error, "embedded DynamoDB ended");
        }
    })
    .await
    .map_err(|error| DynamoDbError::Embedded(error.to_string()))?;
    Ok(DynamoDb { url: server.url(), server: Server::Embedded(server) })
}

/// Opens an empty database whose stream records have an index.
///
/// dynoxide has none: each write and each read of a stream scans every record there is, and after some
/// thousand writes nothing else is done (seen: 500 writes a second at the start, 250 after 4,000 writes). Its
/// file is ordinary SQLite, so the index is made from outside; its results do not depend on it.
fn open_indexed(file: &Path) -> Result<dynoxide::Database, String> {
    let path = file.to_str().ok_or_else(|| format!("{} is not UTF-8", file.display()))?;
    let database = dynoxide::Database::new(path).map_err(|error| error.to_string())?;
    // Nothing here needs to survive a power failure: no write waits for the disk.
    database.enable_bulk_loading().map_err(|error| error.to_string())?;
    let connection = rusqlite::Connection::open(file).map_err(|error| error.to_string())?;
    connection.execute_batch(STREAM_INDEX).map_err(|error| error.to_string())?;
    Ok(database)
}

async fn start_local(directory: &Path) -> Result<DynamoDb, DynamoDbError> {
    let jar_directory = find_jar_directory()?;
    let log = Log::create("dynamodb-local", directory)?;
    let mut attempts = START_ATTEMPTS;
    loop {
        attempts -= 1;
        match try_start_local(&jar_directory, directory, &log).await {
            // The port may have been taken between our look and its start.
            Err(DynamoDbError::NotReady { .. }) if attempts > 0 => {}
            outcome => return outcome,
        }
    }
}

async fn try_start_local(
    jar_directory: &Path,
    directory: &Path,
    log: &Arc<Log>,
) -> Result<DynamoDb, DynamoDbError> {
    let port = free_port()?;
    let mut command = Command::new("java");
    command
        // An in-memory database of a sandbox: bounded, and small enough for a small machine.
        .arg("-Xmx1g")
        .arg(format!("-Djava.library.path={}", jar_directory.join("DynamoDBLocal_lib").display()))
        .arg("-jar")
        .arg(jar_directory.join("DynamoDBLocal.jar"))
        .args(["-inMemory", "-sharedDb", "-disableTelemetry", "-port", &port.to_string()])
        .current_dir(directory);
    let mut process = Process::spawn("DynamoDB Local", command, log)?;
    let url = format!("http://127.0.0.1:{port}");
    let client = clients::dynamodb(&url, MASTER_REGION);
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let not_ready = |reason: String| Err(DynamoDbError::NotReady { reason, tail: log.tail().join("\n") });
        if let Some(status) = process.exit_status() {
            return not_ready(format!("it ended with {status}"));
        }
        if client.list_tables().send().await.is_ok() {
            return Ok(DynamoDb { url, server: Server::Local(process) });
        }
        if Instant::now() >= deadline {
            return not_ready(format!("nothing on port {port} for {START_PATIENCE:?}"));
        }
        // Another process starts: there is no event to wait for.
        sleep(POLL_INTERVAL).await;
    }
}

/// Looks where the set-up puts DynamoDB Local: in `.tools` of the checkout.
fn find_jar_directory() -> Result<PathBuf, DynamoDbError> {
    let mut searched = Vec::new();
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        searched.push(PathBuf::from(directory));
    } else {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."));
        searched.push(checkout.join(".tools/dynamodb-local"));
        searched.push(PathBuf::from(".tools/dynamodb-local"));
    }
    let found = searched.iter().find(|directory| directory.join("DynamoDBLocal.jar").is_file()).cloned();
    found.ok_or(DynamoDbError::JarMissing { searched })
}

/// Creates a table with a text partition key `key`, on-demand, with a stream of new and old images.
///
/// # Errors
/// DynamoDB refuses.
pub async fn create_table(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    key: &str,
) -> Result<(), DynamoDbError> {
    let failed = |reason: String| DynamoDbError::CreateTable { table: table.to_owned(), reason };
    let attribute = AttributeDefinition::builder()
        .attribute_name(key)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let schema = KeySchemaElement::builder()
        .attribute_name(key)
        .key_type(KeyType::Hash)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewAndOldImages)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    client
        .create_table()
        .table_name(table)
        .attribute_definitions(attribute)
        .key_schema(schema)
        .billing_mode(BillingMode::PayPerRequest)
        .stream_specification(stream)
        .send()
        .await
        .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
    Ok(())
}
