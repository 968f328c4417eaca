//! Parked lanes in a lease: a map from the lane's name to its place, in one attribute.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::parked::{Parked, ParkedLanes};
use super::StoreError;
use super::item::{Item, n, s};

const ATTRIBUTE: &str = "parked";

/// Adds to an update what writes it. Returns what the update is to remove instead, with a comma before it: the attribute
/// is there while a lane is parked.
pub(super) fn write_parked(
    parked: &ParkedLanes,
    set: &mut String,
    values: &mut Vec<(&'static str, AttributeValue)>,
) -> &'static str {
    if parked.is_empty() {
        return ", parked";
    }
    set.push_str(", parked = :parked");
    values.push((":parked", parked_value(parked)));
    ""
}

/// The attribute.
pub(super) fn parked_value(parked: &ParkedLanes) -> AttributeValue {
    let of = |parked: &Parked| {
        AttributeValue::M(HashMap::from([
            ("checkpoint".to_owned(), s(parked.checkpoint.to_string())),
            ("since_ms".to_owned(), n(parked.since_ms)),
            ("why".to_owned(), s(&parked.why)),
        ]))
    };
    AttributeValue::M(parked.iter().map(|(name, parked)| (name.clone(), of(parked))).collect())
}

/// Reads the attribute of a lease.
pub(super) fn read_parked(item: &Item<'_>) -> Result<ParkedLanes, StoreError> {
    let Some(value) = item.attributes.get(ATTRIBUTE) else { return Ok(ParkedLanes::new()) };
    let AttributeValue::M(lanes) = value else { return Err(item.wrong("parked is not a map".to_owned())) };
    lanes.iter().map(|(name, of)| Ok((name.clone(), read_one(item, name, of)?))).collect()
}

fn read_one(item: &Item<'_>, name: &str, of: &AttributeValue) -> Result<Parked, StoreError> {
    let AttributeValue::M(attributes) = of else {
        return Err(item.wrong(format!("parked.{name} is not a map")));
    };
    let of = Item { table: item.table, attributes };
    let place = |error: StoreError| item.wrong(format!("parked.{name}: {error}"));
    let checkpoint = of.text("checkpoint").map_err(place)?;
    Ok(Parked {
        checkpoint: checkpoint.parse().map_err(|e| item.wrong(format!("parked.{name}: {e}")))?,
        since_ms: of.number("since_ms").map_err(place)?,
        why: of.text("why").map_err(place)?.to_owned(),
    })
}
