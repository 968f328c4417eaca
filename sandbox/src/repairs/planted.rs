//! Wrong entries are planted by hand: an old payload with the newest position, and a deleted row that is back.
//!
//! Neither is mended by the stream: the positions say that all is well. Only who compares with the master finds them.

use std::time::Duration;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use warmcast_proto::entry::{EntryHeader, EntryKind};

use super::RepairsError;
use super::run::Run;
use super::tool::{DONE, PROBLEMS, Program};
use crate::entry::{self, Entry};
use crate::profile::VERSION_ATTRIBUTE;
use crate::report::Target;
use crate::world::KEY_ATTRIBUTE;

/// The row whose entry goes back.
const OLD: &str = "planted-old";
/// The row that is deleted, and whose entry comes back.
const DELETED: &str = "planted-deleted";
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// When verification looks again: later than any change is on its way here.
const LOOKS: &str = "5s,15s";

/// Nobody else needs this machine's DynamoDB.
const AS_FAST_AS_IT_GOES: [&str; 4] = ["--keys-per-s", "1000000", "--read-units-per-s", "1000000"];

pub(super) async fn run(mut run: Run<'_>) -> Result<(), RepairsError> {
    plant(&mut run).await?;
    let table = run.table.clone();
    let verify = ["verify", "--table", &table, "--all", "--looks", LOOKS, "--output", "json"];
    let verify = [&verify[..], &AS_FAST_AS_IT_GOES].concat();
    let found = run.tool(Program::CacheWriter, &verify, PROBLEMS).await?;
    for key in [OLD, DELETED] {
        if !found.output.stdout.contains(key) {
            run.report.violation(format!("verify did not find {key}:\n{}", found.output))?;
        }
        let explain = ["explain", "--table", &table, key];
        let explained = run.tool(Program::CacheWriter, &explain, PROBLEMS).await?;
        run.report.note(explained.output.stdout.clone())?;
    }
    let repair = [&verify[..], &["--repair"]].concat();
    run.tool(Program::CacheWriter, &repair, DONE).await?;
    run.tool(Program::CacheWriter, &verify, DONE).await?;
    for key in [OLD, DELETED] {
        run.tool(Program::CacheWriter, &["explain", "--table", &table, key], DONE).await?;
    }
    let wrong = wrong(&run).await? as f64;
    run.figure("planted entries that are still wrong", "entries", wrong, Some(Target::AtMost(0.0)))?;
    run.settle().await
}

/// How many of the planted entries do not show what the table has.
async fn wrong(run: &Run<'_>) -> Result<usize, RepairsError> {
    let mut connection = run.region()?.redis().connect().await?;
    let old = entry::get(&mut connection, &run.table, OLD).await?;
    let deleted = entry::get(&mut connection, &run.table, DELETED).await?;
    Ok(usize::from(old.number(VERSION_ATTRIBUTE) != Some(2)) + usize::from(deleted.row().is_some()))
}

/// Writes and deletes rows as anybody would, then makes their entries wrong.
async fn plant(run: &mut Run<'_>) -> Result<(), RepairsError> {
    let mut connection = run.region()?.redis().connect().await?;
    let mut first = Vec::new();
    for key in [OLD, DELETED] {
        put(run, key, 1).await?;
        arrives(run, &mut connection, key, |entry| entry.number(VERSION_ATTRIBUTE) == Some(1)).await?;
        first.push(stored(&mut connection, &run.table, key).await?);
    }
    put(run, OLD, 2).await?;
    delete(run, DELETED).await?;
    arrives(run, &mut connection, OLD, |entry| entry.number(VERSION_ATTRIBUTE) == Some(2)).await?;
    arrives(run, &mut connection, DELETED, Entry::is_tombstone).await?;
    for (key, first) in [OLD, DELETED].into_iter().zip(first) {
        let newest = stored(&mut connection, &run.table, key).await?;
        let wrong = with_payload_of(&newest, &first)
            .ok_or_else(|| run.late(&format!("{key} has an entry that can be read"), Duration::ZERO))?;
        let () = redis::cmd("SET")
            .arg(entry::redis_key(&run.table, key))
            .arg(wrong)
            .query_async(&mut connection)
            .await?;
    }
    Ok(())
}

/// A live entry with the newest entry's position and time, and the payload of an older one.
fn with_payload_of(newest: &[u8], older: &[u8]) -> Option<Vec<u8>> {
    let (newest, _) = EntryHeader::decode(newest).ok()?;
    let (_, payload) = EntryHeader::decode(older).ok()?;
    let header = EntryHeader::new(EntryKind::Live, newest.position(), newest.time_ms()).ok()?;
    Some([header.encode().as_ref(), payload].concat())
}

async fn stored(connection: &mut MultiplexedConnection, table: &str, key: &str) -> redis::RedisResult<Bytes> {
    redis::cmd("GET").arg(entry::redis_key(table, key)).query_async(connection).await
}

async fn arrives(
    run: &Run<'_>,
    connection: &mut MultiplexedConnection,
    key: &str,
    is_it: impl Fn(&Entry) -> bool,
) -> Result<(), RepairsError> {
    let began = Instant::now();
    while !is_it(&entry::get(connection, &run.table, key).await?) {
        if began.elapsed() > ARRIVAL_PATIENCE {
            return Err(run.late(&format!("a write of {key} is in the cache"), ARRIVAL_PATIENCE));
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

async fn put(run: &Run<'_>, key: &str, version: u64) -> Result<(), RepairsError> {
    let put = run.world.dynamodb().put_item().table_name(&run.table);
    let put = put.item(KEY_ATTRIBUTE, AttributeValue::S(key.to_owned()));
    let put = put.item(VERSION_ATTRIBUTE, AttributeValue::N(version.to_string()));
    let put = put.send().await;
    put.map_err(|error| RepairsError::Write { reason: DisplayErrorContext(error).to_string() })?;
    Ok(())
}

async fn delete(run: &Run<'_>, key: &str) -> Result<(), RepairsError> {
    let delete = run.world.dynamodb().delete_item().table_name(&run.table);
    let delete = delete.key(KEY_ATTRIBUTE, AttributeValue::S(key.to_owned())).send().await;
    delete.map_err(|error| RepairsError::Write { reason: DisplayErrorContext(error).to_string() })?;
    Ok(())
}
