//! The same expectations of the fake, of Amazon's DynamoDB Local, and of ministack.
//!
//! Where an emulator deviates from what AWS documents, the list here says so and why; it must then fail that
//! expectation, so that the list stays true.

use anyhow::{Result, anyhow};
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, StreamSpecification, WriteRequest};
use aws_sdk_dynamodbstreams::Client;
use warmcast_sandbox::clients;
use warmcast_sandbox::dynamodb::{DynamoDb, Flavour, MASTER_REGION, create_table};
use warmcast_sandbox::streams::{EventName, FakeStreams, Options, Record};

use crate::emulators::Ministack;
use crate::expectations::*;
use crate::support::once;

/// For machines that cannot have them.
const WITHOUT_DYNAMODB_LOCAL: &str = "WARMCAST_WITHOUT_DYNAMODB_LOCAL";
const WITHOUT_MINISTACK: &str = "WARMCAST_WITHOUT_MINISTACK";

/// The most items of one BatchWriteItem (AWS).
const BATCH_ITEMS_MAX: usize = 25;

/// What an emulator does not do as AWS documents it: the expectation, and why it is not met.
type Deviations = &'static [(&'static str, &'static str)];

const DYNAMODB_LOCAL_DEVIATIONS: Deviations = &[
    ("a_shard_without_successors_has_no_children", "older than the shard filter: it answers with all shards"),
    ("a_shard_filter_of_another_type_is_invalid", "older than the shard filter: it is not read"),
    ("a_malformed_arn_is_invalid", "any text is taken for an ARN, and is not found"),
];

const MINISTACK_DEVIATIONS: Deviations = &[
    ("a_record_has_the_fields_of_a_change", "SizeBytes is missing"),
    ("a_shard_filter_of_another_type_is_invalid", "any type but CHILD_SHARDS is passed over"),
    ("a_malformed_arn_is_invalid", "any text is taken for an ARN, and is not found"),
    ("a_sequence_number_is_refused_where_it_is_not_the_position", "it is passed over"),
    ("a_sequence_number_before_the_start_of_the_shard_is_invalid", "trimmed, as any that no record has"),
    ("a_limit_outside_1_to_1000_is_invalid", "a higher limit is taken for 1,000"),
];

/// A table with an enabled stream, and how its items change.
pub(crate) struct Table<'a> {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) client: &'a Client,
    writer: Writer<'a>,
}

enum Writer<'a> {
    Script { streams: &'a FakeStreams, shard: String },
    Dynamo(&'a aws_sdk_dynamodb::Client),
}

impl Table<'_> {
    /// Puts the new item with this number, and `n` the same.
    pub(crate) async fn insert(&self, item: u32) -> Result<()> {
        self.put(item, item, None).await
    }

    /// Puts items 0 to `count`, in this order.
    pub(crate) async fn insert_many(&self, count: u32) -> Result<()> {
        let Writer::Dynamo(client) = self.writer else {
            for item in 0..count {
                self.insert(item).await?;
            }
            return Ok(());
        };
        let requests: Vec<_> = (0..count)
            .map(|item| {
                let put = PutRequest::builder().set_item(Some(attributes(item, item))).build()?;
                Ok(WriteRequest::builder().put_request(put).build())
            })
            .collect::<Result<_>>()?;
        for batch in requests.chunks(BATCH_ITEMS_MAX) {
            client.batch_write_item().request_items(&self.name, batch.to_vec()).send().await?;
        }
        Ok(())
    }

    /// Gives an item with `n` the same as its number another `n`.
    pub(crate) async fn modify(&self, item: u32, n: u32) -> Result<()> {
        self.put(item, n, Some(item)).await
    }

    async fn put(&self, item: u32, n: u32, before: Option<u32>) -> Result<()> {
        match &self.writer {
            Writer::Script { streams, shard } => {
                let record = match before {
                    None => Record::insert(keys(item), image(item, n)),
                    Some(before) => Record::new(EventName::Modify, keys(item))
                        .new_image(image(item, n))
                        .old_image(image(item, before)),
                };
                streams.put(&self.arn, shard, &[record])?;
            }
            Writer::Dynamo(client) => {
                client.put_item().table_name(&self.name).set_item(Some(attributes(item, n))).send().await?;
            }
        }
        Ok(())
    }

    /// Removes an item that has this `n`.
    pub(crate) async fn remove(&self, item: u32, n: u32) -> Result<()> {
        match &self.writer {
            Writer::Script { streams, shard } => {
                let record = Record::new(EventName::Remove, keys(item)).old_image(image(item, n));
                streams.put(&self.arn, shard, &[record])?;
            }
            Writer::Dynamo(client) => {
                let key = AttributeValue::S(key_of(item));
                client.delete_item().table_name(&self.name).key("id", key).send().await?;
            }
        }
        Ok(())
    }

    /// Disables the stream.
    pub(crate) async fn disable(&self) -> Result<()> {
        match &self.writer {
            Writer::Script { streams, .. } => streams.set_disabled(&self.arn)?,
            Writer::Dynamo(client) => {
                let off = StreamSpecification::builder().stream_enabled(false).build()?;
                client.update_table().table_name(&self.name).stream_specification(off).send().await?;
            }
        }
        Ok(())
    }
}

fn keys(item: u32) -> String {
    format!(r#"{{"id":{{"S":"{}"}}}}"#, key_of(item))
}

fn image(item: u32, n: u32) -> String {
    format!(r#"{{"id":{{"S":"{}"}},"n":{{"N":"{n}"}}}}"#, key_of(item))
}

fn attributes(item: u32, n: u32) -> std::collections::HashMap<String, AttributeValue> {
    [("id".to_owned(), AttributeValue::S(key_of(item))), ("n".to_owned(), AttributeValue::N(n.to_string()))]
        .into()
}

/// Who is held to the expectations.
struct Subject<'a> {
    client: &'a Client,
    backend: Backend<'a>,
    deviations: Deviations,
}

enum Backend<'a> {
    Fake(&'a FakeStreams),
    Dynamo(aws_sdk_dynamodb::Client),
}

impl Subject<'_> {
    async fn table(&self, name: &str) -> Result<Table<'_>> {
        let name = name.to_owned();
        let client = self.client;
        match &self.backend {
            Backend::Fake(streams) => {
                let arn = streams.create_stream(&name, None)?;
                let shard = streams.add_shard(&arn, None)?;
                Ok(Table { name, arn, client, writer: Writer::Script { streams, shard } })
            }
            Backend::Dynamo(dynamodb) => {
                create_table(dynamodb, &name, "id").await?;
                let described = dynamodb.describe_table().table_name(&name).send().await?;
                let arn = described.table.and_then(|table| table.latest_stream_arn);
                let arn = arn.ok_or_else(|| anyhow!("the table has no stream"))?;
                Ok(Table { name, arn, client, writer: Writer::Dynamo(dynamodb) })
            }
        }
    }

    /// What is wrong with the outcome of an expectation, if anything.
    fn verdict(&self, expectation: &str, outcome: Result<()>) -> Option<String> {
        let deviation = self.deviations.iter().find(|(of, _)| *of == expectation);
        match (deviation, outcome) {
            (None, Ok(())) => None,
            (None, Err(error)) => Some(format!("{expectation}: {error:#}")),
            (Some((_, reason)), Err(error)) => {
                println!("deviates: {expectation}: {error:#} ({reason})");
                None
            }
            (Some((_, reason)), Ok(())) => {
                Some(format!("{expectation} is met; the list of deviations says: {reason}"))
            }
        }
    }
}

macro_rules! expect_of {
    ($subject:expr; $($expectation:ident)*) => {{
        let mut wrong: Vec<String> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        $(
            let name = stringify!($expectation);
            names.push(name);
            let outcome = match $subject.table(name).await {
                Ok(table) => $expectation(&table).await,
                Err(error) => Err(error.context("no table")),
            };
            wrong.extend($subject.verdict(name, outcome));
        )*
        for (name, _) in $subject.deviations {
            assert!(names.contains(name), "a deviation from an expectation that does not exist: {name}");
        }
        assert!(wrong.is_empty(), "{} expectations:\n{}", wrong.len(), wrong.join("\n"));
    }};
}

async fn meet_the_expectations(subject: &Subject<'_>) {
    expect_of!(subject;
        an_enabled_stream_is_described
        a_shard_id_has_28_to_65_characters
        an_open_shard_has_a_start_and_no_end
        the_streams_of_a_table_are_listed
        from_the_trim_horizon_all_changes_come_in_order
        a_record_has_the_fields_of_a_change
        sequence_numbers_are_21_to_40_digits_and_go_up
        an_iterator_at_a_sequence_number_starts_with_its_record
        an_iterator_after_a_sequence_number_starts_behind_it
        after_the_last_record_only_what_comes_later_is_read
        latest_sees_only_what_comes_later
        an_empty_page_has_a_next_iterator
        an_iterator_can_be_used_again
        pages_follow_each_other_without_gap_or_repetition
        a_disabled_stream_is_closed_and_readable_to_its_end
        a_shard_without_successors_has_no_children
        a_shard_filter_of_another_type_is_invalid
        an_unknown_shard_is_not_found
        an_unknown_stream_is_not_found
        a_malformed_arn_is_invalid
        a_garbage_iterator_is_invalid
        a_sequence_number_is_needed_where_it_is_the_position
        a_sequence_number_is_refused_where_it_is_not_the_position
        a_sequence_number_before_the_start_of_the_shard_is_invalid
        an_unknown_iterator_type_is_invalid
        a_limit_outside_1_to_1000_is_invalid
    );
}

#[tokio::test]
async fn the_fake_meets_every_expectation() {
    let server = FakeStreams::start(Options::default()).await.unwrap();
    let client = once(&server.client());
    let subject = Subject { client: &client, backend: Backend::Fake(server.streams()), deviations: &[] };
    meet_the_expectations(&subject).await;
    server.stop().await;
}

#[tokio::test]
async fn dynamodb_local_meets_the_expectations_but_for_known_deviations() {
    if is_left_out(WITHOUT_DYNAMODB_LOCAL, "Amazon's DynamoDB Local") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = DynamoDb::start(Flavour::Local, directory.path()).await.unwrap_or_else(|error| {
        panic!("{error}\n`sandbox/setup.sh java dynamodb-local` installs it; {WITHOUT_DYNAMODB_LOCAL}=1 leaves it out")
    });
    let client = once(&clients::streams(server.url(), MASTER_REGION));
    let subject = Subject {
        client: &client,
        backend: Backend::Dynamo(clients::dynamodb(server.url(), MASTER_REGION)),
        deviations: DYNAMODB_LOCAL_DEVIATIONS,
    };
    meet_the_expectations(&subject).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn ministack_meets_the_expectations_but_for_known_deviations() {
    if is_left_out(WITHOUT_MINISTACK, "ministack") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Ministack::start(directory.path()).await.unwrap_or_else(|error| {
        panic!("{error}\n`sandbox/setup.sh ministack` installs it; {WITHOUT_MINISTACK}=1 leaves it out")
    });
    let client = once(&clients::streams(server.url(), MASTER_REGION));
    let subject = Subject {
        client: &client,
        backend: Backend::Dynamo(clients::dynamodb(server.url(), MASTER_REGION)),
        deviations: MINISTACK_DEVIATIONS,
    };
    meet_the_expectations(&subject).await;
    server.stop().await.unwrap();
}

fn is_left_out(variable: &str, what: &str) -> bool {
    let is_set = std::env::var_os(variable).is_some_and(|value| value == "1");
    if is_set {
        println!("NOT TESTED: {variable}=1, so nothing was run against {what}");
    }
    is_set
}
