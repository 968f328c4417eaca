//! The `cache-writer` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    warmcast_common::daemon::main(
        "cache-writer",
        "Applies the updates of a region's Kinesis stream to the region's Redis.",
        warmcast_cache_writer::run,
    )
}
