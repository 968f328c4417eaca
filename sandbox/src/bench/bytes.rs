//! `sandbox bench bytes`: what an update costs on the wire, by batch size and compression.
//!
//! The updates are those of the profile workload as the aggregator would send them, each of another user and with the
//! whole profile. They are held against the same updates as a plain producer would send them: one Kinesis record for
//! each, of uncompressed DynamoDB JSON. Bytes do not depend on the machine or the build; CPU times do.

mod updates;
mod columns;
mod encoders;

use std::io;
use std::time::Duration;

use crate::report::{Output, Report, Target};
use crate::usage::thread_cpu;
use encoders::Encoder;
use updates::Update;

/// What the default compression of 16 changes a frame should save at least: plain JSON is so many times larger.
const RATIO_TARGET: f64 = 3.0;
/// Where the target holds.
const RATIO_AT_CHANGES: usize = 16;
/// AWS: Kinesis Data Streams pricing, PUT payload unit.
const PAYLOAD_UNIT_BYTES: usize = 25_000;
/// AWS: Kinesis Data Streams quotas, writes of a shard.
const SHARD_BYTES_PER_SECOND: f64 = 1_048_576.0;
const SHARD_RECORDS_PER_SECOND: f64 = 1_000.0;
/// The most bytes of a frame's body, as the aggregator has it.
const BODY_BYTES_MAX: usize = (1 << 20) - 64;

/// What to run.
#[derive(Clone, Debug)]
pub struct BytesBenchOptions {
    /// Changes of a frame, each number measured by itself.
    pub changes: Vec<usize>,
    /// Updates.
    pub updates: usize,
    /// Frames are made again until they have taken so much CPU time.
    pub cpu: Duration,
    /// Seed of the profiles.
    pub seed: u64,
    /// How the report is printed.
    pub output: Output,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BytesBenchError {
    /// Nothing can be measured.
    #[error(
        "the benchmark needs at least as many updates as the largest number of changes, and none of 0 changes"
    )]
    Options,
    /// An update cannot be made.
    #[error("an update of the workload: {0}")]
    Update(String),
    /// A frame cannot be built.
    #[error(transparent)]
    Frame(#[from] warmcast_proto::frame::BuildError),
    /// A dictionary cannot be trained or used.
    #[error("zstd: {0}")]
    Zstd(#[source] io::Error),
    /// There is no `/proc`.
    #[error("the CPU time of a thread cannot be read: this needs Linux")]
    NoCpuTime,
    /// The output.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One cell of the table.
struct Measured {
    /// Bytes of all records' data.
    record_bytes: usize,
    /// Bytes of the requests' bodies that carry them, as CBOR and as JSON.
    cbor_bytes: usize,
    json_bytes: usize,
    records: usize,
    payload_units: usize,
    cpu_per_update: Duration,
}

/// Runs the benchmark.
///
/// # Errors
/// See [`BytesBenchError`].
pub fn run(options: &BytesBenchOptions) -> Result<Report, BytesBenchError> {
    let most = options.changes.iter().copied().max().unwrap_or_default();
    if most == 0 || options.changes.contains(&0) || options.updates < most {
        return Err(BytesBenchError::Options);
    }
    let updates = updates::draw(options.seed, options.updates)?;
    // Other users than those that are measured: a dictionary never knows the values it will meet.
    let samples = updates::draw(options.seed + 1, options.updates.max(2_000))?;
    let dictionary = encoders::train(&samples)?;
    let json_bytes: usize = updates.iter().map(|update| update.json.len()).sum();
    let json_request_bytes: usize = updates.iter().map(|update| json_entry_len(update.json.len())).sum();
    let mut report = Report::begin(options.output, conditions(&updates, dictionary.len()))?;
    report.scenario("plain JSON, one record each")?;
    let count = updates.len() as f64;
    report.row(
        "JSON",
        &[
            ("record", "B/update", json_bytes as f64 / count),
            ("JSON request", "B/update", json_request_bytes as f64 / count),
        ],
    )?;
    for &changes in &options.changes {
        report.scenario(format!("{changes} change(s) a frame"))?;
        for (name, mut encoder) in encoders::all(&dictionary)? {
            let measured = measure(&mut encoder, &updates, changes, options.cpu)?;
            row(&mut report, &name, &measured, updates.len(), json_bytes)?;
            if changes == RATIO_AT_CHANGES && name == encoders::DEFAULT {
                let ratio = json_bytes as f64 / measured.record_bytes as f64;
                report.figure(
                    "plain JSON, times the default",
                    "",
                    vec![ratio],
                    Some(Target::AtLeast(RATIO_TARGET)),
                )?;
            }
        }
    }
    report.finish()?;
    Ok(report)
}

fn conditions(updates: &[Update], dictionary_bytes: usize) -> Vec<String> {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let payload: usize = updates.iter().map(|update| update.change.payload.len()).sum();
    vec![
        format!(
            "{} updates, each of another user; an item has {} bytes encoded",
            updates.len(),
            payload / updates.len().max(1)
        ),
        format!("dictionary of {dictionary_bytes} bytes, trained on other users' updates; {build} build"),
        "B/update: the record's data; x smaller than JSON's; B/update of PutRecords calls as CBOR and as JSON; \
         CPU of build and compression; Kinesis' PUT payload units for 1,000 updates; updates/s that a shard takes"
            .to_owned(),
    ]
}

/// Makes all frames again and again until it has taken `cpu`, but once at least.
fn measure(
    encoder: &mut Encoder,
    updates: &[Update],
    changes: usize,
    cpu: Duration,
) -> Result<Measured, BytesBenchError> {
    let now = || thread_cpu().ok_or(BytesBenchError::NoCpuTime);
    let begin = now()?;
    let mut rounds = 0;
    loop {
        let frames = encode(encoder, updates, changes)?;
        rounds += 1;
        let spent = now()?.saturating_sub(begin);
        if spent >= cpu {
            let updates_made = u32::try_from(updates.len()).unwrap_or(u32::MAX).saturating_mul(rounds);
            return Ok(Measured {
                record_bytes: frames.iter().sum(),
                cbor_bytes: frames.iter().map(|&len| cbor_entry_len(len)).sum(),
                json_bytes: frames.iter().map(|&len| json_entry_len(len)).sum(),
                records: frames.len(),
                payload_units: frames.iter().map(|len| len.div_ceil(PAYLOAD_UNIT_BYTES)).sum(),
                cpu_per_update: spent / updates_made.max(1),
            });
        }
    }
}

/// The lengths of the frames. A frame ends by the number of its changes or by its bytes, whichever comes first.
fn encode(encoder: &mut Encoder, updates: &[Update], changes: usize) -> Result<Vec<usize>, BytesBenchError> {
    let mut frames = Vec::with_capacity(updates.len() / changes + 1);
    for update in updates {
        let builder = encoder.builder();
        if builder.changes() >= changes || builder.len_with(&update.change) > BODY_BYTES_MAX {
            encoder.finish(&mut frames)?;
        }
        encoder.builder().push(&update.change);
    }
    encoder.finish(&mut frames)?;
    Ok(frames)
}

fn row(
    report: &mut Report,
    name: &str,
    measured: &Measured,
    updates: usize,
    json_bytes: usize,
) -> io::Result<()> {
    let per_update = |total: usize| total as f64 / updates as f64;
    let by_bytes = SHARD_BYTES_PER_SECOND / per_update(measured.record_bytes);
    let by_records = SHARD_RECORDS_PER_SECOND / per_update(measured.records);
    report.row(
        name,
        &[
            ("record", "B/update", per_update(measured.record_bytes)),
            ("ratio", "x", json_bytes as f64 / measured.record_bytes as f64),
            ("CBOR request", "B/update", per_update(measured.cbor_bytes)),
            ("JSON request", "B/update", per_update(measured.json_bytes)),
            ("cpu", "µs/update", measured.cpu_per_update.as_secs_f64() * 1e6),
            ("payload units", "units", per_update(measured.payload_units) * 1_000.0),
            ("updates of a shard", "/s", by_bytes.min(by_records)),
        ],
    )
}

/// A partition key of four digits and a hash key of 39.
const KEYS_LEN: usize = 4 + 39;

/// What a record takes of a PutRecords call's body as the AWS SDK writes it, in JSON with base64.
fn json_entry_len(record_len: usize) -> usize {
    const AROUND: usize = r#"{"Data":"","ExplicitHashKey":"","PartitionKey":""},"#.len();
    record_len.div_ceil(3) * 4 + AROUND + KEYS_LEN
}

/// The same as the aggregator writes it, in CBOR: each text and each byte string with a head, of at most 5 bytes for the
/// data, 2 for a hash key, 1 for what is short.
fn cbor_entry_len(record_len: usize) -> usize {
    const AROUND: usize = 1 + "Data".len() + "ExplicitHashKey".len() + "PartitionKey".len() + 3 + 5 + 2 + 1;
    record_len + AROUND + KEYS_LEN
}
