//! One PutRecords call, from the entries that are due to the answers.

use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::retry::Class;
use warmcast_proto::key::{Buckets, explicit_hash_key};

use super::queue::Group;
use crate::fanout::RegionFrame;
use crate::target::{EntryAnswer, PutEntry, StreamSummary, TargetStream};

/// A PutRecords call to be made.
pub(super) struct Call {
    /// Empty: a probe.
    pub(super) group: Group<RegionFrame>,
    pub(super) sent: Instant,
}

/// One that was made.
pub(super) struct Made {
    pub(super) group: Group<RegionFrame>,
    pub(super) sent: Instant,
    pub(super) answers: Result<Vec<EntryAnswer>, CallError>,
    /// How the stream is, if one entry by itself was refused.
    pub(super) stream: Option<Result<StreamSummary, CallError>>,
}

impl Call {
    pub(super) async fn make(self, target: TargetStream, buckets: Buckets) -> Made {
        let Self { group, sent } = self;
        let entry = |bucket: u32, data| PutEntry {
            data,
            partition_key: bucket.to_string(),
            hash_key: explicit_hash_key(bucket, buckets),
        };
        let answers = if group.entries.is_empty() {
            // It says that every change made before 1970 is there: true, and of no use.
            target.put_records(std::iter::once(entry(0, target.heartbeat(0)))).await
        } else {
            let entries = group.entries.iter().map(|e| entry(e.bucket, e.payload.bytes.clone()));
            target.put_records(entries).await
        };
        let is_refused = answers.as_ref().is_err_and(|error| error.class == Class::Permanent);
        // A wrong endpoint or stream name has every call refused: that is no reason to give up frames.
        let stream = match is_refused && group.entries.len() == 1 && !group.is_tried {
            true => Some(target.summary().await),
            false => None,
        };
        Made { group, sent, answers, stream }
    }
}
