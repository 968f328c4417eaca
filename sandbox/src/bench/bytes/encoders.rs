//! The ways to make a record's data of changes: what the aggregator does, and what it might do.

use bytes::Bytes;
use warmcast_proto::change::Change;
use warmcast_proto::frame::{
    Compression, Compressor, FRAME_BODY_BYTES_MAX, FrameBuilder, HEADER_LEN, decode,
};
use warmcast_proto::json;
use warmcast_proto::kpl::AggregateBuilder;

use super::BytesBenchError;
use super::columns::transpose;
use super::updates::Update;

/// The aggregator's default.
pub(super) const DEFAULT: &str = "zstd 3";

/// The size that zstd's own tool trains to when it is told none.
const DICTIONARY_BYTES_MAX: usize = 110 << 10;
/// What the aggregator lets a record have.
const KPL_RECORD_BYTES_MAX: usize = (1 << 20) - 16;
/// The hash key of some bucket.
const HASH_KEY: &str = "170141183460469231731687303715884105728";
const LEVELS: [i32; 3] = [1, 3, 9];

/// Makes frames of changes in one way.
pub(super) struct Encoder {
    builder: FrameBuilder,
    way: Way,
}

enum Way {
    /// As the aggregator does it.
    Frame(Compressor),
    /// A frame whose body is compressed with a dictionary. It would be named by the id that zstd writes into its own
    /// header, so nothing is added to the length.
    Dictionary(Zstd),
    /// A frame whose body has the values of one attribute together.
    Columns(Zstd),
    /// A JSON document for each change in the Kinesis Producer Library's format, as the aggregator does it on demand.
    Kpl(Compressor, AggregateBuilder),
}

struct Zstd {
    plain: Compressor,
    zstd: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
}

/// Every way, with its name.
pub(super) fn all(dictionary: &[u8]) -> Result<Vec<(String, Encoder)>, BytesBenchError> {
    let frame = |compression| -> Result<_, BytesBenchError> { Ok(Way::Frame(Compressor::new(compression)?)) };
    let mut ways =
        vec![("none".to_owned(), frame(Compression::None)?), ("lz4".to_owned(), frame(Compression::Lz4)?)];
    for level in LEVELS {
        ways.push((format!("zstd {level}"), frame(Compression::Zstd { level })?));
    }
    for level in LEVELS {
        ways.push((format!("zstd {level}, dictionary"), Way::Dictionary(Zstd::new(level, dictionary)?)));
    }
    for level in LEVELS {
        ways.push((format!("zstd {level}, columns"), Way::Columns(Zstd::new(level, &[])?)));
    }
    let plain = Compressor::new(Compression::None)?;
    ways.push(("KPL".to_owned(), Way::Kpl(plain, AggregateBuilder::new(KPL_RECORD_BYTES_MAX))));
    Ok(ways.into_iter().map(|(name, way)| (name, Encoder { builder: FrameBuilder::new(), way })).collect())
}

/// Trains a dictionary on updates: one sample for each.
pub(super) fn train(updates: &[Update]) -> Result<Vec<u8>, BytesBenchError> {
    let samples = updates.iter().map(|update| body(&update.change)).collect::<Result<Vec<_>, _>>()?;
    zstd::dict::from_samples(&samples, DICTIONARY_BYTES_MAX).map_err(BytesBenchError::Zstd)
}

fn body(change: &Change) -> Result<Vec<u8>, BytesBenchError> {
    let mut builder = FrameBuilder::new();
    builder.push(change);
    let frame = builder.finish(&mut Compressor::new(Compression::None)?)?;
    Ok(frame.slice(HEADER_LEN..).to_vec())
}

impl Encoder {
    /// What the next frame is built with.
    pub(super) fn builder(&mut self) -> &mut FrameBuilder {
        &mut self.builder
    }

    /// Ends a frame; the lengths of the records that carry it are added.
    pub(super) fn finish(&mut self, records: &mut Vec<usize>) -> Result<(), BytesBenchError> {
        records.push(match &mut self.way {
            Way::Frame(compressor) => self.builder.finish(compressor)?.len(),
            Way::Dictionary(zstd) => {
                let frame = self.builder.finish(&mut zstd.plain)?;
                zstd.frame_len(&frame.slice(HEADER_LEN..))?
            }
            Way::Columns(zstd) => {
                let frame = self.builder.finish(&mut zstd.plain)?;
                zstd.frame_len(&transpose(frame)?)?
            }
            Way::Kpl(plain, aggregate) => {
                let frame = self.builder.finish(plain)?;
                return aggregated(frame, aggregate, records);
            }
        });
        Ok(())
    }
}

/// The records of an uncompressed frame's changes.
fn aggregated(
    frame: Bytes,
    aggregate: &mut AggregateBuilder,
    records: &mut Vec<usize>,
) -> Result<(), BytesBenchError> {
    let failed = |error: &dyn std::fmt::Display| BytesBenchError::Update(error.to_string());
    let frame = decode(frame, FRAME_BODY_BYTES_MAX).map_err(|error| failed(&error))?;
    for change in frame.changes {
        let change = change.map_err(|error| failed(&error))?;
        let document = json::encode(&change, change.created_ms).map_err(|error| failed(&error))?;
        let partition_key = json::partition_key(&change.key);
        if !aggregate.push(&partition_key, Some(HASH_KEY), &document) {
            records.extend(aggregate.finish().map(|record| record.len()));
            if !aggregate.push(&partition_key, Some(HASH_KEY), &document) {
                return Err(BytesBenchError::Update("it does not fit a record".to_owned()));
            }
        }
    }
    records.extend(aggregate.finish().map(|record| record.len()));
    Ok(())
}

impl Zstd {
    fn new(level: i32, dictionary: &[u8]) -> Result<Self, BytesBenchError> {
        let zstd = zstd::bulk::Compressor::with_dictionary(level, dictionary);
        let plain = Compressor::new(Compression::None)?;
        Ok(Self { plain, zstd: zstd.map_err(BytesBenchError::Zstd)?, compressed: Vec::new() })
    }

    fn frame_len(&mut self, body: &[u8]) -> Result<usize, BytesBenchError> {
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(body.len()));
        self.zstd.compress_to_buffer(body, &mut self.compressed).map_err(BytesBenchError::Zstd)?;
        Ok(HEADER_LEN + self.compressed.len().min(body.len()))
    }
}
