//! Shutdown is an argument: `run(config, shutdown)` ends when the token is cancelled, so that tests drive it
//! as the signals do.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Waits for SIGTERM or SIGINT and cancels `shutdown`; a second signal ends the process at once. `stopping` is
/// what the log says then.
///
/// # Errors
/// When the process may not install a signal handler.
pub async fn on_signal(shutdown: CancellationToken, stopping: &str) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "{stopping}");
    shutdown.cancel();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::warn!("second signal: exiting at once; what was not checkpointed is read again");
    std::process::exit(EXIT_SECOND_SIGNAL);
}

/// What a shell reports for a process ended by SIGINT.
const EXIT_SECOND_SIGNAL: i32 = 130;
