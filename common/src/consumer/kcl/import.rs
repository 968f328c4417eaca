//! The import itself: read, decide, report, write.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use tokio::time::Instant;

use super::super::concurrent::for_each;
use super::ImportArgs;
use super::lease::KclLease;
use super::plan::{Planned, plan};
use super::report::Report;
use super::stream::{KclStream, Sameness, SelectError, select};
use super::table::{Contents, LeaseTable, at_work};
use crate::aws::sdk_config;
use crate::clock::now_ms;
use crate::config::ServiceConfig;
use crate::consumer::store::{StateStore, StoreError, StreamState};
use crate::consumer::{Checkpoint, StreamSource};
use crate::daemon::{Outcome, print};
use crate::retry::{Backoff, Class};

/// Leases that are written side by side.
const WRITES_IN_FLIGHT_MAX: usize = 16;
/// How long a call is tried that a service throttles or does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where an import goes to.
pub struct Import<'a, S> {
    /// The stream.
    pub source: &'a S,
    /// The state table.
    pub store: &'a StateStore,
    /// Whether the state table is created if it is missing.
    pub create: bool,
    /// The DynamoDB table whose stream it is: the stream is assigned a generation, as a running daemon does it.
    pub table: Option<&'a str>,
}

/// Why nothing was imported, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A call failed, or an item of the state table is not one of ours.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream cannot be told.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// There is nothing to import.
    #[error(
        "table {table} has no lease of KCL ({others} items are something else{})",
        example(first_unreadable)
    )]
    NoLeases {
        /// The table.
        table: String,
        /// How many of its items are something else.
        others: usize,
        /// What is wrong with one that might have been meant for a lease.
        first_unreadable: Option<String>,
    },
    /// Somebody renews the leases.
    #[error(
        "the KCL application still runs: {} renewed its leases within {watch_ms} ms. Stop it first; two readers are \
         the most that a shard of DynamoDB Streams is made for. (--force imports nevertheless)",
        owners.join(", ")
    )]
    Running {
        /// The workers.
        owners: Vec<String>,
        /// How long it was watched.
        watch_ms: u128,
    },
    /// The leases are of another stream, by its name.
    #[error(
        "the leases are of stream {theirs}, and what we read is {ours}: checkpoints of one stream mean nothing in \
         another, nor after it was enabled again or made anew. Begin it without an import"
    )]
    OtherStream {
        /// The application's.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The leases are of another stream, by its shards.
    #[error(
        "none of the {leases} shards that KCL has leases of is in {stream}: its stream was disabled and enabled \
         again (or made anew) since, it is the stream of something else, or the application was stopped for longer \
         than the stream keeps its records. The checkpoints mean nothing there: begin it without an import"
    )]
    NoShardKnown {
        /// How many leases KCL has.
        leases: usize,
        /// Our stream.
        stream: String,
    },
    /// Our state is in the way.
    #[error(
        "state table {table} has {conflicts} leases of {stream} that this import would not write{}: a daemon has \
         consumed the stream already. Nothing was written. To begin again from KCL's checkpoints, stop the daemon \
         and delete the items with pk = \"stream#{stream}\"",
        begun_at.as_ref().map(|start| format!(", and has begun it at {start}")).unwrap_or_default()
    )]
    Conflict {
        /// The state table.
        table: String,
        /// The stream.
        stream: String,
        /// How many.
        conflicts: usize,
        /// Where the stream was begun, if not where an import begins it.
        begun_at: Option<Checkpoint>,
    },
    /// Somebody else writes leases at the same time.
    #[error(
        "a lease of {shard} appeared while the leases were written: a daemon runs already. Stop it, and look at the \
         dry run again"
    )]
    Appeared {
        /// The shard.
        shard: String,
    },
    /// The report could not be printed.
    #[error("the report could not be printed: {0}")]
    Print(#[from] std::io::Error),
}

fn example(unreadable: &Option<String>) -> String {
    unreadable.as_ref().map_or_else(String::new, |unreadable| format!("; {unreadable}"))
}

/// What was read of the application.
struct Application {
    stream: Option<KclStream>,
    leases: Vec<KclLease>,
    contents: Contents,
    /// Those that renewed leases while we looked.
    owners: Vec<String>,
}

impl<S: StreamSource> Import<'_, S> {
    /// Takes the leases over as `args` say, and prints the report. `dynamodb` is how the daemon reaches its state.
    ///
    /// # Errors
    /// When it was refused, and nothing was written; when a call fails for long.
    pub async fn run(&self, args: &ImportArgs, dynamodb: &ServiceConfig) -> Result<Outcome, ImportError> {
        let report = self.import(args, dynamodb).await?;
        print(&report.render(args.output))?;
        if report.is_refused() {
            return Err(ImportError::Conflict {
                conflicts: report.totals().conflicts,
                table: report.state_table,
                stream: report.stream,
                begun_at: report.plan.begun_at,
            });
        }
        Ok(if report.has_problems() { Outcome::Problems } else { Outcome::Done })
    }

    /// Takes the leases over as `args` say, unless [`Report::is_refused`]. An import that was stopped half-way can
    /// be run again.
    ///
    /// # Errors
    /// When nothing can be said lease by lease; when a call fails for long.
    pub async fn import(&self, args: &ImportArgs, dynamodb: &ServiceConfig) -> Result<Report, ImportError> {
        let client = Client::new(&sdk_config(&args.service(dynamodb)).await);
        let report = self.prepare(args, &LeaseTable::new(client, &args.kcl_table)).await?;
        if !args.dry_run && !report.is_refused() {
            self.write(&report).await?;
        }
        Ok(report)
    }

    /// Reads everything and decides. Writes nothing.
    async fn prepare(&self, args: &ImportArgs, table: &LeaseTable) -> Result<Report, ImportError> {
        let application = read_application(args, table).await?;
        let ours = self.source.stream().to_owned();
        let mut warnings = Vec::new();
        if !application.owners.is_empty() {
            let (owners, watch_ms) = (application.owners, args.watch().as_millis());
            let running = ImportError::Running { owners, watch_ms };
            if !args.dry_run && !args.force {
                return Err(running);
            }
            warnings.push(running.to_string());
        }
        if let Some(stream) = &application.stream {
            let theirs = stream.to_string();
            match stream.sameness(&ours) {
                Sameness::Same => {}
                Sameness::OtherEpoch => warnings.push(format!(
                    "the application was told another time of creation: {theirs} is taken for {ours}; if the stream \
                     was made anew since, its checkpoints mean nothing"
                )),
                Sameness::Other => return Err(ImportError::OtherStream { theirs, ours }),
            }
        }
        let listing = patiently(async || Ok(self.source.shards().await?)).await?.shards;
        let listed: HashSet<&str> = listing.iter().map(|shard| shard.id.as_str()).collect();
        if !application.leases.iter().any(|lease| listed.contains(lease.shard.as_str())) {
            let leases = application.leases.len();
            return Err(ImportError::NoShardKnown { leases, stream: ours });
        }
        let plan = plan(&application.leases, &listing, &self.state().await?, now_ms());
        Ok(Report {
            kcl_table: table.name().to_owned(),
            kcl_stream: application.stream.map(|stream| stream.to_string()),
            state_table: self.store.table().to_owned(),
            stream: ours,
            dry_run: args.dry_run,
            plan,
            unreadable: application.contents.unreadable,
            others: application.contents.others,
            warnings,
        })
    }

    /// What we have of the stream; nothing while there is no state table.
    async fn state(&self) -> Result<StreamState, ImportError> {
        match patiently(async || self.store.stream_state(self.source.stream(), true).await).await {
            Err(StoreError::Call(error)) if error.class == Class::NotFound => Ok(StreamState::default()),
            state => Ok(state?),
        }
    }

    /// Writes the leases, parents before children, and then that the stream is begun: from then on our consumer
    /// reads every shard without a lease from its start.
    async fn write(&self, report: &Report) -> Result<(), ImportError> {
        let stream = self.source.stream();
        patiently(async || Ok(self.store.ensure_table(self.create).await?)).await?;
        if let Some(table) = self.table {
            patiently(async || self.store.generation(table, stream).await).await?;
        }
        for layer in report.plan.layers() {
            let write =
                |planned: &&Planned| write_lease(self.store.clone(), stream.to_owned(), (*planned).clone());
            for_each(layer.iter().map(write), WRITES_IN_FLIGHT_MAX).await?;
        }
        Ok(patiently(async || Ok(self.store.begin_stream(stream, &Checkpoint::TrimHorizon).await?)).await?)
    }
}

async fn write_lease(store: StateStore, stream: String, planned: Planned) -> Result<(), ImportError> {
    let Planned { shard, checkpoint, begin, .. } = &planned;
    let created =
        patiently(async || Ok(store.create_lease(&stream, shard, checkpoint, *begin).await?)).await?;
    if created.is_some() {
        return Ok(());
    }
    // Our own, if the answer to an earlier try was lost.
    let there = patiently(async || store.lease(&stream, &shard.id).await).await?;
    match there.is_some_and(|lease| planned.is(&lease)) {
        true => Ok(()),
        false => Err(ImportError::Appeared { shard: shard.id.clone() }),
    }
}

/// Reads the leases, and again after a while if somebody may be renewing them.
async fn read_application(args: &ImportArgs, table: &LeaseTable) -> Result<Application, ImportError> {
    let read = async || {
        let contents = patiently(async || Ok(table.read().await?)).await?;
        if contents.leases.is_empty() {
            return Err(ImportError::NoLeases {
                table: table.name().to_owned(),
                others: contents.others,
                first_unreadable: contents.unreadable.first().map(ToString::to_string),
            });
        }
        let (stream, leases) = select(contents.leases.clone(), args.kcl_stream.as_deref())?;
        Ok(Application { stream, leases, contents, owners: Vec::new() })
    };
    let first = read().await?;
    if first.leases.iter().all(|lease| lease.owner.is_none()) {
        return Ok(first);
    }
    tracing::info!(watch_ms = args.watch_ms, "looking whether the KCL application still renews its leases");
    tokio::time::sleep(args.watch()).await;
    let second = read().await?;
    Ok(Application { owners: at_work(&first.leases, &second.leases), ..second })
}

/// Tries for a while where a later try may succeed: this is a command, whose user waits.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let (deadline, mut pauses) = (Instant::now() + PATIENCE, Backoff::default());
    loop {
        match call().await {
            Err(StoreError::Call(error))
                if matches!(error.class, Class::Throttled | Class::Transient)
                    && Instant::now() < deadline =>
            {
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(pauses.next_pause()).await;
            }
            ended => return ended,
        }
    }
}
