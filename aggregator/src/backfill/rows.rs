//! From a row of the master table to what is sent of it. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue as Attribute;
use aws_sdk_dynamodbstreams::types::AttributeValue as StreamAttribute;
use warmcast_common::consumer::Lanes;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::item::{self, Item};
use warmcast_proto::position::Position;

use crate::change::{Reason, attributes, item_key};
use crate::filter::{Feeds, Image};
use crate::table::KeySchema;

/// A row as DynamoDB answers it.
pub(super) type Row = HashMap<String, Attribute>;

/// Makes what is sent of one table's rows.
#[derive(Clone, Debug)]
pub(super) struct RowMaker {
    pub(super) table: Arc<str>,
    pub(super) key: KeySchema,
    /// What each region receives of the table.
    pub(super) feeds: Feeds,
    /// The regions that are backfilled.
    pub(super) lanes: Lanes,
}

impl RowMaker {
    /// What is sent of a row that a read found which began at `read_ms`, and to which regions; nothing, if it is in none
    /// of their views.
    pub(super) fn views(&self, row: Row, read_ms: u64) -> Result<Vec<(Change, Lanes)>, Reason> {
        let image = image(row)?;
        let change = Change {
            table: Arc::clone(&self.table),
            key: item_key(&image, &self.key)?,
            position: Position::ZERO,
            kind: ChangeKind::Backfill,
            created_ms: read_ms,
            payload: item::encode(&Item { attributes: attributes(&image)? }),
        };
        Ok(self.feeds.views(&image, change, self.lanes))
    }
}

/// The row as a stream record would have it: the SDK has the same types twice.
fn image(row: Row) -> Result<Image, Reason> {
    row.into_iter()
        .map(|(name, attribute)| match stream_attribute(attribute) {
            Some(value) => Ok((name, value)),
            None => Err(Reason::Type(name)),
        })
        .collect()
}

/// DynamoDB nests at most 32 levels deep, so the recursion is bounded.
fn stream_attribute(attribute: Attribute) -> Option<StreamAttribute> {
    Some(match attribute {
        Attribute::S(text) => StreamAttribute::S(text),
        Attribute::N(digits) => StreamAttribute::N(digits),
        Attribute::B(blob) => StreamAttribute::B(blob),
        Attribute::Bool(truth) => StreamAttribute::Bool(truth),
        Attribute::Null(null) => StreamAttribute::Null(null),
        Attribute::Ss(values) => StreamAttribute::Ss(values),
        Attribute::Ns(values) => StreamAttribute::Ns(values),
        Attribute::Bs(values) => StreamAttribute::Bs(values),
        Attribute::L(values) => {
            StreamAttribute::L(values.into_iter().map(stream_attribute).collect::<Option<_>>()?)
        }
        Attribute::M(map) => {
            let member = |(name, value)| Some((name, stream_attribute(value)?));
            StreamAttribute::M(map.into_iter().map(member).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::primitives::Blob;

    use super::*;
    use crate::filter::FilterConfig;

    fn maker(filters: &[Option<FilterConfig>]) -> RowMaker {
        let key = KeySchema { partition: "id".to_owned(), sort: Some("at".to_owned()) };
        let feeds = Feeds::new(&key, filters.iter().map(Option::as_ref));
        RowMaker { table: "profiles".into(), key, feeds, lanes: Lanes::first(filters.len()) }
    }

    fn s(text: &str) -> Attribute {
        Attribute::S(text.to_owned())
    }

    fn row(attributes: &[(&str, Attribute)]) -> Row {
        let key = [("id", s("user:1")), ("at", Attribute::N("5".to_owned()))];
        let all = key.iter().chain(attributes);
        all.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_row_becomes_what_a_change_of_its_item_would_say() {
        let nested =
            Attribute::M([("x".to_owned(), Attribute::L(vec![s("a"), Attribute::Bool(true)]))].into());
        let all = row(&[
            ("b", Attribute::B(Blob::new(b"\xff"))),
            ("null", Attribute::Null(true)),
            ("ss", Attribute::Ss(vec!["a".to_owned()])),
            ("ns", Attribute::Ns(vec!["1".to_owned()])),
            ("bs", Attribute::Bs(vec![Blob::new(b"1")])),
            ("m", nested),
        ]);
        let views = maker(&[None]).views(all, 7).unwrap();
        let [(change, lanes)] = views.as_slice() else { panic!("{views:?}") };
        assert_eq!(
            (change.kind, change.position, change.created_ms),
            (ChangeKind::Backfill, Position::ZERO, 7)
        );
        assert_eq!((&change.key[..], *lanes), (b"user%3A1:5".as_slice(), Lanes::one(0)));
        let item = item::decode(change.payload.clone()).unwrap();
        let names: Vec<_> = item.attributes.keys().map(String::as_str).collect();
        assert_eq!(names, ["at", "b", "bs", "id", "m", "ns", "null", "ss"]);
    }

    #[test]
    fn each_region_gets_its_view_and_one_without_the_row_gets_nothing() {
        let projecting =
            FilterConfig { projection: Some(["a".to_owned()].into()), ..FilterConfig::default() };
        let excluding = FilterConfig { condition: Some("a > 1".parse().unwrap()), ..FilterConfig::default() };
        let number = |digits: &str| Attribute::N(digits.to_owned());
        let maker = maker(&[None, Some(projecting), Some(excluding)]);
        let shown = |a: &str| {
            let views = maker.views(row(&[("a", number(a)), ("b", number("2"))]), 7).unwrap();
            let names = |change: &Change| {
                item::decode(change.payload.clone())
                    .unwrap()
                    .attributes
                    .into_keys()
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let shown = views.iter().map(|(change, lanes)| (names(change), *lanes));
            shown.collect::<Vec<_>>()
        };
        let (all, some) = ("a at b id".to_owned(), "a at id".to_owned());
        let (one, two) = (Lanes::one(0), Lanes::one(1));
        assert_eq!(shown("1"), [(some.clone(), two), (all.clone(), one)]);
        assert_eq!(shown("2"), [(some, two), (all, one.or(Lanes::one(2)))]);
        let only_excluding = RowMaker { lanes: Lanes::one(2), ..maker };
        assert_eq!(only_excluding.views(row(&[("a", number("1"))]), 7).unwrap(), []);
    }

    #[test]
    fn a_row_without_its_key_is_an_error() {
        let mut keyless = row(&[]);
        keyless.remove("at");
        assert_eq!(maker(&[None]).views(keyless, 7), Err(Reason::Key("at".to_owned())));
    }
}
