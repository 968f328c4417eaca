//! The `aggregator` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    warmcast_common::daemon::main(
        "aggregator",
        "Tails the streams of DynamoDB tables and puts batched updates to a Kinesis stream in every region.",
        warmcast_aggregator::run,
    )
}
