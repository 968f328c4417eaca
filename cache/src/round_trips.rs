//! Tells of each round trip to the servers, to whoever wants to count them.
//!
//! What is counted, and how it is shown, is the program's affair: programs that only read have nothing of it. A round trip
//! has tens to hundreds of commands under load, so to tell of it costs each of them next to nothing.

use std::{fmt, sync::Arc, time::Duration};

/// A round trip that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// How many commands it had.
    pub commands: usize,
    /// How long it took; the wait for a place on the connection is not part of it.
    pub took: Duration,
    /// Whether it brought answers, whatever these say; otherwise there were none in time, or the connection broke.
    pub is_answered: bool,
}

/// Who is told of round trips; by default nobody. Clones are the same one.
#[derive(Clone, Default)]
pub struct RoundTrips(Option<Arc<dyn Fn(RoundTrip) + Send + Sync>>);

impl RoundTrips {
    /// `tell` is told of each, where it ended: it must not wait for anything.
    pub fn told_to(tell: impl Fn(RoundTrip) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn ended(&self, commands: usize, took: Duration, is_answered: bool) {
        if let Some(tell) = &self.0 {
            tell(RoundTrip { commands, took, is_answered });
        }
    }
}

impl fmt::Debug for RoundTrips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoundTrips").field(&self.0.is_some()).finish()
    }
}
