//! Scripted faults: which calls they hit, when, and what the caller then sees.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::calls::Operation;
use super::error::ErrorCode;

/// What a caller sees instead of its answer, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This error.
    Error(ErrorCode),
    /// The answer, so much later (by the real clock).
    Delay(Duration),
    /// The connection ends before a byte of the answer.
    Cut,
    /// The connection ends in the middle of the answer's body.
    CutBody,
    /// Status 200 and a body that is not JSON.
    Garbage,
}

/// Which calls a fault hits. Each condition narrows it.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    operation: Option<Operation>,
    stream: Option<String>,
    shard: Option<String>,
    reader: Option<String>,
}

impl Calls {
    /// Every call.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// The calls of one operation.
    #[must_use]
    pub fn of(operation: Operation) -> Self {
        Self { operation: Some(operation), ..Self::default() }
    }

    /// Only those about the stream with this ARN.
    #[must_use]
    pub fn stream(mut self, arn: &str) -> Self {
        self.stream = Some(arn.to_owned());
        self
    }

    /// Only those about this shard: its reads, its iterators, the describes that ask for its children.
    #[must_use]
    pub fn shard(mut self, id: &str) -> Self {
        self.shard = Some(id.to_owned());
        self
    }

    /// Only those signed with this access key id.
    #[must_use]
    pub fn reader(mut self, access_key_id: &str) -> Self {
        self.reader = Some(access_key_id.to_owned());
        self
    }

    fn contain(&self, call: &CallTarget<'_>) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        self.operation.is_none_or(|operation| operation == call.operation)
            && fits(&self.stream, call.stream)
            && fits(&self.shard, call.shard)
            && fits(&self.reader, Some(call.reader))
    }
}

/// What a call is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallTarget<'a> {
    pub(super) operation: Operation,
    pub(super) stream: Option<&'a str>,
    pub(super) shard: Option<&'a str>,
    pub(super) reader: &'a str,
}

/// Which of those calls are hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// The next so many.
    Next(u32),
    /// All, until the faults are cleared.
    Always,
    /// Each with this probability, drawn from this seed.
    Share {
        /// From 0 to 1.
        probability: f64,
        /// The same seed and the same order of calls hit the same calls.
        seed: u64,
    },
}

/// Calls are left without an answer until this is dropped; then their connections are cut.
#[derive(Debug)]
#[must_use = "calls hang only as long as this is held"]
pub struct Hang {
    _release: DropGuard,
}

/// What to do with a call.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Fault(Fault),
    Hang(CancellationToken),
}

#[derive(Debug)]
struct Plan {
    calls: Calls,
    left: Left,
    effect: Effect,
}

#[derive(Debug)]
enum Left {
    Times(u32),
    Always,
    Share { probability: f64, random: Box<StdRng> },
}

/// The faults in force. The first plan that hits a call decides.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Plan>);

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault, calls: Calls, when: When) {
        self.push(Effect::Fault(fault), calls, when);
    }

    pub(super) fn hang(&mut self, calls: Calls, when: When) -> Hang {
        let released = CancellationToken::new();
        self.push(Effect::Hang(released.clone()), calls, when);
        Hang { _release: released.drop_guard() }
    }

    fn push(&mut self, effect: Effect, calls: Calls, when: When) {
        let left = match when {
            When::Next(times) => Left::Times(times),
            When::Always => Left::Always,
            When::Share { probability, seed } => Left::Share {
                probability: probability.clamp(0.0, 1.0),
                random: Box::new(StdRng::seed_from_u64(seed)),
            },
        };
        self.0.push(Plan { calls, left, effect });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What happens to this call.
    pub(super) fn strike(&mut self, call: &CallTarget<'_>) -> Option<Effect> {
        self.0.retain(|plan| {
            let is_released = matches!(&plan.effect, Effect::Hang(released) if released.is_cancelled());
            !is_released && !matches!(plan.left, Left::Times(0))
        });
        self.0.iter_mut().find_map(|plan| {
            let hit = plan.calls.contain(call)
                && match &mut plan.left {
                    Left::Times(left) => {
                        *left -= 1;
                        true
                    }
                    Left::Always => true,
                    Left::Share { probability, random } => random.random_bool(*probability),
                };
            hit.then(|| plan.effect.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, shard: &'static str, reader: &'static str) -> CallTarget<'static> {
        CallTarget { operation, stream: Some("arn"), shard: Some(shard), reader }
    }

    #[test]
    fn a_fault_hits_the_calls_it_names_and_no_others() {
        let mut faults = Faults::default();
        let calls = Calls::of(Operation::GetRecords).stream("arn").shard("a").reader("w1");
        faults.inject(Fault::Cut, calls, When::Always);
        assert!(faults.strike(&call(Operation::GetRecords, "a", "w1")).is_some());
        assert!(faults.strike(&call(Operation::GetShardIterator, "a", "w1")).is_none());
        assert!(faults.strike(&call(Operation::GetRecords, "b", "w1")).is_none());
        assert!(faults.strike(&call(Operation::GetRecords, "a", "w2")).is_none());
        faults.clear();
        assert!(faults.strike(&call(Operation::GetRecords, "a", "w1")).is_none());
    }

    #[test]
    fn the_next_calls_are_hit_and_then_the_next_plan_takes_over() {
        let mut faults = Faults::default();
        faults.inject(Fault::Cut, Calls::any(), When::Next(2));
        faults.inject(Fault::Garbage, Calls::any(), When::Next(1));
        let mut seen = || match faults.strike(&call(Operation::GetRecords, "a", "w"))? {
            Effect::Fault(fault) => Some(fault),
            Effect::Hang(_) => None,
        };
        assert_eq!(
            [seen(), seen(), seen(), seen()],
            [Some(Fault::Cut), Some(Fault::Cut), Some(Fault::Garbage), None]
        );
    }

    #[test]
    fn a_share_is_the_same_for_the_same_seed() {
        let hits = |seed| {
            let mut faults = Faults::default();
            faults.inject(Fault::Cut, Calls::any(), When::Share { probability: 0.3, seed });
            (0..1_000)
                .map(|_| faults.strike(&call(Operation::GetRecords, "a", "w")).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(hits(7), hits(7));
        assert_ne!(hits(7), hits(8));
        let share = hits(7).iter().filter(|hit| **hit).count();
        assert!((200..400).contains(&share), "{share}");
    }

    #[test]
    fn calls_hang_while_the_handle_is_held() {
        let mut faults = Faults::default();
        let hang = faults.hang(Calls::any(), When::Always);
        let Some(Effect::Hang(released)) = faults.strike(&call(Operation::GetRecords, "a", "w")) else {
            panic!("no hang")
        };
        assert!(!released.is_cancelled());
        drop(hang);
        assert!(released.is_cancelled());
        assert!(faults.strike(&call(Operation::GetRecords, "a", "w")).is_none());
    }
}
