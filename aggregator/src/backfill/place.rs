//! Up to where a part of a backfill is done, as text for the state table: how many rows it had, and where it goes on.
//! Pure.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue as Attribute;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const END: &str = "end";

/// Where a part goes on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum At {
    /// At its beginning.
    Start,
    /// A scan: after the row with this key (AWS: `LastEvaluatedKey`).
    Key(HashMap<String, Attribute>),
    /// A file: after so many lines.
    Line(u64),
    /// Nowhere: it is done.
    End,
}

/// Up to where a part is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) at: At,
    /// Rows, or keys, that were done so far.
    pub(super) rows: u64,
}

impl Place {
    pub(super) const START: Self = Self { at: At::Start, rows: 0 };

    pub(super) fn to_text(&self) -> String {
        let at = match &self.at {
            At::Start => "start".to_owned(),
            At::Key(key) => key_text(key),
            At::Line(line) => line.to_string(),
            At::End => END.to_owned(),
        };
        format!("{} {at}", self.rows)
    }

    /// None: it was written by another version. Then the part begins anew, which does no harm.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (rows, at) = text.split_once(' ')?;
        let at = match at {
            "start" => At::Start,
            END => At::End,
            at if at.starts_with('{') => At::Key(key_of(at)?),
            line => At::Line(line.parse().ok()?),
        };
        Some(Self { at, rows: rows.parse().ok()? })
    }
}

/// DynamoDB's JSON of a key.
fn key_text(key: &HashMap<String, Attribute>) -> String {
    let typed = |value: &Attribute| match value {
        Attribute::S(text) => [("S", text.clone())].into(),
        Attribute::N(digits) => [("N", digits.clone())].into(),
        Attribute::B(blob) => [("B", BASE64_STANDARD.encode(blob.as_ref()))].into(),
        // Keys have no others; what is left out is no key, and is not believed when it is read.
        _ => BTreeMap::new(),
    };
    let members: BTreeMap<&str, BTreeMap<&str, String>> =
        key.iter().map(|(name, value)| (name.as_str(), typed(value))).collect();
    // Maps of texts: nothing can fail.
    serde_json::to_string(&members).unwrap_or_default()
}

fn key_of(text: &str) -> Option<HashMap<String, Attribute>> {
    let members: HashMap<String, BTreeMap<String, String>> = serde_json::from_str(text).ok()?;
    let value = |(name, typed): (String, BTreeMap<String, String>)| {
        let (kind, value) = typed.into_iter().next()?;
        let value = match kind.as_str() {
            "S" => Attribute::S(value),
            "N" => Attribute::N(value),
            "B" => Attribute::B(Blob::new(BASE64_STANDARD.decode(value).ok()?)),
            _ => return None,
        };
        Some((name, value))
    };
    members.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Attribute> {
        prop_oneof![
            ".{1,8}".prop_map(Attribute::S),
            "-?[1-9][0-9]{0,20}".prop_map(Attribute::N),
            prop::collection::vec(any::<u8>(), 1..12).prop_map(|bytes| Attribute::B(Blob::new(bytes))),
        ]
    }

    fn any_at() -> impl Strategy<Value = At> {
        prop_oneof![
            Just(At::Start),
            Just(At::End),
            any::<u64>().prop_map(At::Line),
            prop::collection::hash_map(".{1,5}", any_value(), 1..3).prop_map(At::Key),
        ]
    }

    proptest! {
        #[test]
        fn a_place_reads_back(at in any_at(), rows in any::<u64>()) {
            let place = Place { at, rows };
            prop_assert_eq!(Place::from_text(&place.to_text()), Some(place));
        }

        #[test]
        fn what_is_no_place_is_none_and_no_panic(text in ".{0,30}") {
            if let Some(place) = Place::from_text(&text) {
                prop_assert_eq!(Place::from_text(&place.to_text()), Some(place));
            }
        }
    }

    #[test]
    fn what_another_version_may_have_written_is_not_believed() {
        for text in ["", "5", "5 ", "x end", "5 {\"id\":{}}", "5 {\"id\":{\"X\":\"1\"}}", "5 {", "-1 end"] {
            assert_eq!(Place::from_text(text), None, "{text}");
        }
    }
}
