//! Many rows at once, before the traffic begins.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{ATTEMPTS_MAX, RETRY_PAUSE, WorkloadError};
use crate::entry::now_ms;
use crate::profile;

/// AWS: BatchWriteItem, 25 requests.
const BATCH_ROWS: u64 = 25;
const LOADERS: u8 = 4;

/// Writes the first version of the profiles of the first `rows` users, as fast as DynamoDB takes them.
///
/// # Errors
/// DynamoDB refuses again and again.
pub async fn load(client: &Client, table: &str, rows: u64, seed: u64) -> Result<(), WorkloadError> {
    let table: Arc<str> = Arc::from(table);
    let mut loaders = JoinSet::new();
    for loader in 0..LOADERS {
        let (client, table) = (client.clone(), Arc::clone(&table));
        loaders.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed.wrapping_add(loader.into()));
            for batch in (loader.into()..rows.div_ceil(BATCH_ROWS)).step_by(LOADERS.into()) {
                let users = batch * BATCH_ROWS..rows.min((batch + 1) * BATCH_ROWS);
                write_batch(&client, &table, &mut rng, users).await?;
            }
            Ok::<_, WorkloadError>(())
        });
    }
    while let Some(ended) = loaders.join_next().await {
        ended??;
    }
    Ok(())
}

async fn write_batch(
    client: &Client,
    table: &str,
    rng: &mut StdRng,
    users: std::ops::Range<u64>,
) -> Result<(), WorkloadError> {
    let first = users.start;
    let failed = |reason: String| WorkloadError::Write {
        table: table.to_owned(),
        key: profile::cookie_id(first),
        reason,
    };
    let put = |user: u64| {
        let row = profile::profile(rng, &profile::cookie_id(user), 1, now_ms());
        let put = PutRequest::builder().set_item(Some(row)).build();
        put.map(|put| WriteRequest::builder().put_request(put).build())
    };
    let requests: Result<Vec<WriteRequest>, _> = users.map(put).collect();
    let mut left = HashMap::from([(table.to_owned(), requests.map_err(|error| failed(error.to_string()))?)]);
    let mut reason = "it takes a part only".to_owned();
    for _ in 0..ATTEMPTS_MAX {
        match client.batch_write_item().set_request_items(Some(left.clone())).send().await {
            Ok(answer) => left = answer.unprocessed_items.unwrap_or_default(),
            Err(error) => reason = DisplayErrorContext(error).to_string(),
        }
        if left.is_empty() {
            return Ok(());
        }
        sleep(RETRY_PAUSE).await;
    }
    Err(failed(reason))
}
