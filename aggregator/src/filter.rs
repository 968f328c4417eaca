//! What each region receives of a table: the items that its readers use, with the attributes that they use. Pure.
//!
//! A region's *view* of a table is what its filter leaves of it: the items that meet the condition, with the attributes
//! of the projection. The region is fed as if the view were the table: a change of an item is a change of the view, or
//! it is none. An item that does not meet the condition is not in the view, so its changes are deletions, and readers
//! find it absent, which in this region means: not for this region. It is never left out that an item has left the view,
//! and where it cannot be known whether it was in it, a deletion is sent.
//!
//! **What may be suppressed.** Two switches leave out changes of the table that change nothing in the view, as DynamoDB
//! itself leaves out a write that changes nothing. That is safe by the rules of the cache as long as *everything* that
//! writes the region's cache writes the view:
//!
//! - `suppress_unchanged` leaves out a change whose projected old and new images are equal. Fills read the master: they
//!   must keep no attribute that the projection does not (`attributes` of the cache-writer and of the Readers), or such
//!   an attribute would be filled once and never change again.
//! - `suppress_excluded` leaves out changes of items that were not in the view before and are not after. Fills know no
//!   condition: one would bring such an item in, and its later changes would not come. So it is for regions without any
//!   fills: no `[master]`, and Readers without a master.
//!
//! Either decides by the record alone, so a record that is read again is decided in the same way. What they cost:
//! a change that would have mended something is left out as well. After a gap in the stream, or a change of the filter
//! itself, an entry stays as it is until the view changes; flush the table's keys in that region then, as is right after
//! a gap anyway. What is a miss (invalid, expired, evicted, from before the fleet began) stays a miss until the view
//! changes or a fill comes.

mod condition;
mod number;
mod parse;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodbstreams::types::{OperationType, Record, StreamViewType};
use bytes::Bytes;
use warmcast_common::consumer::Lanes;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::item::{self, Item};

pub use condition::Condition;
pub use parse::ConditionError;

use crate::change::attributes;
use crate::table::KeySchema;
pub(crate) use condition::Image;

/// What a region receives of one table: `[regions.NAME.tables.TABLE]`. By default everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterConfig {
    /// Only items that meet it.
    pub condition: Option<Condition>,
    /// Only these attributes, and the key's.
    pub projection: Option<BTreeSet<String>>,
    /// Changes after which the projected item is what it was before are not sent.
    pub suppress_unchanged: bool,
    /// Changes of items that did not meet the condition before and do not after are not sent.
    pub suppress_excluded: bool,
}

/// How the changes of one table go to the regions. Regions whose filters are equal share what is sent.
#[derive(Clone, Debug)]
pub struct Feeds {
    unfiltered: Lanes,
    filtered: Vec<(Filter, Lanes)>,
}

/// A filter of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    condition: Option<Condition>,
    /// With the key's attributes.
    kept: Option<BTreeSet<String>>,
    suppress_unchanged: bool,
    suppress_excluded: bool,
}

/// What an item was before a change.
#[derive(Clone, Copy)]
enum Before<'a> {
    /// The stream does not tell.
    Unknown,
    /// There was none.
    Absent,
    /// This.
    Item(&'a Image),
}

/// What a change of the table is to a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// The item is in it, and may have changed.
    Included,
    /// The item is not in it, and may have been.
    Excluded,
    /// Nothing has changed.
    None,
}

impl Feeds {
    /// For a table with this key, and for regions in the order of their lanes, each with its filter of the table, if it
    /// has one.
    pub fn new<'a>(key: &KeySchema, regions: impl IntoIterator<Item = Option<&'a FilterConfig>>) -> Self {
        let mut feeds = Self { unfiltered: Lanes::NONE, filtered: Vec::new() };
        for (index, config) in regions.into_iter().enumerate() {
            let lane = Lanes::one(index);
            match config.map(|config| Filter::new(config, key)).filter(|filter| *filter != Filter::NOTHING) {
                None => feeds.unfiltered = feeds.unfiltered.or(lane),
                Some(filter) => match feeds.filtered.iter_mut().find(|(known, _)| *known == filter) {
                    Some((_, lanes)) => *lanes = lanes.or(lane),
                    None => feeds.filtered.push((filter, lane)),
                },
            }
        }
        feeds
    }

    /// What is sent of the change that was made of this record, and to which of the regions that the record is read for.
    /// Each region is in one of the sets at most. Those that are in none have nothing to receive: for them the record is
    /// done.
    ///
    /// Only changes that have an item are filtered: deletions and invalidations go to all.
    pub fn route(&self, record: &Record, change: Change, lanes: Lanes) -> Vec<(Change, Lanes)> {
        let body = record.dynamodb.as_ref();
        let new = body.and_then(|body| body.new_image.as_ref());
        let Some(new) = new.filter(|_| !self.filtered.is_empty() && change.kind == ChangeKind::Put) else {
            return vec![(change, lanes)];
        };
        let before = Before::of(record);
        let mut routes = Vec::with_capacity(self.filtered.len() + 1);
        for (filter, of) in &self.filtered {
            let of = of.and(lanes);
            if of.is_empty() {
                continue;
            }
            match filter.effect(new, before) {
                Effect::Included => add(&mut routes, filter.project(new, &change), of),
                Effect::Excluded => add(&mut routes, without_item(&change, ChangeKind::Delete), of),
                Effect::None => {}
            }
        }
        let unfiltered = self.unfiltered.and(lanes);
        if !unfiltered.is_empty() {
            add(&mut routes, change, unfiltered);
        }
        routes
    }

    /// What is sent of an item as it stands, to which of these regions; `change` has it whole, and nothing is known of what
    /// it was before. A region whose view does not have the item gets nothing.
    pub fn views(&self, item: &Image, change: Change, lanes: Lanes) -> Vec<(Change, Lanes)> {
        let mut views = Vec::with_capacity(self.filtered.len() + 1);
        for (filter, of) in &self.filtered {
            let of = of.and(lanes);
            if !of.is_empty() && filter.includes(item) {
                add(&mut views, filter.project(item, &change), of);
            }
        }
        let unfiltered = self.unfiltered.and(lanes);
        if !unfiltered.is_empty() {
            add(&mut views, change, unfiltered);
        }
        views
    }

    /// What is configured for the table and can have no effect because its stream has this view type; for the log.
    pub fn without_effect(&self, view_type: &str) -> Option<&'static str> {
        let suppresses = |filter: &Filter| filter.suppress_unchanged || filter.suppress_excluded;
        match view_type {
            "NEW_AND_OLD_IMAGES" => None,
            "NEW_IMAGE" => self.filtered.iter().any(|(filter, _)| suppresses(filter)).then_some(
                "suppress_unchanged and suppress_excluded have no effect: they need the stream view type \
                 NEW_AND_OLD_IMAGES",
            ),
            _ => (!self.filtered.is_empty()).then_some(
                "no filter has an effect: without new images in the stream every region reads items from the master",
            ),
        }
    }
}

/// Regions that receive the same share it.
fn add(routes: &mut Vec<(Change, Lanes)>, change: Change, lanes: Lanes) {
    let same =
        |(known, _): &&mut (Change, Lanes)| known.kind == change.kind && known.payload == change.payload;
    match routes.iter_mut().find(same) {
        Some((_, known)) => *known = known.or(lanes),
        None => routes.push((change, lanes)),
    }
}

fn without_item(change: &Change, kind: ChangeKind) -> Change {
    Change { kind, payload: Bytes::new(), ..change.clone() }
}

impl Filter {
    const NOTHING: Self =
        Self { condition: None, kept: None, suppress_unchanged: false, suppress_excluded: false };

    fn new(config: &FilterConfig, key: &KeySchema) -> Self {
        let with_key = |projection: &BTreeSet<String>| {
            projection.iter().chain([&key.partition]).chain(&key.sort).cloned().collect()
        };
        Self {
            condition: config.condition.clone(),
            kept: config.projection.as_ref().map(with_key),
            suppress_unchanged: config.suppress_unchanged,
            suppress_excluded: config.suppress_excluded && config.condition.is_some(),
        }
    }

    fn effect(&self, new: &Image, before: Before<'_>) -> Effect {
        match (self.includes(new), before) {
            (true, Before::Item(old))
                if self.suppress_unchanged && self.includes(old) && self.is_same(old, new) =>
            {
                Effect::None
            }
            (true, _) => Effect::Included,
            (false, Before::Absent) if self.suppress_excluded => Effect::None,
            (false, Before::Item(old)) if self.suppress_excluded && !self.includes(old) => Effect::None,
            (false, _) => Effect::Excluded,
        }
    }

    fn includes(&self, image: &Image) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.matches(image))
    }

    /// Sets whose members come in another order are told apart: that costs a change, not more.
    fn is_same(&self, old: &Image, new: &Image) -> bool {
        match &self.kept {
            None => old == new,
            Some(kept) => kept.iter().all(|name| old.get(name) == new.get(name)),
        }
    }

    /// The change with what is kept of its item.
    fn project(&self, new: &Image, change: &Change) -> Change {
        let Some(kept) = &self.kept else { return change.clone() };
        match attributes(new.iter().filter(|(name, _)| kept.contains(*name))) {
            Ok(attributes) => Change { payload: item::encode(&Item { attributes }), ..change.clone() },
            // The change was made of the same image, so this cannot be. A miss is always safe.
            Err(_) => without_item(change, ChangeKind::Invalidate),
        }
    }
}

impl<'a> Before<'a> {
    /// The record is asked what it tells, not the table: what is left of a table's earlier stream can have another view
    /// type than its present one.
    fn of(record: &'a Record) -> Self {
        let Some(body) = &record.dynamodb else { return Self::Unknown };
        if body.stream_view_type != Some(StreamViewType::NewAndOldImages) {
            return Self::Unknown;
        }
        match (&record.event_name, &body.old_image) {
            (Some(OperationType::Insert), None) => Self::Absent,
            (Some(OperationType::Modify), Some(image)) => Self::Item(image),
            _ => Self::Unknown,
        }
    }
}

/// The filters of a region, by table.
pub type Filters = BTreeMap<String, FilterConfig>;

#[cfg(test)]
mod tests;
