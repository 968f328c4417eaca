//! From a change to the command that applies it. Pure.
//!
//! A change that can never be applied is refused here, before it costs anything; the rest go into pipelines
//! bounded by entries and bytes.

use std::io::Write as _;

use redis::{RedisWrite, ToRedisArgs};
use warmcast_proto::{
    change::{Change, ChangeKind},
    entry::{EntryHeader, EntryKind, HEADER_LEN},
    key::cache_key,
};

use crate::{
    config::{AGE_MAX, CacheConfig, TOMBSTONE_TTL},
    outcome::Refusal,
};

/// The script that applies one change atomically; its file documents its arguments and answers.
pub(crate) const APPLY_SCRIPT: &str = include_str!("../scripts/apply.lua");

/// What a command takes beside its key and its value: the script's hash, the numbers, RESP's framing. Rounded up.
const COMMAND_OVERHEAD_BYTES: usize = 256;

/// One change, ready to be sent.
pub(crate) struct ApplyCommand<'a> {
    /// Where the change stands in the call: its answer goes there.
    pub(crate) index: usize,
    key: Vec<u8>,
    header: [u8; HEADER_LEN],
    payload: &'a [u8],
    created_ms: u64,
    ttl_ms: u128,
}

impl<'a> ApplyCommand<'a> {
    /// Decides what to write.
    pub(crate) fn new(index: usize, change: &'a Change, config: &CacheConfig) -> Result<Self, Refusal> {
        let (kind, ttl, payload): (_, _, &[u8]) = match change.kind {
            ChangeKind::Put => (EntryKind::Live, config.live_ttl, &change.payload),
            ChangeKind::Delete | ChangeKind::Expire => (EntryKind::Tombstone, Some(TOMBSTONE_TTL), &[]),
            ChangeKind::Invalidate => (EntryKind::Invalid, Some(TOMBSTONE_TTL), &[]),
        };
        let len = HEADER_LEN + payload.len();
        if len > config.value_bytes_max {
            return Err(Refusal::TooLarge { len, len_max: config.value_bytes_max });
        }
        let header = EntryHeader::new(kind, change.position, change.created_ms).map_err(Refusal::Header)?;
        Ok(Self {
            index,
            key: cache_key(&config.key_prefix, &change.table, &change.key),
            header: header.encode(),
            payload,
            created_ms: change.created_ms,
            // A time to live of less than a millisecond would mean none at all to the script.
            ttl_ms: ttl.map_or(0, |ttl| ttl.as_millis().max(1)),
        })
    }

    /// About the bytes that the command takes in a pipeline; never fewer.
    fn len(&self) -> usize {
        self.key.len() + HEADER_LEN + self.payload.len() + COMMAND_OVERHEAD_BYTES
    }

    /// Appends the call of the script with this hash, to land before `deadline_ms` on the server's clock.
    pub(crate) fn write(&self, script_sha: &str, deadline_ms: u64, pipeline: &mut redis::Pipeline) {
        pipeline
            .cmd("EVALSHA")
            .arg(script_sha)
            .arg(1)
            .arg(&self.key)
            .arg(Value { header: &self.header, payload: self.payload })
            .arg(self.created_ms)
            .arg(AGE_MAX.as_millis())
            .arg(deadline_ms)
            .arg(self.ttl_ms);
    }
}

/// Splits commands into runs that keep to the bounds of one pipeline. A command beyond the bytes goes alone.
pub(crate) fn pipelines<'c, 'a>(
    commands: &'c [ApplyCommand<'a>],
    config: &CacheConfig,
) -> impl Iterator<Item = &'c [ApplyCommand<'a>]> {
    let (entries_max, bytes_max) = (config.pipeline_entries_max, config.pipeline_bytes_max);
    let (mut entries, mut bytes) = (0, 0);
    commands.chunk_by(move |previous, next| {
        entries += 1;
        bytes += previous.len();
        let fits = entries < entries_max && bytes + next.len() <= bytes_max;
        if !fits {
            (entries, bytes) = (0, 0);
        }
        fits
    })
}

/// An entry as one argument, written in two parts: no copy to join them first, here or in the script.
struct Value<'a> {
    header: &'a [u8],
    payload: &'a [u8],
}

impl ToRedisArgs for Value<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut writer = out.writer_for_next_arg();
        // Writing to the command's buffer in memory cannot fail.
        let _ = writer.write_all(self.header).and_then(|()| writer.write_all(self.payload));
    }
}

impl redis::ToSingleRedisArg for Value<'_> {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;
    use warmcast_proto::{entry::TIME_MS_MAX, position::Position};

    use super::*;
    use crate::config::Address;

    fn config() -> CacheConfig {
        CacheConfig::new(Address::Tcp { host: "localhost".to_owned(), port: 6379 })
    }

    fn change(kind: ChangeKind, payload_bytes: usize) -> Change {
        Change {
            table: "profiles".into(),
            key: Bytes::from_static(b"user-1"),
            position: Position::MAX,
            kind,
            created_ms: 1_784_000_000_000,
            payload: vec![7; payload_bytes].into(),
        }
    }

    fn entry_kind_and_ttl(kind: ChangeKind, config: &CacheConfig) -> (EntryKind, u128, usize) {
        let change = change(kind, 10);
        let command = ApplyCommand::new(0, &change, config).unwrap();
        let (header, _) = EntryHeader::decode(&command.header).unwrap();
        (header.kind(), command.ttl_ms, command.payload.len())
    }

    #[test]
    fn what_holds_a_floor_outlives_the_replays_it_must_refuse() {
        let config = CacheConfig { live_ttl: Some(Duration::from_mins(1)), ..config() };
        let tombstone_ms = TOMBSTONE_TTL.as_millis();
        assert_eq!(entry_kind_and_ttl(ChangeKind::Put, &config), (EntryKind::Live, 60_000, 10));
        assert_eq!(entry_kind_and_ttl(ChangeKind::Delete, &config), (EntryKind::Tombstone, tombstone_ms, 0));
        assert_eq!(entry_kind_and_ttl(ChangeKind::Expire, &config), (EntryKind::Tombstone, tombstone_ms, 0));
        assert_eq!(
            entry_kind_and_ttl(ChangeKind::Invalidate, &config),
            (EntryKind::Invalid, tombstone_ms, 0)
        );
        let forever = CacheConfig { live_ttl: None, ..config };
        assert_eq!(entry_kind_and_ttl(ChangeKind::Put, &forever), (EntryKind::Live, 0, 10));
    }

    #[test]
    fn what_can_never_be_applied_is_refused_before_it_is_sent() {
        let config = CacheConfig { value_bytes_max: HEADER_LEN + 10, ..config() };
        assert!(ApplyCommand::new(0, &change(ChangeKind::Put, 10), &config).is_ok());
        assert_eq!(
            ApplyCommand::new(0, &change(ChangeKind::Put, 11), &config).err(),
            Some(Refusal::TooLarge { len: HEADER_LEN + 11, len_max: HEADER_LEN + 10 })
        );
        let beyond = Change { created_ms: TIME_MS_MAX + 1, ..change(ChangeKind::Put, 0) };
        assert!(matches!(ApplyCommand::new(0, &beyond, &config), Err(Refusal::Header(_))));
    }

    proptest! {
        #[test]
        fn pipelines_keep_to_their_bounds_and_lose_nothing(
            payload_bytes in prop::collection::vec(0..3_000usize, 0..40),
            pipeline_entries_max in 1..10usize,
            pipeline_bytes_max in 1..5_000usize,
        ) {
            let config = CacheConfig { pipeline_entries_max, pipeline_bytes_max, ..config() };
            let changes: Vec<Change> = payload_bytes.iter().map(|bytes| change(ChangeKind::Put, *bytes)).collect();
            let commands: Vec<ApplyCommand<'_>> = changes
                .iter()
                .enumerate()
                .map(|(index, change)| ApplyCommand::new(index, change, &config).unwrap())
                .collect();
            let mut next = 0;
            for pipeline in pipelines(&commands, &config) {
                let bytes: usize = pipeline.iter().map(ApplyCommand::len).sum();
                prop_assert!(!pipeline.is_empty() && pipeline.len() <= pipeline_entries_max);
                prop_assert!(bytes <= pipeline_bytes_max || pipeline.len() == 1);
                for command in pipeline {
                    prop_assert_eq!(command.index, next);
                    next += 1;
                }
            }
            prop_assert_eq!(next, commands.len());
        }

        #[test]
        fn a_command_is_never_longer_than_was_reckoned(payload_bytes in 0..2_000usize, deadline_ms in 0..u64::MAX) {
            let change = change(ChangeKind::Delete, payload_bytes);
            let command = ApplyCommand::new(0, &change, &config()).unwrap();
            let mut pipeline = redis::pipe();
            command.write(&"f".repeat(40), deadline_ms, &mut pipeline);
            prop_assert!(pipeline.get_packed_pipeline().len() <= command.len());
        }
    }
}
