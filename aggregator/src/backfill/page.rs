//! A page of rows, and how it is asked for.

use std::time::Duration;

use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::retry::{Backoff, Class};

use super::place::At;
use super::rows::Row;

/// A table that answers nothing for so long ends the command.
const READ_PATIENCE: Duration = Duration::from_secs(120);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// What a strongly consistent read found.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    /// Rows that were asked for and are not there.
    pub(super) absent: u64,
    /// When the read began: taken before the request was sent.
    pub(super) read_ms: u64,
    /// The same, on our clock that does not jump.
    pub(super) began: Instant,
    /// Read request units that it took.
    pub(super) units: f64,
    /// Where its part goes on when it is sent.
    pub(super) next: At,
}

/// Calls until it is answered, or until it is clear that it will not be. Each try is a read of its own.
pub(super) async fn read<T, F>(mut call: impl FnMut() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let (began, mut pauses) = (Instant::now(), Backoff::new(PAUSE_FIRST, PAUSE_MAX));
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let passes = matches!(error.class, Class::Throttled | Class::Transient);
        if !passes || began.elapsed() >= READ_PATIENCE {
            return Err(error);
        }
        tracing::debug!(%error, "reading again");
        tokio::time::sleep(pauses.next_pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: Class) -> CallError {
        CallError { operation: "Scan", target: "t".to_owned(), class, code: None, message: String::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_for_a_while_and_what_does_not_is_not() {
        let mut tries = 0;
        let answered = read(|| {
            tries += 1;
            std::future::ready(if tries < 5 { Err(error(Class::Throttled)) } else { Ok(tries) })
        });
        assert_eq!(answered.await.unwrap(), 5);
        let mut tries = 0;
        let denied = read(|| {
            tries += 1;
            std::future::ready(Err::<(), _>(error(Class::Denied)))
        });
        assert!(denied.await.is_err());
        assert_eq!(tries, 1);
        let began = Instant::now();
        assert!(read(|| std::future::ready(Err::<(), _>(error(Class::Transient)))).await.is_err());
        assert!((READ_PATIENCE..READ_PATIENCE + 2 * PAUSE_MAX).contains(&began.elapsed()));
    }
}
