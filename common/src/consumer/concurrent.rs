//! Many small calls at once, but not too many.

use std::future::Future;

use tokio::task::JoinSet;

/// Runs every future, at most `in_flight_max` at a time, and gathers what they give, in no order. The first error
/// ends it; what is under way then is dropped.
pub(super) async fn for_each<T, E, F>(
    futures: impl IntoIterator<Item = F>,
    in_flight_max: usize,
) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut waiting = futures.into_iter();
    let mut running = JoinSet::new();
    let mut gathered = Vec::new();
    loop {
        while running.len() < in_flight_max
            && let Some(next) = waiting.next()
        {
            running.spawn(next);
        }
        match running.join_next().await {
            None => return Ok(gathered),
            Some(Ok(answer)) => gathered.push(answer?),
            Some(Err(ended)) => {
                if let Ok(panic) = ended.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}
