//! Which faults there are, and which of them a request meets.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use super::capacity::Capacity;

/// What is wrong with a region. The default is nothing.
///
/// All of it is about every request, except for `capacity`, `entry_failures` and `entry_losses`, which are about the
/// entries of PutRecords.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Connections are refused, and those that are there end.
    pub refused: bool,
    /// Requests that are never answered; their connections stay open.
    pub black_hole: Option<Loss>,
    /// Requests whose connection is reset.
    pub resets: Option<Loss>,
    /// Requests that are answered with an error; the server does not see them.
    pub call_errors: Option<CallErrors>,
    /// How much later each request reaches the server.
    pub latency: Option<Latency>,
    /// What each shard of the target stream takes; entries beyond it are answered with
    /// `ProvisionedThroughputExceededException`.
    pub capacity: Option<Capacity>,
    /// The share of entries, 0 to 1, that are answered with `InternalFailure`.
    pub entry_failures: f64,
    /// The share of entries, 0 to 1, that are answered as taken and do not reach the server. No service does that: it
    /// stands for whatever loses data behind everybody's back, which only a repair mends.
    pub entry_losses: f64,
}

impl Faults {
    /// Nothing is answered and nothing reaches the server.
    #[must_use]
    pub fn black_hole() -> Self {
        Self { black_hole: Some(Loss { share: 1.0, reaching: 0.0 }), ..Self::default() }
    }
}

/// Requests whose answers do not come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The share of requests that it happens to, 0 to 1.
    pub share: f64,
    /// The share of these that reach the server, 0 to 1: it does what they say, and whoever tries again does it twice.
    pub reaching: f64,
}

/// Requests that are answered with an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallErrors {
    /// The share of requests, 0 to 1.
    pub share: f64,
    /// The error.
    pub error: CallError,
}

/// An error of a whole call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// 500 `InternalFailure`.
    InternalFailure,
    /// 503 `ServiceUnavailable`.
    ServiceUnavailable,
    /// 400 `LimitExceededException`.
    LimitExceeded,
}

impl CallError {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::InternalFailure => 500,
            Self::ServiceUnavailable => 503,
            Self::LimitExceeded => 400,
        }
    }

    pub(super) fn code(self) -> &'static str {
        match self {
            Self::InternalFailure => "InternalFailure",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::LimitExceeded => "LimitExceededException",
        }
    }
}

/// A delay before the server sees a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The least.
    pub least: Duration,
    /// So much more at most, evenly distributed.
    pub jitter: Duration,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is never answered.
    Swallowed { reaches: bool },
    /// Its connection is reset.
    Reset { reaches: bool },
    /// It is answered with an error.
    Error(CallError),
    /// It passes, so much later.
    Passes { after: Duration },
}

impl Faults {
    /// Decides for one request. The first fault in the order of the fields that the dice give it is the one it meets.
    pub(super) fn fate(&self, dice: &mut impl Rng) -> Fate {
        if let Some(loss) = self.black_hole.filter(|loss| happens(loss.share, dice)) {
            return Fate::Swallowed { reaches: happens(loss.reaching, dice) };
        }
        if let Some(loss) = self.resets.filter(|loss| happens(loss.share, dice)) {
            return Fate::Reset { reaches: happens(loss.reaching, dice) };
        }
        if let Some(errors) = self.call_errors.filter(|errors| happens(errors.share, dice)) {
            return Fate::Error(errors.error);
        }
        let after = self.latency.map_or(Duration::ZERO, |latency| {
            latency.least + latency.jitter.mul_f64(dice.random_range(0.0..=1.0))
        });
        Fate::Passes { after }
    }

    /// Every record is lost, and whoever sends them is told that all is well.
    #[must_use]
    pub fn losing_records() -> Self {
        Self { entry_losses: 1.0, ..Self::default() }
    }

    /// Whether entries of PutRecords may be kept from the server.
    pub(super) fn keeps_entries(&self) -> bool {
        self.capacity.is_some() || self.entry_failures > 0.0 || self.entry_losses > 0.0
    }
}

/// Whether it happens this time. A share beyond 0 to 1 counts as the nearest of these.
pub(super) fn happens(share: f64, dice: &mut impl Rng) -> bool {
    // No draw for what is certain: a fault that is always on leaves the dice of the others as they are.
    share >= 1.0 || (share > 0.0 && dice.random_bool(share))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn fates(faults: &Faults, seed: u64) -> Vec<Fate> {
        let mut dice = StdRng::seed_from_u64(seed);
        (0..10_000).map(|_| faults.fate(&mut dice)).collect()
    }

    fn share(fates: &[Fate], is: impl Fn(&Fate) -> bool) -> f64 {
        fates.iter().filter(|fate| is(fate)).count() as f64 / fates.len() as f64
    }

    #[test]
    fn without_faults_everything_passes_at_once() {
        assert_eq!(
            share(&fates(&Faults::default(), 1), |fate| *fate == Fate::Passes { after: Duration::ZERO }),
            1.0
        );
    }

    #[test]
    fn shares_are_kept_and_the_same_seed_gives_the_same_fates() {
        let faults = Faults {
            black_hole: Some(Loss { share: 0.2, reaching: 0.5 }),
            call_errors: Some(CallErrors { share: 0.25, error: CallError::LimitExceeded }),
            ..Faults::default()
        };
        let fates = fates(&faults, 7);
        let near = |share: f64, expected: f64| (share - expected).abs() < 0.02;
        assert!(near(share(&fates, |fate| matches!(fate, Fate::Swallowed { .. })), 0.2));
        assert!(near(share(&fates, |fate| matches!(fate, Fate::Swallowed { reaches: true })), 0.1));
        assert!(near(share(&fates, |fate| matches!(fate, Fate::Error(CallError::LimitExceeded))), 0.2));
        assert_eq!(fates, self::fates(&faults, 7));
        assert_ne!(fates, self::fates(&faults, 8));
    }

    #[test]
    fn latency_is_between_its_least_and_its_most() {
        let [least, jitter] = [20, 30].map(Duration::from_millis);
        let faults = Faults { latency: Some(Latency { least, jitter }), ..Faults::default() };
        let delays: Vec<Duration> = fates(&faults, 3)
            .into_iter()
            .map(|fate| match fate {
                Fate::Passes { after } => after,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(delays.iter().all(|delay| (least..=least + jitter).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < least + jitter / 4));
        assert!(delays.iter().any(|delay| *delay > least + jitter / 2));
    }

    #[test]
    fn a_black_hole_has_everything() {
        let all = fates(&Faults::black_hole(), 1);
        assert_eq!(share(&all, |fate| *fate == Fate::Swallowed { reaches: false }), 1.0);
    }
}
