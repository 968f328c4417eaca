//! The script of a test: what is in the streams, what their listings show, and which calls fail.

use std::ops::Range;
use std::sync::Arc;

use aws_sdk_dynamodbstreams::primitives::{DateTime, DateTimeFormat};

use super::error::ScriptError;
use super::fake::FakeStreams;
use super::fault::{Calls, Fault, Hang, When};
use super::quirks::Until;
use super::record::{Record, Sequence};
use super::shard::ShardIndex;
use super::stream::{Closed, Stream};

/// The script: streams, shards and records.
impl FakeStreams {
    /// Creates an enabled stream without shards and returns its ARN. Without a label it gets one made of the time,
    /// as in the service, that no other stream of the table has.
    ///
    /// # Errors
    /// The table has a stream with this label.
    pub fn create_stream(&self, table: &str, label: Option<&str>) -> Result<String, ScriptError> {
        let options = self.options();
        let now_ms = self.now_ms();
        let mut service = self.service();
        let mut label_ms = now_ms;
        loop {
            let made = label_at(label_ms);
            let label = label.unwrap_or(&made);
            let arn = format!(
                "arn:aws:dynamodb:{}:{}:table/{table}/stream/{label}",
                options.region, options.account
            );
            let sequence = options.first_sequence;
            let stream = Stream::new(arn.as_str().into(), table, label, &options.region, now_ms, sequence);
            match service.create(stream, now_ms) {
                true => return Ok(arn),
                false if label == made => label_ms += 1,
                false => return Err(ScriptError::StreamExists(arn)),
            }
        }
    }

    /// Disables a stream: its open shards are closed, and it stays readable for 24 hours.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn set_disabled(&self, arn: &str) -> Result<(), ScriptError> {
        self.with_stream(arn, |watched, now_ms| watched.stream.disable(now_ms))
    }

    /// Removes a stream at once.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn delete_stream(&self, arn: &str) -> Result<(), ScriptError> {
        let deleted = self.service().delete(arn);
        if deleted { Ok(()) } else { Err(ScriptError::NoStream(arn.to_owned())) }
    }

    /// Adds an open shard and returns its id. A parent may be given and stays as it is, open or closed.
    ///
    /// # Errors
    /// There is no such stream or parent.
    pub fn add_shard(&self, arn: &str, parent: Option<&str>) -> Result<String, ScriptError> {
        match parent {
            None => self.with_stream(arn, |watched, now_ms| add(&mut watched.stream, None, now_ms)),
            Some(parent) => {
                self.with_shard(arn, parent, |stream, index, now_ms| Ok(add(stream, Some(index), now_ms)))
            }
        }
    }

    /// Adds `live` open shards, each the last of a chain of `generations` shards that rolled over every 4 hours
    /// (without records): `live` × `generations` shards are listed.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn grow(&self, arn: &str, live: usize, generations: usize) -> Result<(), ScriptError> {
        self.with_stream(arn, |watched, now_ms| watched.stream.grow(live, generations, now_ms))
    }

    /// The ids of the open shards.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn live_shards(&self, arn: &str) -> Result<Vec<Arc<str>>, ScriptError> {
        self.with_stream(arn, |watched, _| {
            watched.stream.open_shards().map(|(_, shard)| Arc::clone(&shard.id)).collect()
        })
    }

    /// Puts records into an open shard and returns their sequence numbers, which go up through the whole stream.
    ///
    /// # Errors
    /// There is no such stream or shard, or the shard is closed.
    pub fn put(&self, arn: &str, shard: &str, records: &[Record]) -> Result<Vec<String>, ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            let sequences = stream.put(index, records, now_ms).map_err(|Closed| closed(shard))?;
            Ok(sequences.iter().map(ToString::to_string).collect())
        })
    }

    /// Puts `count` new items `{"id":{"S":"item-<n>"},"n":{"N":"<n>"},"pad":{"S":"..."}}` with images of
    /// `image_bytes` each, and returns their `n`, which goes up through the whole stream.
    ///
    /// # Errors
    /// There is no such stream or shard, or the shard is closed.
    pub fn put_items(
        &self,
        arn: &str,
        shard: &str,
        count: u64,
        image_bytes: usize,
    ) -> Result<Range<u64>, ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            stream.put_items(index, count, image_bytes, now_ms).map_err(|Closed| closed(shard))
        })
    }

    /// Closes a shard.
    ///
    /// # Errors
    /// There is no such stream or shard, or it is closed already.
    pub fn close(&self, arn: &str, shard: &str) -> Result<(), ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            stream.close(index, now_ms).map_err(|Closed| closed(shard))
        })
    }

    /// Closes a shard and adds its one child, whose id is returned.
    ///
    /// # Errors
    /// There is no such stream or shard, or it is closed already.
    pub fn rollover(&self, arn: &str, shard: &str) -> Result<String, ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            stream.close(index, now_ms).map_err(|Closed| closed(shard))?;
            Ok(add(stream, Some(index), now_ms))
        })
    }

    /// Closes a shard and adds two children, whose ids are returned.
    ///
    /// # Errors
    /// There is no such stream or shard, or it is closed already.
    pub fn split(&self, arn: &str, shard: &str) -> Result<[String; 2], ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            stream.close(index, now_ms).map_err(|Closed| closed(shard))?;
            Ok([(); 2].map(|()| add(stream, Some(index), now_ms)))
        })
    }

    /// Closes two shards and adds one child, whose id is returned. The child names `a` as its parent: the API has
    /// room for one only, so that `b` just ends.
    ///
    /// # Errors
    /// There is no such stream or shard, or one is closed already.
    pub fn merge(&self, arn: &str, a: &str, b: &str) -> Result<String, ScriptError> {
        self.close(arn, b)?;
        self.rollover(arn, a)
    }

    /// Removes the records of a shard as if they had aged out.
    ///
    /// # Errors
    /// There is no such stream or shard.
    pub fn trim(&self, arn: &str, shard: &str) -> Result<(), ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            if let Some(shard) = stream.shard_mut(index, now_ms) {
                shard.trim();
            }
            Ok(())
        })
    }

    /// The next record of the stream gets this sequence number, unless its number would be higher. The service's
    /// numbers grow longer over time.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn raise_sequence(&self, arn: &str, sequence: Sequence) -> Result<(), ScriptError> {
        self.with_stream(arn, |watched, _| watched.stream.raise_sequence(sequence))
    }
}

/// The script: listings that are wrong, and faults.
impl FakeStreams {
    /// Hides the children of a shard, those to come included, from all listings. They can be read all the same.
    ///
    /// # Errors
    /// There is no such stream or parent.
    pub fn hide_children_for(&self, arn: &str, parent: &str, until: Until) -> Result<(), ScriptError> {
        self.with_shard(arn, parent, |stream, index, now_ms| {
            stream.quirks.hide_children(index, until, now_ms);
            Ok(())
        })
    }

    /// Leaves a shard out of listings of the whole stream; asking for its parent's children still finds it.
    ///
    /// # Errors
    /// There is no such stream or shard.
    pub fn omit_from_listings(&self, arn: &str, shard: &str, until: Until) -> Result<(), ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            stream.quirks.omit(index, until, now_ms);
            Ok(())
        })
    }

    /// Lists a closed shard without its end, as if it were open, whether or not its children are listed.
    ///
    /// # Errors
    /// There is no such stream or shard.
    pub fn show_as_open(&self, arn: &str, shard: &str, until: Until) -> Result<(), ScriptError> {
        self.with_shard(arn, shard, |stream, index, now_ms| {
            stream.quirks.show_open(index, until, now_ms);
            Ok(())
        })
    }

    /// Listings tell the truth again.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn settle_listings(&self, arn: &str) -> Result<(), ScriptError> {
        self.with_stream(arn, |watched, _| watched.stream.quirks.settle())
    }

    /// Lets these calls meet a fault. Of several faults for a call, the one injected first is met.
    pub fn inject(&self, fault: Fault, calls: Calls, when: When) {
        self.service().faults.inject(fault, calls, when);
    }

    /// Leaves these calls without an answer until the handle is dropped.
    pub fn hang(&self, calls: Calls, when: When) -> Hang {
        self.service().faults.hang(calls, when)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.service().faults.clear();
    }
}

fn add(stream: &mut Stream, parent: Option<ShardIndex>, now_ms: u64) -> String {
    let index = stream.add_shard(parent, now_ms);
    stream.shard(index).map(|shard| shard.id.to_string()).unwrap_or_default()
}

fn closed(shard: &str) -> ScriptError {
    ScriptError::ShardClosed(shard.to_owned())
}

/// `2026-01-31T12:00:00.000`, as the service labels streams.
fn label_at(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    // It cannot fail for a time that a clock shows.
    let text = DateTime::from_secs(seconds).fmt(DateTimeFormat::DateTime).unwrap_or_default();
    format!("{}.{:03}", text.trim_end_matches('Z'), ms % 1000)
}
