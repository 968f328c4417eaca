//! A table without items whose stream is the fake's: what an aggregator needs of the master region when the changes
//! come from a script.

use std::io;

use aws_sdk_dynamodb::error::DisplayErrorContext;

use crate::clients;
use crate::dynamodb::{DynamoDbError, MASTER_REGION, create_table};
use crate::streams::{FakeStreams, FakeStreamsServer, Options, ScriptError};

/// Why there is no such table.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// It could not be created.
    #[error(transparent)]
    DynamoDb(#[from] DynamoDbError),
    /// The fake of DynamoDB Streams.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The fake has no port.
    #[error("cannot start the fake of DynamoDB Streams: {0}")]
    Start(#[from] io::Error),
    /// The table's stream and the fake's are not the same.
    #[error("cannot make the fake's stream that of the table: {0}")]
    Stream(String),
}

/// Creates a table, and starts a fake with a stream that has the ARN which the database tells of the table. The
/// stream has no shards.
///
/// # Errors
/// See [`MasterError`].
pub(crate) async fn start_table(
    table: &str,
    key: &str,
    dynamodb_url: &str,
    options: Options,
) -> Result<(FakeStreamsServer, String), MasterError> {
    let client = clients::dynamodb(dynamodb_url, MASTER_REGION);
    create_table(&client, table, key).await?;
    let described = client.describe_table().table_name(table).send().await;
    let described = described.map_err(|error| MasterError::Stream(DisplayErrorContext(error).to_string()))?;
    let arn = described.table.and_then(|table| table.latest_stream_arn).unwrap_or_default();
    // arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE/stream/LABEL; the label has colons.
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [_, _, _, region, account, resource] = parts.as_slice() else {
        return Err(MasterError::Stream(format!("the table has the stream {arn:?}")));
    };
    let label = resource.rsplit('/').next().unwrap_or_default();
    let options = Options { region: (*region).to_owned(), account: (*account).to_owned(), ..options };
    let streams = FakeStreams::start(options).await?;
    let made = streams.streams().create_stream(table, Some(label))?;
    if made != arn {
        return Err(MasterError::Stream(format!("the table has {arn}, the fake {made}")));
    }
    Ok((streams, arn))
}
