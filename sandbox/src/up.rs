//! `sandbox up`: the world, until it is told to stop; without traffic, or with as much as is asked for.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::daemon::STREAM;
use crate::measure::Probes;
use crate::workload::{self, Ledger, Progress, WorkloadError, WorkloadOptions};
use crate::world::{World, WorldError, WorldOptions};

/// How often the child processes are looked after.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Whoever writes the first rows.
const WRITERS: usize = 16;
/// They are written in this time, or not at all.
const WRITING_PATIENCE: Duration = Duration::from_secs(600);

/// Where everything listens: the content of the endpoints file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// URL of DynamoDB and DynamoDB Streams.
    pub dynamodb: String,
    /// The watched table.
    pub table: String,
    /// Each target region.
    pub regions: Vec<RegionEndpoints>,
}

/// One region's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionEndpoints {
    /// The region's name.
    pub name: String,
    /// URL of its Kinesis.
    pub kinesis: String,
    /// Its stream.
    pub stream: String,
    /// URL of its Redis.
    pub redis: String,
}

/// Why the world is not up any more.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// It did not come up, or did not stop cleanly.
    #[error(transparent)]
    World(#[from] WorldError),
    /// Rows could not be written.
    #[error(transparent)]
    Rows(#[from] WorkloadError),
    /// A task of the sandbox itself ended by a panic.
    #[error("a task of the sandbox failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The endpoints file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Endpoints {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A part of it ended by itself.
    #[error("{what}; logs are in {}\n{tails}", directory.display())]
    Ended {
        /// What ended, and how.
        what: String,
        /// Kept for the reader.
        directory: PathBuf,
        /// The last lines of the daemons.
        tails: String,
    },
}

/// What is in the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Profiles of about so many users are written before it is ready; 0: none.
    pub users: u64,
    /// Writes a second from then on; 0: none.
    pub rate: u32,
}

/// Brings up the world with its contents, writes the endpoints, and keeps it until `stop`.
///
/// # Errors
/// See [`UpError`]; every child process is stopped in any case.
pub async fn run(
    options: &WorldOptions,
    contents: Contents,
    file: &Path,
    stop: CancellationToken,
) -> Result<(), UpError> {
    let mut world = tokio::select! {
        world = World::start(options) => world?,
        () = stop.cancelled() => return Ok(()),
    };
    let outcome = async {
        tokio::select! {
            written = write_users(&world, contents.users) => written?,
            () = stop.cancelled() => return Ok(()),
        }
        let mut traffic = JoinSet::new();
        if contents.rate > 0 {
            traffic.spawn(write_on(&world, contents));
        }
        keep(&mut world, &mut traffic, file, &stop).await
    }
    .await;
    let stopped = world.stop().await;
    outcome?;
    Ok(stopped?)
}

/// As the demo's traffic would: most users have a row at the end, and some do not any more.
async fn write_users(world: &World, users: u64) -> Result<(), UpError> {
    if users == 0 {
        return Ok(());
    }
    write(world, WorkloadOptions { keys_min: users, ceiling: WRITING_PATIENCE, ..traffic(world, users) })
        .await?;
    Ok(())
}

/// The same users' profiles again and again, until it is dropped.
pub(crate) fn write_on(
    world: &World,
    contents: Contents,
) -> impl Future<Output = Result<Ledger, WorkloadError>> + Send + 'static {
    let options = WorkloadOptions {
        writes_min: u64::MAX,
        rate: contents.rate,
        ceiling: Duration::MAX,
        ..traffic(world, contents.users.max(WRITERS as u64))
    };
    write(world, options)
}

fn traffic(world: &World, users: u64) -> WorkloadOptions {
    WorkloadOptions {
        table: world.tables().first().cloned().unwrap_or_default(),
        writers: WRITERS.min(usize::try_from(users).unwrap_or(WRITERS)),
        duration: Duration::ZERO,
        writes_min: 0,
        keys_min: 0,
        keys_max: users.next_multiple_of(WRITERS as u64),
        keys_loaded: 0,
        rate: 0,
        ceiling: Duration::ZERO,
        seed: 1,
    }
}

fn write(
    world: &World,
    options: WorkloadOptions,
) -> impl Future<Output = Result<Ledger, WorkloadError>> + Send + 'static {
    let (probes, _) = Probes::channels(0);
    workload::run(world.dynamodb(), options, Arc::new(Progress::default()), probes, CancellationToken::new())
}

async fn keep(
    world: &mut World,
    traffic: &mut JoinSet<Result<Ledger, WorkloadError>>,
    file: &Path,
    stop: &CancellationToken,
) -> Result<(), UpError> {
    let endpoints = endpoints(world);
    let failed = |source| UpError::Endpoints { path: file.to_owned(), source };
    print(&endpoints, world, file).map_err(failed)?;
    write_atomically(&endpoints, file).map_err(failed)?;
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(written) = traffic.join_next() => drop(written??),
            _ = looks.tick() => if let Some(what) = world.ended() {
                world.keep_directory();
                let directory = world.directory().to_owned();
                return Err(UpError::Ended { what, directory, tails: world.tails() });
            },
        }
    }
}

fn endpoints(world: &World) -> Endpoints {
    let regions = world.regions().iter().map(|region| RegionEndpoints {
        name: region.name().to_owned(),
        kinesis: region.kinesis().url(),
        stream: STREAM.to_owned(),
        redis: region.redis().url(),
    });
    Endpoints {
        dynamodb: world.dynamodb_url().to_owned(),
        table: world.tables().first().cloned().unwrap_or_default(),
        regions: regions.collect(),
    }
}

fn print(endpoints: &Endpoints, world: &World, file: &Path) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "DynamoDB  {}  table {}", endpoints.dynamodb, endpoints.table)?;
    for region in &endpoints.regions {
        writeln!(output, "{}", region.name)?;
        writeln!(output, "  Kinesis {}  stream {}", region.kinesis, region.stream)?;
        writeln!(output, "  Redis   {}", region.redis)?;
    }
    writeln!(output, "logs      {}", world.directory().display())?;
    writeln!(output, "endpoints {}", file.display())?;
    for daemon in world.daemons() {
        writeln!(output, "configuration of {}  {}", daemon.name(), daemon.config().display())?;
    }
    for (daemon, url) in world.daemons().filter_map(|daemon| Some((daemon.name(), daemon.admin_url()?))) {
        writeln!(output, "page of {daemon}  {url}")?;
    }
    writeln!(output, "a bidder  sandbox bidder --endpoints {}", file.display())?;
    writeln!(output, "Any credentials and any region will do. Ctrl-C stops everything.")
}

/// Whoever waits for the file finds it whole or not at all.
fn write_atomically(endpoints: &Endpoints, file: &Path) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer_pretty(&mut temporary, endpoints)?;
    writeln!(temporary)?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_file_has_the_published_form() {
        let region = RegionEndpoints {
            name: "eu-west-1".to_owned(),
            kinesis: "http://127.0.0.1:2".to_owned(),
            stream: "warmcast".to_owned(),
            redis: "redis://127.0.0.1:3".to_owned(),
        };
        let endpoints = Endpoints {
            dynamodb: "http://127.0.0.1:1".to_owned(),
            table: "profiles".to_owned(),
            regions: vec![region],
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("endpoints.json");
        write_atomically(&endpoints, &file).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(
            read,
            serde_json::json!({
                "dynamodb": "http://127.0.0.1:1",
                "table": "profiles",
                "regions": [{
                    "name": "eu-west-1",
                    "kinesis": "http://127.0.0.1:2",
                    "stream": "warmcast",
                    "redis": "redis://127.0.0.1:3",
                }],
            })
        );
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "no temporary file stays");
    }
}
