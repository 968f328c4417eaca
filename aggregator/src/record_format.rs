//! How a region's records are written: for our own cache-writers alone, or for everybody.

use bytes::Bytes;
use warmcast_proto::frame::FrameBuilder;
use warmcast_proto::json;

/// `[regions.NAME] record_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// Compressed frames.
    Frame,
    /// Records as the Kinesis Producer Library aggregates them, with a JSON document for each change: see `docs/kpl.md`.
    Kpl,
}

impl RecordFormat {
    /// A record that tells this watermark (milliseconds since the Unix epoch); with 0, one that says nothing.
    pub fn heartbeat(self, watermark_ms: u64) -> Bytes {
        match self {
            Self::Frame => FrameBuilder::heartbeat(watermark_ms),
            // By itself, not aggregated: who takes records apart passes it on as it is.
            Self::Kpl => json::heartbeat(watermark_ms),
        }
    }
}
