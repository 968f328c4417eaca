//! What is expected of anything that claims to be DynamoDB Streams: as AWS documents it, and as the tests of
//! ScyllaDB's Alternator saw it of the service.
//!
//! Each expectation gets a table of its own, with an enabled stream and one shard.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_sdk_dynamodbstreams::types::{
    OperationType, Record, ShardFilter, ShardFilterType, ShardIteratorType, StreamStatus, StreamViewType,
};
use tokio::time::{Duration, Instant, sleep};

use crate::contract::Table;
use crate::support::*;

/// Long enough and of the right alphabet, and of nothing that exists.
const NO_SHARD: &str = "shardId-00000000000000000001-0badcafe";

/// How long a table's change may take to its stream.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) async fn an_enabled_stream_is_described(table: &Table<'_>) -> Result<()> {
    let answer = table.client.describe_stream().stream_arn(&table.arn).send().await?;
    let described = answer.stream_description.context("no description")?;
    ensure!(described.stream_arn() == Some(&table.arn), "ARN {:?}", described.stream_arn());
    ensure!(described.table_name() == Some(&table.name), "table {:?}", described.table_name());
    let label = described.stream_label().context("no label")?;
    ensure!(table.arn.ends_with(&format!("/stream/{label}")), "label {label}");
    ensure!(described.stream_status() == Some(&StreamStatus::Enabled), "{:?}", described.stream_status());
    ensure!(
        described.stream_view_type() == Some(&StreamViewType::NewAndOldImages),
        "{:?}",
        described.stream_view_type()
    );
    ensure!(described.key_schema().len() == 1 && described.key_schema()[0].attribute_name() == "id");
    ensure!(described.creation_request_date_time().is_some(), "no time of creation");
    ensure!(described.last_evaluated_shard_id().is_none(), "another page");
    ensure!(described.shards().len() == 1, "{} shards", described.shards().len());
    Ok(())
}

pub(crate) async fn a_shard_id_has_28_to_65_characters(table: &Table<'_>) -> Result<()> {
    let shard = table.shard().await?;
    ensure!((28..=65).contains(&shard.len()), "{shard}");
    Ok(())
}

pub(crate) async fn an_open_shard_has_a_start_and_no_end(table: &Table<'_>) -> Result<()> {
    table.insert(0).await?;
    let shards = all_shards(table.client, &table.arn).await.map_err(|code| anyhow!(code))?;
    let range = shards[0].sequence_number_range().context("no range")?;
    is_sequence(range.starting_sequence_number().context("no start")?)?;
    ensure!(range.ending_sequence_number().is_none(), "an end: {:?}", range.ending_sequence_number());
    Ok(())
}

pub(crate) async fn the_streams_of_a_table_are_listed(table: &Table<'_>) -> Result<()> {
    let answer = table.client.list_streams().table_name(&table.name).send().await?;
    ensure!(answer.streams().len() == 1, "{} streams", answer.streams().len());
    ensure!(answer.streams()[0].stream_arn() == Some(table.arn.as_str()));
    ensure!(answer.streams()[0].table_name() == Some(table.name.as_str()));
    Ok(())
}

pub(crate) async fn from_the_trim_horizon_all_changes_come_in_order(table: &Table<'_>) -> Result<()> {
    table.insert(0).await?;
    table.modify(0, 1).await?;
    table.remove(0, 1).await?;
    let records = table.read_from(ShardIteratorType::TrimHorizon, None, 3).await?;
    let events: Vec<_> = records.iter().filter_map(Record::event_name).cloned().collect();
    ensure!(events == [OperationType::Insert, OperationType::Modify, OperationType::Remove], "{events:?}");
    ensure!(new_and_old(&records[0]) == (Some("0".into()), None), "insert: {:?}", records[0]);
    ensure!(new_and_old(&records[1]) == (Some("1".into()), Some("0".into())), "modify: {:?}", records[1]);
    ensure!(new_and_old(&records[2]) == (None, Some("1".into())), "remove: {:?}", records[2]);
    Ok(())
}

pub(crate) async fn a_record_has_the_fields_of_a_change(table: &Table<'_>) -> Result<()> {
    table.insert(0).await?;
    let records = table.read_from(ShardIteratorType::TrimHorizon, None, 1).await?;
    let record = &records[0];
    ensure!(record.event_id().is_some_and(|id| !id.is_empty()), "no event id");
    ensure!(record.event_source() == Some("aws:dynamodb"), "{:?}", record.event_source());
    ensure!(record.aws_region().is_some(), "no region");
    ensure!(record.user_identity().is_none(), "an identity: only deletions by time to live have one");
    let change = record.dynamodb().context("no change")?;
    ensure!(
        change.keys().and_then(|keys| keys.get("id")).and_then(|id| id.as_s().ok()) == Some(&key_of(0)),
        "{:?}",
        change.keys()
    );
    ensure!(change.stream_view_type() == Some(&StreamViewType::NewAndOldImages));
    ensure!(change.size_bytes().is_some_and(|bytes| bytes > 0), "no size");
    let created = change.approximate_creation_date_time().context("no time")?;
    ensure!(created.subsec_nanos() == 0, "not in whole seconds: {created:?}");
    Ok(())
}

pub(crate) async fn sequence_numbers_are_21_to_40_digits_and_go_up(table: &Table<'_>) -> Result<()> {
    table.insert_many(12).await?;
    let records = table.read_from(ShardIteratorType::TrimHorizon, None, 12).await?;
    let mut before = 0;
    for record in &records {
        is_sequence(sequence(record))?;
        let number: u128 = sequence(record).parse()?;
        ensure!(number > before, "{number} after {before}");
        before = number;
    }
    Ok(())
}

pub(crate) async fn an_iterator_at_a_sequence_number_starts_with_its_record(table: &Table<'_>) -> Result<()> {
    table.insert_many(5).await?;
    let all = table.read_from(ShardIteratorType::TrimHorizon, None, 5).await?;
    let third = sequence(&all[2]);
    let records = table.read_from(ShardIteratorType::AtSequenceNumber, Some(third), 3).await?;
    same(&records, &all[2..])
}

pub(crate) async fn an_iterator_after_a_sequence_number_starts_behind_it(table: &Table<'_>) -> Result<()> {
    table.insert_many(5).await?;
    let all = table.read_from(ShardIteratorType::TrimHorizon, None, 5).await?;
    let third = sequence(&all[2]);
    let records = table.read_from(ShardIteratorType::AfterSequenceNumber, Some(third), 2).await?;
    same(&records, &all[3..])
}

pub(crate) async fn after_the_last_record_only_what_comes_later_is_read(table: &Table<'_>) -> Result<()> {
    table.insert_many(2).await?;
    let all = table.read_from(ShardIteratorType::TrimHorizon, None, 2).await?;
    let mut at = table.iterator(ShardIteratorType::AfterSequenceNumber, Some(sequence(&all[1]))).await?;
    ensure!(table.read_some(&mut at, 0).await?.is_empty());
    table.insert(7).await?;
    let records = table.read_some(&mut at, 1).await?;
    ensure!(new_and_old(&records[0]).0 == Some("7".into()), "{records:?}");
    Ok(())
}

pub(crate) async fn latest_sees_only_what_comes_later(table: &Table<'_>) -> Result<()> {
    table.insert_many(3).await?;
    table.read_from(ShardIteratorType::TrimHorizon, None, 3).await?;
    let mut at = table.iterator(ShardIteratorType::Latest, None).await?;
    table.insert(9).await?;
    let records = table.read_some(&mut at, 1).await?;
    ensure!(records.len() == 1 && new_and_old(&records[0]).0 == Some("9".into()), "{records:?}");
    Ok(())
}

pub(crate) async fn an_empty_page_has_a_next_iterator(table: &Table<'_>) -> Result<()> {
    let at = table.iterator(ShardIteratorType::TrimHorizon, None).await?;
    let page = table.client.get_records().shard_iterator(&at).send().await?;
    ensure!(page.records.as_ref().is_some_and(Vec::is_empty), "{:?}", page.records);
    ensure!(page.next_shard_iterator.is_some(), "no next iterator");
    Ok(())
}

pub(crate) async fn an_iterator_can_be_used_again(table: &Table<'_>) -> Result<()> {
    table.insert_many(2).await?;
    let first = table.read_from(ShardIteratorType::TrimHorizon, None, 2).await?;
    let at = table.iterator(ShardIteratorType::TrimHorizon, None).await?;
    for _ in 0..2 {
        let page = table.client.get_records().shard_iterator(&at).send().await?;
        same(page.records(), &first)?;
    }
    Ok(())
}

pub(crate) async fn pages_follow_each_other_without_gap_or_repetition(table: &Table<'_>) -> Result<()> {
    table.insert_many(25).await?;
    let all = table.read_from(ShardIteratorType::TrimHorizon, None, 25).await?;
    let mut at = Some(table.iterator(ShardIteratorType::TrimHorizon, None).await?);
    let mut seen = Vec::new();
    let mut pages = 0;
    while seen.len() < all.len() {
        let from = at.take().context("the open shard has no next iterator")?;
        let page = table.client.get_records().shard_iterator(from).limit(10).send().await?;
        pages += 1;
        ensure!(page.records().len() <= 10 && pages < 20, "page {pages} of {}", page.records().len());
        seen.extend(page.records.unwrap_or_default());
        at = page.next_shard_iterator;
    }
    same(&seen, &all)
}

pub(crate) async fn a_disabled_stream_is_closed_and_readable_to_its_end(table: &Table<'_>) -> Result<()> {
    table.insert_many(3).await?;
    let all = table.read_from(ShardIteratorType::TrimHorizon, None, 3).await?;
    table.disable().await?;
    let answer = table.client.describe_stream().stream_arn(&table.arn).send().await?;
    let described = answer.stream_description.context("no description")?;
    ensure!(described.stream_status() == Some(&StreamStatus::Disabled), "{:?}", described.stream_status());
    let range = described.shards()[0].sequence_number_range().context("no range")?;
    is_sequence(range.ending_sequence_number().context("no end")?)?;
    let mut at = Some(table.iterator(ShardIteratorType::TrimHorizon, None).await?);
    let mut seen = Vec::new();
    let mut pages = 0;
    while let Some(from) = at {
        let page = table.client.get_records().shard_iterator(from).send().await?;
        seen.extend(page.records.unwrap_or_default());
        at = page.next_shard_iterator;
        pages += 1;
        ensure!(pages < 10, "no end after {pages} pages and {} records", seen.len());
    }
    same(&seen, &all)
}

pub(crate) async fn a_shard_without_successors_has_no_children(table: &Table<'_>) -> Result<()> {
    let shard = table.shard().await?;
    let children = children(table.client, &table.arn, &shard).await.map_err(|code| anyhow!(code))?;
    ensure!(children.is_empty(), "{children:?}");
    Ok(())
}

pub(crate) async fn a_shard_filter_of_another_type_is_invalid(table: &Table<'_>) -> Result<()> {
    let shard = table.shard().await?;
    let filter = ShardFilter::builder().r#type(ShardFilterType::from("foo")).shard_id(shard).build();
    let refused = table.client.describe_stream().stream_arn(&table.arn).shard_filter(filter).send().await;
    refused_with("ValidationException", refused.map_err(|error| code(&error)))
}

pub(crate) async fn an_unknown_shard_is_not_found(table: &Table<'_>) -> Result<()> {
    let refused = iterator(table.client, &table.arn, NO_SHARD, ShardIteratorType::TrimHorizon, None).await;
    refused_with("ResourceNotFoundException", refused)
}

pub(crate) async fn an_unknown_stream_is_not_found(table: &Table<'_>) -> Result<()> {
    let other = table.arn.replace(&table.name, "no-such-table");
    let refused = table.client.describe_stream().stream_arn(other).send().await;
    refused_with("ResourceNotFoundException", refused.map_err(|error| code(&error)))
}

pub(crate) async fn a_malformed_arn_is_invalid(table: &Table<'_>) -> Result<()> {
    let refused =
        table.client.describe_stream().stream_arn("sdfadfsdfnlfkajakfgjalksfgklasjklasdjfkla").send();
    refused_with("ValidationException", refused.await.map_err(|error| code(&error)))
}

pub(crate) async fn a_garbage_iterator_is_invalid(table: &Table<'_>) -> Result<()> {
    refused_with("ValidationException", read(table.client, "sdfsdfsgagaddafgagasgasgasdfasdfasdf").await)
}

pub(crate) async fn a_sequence_number_is_needed_where_it_is_the_position(table: &Table<'_>) -> Result<()> {
    let shard = table.shard().await?;
    for kind in [ShardIteratorType::AtSequenceNumber, ShardIteratorType::AfterSequenceNumber] {
        let refused = iterator(table.client, &table.arn, &shard, kind, None).await;
        refused_with("ValidationException", refused)?;
    }
    Ok(())
}

pub(crate) async fn a_sequence_number_is_refused_where_it_is_not_the_position(
    table: &Table<'_>,
) -> Result<()> {
    table.insert(0).await?;
    let records = table.read_from(ShardIteratorType::TrimHorizon, None, 1).await?;
    let shard = table.shard().await?;
    for kind in [ShardIteratorType::TrimHorizon, ShardIteratorType::Latest] {
        let refused = iterator(table.client, &table.arn, &shard, kind, Some(sequence(&records[0]))).await;
        refused_with("ValidationException", refused)?;
    }
    Ok(())
}

pub(crate) async fn a_sequence_number_before_the_start_of_the_shard_is_invalid(
    table: &Table<'_>,
) -> Result<()> {
    table.insert(0).await?;
    table.read_from(ShardIteratorType::TrimHorizon, None, 1).await?;
    let shard = table.shard().await?;
    let refused = iterator(
        table.client,
        &table.arn,
        &shard,
        ShardIteratorType::AfterSequenceNumber,
        Some("000000000000000000000"),
    );
    refused_with("ValidationException", refused.await)
}

pub(crate) async fn an_unknown_iterator_type_is_invalid(table: &Table<'_>) -> Result<()> {
    let shard = table.shard().await?;
    let refused = iterator(table.client, &table.arn, &shard, ShardIteratorType::from("bulle"), None).await;
    refused_with("ValidationException", refused)
}

pub(crate) async fn a_limit_outside_1_to_1000_is_invalid(table: &Table<'_>) -> Result<()> {
    let at = table.iterator(ShardIteratorType::TrimHorizon, None).await?;
    for limit in [0, -1, 1_001] {
        let refused = table.client.get_records().shard_iterator(&at).limit(limit).send().await;
        refused_with("ValidationException", refused.map_err(|error| code(&error)))
            .with_context(|| format!("limit {limit}"))?;
    }
    Ok(())
}

impl Table<'_> {
    async fn shard(&self) -> Result<String> {
        let shards = all_shards(self.client, &self.arn).await.map_err(|code| anyhow!(code))?;
        shards.into_iter().next().and_then(|shard| shard.shard_id).context("no shard")
    }

    async fn iterator(&self, kind: ShardIteratorType, sequence: Option<&str>) -> Result<String> {
        let shard = self.shard().await?;
        iterator(self.client, &self.arn, &shard, kind, sequence).await.map_err(|code| anyhow!(code))
    }

    /// Reads exactly `count` records from a position.
    async fn read_from(
        &self,
        kind: ShardIteratorType,
        sequence: Option<&str>,
        count: usize,
    ) -> Result<Vec<Record>> {
        let mut at = self.iterator(kind, sequence).await?;
        self.read_some(&mut at, count).await
    }

    /// Reads on until there are `count` records, and no more than these. A change takes a while into its stream, and
    /// nothing tells when it is there.
    async fn read_some(&self, at: &mut String, count: usize) -> Result<Vec<Record>> {
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        loop {
            let page = self.client.get_records().shard_iterator(&*at).send().await?;
            records.extend(page.records.unwrap_or_default());
            if let Some(next) = page.next_shard_iterator {
                *at = next;
            }
            ensure!(records.len() <= count, "{} records instead of {count}: {records:?}", records.len());
            if records.len() == count {
                return Ok(records);
            }
            ensure!(Instant::now() < deadline, "{} of {count} records came", records.len());
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// The key of the item with this number.
pub(crate) fn key_of(item: u32) -> String {
    format!("item-{item}")
}

/// The attribute `n` of the new and of the old image.
fn new_and_old(record: &Record) -> (Option<String>, Option<String>) {
    let change = record.dynamodb();
    let n = |image: Option<
        &std::collections::HashMap<String, aws_sdk_dynamodbstreams::types::AttributeValue>,
    >| { image?.get("n")?.as_n().ok().cloned() };
    (n(change.and_then(|change| change.new_image())), n(change.and_then(|change| change.old_image())))
}

fn same(read: &[Record], expected: &[Record]) -> Result<()> {
    let read: Vec<_> = read.iter().map(sequence).collect();
    let expected: Vec<_> = expected.iter().map(sequence).collect();
    ensure!(read == expected, "read {read:?} instead of {expected:?}");
    Ok(())
}

fn is_sequence(text: &str) -> Result<()> {
    ensure!((21..=40).contains(&text.len()), "{} digits: {text}", text.len());
    ensure!(text.bytes().all(|byte| byte.is_ascii_digit()), "not a number: {text}");
    Ok(())
}

fn refused_with<T>(expected: &str, outcome: Result<T, String>) -> Result<()> {
    match outcome {
        Ok(_) => bail!("accepted, not refused with {expected}"),
        Err(code) if code == expected => Ok(()),
        Err(code) => bail!("refused with {code}, not with {expected}"),
    }
}
