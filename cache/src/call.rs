//! One call of a script: what goes to the server for one key. Pure.
//!
//! A call is made by whoever asks for something, and written into a pipeline once it is known which server has its
//! key: a part of the arguments is what is known of that server.

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use redis::{RedisWrite, ToRedisArgs};
use warmcast_proto::entry::{EncodedHeader, EntryHeader};

use crate::{outcome::Refusal, script::Script};

/// How much later than the last eviction a change must have been made to create an entry. Creation times are whole
/// seconds, rounded down, of DynamoDB's clock (AWS: `StreamRecord.ApproximateCreationDateTime`), and the eviction's
/// is the server's.
const EVICTION_MARGIN: Duration = Duration::from_secs(10);

/// How much later than the last eviction a page must have been read to be backfilled. Until the margin above is
/// over, and a little longer where a writer's view of its server is old, changes are left absent without a trace;
/// what the page has must be later than those.
const BACKFILL_MARGIN: Duration = Duration::from_secs(20);

/// What a call takes beside its key and its values: the script's hash, the numbers, RESP's framing. Rounded up.
const OVERHEAD_BYTES: usize = 448;

/// What is known of a server when a call to it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerView {
    /// The deadline on the server's clock, ms since the epoch; not later than it truly is.
    pub(crate) deadline_ms: u64,
    /// The last time at which the cache may have evicted a floor (`H` of the cache protocol), ms since the epoch;
    /// 0: it never did.
    pub(crate) loss_ms: u64,
    /// How many keys the server had evicted when that was reckoned; none: it evicts nothing.
    pub(crate) evicted_keys: Option<u64>,
}

/// A call of a script on one key.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) script: Script,
    pub(crate) key: Vec<u8>,
    arguments: Arguments<'a>,
}

/// What the script's file names in its head, but for what a [`ServerView`] has. Times to live of 0: for ever.
#[derive(Debug)]
pub(crate) enum Arguments<'a> {
    Apply(ApplyArguments),
    Acquire { token: &'a [u8], hold_ms: u64, ttl_ms: u64, floor_ttl_ms: u64 },
    Fill { token: &'a [u8], entry: Entry, ttl_ms: u64, floored_ttl_ms: u64 },
    Invalidate { ttl_ms: u64 },
    Backfill { entry: Entry, ttl_ms: u64, read_ms: u64, age_max_ms: u64 },
    Publish { watermark_ms: u64 },
}

#[derive(Debug)]
pub(crate) struct ApplyArguments {
    pub(crate) entry: Entry,
    pub(crate) ttl_ms: u64,
    pub(crate) created_ms: u64,
    pub(crate) floor_ttl_ms: u64,
    pub(crate) skips_absent: bool,
    /// Given always with `skips_absent`.
    pub(crate) margin_ms: Option<u64>,
    pub(crate) create_age_max_ms: u64,
}

impl<'a> Call<'a> {
    pub(crate) const fn new(key: Vec<u8>, arguments: Arguments<'a>) -> Self {
        let script = match arguments {
            Arguments::Apply(_) => Script::Apply,
            Arguments::Acquire { .. } => Script::Acquire,
            Arguments::Fill { .. } => Script::Fill,
            Arguments::Invalidate { .. } => Script::Invalidate,
            Arguments::Backfill { .. } => Script::Backfill,
            Arguments::Publish { .. } => Script::Publish,
        };
        Self { script, key, arguments }
    }

    /// About the bytes that the call takes in a pipeline; never fewer.
    pub(crate) fn len_max(&self) -> usize {
        let entry_len = match &self.arguments {
            Arguments::Apply(ApplyArguments { entry, .. })
            | Arguments::Fill { entry, .. }
            | Arguments::Backfill { entry, .. } => entry.len(),
            _ => 0,
        };
        self.key.len() + entry_len + OVERHEAD_BYTES
    }

    /// Appends the call.
    pub(crate) fn write(&self, view: &ServerView, pipeline: &mut redis::Pipeline) {
        let command = pipeline.cmd("EVALSHA").arg(self.script.sha()).arg(1).arg(&self.key);
        match &self.arguments {
            Arguments::Apply(apply) => {
                command
                    .arg(&apply.entry)
                    .arg(apply.ttl_ms)
                    .arg(apply.created_ms)
                    .arg(view.deadline_ms)
                    .arg(apply.floor_ttl_ms)
                    .arg(u8::from(apply.skips_absent))
                    .arg(OrEmpty(apply.margin_ms))
                    .arg(apply.create_age_max_ms)
                    .arg(later(view.loss_ms, EVICTION_MARGIN))
                    .arg(OrEmpty(view.evicted_keys));
            }
            Arguments::Acquire { token, hold_ms, ttl_ms, floor_ttl_ms } => {
                command.arg(token).arg(hold_ms).arg(ttl_ms).arg(floor_ttl_ms);
            }
            Arguments::Fill { token, entry, ttl_ms, floored_ttl_ms } => {
                command.arg(token).arg(entry).arg(ttl_ms).arg(floored_ttl_ms);
            }
            Arguments::Invalidate { ttl_ms } => {
                command.arg(ttl_ms);
            }
            Arguments::Backfill { entry, ttl_ms, read_ms, age_max_ms } => {
                command
                    .arg(entry)
                    .arg(ttl_ms)
                    .arg(read_ms)
                    .arg(age_max_ms)
                    .arg(later(view.loss_ms, BACKFILL_MARGIN))
                    .arg(OrEmpty(view.evicted_keys));
            }
            Arguments::Publish { watermark_ms } => {
                command.arg(watermark_ms).arg(view.deadline_ms);
            }
        }
    }
}

/// So much after an eviction; 0 stays 0: there was none.
fn later(loss_ms: u64, margin: Duration) -> u64 {
    if loss_ms == 0 { 0 } else { loss_ms.saturating_add(duration_ms(margin)) }
}

/// A duration in the whole milliseconds of a script's arguments; what is longer than none is at least one.
pub(crate) fn duration_ms(duration: Duration) -> u64 {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if duration.is_zero() { 0 } else { ms.max(1) }
}

/// An entry as one argument, written in two parts: no copy to join them first, here or in the script.
#[derive(Debug)]
pub(crate) struct Entry {
    header: EncodedHeader,
    payload: Bytes,
}

impl Entry {
    /// Checks the length against the configured bound.
    pub(crate) fn new(header: EntryHeader, payload: Bytes, len_max: usize) -> Result<Self, Refusal> {
        let entry = Self { header: header.encode(), payload };
        if entry.len() > len_max {
            return Err(Refusal::TooLarge { len: entry.len(), len_max });
        }
        Ok(entry)
    }

    fn len(&self) -> usize {
        self.header.as_ref().len() + self.payload.len()
    }
}

impl ToRedisArgs for Entry {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut writer = out.writer_for_next_arg();
        // Writing to the command's buffer in memory cannot fail.
        let _ = writer.write_all(self.header.as_ref()).and_then(|()| writer.write_all(&self.payload));
    }
}

impl redis::ToSingleRedisArg for Entry {}

/// A number, or an empty argument: the library's `Option` would be no argument at all.
struct OrEmpty(Option<u64>);

impl ToRedisArgs for OrEmpty {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self.0 {
            Some(number) => number.write_redis_args(out),
            None => out.write_arg(b""),
        }
    }
}

impl redis::ToSingleRedisArg for OrEmpty {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warmcast_proto::{
        entry::{EntryKind, HEADER_LEN_MAX, TIME_MS_MAX},
        position::Position,
    };

    use super::*;

    const VIEW: ServerView = ServerView { deadline_ms: 7, loss_ms: 0, evicted_keys: None };

    fn entry(payload_bytes: usize) -> Entry {
        let header = EntryHeader::expiring(EntryKind::Live, Position::MAX, TIME_MS_MAX, TIME_MS_MAX).unwrap();
        Entry::new(header, vec![7; payload_bytes].into(), usize::MAX).unwrap()
    }

    fn arguments(script: Script, payload_bytes: usize, number: u64) -> Arguments<'static> {
        let entry = entry(payload_bytes);
        let token = [b'f'; 32].as_slice();
        match script {
            Script::Apply => Arguments::Apply(ApplyArguments {
                entry,
                ttl_ms: number,
                created_ms: number,
                floor_ttl_ms: number,
                skips_absent: true,
                margin_ms: Some(number),
                create_age_max_ms: number,
            }),
            Script::Acquire => {
                Arguments::Acquire { token, hold_ms: number, ttl_ms: number, floor_ttl_ms: number }
            }
            Script::Fill => Arguments::Fill { token, entry, ttl_ms: number, floored_ttl_ms: number },
            Script::Invalidate => Arguments::Invalidate { ttl_ms: number },
            Script::Backfill => {
                Arguments::Backfill { entry, ttl_ms: number, read_ms: number, age_max_ms: number }
            }
            Script::Publish => Arguments::Publish { watermark_ms: number },
        }
    }

    fn written(call: &Call<'_>, view: &ServerView) -> Vec<String> {
        let mut pipeline = redis::pipe();
        call.write(view, &mut pipeline);
        let command = pipeline.cmd_iter().next().unwrap();
        let text = |argument: redis::Arg<&[u8]>| match argument {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("no such argument"),
        };
        command.args_iter().map(text).collect()
    }

    #[test]
    fn an_apply_has_its_arguments_in_the_scripts_order() {
        let change = ApplyArguments {
            entry: entry(0),
            ttl_ms: 1,
            created_ms: 2,
            floor_ttl_ms: 3,
            skips_absent: false,
            margin_ms: None,
            create_age_max_ms: 4,
        };
        let call = Call::new(b"k".to_vec(), Arguments::Apply(change));
        let header = String::from_utf8(entry(0).header.as_ref().to_vec()).unwrap();
        let expected = ["EVALSHA", Script::Apply.sha(), "1", "k", &header];
        let rest = ["1", "2", "7", "3", "0", "", "4", "0", ""];
        assert_eq!(written(&call, &VIEW), [expected.as_slice(), &rest].concat());
    }

    #[test]
    fn what_creates_is_told_of_evictions_with_a_margin() {
        let view = ServerView { deadline_ms: 7, loss_ms: 1_000_000, evicted_keys: Some(5) };
        for (script, loss_ms) in [(Script::Apply, "1010000"), (Script::Backfill, "1020000")] {
            let arguments = written(&Call::new(Vec::new(), arguments(script, 0, 9)), &view);
            assert_eq!(arguments[arguments.len() - 2..], [loss_ms, "5"], "{script:?}");
        }
    }

    #[test]
    fn an_entry_above_the_bound_is_refused_before_it_is_sent() {
        let header = EntryHeader::expiring(EntryKind::Live, Position::MAX, 1, 1).unwrap();
        let of = |payload_bytes: usize| {
            Entry::new(header, vec![7; payload_bytes].into(), HEADER_LEN_MAX + 10).map(|_| ())
        };
        assert_eq!(of(10), Ok(()));
        assert_eq!(of(11), Err(Refusal::TooLarge { len: HEADER_LEN_MAX + 11, len_max: HEADER_LEN_MAX + 10 }));
    }

    proptest! {
        #[test]
        fn a_call_is_never_longer_than_was_reckoned(
            script in prop::sample::select(Script::ALL.to_vec()),
            payload_bytes in 0..2_000usize,
            number in prop_oneof![any::<u64>(), Just(u64::MAX)],
        ) {
            let call = Call::new(vec![b'k'; 100], arguments(script, payload_bytes, number));
            let mut pipeline = redis::pipe();
            let view = ServerView { deadline_ms: u64::MAX, loss_ms: u64::MAX, evicted_keys: Some(u64::MAX) };
            call.write(&view, &mut pipeline);
            prop_assert!(pipeline.get_packed_pipeline().len() <= call.len_max());
        }
    }
}
