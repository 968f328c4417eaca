//! What regions with filters receive, by the whole way.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use warmcast_aggregator::filter::FilterConfig;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::item;

use super::servers::{DynamoDb, Kinesis};
use super::wait::until;
use super::world::{Aggregator, config, directory, region};

/// The kinds of a key's changes, each with the names of its item's attributes.
fn told(changes: &[Change]) -> Vec<(ChangeKind, String)> {
    let names = |change: &Change| {
        let names = item::decode(change.payload.clone()).unwrap().attributes.into_keys();
        names.collect::<Vec<_>>().join(" ")
    };
    changes.iter().map(|change| (change.kind, names(change))).collect()
}

async fn write(dynamodb: &DynamoDb, id: &str, country: &str, age: u32, noise: u32) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |number: u32| AttributeValue::N(number.to_string());
    let put = dynamodb.client.put_item().table_name("profiles").item("id", text(id));
    let put = put.item("country", text(country)).item("age", number(age)).item("noise", number(noise));
    put.send().await.unwrap();
}

async fn all_told(region: &Kinesis) -> BTreeMap<String, Vec<(ChangeKind, String)>> {
    let changes = region.changes("profiles").await;
    changes.into_iter().map(|(key, changes)| (key, told(&changes))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_region_receives_its_view_of_a_table_and_what_is_left_out_holds_nothing_up() {
    let (dynamodb, letters) = (DynamoDb::start().await, directory());
    dynamodb.create_table("profiles", StreamViewType::NewAndOldImages).await;
    let [everything, german, narrow, lean] =
        [region(1).await, region(1).await, region(2).await, region(1).await];
    let urls = [&everything, &german, &narrow, &lean].map(|region| region.url.as_str());
    let mut config = config(&dynamodb.url, &["profiles"], &urls, letters.path());
    let germans =
        FilterConfig { condition: Some("country = 'DE'".parse().unwrap()), ..FilterConfig::default() };
    let ages = FilterConfig {
        projection: Some(["age".to_owned()].into()),
        suppress_unchanged: true,
        ..FilterConfig::default()
    };
    let both = FilterConfig { suppress_excluded: true, condition: germans.condition.clone(), ..ages.clone() };
    for (place, filter) in [(1, germans), (2, ages), (3, both)] {
        config.regions[place].filters.insert("profiles".to_owned(), filter);
    }
    let aggregator = Aggregator::start(config);

    write(&dynamodb, "mover", "DE", 30, 1).await;
    write(&dynamodb, "mover", "DE", 30, 2).await;
    write(&dynamodb, "mover", "FR", 31, 3).await;
    write(&dynamodb, "mover", "FR", 32, 4).await;
    write(&dynamodb, "mover", "DE", 32, 5).await;
    write(&dynamodb, "stranger", "JP", 40, 1).await;
    write(&dynamodb, "stranger", "JP", 40, 2).await;
    dynamodb.delete("profiles", "stranger").await;
    until("the last change came", async || {
        let told = everything.changes("profiles").await;
        told.get("stranger").is_some_and(|changes| changes.len() == 3)
    })
    .await;
    // What was read is in every region by then, or nothing is to come.
    aggregator.stop().await.unwrap();

    let (whole, projected) = ("age country id noise".to_owned(), "age id".to_owned());
    let put = |names: &String| (ChangeKind::Put, names.clone());
    let deleted = || (ChangeKind::Delete, String::new());
    let of =
        |mover, stranger| BTreeMap::from([("mover".to_owned(), mover), ("stranger".to_owned(), stranger)]);
    assert_eq!(
        all_told(&everything).await,
        of(vec![put(&whole); 5], vec![put(&whole), put(&whole), deleted()])
    );
    assert_eq!(
        all_told(&german).await,
        of(vec![put(&whole), put(&whole), deleted(), deleted(), put(&whole)], vec![deleted(); 3])
    );
    // The second write left the age as it was, and so did the last one; the stranger's second, too.
    assert_eq!(all_told(&narrow).await, of(vec![put(&projected); 3], vec![put(&projected), deleted()]));
    assert_eq!(all_told(&lean).await, of(vec![put(&projected), deleted(), put(&projected)], vec![deleted()]));
}
