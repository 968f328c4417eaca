//! Random sequences of all operations with random arguments: each answer, and what it leaves in the key, is what the
//! reference says.
//!
//! The server's clock is asked right before and right after each call. The reference must agree at one of the
//! milliseconds in between: most arguments leave no doubt, and those at a boundary may fall on either side of it.

use std::{ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use redis::{Value, aio::MultiplexedConnection};

use crate::{
    calls::{Call, POSITION_MAX, encode, load_scripts},
    protocol::{self, Acquire, Acquired, Apply, Backfill, Entry, Fill, Kind, Server, Slot},
    support::RedisServer,
};

const KEYS: [&str; 3] = ["wc:a", "wc:b", "wc:c"];

const HOUR_MS: u64 = 3_600_000;
const FLOOR_TTL_MS: u64 = 26 * HOUR_MS;
const AGE_MAX_MS: u64 = 25 * HOUR_MS;

/// How far an entry's end may be from the reference's: its rounding, and the time between asking for both.
const TTL_TOLERANCE_MS: u64 = 5;

/// What the environment says, or a new seed, printed for repeating.
fn seed() -> u64 {
    let seed =
        std::env::var("WARMCAST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("WARMCAST_SEED={seed}");
    seed
}

#[derive(Debug)]
enum Operation {
    Apply(Apply),
    Acquire(Acquire),
    Fill(Fill),
    Invalidate(u64),
    Backfill(Backfill),
    /// The entry goes, as by an eviction.
    Remove,
    /// Somebody else writes the key.
    Foreign(usize),
}

impl Operation {
    fn call(&self) -> Option<Call> {
        Some(match self {
            Self::Apply(args) => Call::apply(args),
            Self::Acquire(args) => Call::acquire(args),
            Self::Fill(args) => Call::fill(args),
            Self::Invalidate(floor_ttl) => Call::invalidate(*floor_ttl),
            Self::Backfill(args) => Call::backfill(args),
            Self::Remove | Self::Foreign(_) => return None,
        })
    }

    /// The reference's answer, in the server's words.
    fn refer(&self, slot: &mut Slot, now: u64) -> Value {
        let server = Server { now, evicted_keys: 0 };
        let int = |answer: u8| Value::Int(answer.into());
        match self {
            Self::Apply(args) => int(protocol::apply(slot, server, args)),
            Self::Acquire(args) => match protocol::acquire(slot, server, args) {
                Acquired::Taken { now } => Value::Array(vec![int(1), Value::Int(now.try_into().unwrap())]),
                Acquired::Busy => Value::Array(vec![int(2)]),
                Acquired::Present(entry) => Value::Array(vec![int(3), Value::BulkString(encode(&entry))]),
                Acquired::Foreign => int(protocol::FOREIGN),
            },
            Self::Fill(args) => int(protocol::fill(slot, server, args)),
            Self::Invalidate(floor_ttl) => int(protocol::invalidate(slot, server, *floor_ttl)),
            Self::Backfill(args) => int(protocol::backfill(slot, server, args)),
            Self::Remove | Self::Foreign(_) => unreachable!("no script"),
        }
    }
}

/// Draws operations; knows what is there, to aim at the boundaries.
struct Generator {
    rng: Rng,
    tokens: u64,
}

impl Generator {
    fn draw(&mut self, slot: &Slot, now: u64) -> Operation {
        // A foreign value is soon put out of the way: every call is answered alike on it.
        let is_foreign = *slot == Slot::Foreign;
        match self.rng.u32(0..100) {
            _ if is_foreign && self.rng.u32(0..3) == 0 => Operation::Remove,
            0..45 => Operation::Apply(self.apply(slot, now)),
            45..63 => Operation::Acquire(self.acquire()),
            63..80 => Operation::Fill(self.fill(slot, now)),
            80..85 => Operation::Invalidate(self.floor_ttl()),
            85..95 => Operation::Backfill(self.backfill(now)),
            95..99 => Operation::Remove,
            _ => Operation::Foreign(self.rng.usize(0..foreign_values().len())),
        }
    }

    fn choice<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(0..choices.len())]
    }

    /// So near that it matters which side of a boundary it is on.
    fn near(&mut self, time: u64) -> u64 {
        time.saturating_add_signed(self.rng.i64(-2..=2))
    }

    fn ttl(&mut self) -> u64 {
        let short = self.rng.u64(1..30);
        self.choice(&[0, short, 60_000, 30 * HOUR_MS])
    }

    fn floor_ttl(&mut self) -> u64 {
        let short = self.rng.u64(5..50);
        self.choice(&[FLOOR_TTL_MS, FLOOR_TTL_MS, short])
    }

    fn evicted_keys(&mut self) -> Option<u64> {
        self.choice(&[None, Some(0), Some(0), Some(0), Some(1)])
    }

    fn expires(&mut self, now: u64) -> Option<u64> {
        let soon = now + self.rng.u64(0..30);
        self.choice(&[None, None, Some(now - HOUR_MS), Some(soon), Some(now + HOUR_MS)])
    }

    fn apply(&mut self, slot: &Slot, now: u64) -> Apply {
        let present = self.rng.u32(0..3) == 0;
        let margin = self.choice(&[None, Some(0), Some(20), Some(3_000)]);
        let margin = if present { Some(margin.unwrap_or(3_000)) } else { margin };
        let created = self.created(slot, margin.unwrap_or_default(), now);
        let kind = self.choice(&[Kind::Live, Kind::Live, Kind::Tombstone, Kind::Invalid]);
        let (near_created, near_now) = (self.near(created), self.near(now));
        Apply {
            kind,
            position: self.rng.u64(1..=POSITION_MAX),
            created,
            expires: if kind == Kind::Live { self.expires(now) } else { None },
            payload: if kind == Kind::Live { self.rng.u64(..) } else { 0 },
            ttl: self.ttl(),
            deadline: self.choice(&[now + HOUR_MS, now + HOUR_MS, now + HOUR_MS, now - 1, near_now]),
            floor_ttl: self.floor_ttl(),
            present,
            margin,
            create_age_max: self.choice(&[AGE_MAX_MS, AGE_MAX_MS, HOUR_MS]),
            horizon: self.choice(&[0, 0, now - HOUR_MS, near_created]),
            evicted_keys: self.evicted_keys(),
        }
    }

    /// When a change was made: now, long ago, or about when the entry's item was read.
    fn created(&mut self, slot: &Slot, margin: u64, now: u64) -> u64 {
        let read = match slot {
            Slot::Entry(entry) => entry.time,
            _ => now,
        };
        let (covered, news) = (self.near(read - margin), self.near(read + margin));
        let (old, older) = (self.near(now - HOUR_MS), self.near(now - AGE_MAX_MS));
        self.choice(&[now, now, now - 1_000, now + 2_000, covered, news, old, older, now - 2 * AGE_MAX_MS])
    }

    fn acquire(&mut self) -> Acquire {
        self.tokens += 1;
        let hold = self.choice(&[1, 5, 20, 2_000]);
        let ttl = hold + self.choice(&[2, 10_000]);
        Acquire { token: self.tokens, hold, ttl, floor_ttl: self.floor_ttl() }
    }

    fn fill(&mut self, slot: &Slot, now: u64) -> Fill {
        let theirs = self.rng.u64(0..=self.tokens);
        let held = match slot {
            Slot::Entry(Entry { kind: Kind::Held, payload, .. }) => *payload,
            _ => theirs,
        };
        let kind = self.choice(&[Kind::Filled, Kind::Filled, Kind::Negative]);
        let believed = now + self.rng.u64(0..40);
        Fill {
            token: self.choice(&[held, held, held, theirs]),
            kind,
            read_at: now - self.rng.u64(0..100),
            expires: if kind == Kind::Negative { Some(believed) } else { self.expires(now) },
            payload: if kind == Kind::Negative { 0 } else { self.rng.u64(..) },
            ttl: self.ttl(),
            ttl_with_floor: self.ttl(),
        }
    }

    fn backfill(&mut self, now: u64) -> Backfill {
        let near_old = self.near(now - 30_000);
        let read_at = self.choice(&[now - 5, now - 5, now - 100, now - HOUR_MS, now + HOUR_MS, near_old]);
        let near_read = self.near(read_at);
        Backfill {
            read_at,
            expires: self.expires(now),
            payload: self.rng.u64(..),
            ttl: self.ttl(),
            age_max: 30_000,
            horizon: self.choice(&[0, 0, near_read]),
            evicted_keys: self.evicted_keys(),
        }
    }
}

/// Values that are not entries of this version: too short, another version, an unknown kind, other characters, no
/// room for the expiry that the kind has, no digits there.
fn foreign_values() -> Vec<Vec<u8>> {
    let digits = "0".repeat(38);
    [
        "hello".to_owned(),
        format!("1l{}", &digits[1..]),
        format!("2l{digits}"),
        format!("1L{digits}"),
        format!("1a{digits}"),
        format!("1l{}", "A".repeat(38)),
        format!("1n{digits}0000000"),
        format!("1y{digits}"),
        format!("1x{digits}0000000Z and an item"),
    ]
    .map(String::into_bytes)
    .into_iter()
    .chain([[b"1f".as_slice(), &[0; 38]].concat()])
    .collect()
}

/// One key of the server, and what the reference says is there.
struct Pair<'c> {
    connection: &'c mut MultiplexedConnection,
    key: &'static str,
    slot: Slot,
}

/// What one operation did on the server.
struct Observed {
    clock: RangeInclusive<u64>,
    answer: Value,
    value: Option<Vec<u8>>,
    /// When the entry goes; none: it stays.
    gone_at: Option<u64>,
    /// It went between the look at its value and that at its end.
    is_just_gone: bool,
}

impl Pair<'_> {
    async fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::Remove => {
                let _: () = redis::cmd("DEL").arg(self.key).query_async(self.connection).await.unwrap();
                self.slot = Slot::Empty;
            }
            Operation::Foreign(index) => {
                let value = foreign_values().swap_remove(*index);
                let mut pipeline = redis::pipe();
                pipeline.cmd("DEL").arg(self.key);
                match index % 4 {
                    0 => pipeline.cmd("RPUSH").arg(self.key).arg(value),
                    _ => pipeline.cmd("SET").arg(self.key).arg(value),
                };
                let _: () = pipeline.query_async(self.connection).await.unwrap();
                self.slot = Slot::Foreign;
            }
            _ => {
                let observed = self.observe(&operation.call().unwrap()).await;
                self.slot = self.agreed(operation, &observed);
            }
        }
    }

    async fn observe(&mut self, call: &Call) -> Observed {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        call.write(self.key, &mut pipeline);
        pipeline.cmd("TIME").cmd("GET").arg(self.key).cmd("PTTL").arg(self.key);
        loop {
            let answers = self.connection.send_packed_commands(&pipeline, 0, pipeline.len()).await.unwrap();
            let [before, answer, after, value, left] = answers.try_into().unwrap();
            if matches!(&answer, Value::ServerError(error) if error.code() == "NOSCRIPT") {
                load_scripts(self.connection).await;
                continue;
            }
            let time = |value: Value| {
                let (seconds, micros): (u64, u64) = redis::from_redis_value(value).unwrap();
                seconds * 1_000 + micros / 1_000
            };
            let (before, after) = (time(before), time(after));
            let left: i64 = redis::from_redis_value(left).unwrap();
            // A list has no text to be read.
            let value = if let Value::BulkString(value) = value { Some(value) } else { None };
            let gone_at = u64::try_from(left).ok().map(|left| after + left);
            let is_just_gone = value.is_some() && left == -2;
            return Observed { clock: before..=after, answer, value, gone_at, is_just_gone };
        }
    }

    /// What is there now, by the reference and the server.
    fn agreed(&self, operation: &Operation, observed: &Observed) -> Slot {
        let (before, after) = (observed.clock.start() - 1, observed.clock.end() + 1);
        let mut references = Vec::new();
        for (now, start) in
            (before..=after).flat_map(|now| about(self.slot, now).map(move |slot| (now, slot)))
        {
            let mut slot = start;
            let answer = operation.refer(&mut slot, now);
            // What was to go at once may be gone when it is looked at.
            let mut later = slot;
            protocol::drop_expired(&mut later, after);
            for slot in [slot, later] {
                if answer == observed.answer && is_as_observed(&slot, observed) {
                    return adopted(slot, observed);
                }
            }
            references.push((now, answer, slot));
        }
        panic!(
            "{operation:?}\non {:?}\nanswered {:?}, leaving {:?} to go at {:?}\nthe reference says one of {references:#?}",
            self.slot,
            observed.answer,
            observed.value.as_ref().map(|value| String::from_utf8_lossy(value)),
            observed.gone_at
        );
    }
}

/// What may be there at `now`: an entry's end is known to some milliseconds only.
fn about(slot: Slot, now: u64) -> impl Iterator<Item = Slot> {
    let mut slots = vec![slot];
    if let Slot::Entry(entry) = slot
        && entry.gone_at.is_some_and(|gone_at| gone_at.abs_diff(now) <= TTL_TOLERANCE_MS)
    {
        slots.push(Slot::Empty);
        slots.push(Slot::Entry(Entry { gone_at: Some(now + TTL_TOLERANCE_MS), ..entry }));
    }
    slots.into_iter()
}

fn is_as_observed(slot: &Slot, observed: &Observed) -> bool {
    match slot {
        Slot::Foreign => true,
        Slot::Empty => observed.value.is_none(),
        Slot::Entry(entry) => {
            let ends_alike = match (entry.gone_at, observed.gone_at) {
                (None, None) => true,
                (Some(expected), Some(found)) => expected.abs_diff(found) <= TTL_TOLERANCE_MS,
                (Some(_), None) => observed.is_just_gone,
                _ => false,
            };
            ends_alike && observed.value.as_ref() == Some(&encode(entry))
        }
    }
}

/// The reference's entry with the server's end: what goes when must not drift apart.
fn adopted(slot: Slot, observed: &Observed) -> Slot {
    match slot {
        Slot::Entry(_) if observed.is_just_gone => Slot::Empty,
        Slot::Entry(entry) => Slot::Entry(Entry { gone_at: observed.gone_at, ..entry }),
        other => other,
    }
}

#[tokio::test]
async fn random_operations_answer_and_leave_what_the_reference_says() {
    let mut generator = Generator { rng: Rng::with_seed(seed()), tokens: 0 };
    let server = RedisServer::start();
    let mut connection = server.admin().await;
    let mut slots = [Slot::Empty; KEYS.len()];
    let mut answers = std::collections::BTreeMap::<String, u32>::new();
    let steps = std::env::var("WARMCAST_RANDOMISED_STEPS").map_or(10_000, |steps| steps.parse().unwrap());
    for _ in 0..steps {
        match generator.rng.u32(0..1_000) {
            0 => {
                let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
            }
            // So that what is short-lived ends.
            1..50 => tokio::time::sleep(Duration::from_millis(generator.rng.u64(1..10))).await,
            _ => {}
        }
        let index = generator.rng.usize(0..KEYS.len());
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
        let now = seconds * 1_000 + micros / 1_000;
        let operation = generator.draw(&slots[index], now);
        let mut pair = Pair { connection: &mut connection, key: KEYS[index], slot: slots[index] };
        pair.step(&operation).await;
        slots[index] = pair.slot;
        *answers.entry(kind_of(&operation, &slots[index])).or_default() += 1;
    }
    println!("{steps} steps: {answers:?}");
    let all = ["Apply", "Acquire", "Fill", "Invalidate", "Backfill"];
    assert!(all.iter().all(|operation| answers.keys().any(|key| key.starts_with(operation))), "{answers:?}");
}

/// For the tally: the operation, and what it left.
fn kind_of(operation: &Operation, slot: &Slot) -> String {
    let operation = format!("{operation:?}");
    let operation = operation.split(['(', ' ']).next().unwrap_or_default();
    match slot {
        Slot::Entry(entry) => format!("{operation} {:?}", entry.kind),
        other => format!("{operation} {other:?}"),
    }
}
