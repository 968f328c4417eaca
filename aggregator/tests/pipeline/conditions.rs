//! Conditions mean what they mean to DynamoDB: held against an implementation of its expressions that is not ours.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use aws_sdk_dynamodbstreams::types::{
    AttributeValue as StreamValue, OperationType, Record, StreamRecord, StreamViewType as RecordViewType,
};
use warmcast_aggregator::change::ChangeMaker;
use warmcast_aggregator::filter::{Feeds, FilterConfig};
use warmcast_aggregator::table::KeySchema;
use warmcast_common::consumer::Lanes;
use warmcast_proto::change::ChangeKind;

use super::servers::DynamoDb;

/// Each with one literal, whose place is `?`.
const CONDITIONS: [&str; 17] = [
    "aa = ?",
    "aa <> ?",
    "aa < ?",
    "aa <= ?",
    "aa > ?",
    "aa >= ?",
    "aa IN (?)",
    "aa BETWEEN ? AND ?",
    "contains(aa, ?)",
    "NOT contains(aa, ?)",
    "begins_with(aa, ?)",
    "mm.aa = ?",
    "mm.ll[1] <> ?",
    "attribute_exists(aa) AND aa <> ?",
    "attribute_not_exists(aa) OR aa = ?",
    "NOT (aa = ? OR attribute_exists(mm.ll[0]))",
    "attribute_exists(mm) AND NOT aa > ? OR aa = ?",
];

/// A literal as our conditions have it, and as DynamoDB is given it.
fn literals() -> Vec<(&'static str, AttributeValue)> {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let n = |text: &str| AttributeValue::N(text.to_owned());
    vec![
        ("'b'", s("b")),
        ("'bc'", s("bc")),
        ("'10'", s("10")),
        ("9", n("9")),
        ("10.0", n("10")),
        ("-1.5E-3", n("-0.0015")),
        ("12345678901234567890123456789012345678", n("12345678901234567890123456789012345678")),
        ("true", AttributeValue::Bool(true)),
    ]
}

/// What `aa` is in each item, and what is in `mm`.
fn items() -> Vec<HashMap<String, AttributeValue>> {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let n = |text: &str| AttributeValue::N(text.to_owned());
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let mut values: Vec<Option<AttributeValue>> = [
        s("b"),
        s("bcd"),
        s("a"),
        s("10"),
        n("9"),
        n("10"),
        n("-0.0015"),
        n("12345678901234567890123456789012345679"),
        AttributeValue::Bool(true),
        AttributeValue::Bool(false),
        AttributeValue::Null(true),
        AttributeValue::Ss(texts(&["b", "x"])),
        AttributeValue::Ns(texts(&["9", "10"])),
        AttributeValue::L(vec![s("b"), n("10"), AttributeValue::Bool(true)]),
    ]
    .map(Some)
    .into();
    values.push(None);
    let item = |(number, value): (usize, Option<AttributeValue>)| {
        let mut item = HashMap::from([("id".to_owned(), s(&format!("item-{number}")))]);
        if let Some(value) = value {
            if number % 2 == 0 {
                let list = AttributeValue::L(vec![s("first"), value.clone()]);
                let map = HashMap::from([("aa".to_owned(), value.clone()), ("ll".to_owned(), list)]);
                item.insert("mm".to_owned(), AttributeValue::M(map));
            }
            item.insert("aa".to_owned(), value);
        }
        item
    };
    values.into_iter().enumerate().map(item).collect()
}

fn in_stream(value: &AttributeValue) -> StreamValue {
    match value {
        AttributeValue::S(text) => StreamValue::S(text.clone()),
        AttributeValue::N(text) => StreamValue::N(text.clone()),
        AttributeValue::Bool(flag) => StreamValue::Bool(*flag),
        AttributeValue::Null(null) => StreamValue::Null(*null),
        AttributeValue::Ss(texts) => StreamValue::Ss(texts.clone()),
        AttributeValue::Ns(texts) => StreamValue::Ns(texts.clone()),
        AttributeValue::L(values) => StreamValue::L(values.iter().map(in_stream).collect()),
        AttributeValue::M(map) => StreamValue::M(image(map)),
        other => panic!("{other:?}"),
    }
}

fn image(item: &HashMap<String, AttributeValue>) -> HashMap<String, StreamValue> {
    item.iter().map(|(name, value)| (name.clone(), in_stream(value))).collect()
}

/// The items that a region with this condition receives.
fn received(condition: &str, items: &[HashMap<String, AttributeValue>]) -> BTreeSet<String> {
    let key = KeySchema { partition: "id".to_owned(), sort: None };
    let filter = FilterConfig { condition: Some(condition.parse().unwrap()), ..FilterConfig::default() };
    let feeds = Feeds::new(&key, [Some(&filter)]);
    let maker = ChangeMaker::new("profiles", 1, key);
    let mut received = BTreeSet::new();
    for item in items {
        let id = item["id"].as_s().unwrap();
        let body = StreamRecord::builder()
            .keys("id", StreamValue::S(id.clone()))
            .set_new_image(Some(image(item)))
            .stream_view_type(RecordViewType::NewImage)
            .sequence_number("1")
            .build();
        let record = Record::builder().event_name(OperationType::Insert).dynamodb(body).build();
        let routes = feeds.route(&record, maker.make(&record, 0).unwrap(), Lanes::first(1));
        assert_eq!(routes.len(), 1);
        if routes[0].0.kind == ChangeKind::Put {
            received.insert(id.clone());
        }
    }
    received
}

#[tokio::test]
async fn a_condition_selects_what_the_same_filter_expression_selects() {
    let dynamodb = DynamoDb::start().await;
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let items = items();
    for item in &items {
        dynamodb.client.put_item().table_name("profiles").set_item(Some(item.clone())).send().await.unwrap();
    }
    let mut compared = 0;
    for (ours, theirs) in literals() {
        for condition in CONDITIONS {
            let scan =
                dynamodb.client.scan().table_name("profiles").filter_expression(condition.replace('?', ":v"));
            let condition = condition.replace('?', ours);
            let parsed = condition.parse::<warmcast_aggregator::filter::Condition>();
            let answer = scan.expression_attribute_values(":v", theirs.clone()).send().await;
            let (Ok(_), Ok(answer)) = (parsed, answer) else {
                // true and false have no order, and only a text begins something.
                let untyped = ours == "true" || condition.contains("begins_with");
                assert!(untyped, "{condition} is refused");
                continue;
            };
            let selected = answer.items().iter().map(|item| item["id"].as_s().unwrap().clone()).collect();
            assert_eq!(received(&condition, &items), selected, "{condition}");
            compared += 1;
        }
    }
    assert!(compared > 110, "{compared}");
}
