//! `[master]`: the tables themselves, for items whose changes do not say what they are.

use warmcast_cache::{FillerConfig, MasterConfig};
use warmcast_common::config::{AwsService, Section, ServiceConfig};

use super::FallbackConfig;

/// Reads the section.
pub(super) fn read(mut section: Section) -> FallbackConfig {
    let (mut master, mut filler) = (MasterConfig::default(), FillerConfig::default());
    let dynamodb = ServiceConfig::read(&mut section, AwsService::DynamoDb);
    master.calls_max = section.size("calls_max", 1..=256, 8);
    let read_units = section.integer("read_units_per_second_max", 1..=10_000_000, 1_000);
    master.read_units_per_second_max = f64::from(u32::try_from(read_units).unwrap_or(u32::MAX));
    master.call_timeout = section.duration_ms("call_timeout_ms", 50..=60_000, 1_000);
    master.breaker.slow_after = section.duration_ms("slow_after_ms", 10..=60_000, 500);
    filler.keys_max = section.size("queue_keys_max", 1..=1_000_000, 10_000);
    section.finish();
    FallbackConfig { dynamodb, master, filler }
}
