//! `sandbox screenshot`: what the admin page looks like under load, while one of four regions is cut off.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::browser::{Browser, BrowserError, Viewport};
use crate::faults::Faults;
use crate::up::{Contents, write_on};
use crate::workload::{Ledger, WorkloadError};
use crate::world::{World, WorldError, WorldOptions};

const REGIONS: usize = 4;
/// Which of them is cut off.
const CUT: usize = 2;
/// Users whose profiles are written.
const USERS: u64 = 2_000;
/// Until the page has something to show.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pictures: a desk's, in light, and a phone's, in dark.
const PICTURES: [(&str, Viewport); 2] = [
    ("admin.png", Viewport { width: 1280, height: 860, is_dark: false }),
    ("admin-phone.png", Viewport { width: 360, height: 1_240, is_dark: true }),
];

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum ScreenshotError {
    /// The world did not come up.
    #[error(transparent)]
    World(#[from] WorldError),
    /// Nothing could be written into it.
    #[error(transparent)]
    Load(#[from] WorkloadError),
    /// The browser.
    #[error(transparent)]
    Browser(#[from] BrowserError),
    /// The aggregator has no admin endpoint.
    #[error("the aggregator does not say where its admin endpoint is")]
    NoEndpoint,
    /// A task of the sandbox itself ended by a panic.
    #[error("a task of the sandbox failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// It was stopped.
    #[error("stopped by a signal before there were pictures")]
    Interrupted,
    /// A picture cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Writes `rate` changes a second for `duration`, cuts a region off, writes on for `duration`, and takes the pictures.
///
/// # Errors
/// See [`ScreenshotError`]; every child process is stopped in any case.
pub async fn run(
    rate: u32,
    duration: Duration,
    directory: &Path,
    stop: CancellationToken,
) -> Result<(), ScreenshotError> {
    let options = WorldOptions { regions: REGIONS, fault_proxies: true, ..WorldOptions::default() };
    let world = tokio::select! {
        world = World::start(&options) => world?,
        () = stop.cancelled() => return Err(ScreenshotError::Interrupted),
    };
    let taken = tokio::select! {
        taken = take(&world, rate, duration, directory) => taken,
        () = stop.cancelled() => Err(ScreenshotError::Interrupted),
    };
    let stopped = world.stop().await;
    taken?;
    Ok(stopped?)
}

async fn take(world: &World, rate: u32, duration: Duration, directory: &Path) -> Result<(), ScreenshotError> {
    let mut traffic: JoinSet<Result<Ledger, WorkloadError>> = JoinSet::new();
    traffic.spawn(write_on(world, Contents { users: USERS, rate }));
    let pictures = pictures(world, duration, directory);
    tokio::select! {
        taken = pictures => taken,
        Some(ended) = traffic.join_next() => Err(ended?.err().map_or(ScreenshotError::Interrupted, Into::into)),
    }
}

async fn pictures(world: &World, duration: Duration, directory: &Path) -> Result<(), ScreenshotError> {
    let url = world.aggregator().admin_url().ok_or(ScreenshotError::NoEndpoint)?;
    let mut browser = Browser::start().await?;
    // The fleet is looked at while somebody looks.
    browser.open(&url).await?;
    sleep(duration).await;
    if let Some(region) = world.regions().get(CUT).and_then(|region| region.faults()) {
        region.set(Faults { refused: true, ..Faults::default() });
        region.cut_connections();
    }
    sleep(duration).await;
    for (name, viewport) in PICTURES {
        browser.look(viewport).await?;
        browser.open(&url).await?;
        let shown = "document.querySelectorAll('#regions article').length === 4 \
                     && document.querySelector('#regions').textContent.includes('parked on')";
        browser.until(shown, PATIENCE).await?;
        let path = directory.join(name);
        let picture = browser.picture().await?;
        std::fs::write(&path, picture).map_err(|source| ScreenshotError::Write { path, source })?;
    }
    Ok(browser.stop().await?)
}
