//! Logging in again on connections that are open, before the server cuts them.
//!
//! ElastiCache cuts a connection 12 hours after it last logged in with a token. So it logs in again half-way, between
//! two pipelines; what fails is tried again after a growing pause; and a connection for which that fails for hours is
//! replaced by a new one while it still works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Value, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep_until};

use crate::{
    config::{Address, Iam},
    login::Login,
    reply::{describe, describe_failure},
};

/// The first pause after a failure, and the longest; shorter where the interval itself is short.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What is known of a connection's login.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    /// When it last logged in successfully.
    logged_in: Instant,
    /// How often it failed since, and when it did last.
    failures: u32,
    failed: Instant,
    /// From 0 to 1: where in the span it does it, so that connections that were opened together do not all at once.
    spread: f64,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Decision {
    /// When to log in again; in the past: now.
    renew_at: Instant,
    /// A new connection should take the place of this one.
    is_worn: bool,
}

/// When a connection logs in again, and whether it is to be replaced.
fn decide(iam: &Iam, state: &State, now: Instant) -> Decision {
    let age = now.saturating_duration_since(state.logged_in);
    let renew_at = match state.failures {
        0 => state.logged_in + iam.renew_after - (iam.renew_after / 8).mul_f64(state.spread),
        failures => {
            let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
            let longest = LONGEST_PAUSE.min(iam.renew_after / 8);
            // From half to all of it.
            state.failed + pause.min(longest).mul_f64(0.5 + state.spread / 2.0)
        }
    };
    Decision { renew_at, is_worn: age >= iam.replace_after }
}

/// Logs a connection in again and again, for as long as it is open.
pub(crate) async fn keep(
    login: Arc<Login>,
    connection: MultiplexedConnection,
    address: Address,
    is_worn: Arc<AtomicBool>,
) {
    let Some(tokens) = login.tokens() else { return };
    let now = Instant::now();
    let mut state = State { logged_in: now, failures: 0, failed: now, spread: fastrand::f64() };
    loop {
        let decision = decide(&tokens.iam, &state, Instant::now());
        if decision.is_worn && !is_worn.swap(true, Ordering::Relaxed) {
            tracing::error!(
                %address,
                "a connection to the cache could not log in again for hours and is to be replaced: check the AWS \
                 credentials, and elasticache:Connect"
            );
        }
        sleep_until(decision.renew_at).await;
        match renew(&login, connection.clone(), state.logged_in).await {
            Ok(logged_in) => {
                state = State { logged_in, failures: 0, failed: logged_in, spread: fastrand::f64() };
                is_worn.store(false, Ordering::Relaxed);
                tracing::debug!(%address, "a connection to the cache logged in again");
            }
            Err(reason) => {
                if state.failures == 0 {
                    tracing::warn!(%address, %reason, "a connection to the cache cannot log in again yet; it is tried again");
                }
                state.failures = state.failures.saturating_add(1);
                (state.failed, state.spread) = (Instant::now(), fastrand::f64());
            }
        }
    }
}

/// Logs in with a token that is newer than the last login.
async fn renew(
    login: &Login,
    mut connection: MultiplexedConnection,
    last: Instant,
) -> Result<Instant, String> {
    let Some(tokens) = login.tokens() else { return Ok(last) };
    let token = tokens.get(Some(last)).await.map_err(|error| error.to_string())?;
    let asked = Instant::now();
    let mut command = redis::cmd("AUTH");
    command.arg(&tokens.user).arg(token.expose());
    match connection.send_packed_command(&command).await {
        Ok(Value::ServerError(error)) => {
            login.refused().await;
            Err(describe(&error))
        }
        Ok(_) => Ok(asked),
        Err(error) => Err(describe_failure(&error)),
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
    use proptest::prelude::*;

    use super::*;
    use crate::config::CUT_AFTER;

    fn iam() -> Iam {
        let credentials = Credentials::from_keys("a", "b", None);
        Iam::new("cache", "eu-west-1", SharedCredentialsProvider::new(credentials))
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_hours(hours)
    }

    #[test]
    fn a_connection_logs_in_again_half_way_and_not_all_at_once() {
        let start = Instant::now();
        let state = |spread| State { logged_in: start, failures: 0, failed: start, spread };
        assert_eq!(decide(&iam(), &state(0.0), start).renew_at, start + hours(6));
        assert_eq!(decide(&iam(), &state(1.0), start).renew_at, start + Duration::from_mins(5 * 60 + 15));
        assert!(!decide(&iam(), &state(0.0), start + hours(6)).is_worn);
    }

    #[test]
    fn a_failure_is_tried_again_after_pauses_that_grow_and_in_the_end_the_connection_is_replaced() {
        let start = Instant::now();
        let failed = start + hours(7);
        let state = |failures| State { logged_in: start, failures, failed, spread: 1.0 };
        let pauses =
            [1, 2, 3, 9, 10, 40].map(|count| decide(&iam(), &state(count), failed).renew_at - failed);
        assert_eq!(pauses.map(|pause| pause.as_secs()), [1, 2, 4, 256, 300, 300]);
        assert!(!decide(&iam(), &state(9), start + hours(11) - Duration::from_secs(1)).is_worn);
        assert!(decide(&iam(), &state(9), start + hours(11)).is_worn);
    }

    proptest! {
        /// Whatever fails: it is tried often, and the connection is known to be worn before it is cut.
        #[test]
        fn a_connection_is_renewed_or_replaced_before_it_is_cut(spread in 0.0..=1.0_f64, failures in 0..100_u32) {
            let start = Instant::now();
            let mut state = State { logged_in: start, failures: 0, failed: start, spread };
            let mut now = start;
            let mut worn_at = None;
            for failure in 1..=10_000 {
                let decision = decide(&iam(), &state, now);
                prop_assert!(decision.renew_at >= now && decision.renew_at <= now + hours(6));
                if decision.is_worn {
                    worn_at = Some(now);
                    break;
                }
                now = decision.renew_at;
                (state.failures, state.failed) = (failures + failure, now);
            }
            prop_assert!(worn_at.is_some_and(|at| at < start + CUT_AFTER - Duration::from_mins(50)));
        }
    }
}
