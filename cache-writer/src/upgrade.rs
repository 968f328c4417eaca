//! `upgrade`: restarts one cache-writer of the region's fleet at a time.

use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::store::{Heartbeat, StateStore};
use warmcast_common::daemon::Outcome;
use warmcast_common::status::Look;
use warmcast_common::upgrade::{Fleet, UpgradeArgs, upgrade};

use crate::config::Config;
use crate::status::{criteria, streams};

/// Carries out `upgrade`.
///
/// # Errors
/// When nothing was restarted.
pub async fn upgrade_command(
    args: UpgradeArgs,
    shutdown: CancellationToken,
) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
    let fleet = Fleet {
        store: StateStore::new(dynamodb, &config.state.table),
        worker_id: config.worker_id.clone(),
        lease_duration: config.worker.lease_duration,
        streams: async |_: &StateStore, heartbeats: &[Heartbeat]| {
            streams(&config, &kinesis, heartbeats).await
        },
        criteria: |look: &Look| criteria(look, args.watermark_bound),
    };
    Box::pin(upgrade(args.clone(), fleet, shutdown)).await
}
