//! The limits that AWS sets for the services we call, and the bounds we set ourselves.
//!
//! Every number that comes from a service stands here with its source, so that one file is changed when a
//! service changes. Bounds that must hold together are checked when the crate is compiled.

use std::time::Duration;

/// Entries in one PutRecords call (AWS: Kinesis API reference, PutRecords).
pub const PUT_RECORDS_ENTRIES_MAX: usize = 500;
/// Bytes in one PutRecords call, partition keys included (AWS: PutRecords, 10 MiB).
pub const PUT_RECORDS_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Bytes that are used of it: half, since a call is then sent again at half the cost, and the limit was 5 MiB for years,
/// which is what other servers know.
pub const PUT_RECORDS_BYTES_DEFAULT: usize = PUT_RECORDS_BYTES_MAX / 2;
/// A call has room for the largest record.
pub const PUT_RECORDS_BYTES_MIN: usize = KINESIS_RECORD_BYTES_MAX;
/// Bytes that one shard takes in a second (AWS: Kinesis quotas, 1 MB/s for data and partition keys, for on-demand
/// streams as well).
pub const KINESIS_SHARD_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// Records that one shard takes in a second (AWS: Kinesis quotas, 1,000).
pub const KINESIS_SHARD_RECORDS_PER_SECOND: u64 = 1_000;
/// Bytes of one Kinesis record: data and partition key (AWS: `MaxRecordSizeInKiB` of a stream, 1 MiB to 10 MiB). Every
/// stream takes that much; larger records are for exceptions (AWS: at most 2 % of all), and ours are batches.
pub const KINESIS_RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Room kept in a record for its partition key: we write a bucket number, at most ten digits.
pub const PARTITION_KEY_BYTES_MAX: usize = 16;
/// The most that one frame may have, so that it and its partition key fit a record even if it does not compress.
pub const FRAME_BYTES_MAX: usize = KINESIS_RECORD_BYTES_MAX - PARTITION_KEY_BYTES_MAX;

/// GetRecords calls a second on one Kinesis shard (AWS: GetRecords, five).
pub const KINESIS_READ_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Records asked for in one Kinesis GetRecords call (AWS: at most 10,000). A record of ours is a frame of up
/// to 1 MiB, so the bytes are the limit that counts.
pub const KINESIS_READ_RECORDS_MAX: i32 = 1_000;
/// Bytes that one Kinesis GetRecords call can answer with (AWS: GetRecords, 10 MiB).
pub const KINESIS_PAGE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// No stream keeps its records for less (AWS: Kinesis Data Streams, changing the data retention period: 24 hours).
pub const KINESIS_RETENTION_MIN: Duration = Duration::from_secs(24 * 3_600);

/// Bytes of one PUT payload unit of a provisioned stream (AWS: Kinesis Data Streams pricing, 25 KB; read as 25,000, which
/// is the more units).
pub const KINESIS_PUT_UNIT_BYTES: u32 = 25_000;
/// Bytes to which each record of an on-demand stream is rounded up when what is written is charged (AWS: Kinesis Data Streams
/// pricing, on-demand mode, Data-In: 1 KB, 1,024 bytes).
pub const KINESIS_ON_DEMAND_ROUND_BYTES: u32 = 1_024;
/// Bytes of an item that one write unit writes (AWS: DynamoDB read/write capacity, 1 KB).
pub const DYNAMODB_WRITE_UNIT_BYTES: u32 = 1_024;
/// Bytes of an item that one read unit reads, strongly consistent (AWS: DynamoDB read/write capacity, 4 KB).
pub const DYNAMODB_READ_UNIT_BYTES: u32 = 4_096;

/// How long DynamoDB Streams keeps a record (AWS: 24 hours).
pub const DYNAMODB_STREAMS_RETENTION: Duration = Duration::from_secs(24 * 3_600);
/// Records of one DynamoDB Streams GetRecords call (AWS: GetRecords, 1,000 records or 1 MB).
pub const DYNAMODB_STREAMS_READ_RECORDS_MAX: i32 = 1_000;
/// What one DynamoDB Streams page can weigh once it is decoded: 1 MB with two images of each item's text.
pub const DYNAMODB_STREAMS_PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Pause after an answered read of a stream shard that had records. The service states no rate; five reads a
/// second have been reported as the limit, and a page holds up to 1,000 records.
pub const DYNAMODB_STREAMS_READ_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// How long a claim to a shard's second reader holds. DynamoDB Streams lets two processes read a shard (AWS: DynamoDB
/// Developer Guide, "Reading and processing a stream").
pub const GUEST_CLAIM: Duration = Duration::from_secs(60);
/// Pause between two renewals of such a claim: a lane that was parked meanwhile waits for so long at most.
pub const GUEST_RENEWAL_INTERVAL: Duration = Duration::from_secs(10);
/// Pause between two looks whether the second reader's place is free.
pub const GUEST_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the restart lock holds without being renewed.
pub const RESTART_LOCK: Duration = Duration::from_secs(60);
/// Pause between two renewals of it.
pub const RESTART_LOCK_RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

/// Pause between two DescribeStream calls of the worker that lists a stream (AWS: ten a second for all callers).
pub const DESCRIBE_STREAM_INTERVAL_MIN: Duration = Duration::from_millis(150);
/// Pause between two DescribeStream calls of a whole fleet that ask for the children of one shard.
pub const CHILD_SHARDS_INTERVAL_MIN: Duration = Duration::from_millis(500);
/// A turn to ask for a shard's children that is further off is left to the next listing.
pub const CHILD_SHARDS_WAIT_MAX: Duration = Duration::from_secs(5);
/// Tries of one page of a long listing: what was listed before it is not thrown away for a throttled call.
pub const LISTING_PAGE_TRIES_MAX: u32 = 20;
/// Calls to the state table that one worker makes at once when many leases change hands.
pub const STATE_CALLS_IN_FLIGHT_MAX: usize = 32;
/// Free leases that a worker claims at a look. Small enough that workers which start together share them.
pub const CLAIMS_MAX: usize = 1_000;

/// Tries to find the children of an ended shard before the next full listing: they appear late
/// (awslabs/dynamodb-streams-kinesis-adapter asks up to ten times).
pub const CHILD_SHARD_TRIES_MAX: u32 = 10;

/// How long one child of a finished shard may show without the others. Not documented for DynamoDB Streams; Kinesis
/// tells all children at once with the last page.
pub const CHILDREN_SETTLE: Duration = Duration::from_secs(5);
/// Reads in a row that found nothing before a source that does not tell its tip is taken to be read up to it (AWS:
/// DynamoDB Streams GetRecords, "it might take multiple calls to get to a portion of the shard that contains stream
/// records").
pub const TIP_EMPTY_READS_MIN: u32 = 3;
/// Pause between two looks at the fleet's watermark.
pub const WATERMARK_INTERVAL: Duration = Duration::from_secs(1);

/// Records of one shard that may be read and not yet done.
pub const WINDOW_RECORDS_MAX: usize = 65_536;

/// Bytes of a DynamoDB item, its attributes' names included (AWS: DynamoDB quotas, 400 KB).
pub const DYNAMODB_ITEM_BYTES_MAX: usize = 400 * 1024;
/// Bytes of a dead letter's content in one item. What is left of the item has the rest of the letter: its reason, its
/// key (AWS: DynamoDB quotas, at most 2,048 + 1,024 bytes), the names of its table, stream and shard.
pub const DEAD_LETTER_PART_BYTES_MAX: usize = DYNAMODB_ITEM_BYTES_MAX - 16 * 1024;
/// Bytes of a dead letter that are kept, before compression. Nothing that is read is larger: a Kinesis record has at most
/// 10 MiB (AWS: `MaxRecordSizeInKiB`), and a stream record's JSON with two images of 400 KB less.
pub const DEAD_LETTER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a dead letter's reason that are kept.
pub const DEAD_LETTER_REASON_BYTES_MAX: usize = 2 * 1024;

const _: () = assert!(FRAME_BYTES_MAX + PARTITION_KEY_BYTES_MAX <= KINESIS_RECORD_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX + PARTITION_KEY_BYTES_MAX <= PUT_RECORDS_BYTES_MIN);
const _: () = assert!(WINDOW_RECORDS_MAX > DYNAMODB_STREAMS_READ_RECORDS_MAX as usize);
const _: () = assert!(WINDOW_RECORDS_MAX > KINESIS_READ_RECORDS_MAX as usize);
