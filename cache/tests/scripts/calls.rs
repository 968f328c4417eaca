//! Calls of the scripts with arguments that the library would never give them, in the terms of the reference.

use redis::{Value, aio::MultiplexedConnection};
use warmcast_proto::{
    entry::{EntryHeader, EntryKind},
    position::Position,
};

use crate::protocol::{Acquire, Apply, Backfill, Entry, Fill, Kind};

macro_rules! script {
    ($($file:literal),+) => { concat!($(include_str!(concat!("../../scripts/", $file))),+) };
}

pub(crate) const APPLY: &str = script!("prelude.lua", "creation.lua", "apply.lua");
pub(crate) const ACQUIRE: &str = script!("prelude.lua", "time.lua", "acquire.lua");
pub(crate) const FILL: &str = script!("prelude.lua", "fill.lua");
pub(crate) const INVALIDATE: &str = script!("prelude.lua", "time.lua", "invalidate.lua");
pub(crate) const BACKFILL: &str = script!("prelude.lua", "creation.lua", "backfill.lua");
pub(crate) const ALL: [&str; 5] = [APPLY, ACQUIRE, FILL, INVALIDATE, BACKFILL];

/// A script and its arguments after the key.
pub(crate) struct Call {
    script: &'static str,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(crate) fn apply(args: &Apply) -> Self {
        let entry = Entry {
            kind: args.kind,
            floor: args.position,
            time: args.created,
            expires: args.expires,
            payload: args.payload,
            gone_at: None,
        };
        let arguments = vec![
            encode(&entry),
            number(args.ttl),
            number(args.created),
            number(args.deadline),
            number(args.floor_ttl),
            number(u64::from(args.present)),
            number_or_empty(args.margin),
            number(args.create_age_max),
            number(args.horizon),
            number_or_empty(args.evicted_keys),
        ];
        Self { script: APPLY, arguments }
    }

    pub(crate) fn acquire(args: &Acquire) -> Self {
        let arguments = vec![token(args.token), number(args.hold), number(args.ttl), number(args.floor_ttl)];
        Self { script: ACQUIRE, arguments }
    }

    pub(crate) fn fill(args: &Fill) -> Self {
        let entry = Entry {
            kind: args.kind,
            floor: 0,
            time: args.read_at,
            expires: args.expires,
            payload: args.payload,
            gone_at: None,
        };
        let arguments =
            vec![token(args.token), encode(&entry), number(args.ttl), number(args.ttl_with_floor)];
        Self { script: FILL, arguments }
    }

    pub(crate) fn invalidate(floor_ttl: u64) -> Self {
        Self { script: INVALIDATE, arguments: vec![number(floor_ttl)] }
    }

    pub(crate) fn backfill(args: &Backfill) -> Self {
        let entry = Entry {
            kind: Kind::Filled,
            floor: 0,
            time: args.read_at,
            expires: args.expires,
            payload: args.payload,
            gone_at: None,
        };
        let arguments = vec![
            encode(&entry),
            number(args.ttl),
            number(args.read_at),
            number(args.age_max),
            number(args.horizon),
            number_or_empty(args.evicted_keys),
        ];
        Self { script: BACKFILL, arguments }
    }

    pub(crate) fn write(&self, key: &str, pipeline: &mut redis::Pipeline) {
        let sha = redis::Script::new(self.script);
        pipeline.cmd("EVALSHA").arg(sha.get_hash()).arg(1).arg(key).arg(&self.arguments);
    }

    pub(crate) async fn run(&self, connection: &mut MultiplexedConnection, key: &str) -> Value {
        let mut pipeline = redis::pipe();
        self.write(key, &mut pipeline);
        let [value] = connection.send_packed_commands(&pipeline, 0, 1).await.unwrap().try_into().unwrap();
        value
    }
}

pub(crate) async fn load_scripts(connection: &mut MultiplexedConnection) {
    for script in ALL {
        let _: String = redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(connection).await.unwrap();
    }
}

fn number(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn number_or_empty(value: Option<u64>) -> Vec<u8> {
    value.map_or(Vec::new(), number)
}

fn token(value: u64) -> Vec<u8> {
    format!("{value:032x}").into_bytes()
}

/// Positions in their order. Doubles, or texts of unequal width, get some of them wrong.
const POSITIONS: [(u32, &str); 10] = [
    (1, "1"),
    (1, "99999999999999999999"),
    (1, "100000000000000000000"),
    (1, "340282366920938463463374607431768211455"),
    (1, "340282366920938463463374607431768211456"),
    (1, "9999999999999999999999999999999999999998"),
    (1, "9999999999999999999999999999999999999999"),
    (2, "0"),
    (35, "9999999999999999999999999999999999999999"),
    (36, "7"),
];

pub(crate) const POSITION_MAX: u64 = POSITIONS.len() as u64;

/// The reference's positions are numbers, zero for none.
fn position(number: u64) -> Position {
    let Some(index) = number.checked_sub(1) else {
        return Position::ZERO;
    };
    let (generation, sequence) = POSITIONS[usize::try_from(index).unwrap()];
    Position::new(generation, sequence.parse().unwrap()).unwrap()
}

/// The reference's payloads are numbers. Of all lengths around that of an expiry, and of any bytes.
fn item(payload: u64) -> Vec<u8> {
    let byte = u8::try_from(payload % 256).unwrap();
    vec![byte; usize::from(byte % 20)]
}

fn entry_kind(kind: Kind) -> EntryKind {
    match kind {
        Kind::Live => EntryKind::Live,
        Kind::Filled => EntryKind::Filled,
        Kind::Tombstone => EntryKind::Tombstone,
        Kind::Negative => EntryKind::Negative,
        Kind::Invalid => EntryKind::Invalid,
        Kind::Held => EntryKind::Held,
    }
}

/// The bytes of an entry of the reference.
pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let (kind, floor) = (entry_kind(entry.kind), position(entry.floor));
    let header = match entry.expires {
        Some(expires) => EntryHeader::expiring(kind, floor, entry.time, expires),
        None => EntryHeader::new(kind, floor, entry.time),
    };
    let payload = match entry.kind {
        Kind::Live | Kind::Filled => item(entry.payload),
        Kind::Held => token(entry.payload),
        Kind::Tombstone | Kind::Negative | Kind::Invalid => Vec::new(),
    };
    [header.unwrap().encode().as_ref(), &payload].concat()
}
