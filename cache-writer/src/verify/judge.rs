//! What one look says of a key: what the cache shows readers, against what the master has. Pure.
//!
//! Compared is what a reader gets. Sets have no order and a number may be written in two ways, so items are compared
//! in one form. A miss is never wrong, and is told apart from a difference: readers then ask the master.

use std::collections::BTreeSet;

use bytes::Bytes;
use warmcast_cache::policy::{PayloadForm, TablePolicy};
use warmcast_cache::shape::{self, ShapeError, Shaped};
use warmcast_proto::entry::{EntryError, EntryHeader, EntryKind};
use warmcast_proto::item::{self, AttributeValue, BinarySet, Item, NumberSet, StringSet, Value};
use xxhash_rust::xxh3::Xxh3Default;

/// How a table's entries are held against its items.
#[derive(Clone, Debug)]
pub struct Rules {
    policy: TablePolicy,
    /// Only these attributes are compared; none: all that the policy keeps.
    only: Option<Vec<String>>,
    /// The region is sent only some of the items.
    is_filtered: bool,
}

/// What an item's payload is compared by.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The item, in one form, and its own expiry.
    Item(Item, Option<u64>),
    /// One attribute's bytes, and the item's expiry.
    Raw(Bytes, Option<u64>),
}

/// What readers ought to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// This.
    Content(Content),
    /// This, or nothing: the region is sent only some of the items, and it is not known here which.
    ContentIfSent(Content),
    /// Nothing: the master has no such item, or it is past its expiry.
    Absent,
    /// A miss: the item cannot be cached as its table's policy says.
    Unshaped(ShapeError),
}

/// What an entry shows readers.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// An item.
    Content(Content),
    /// That there is no such item.
    Absent,
    /// Nothing: a miss.
    Miss(Miss),
    /// An item that they cannot decode.
    Undecodable,
    /// Nothing, for good: the value is no entry, and is never overwritten.
    Foreign(Foreign),
}

/// Why an entry shows readers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Miss {
    /// There is no entry.
    Unset,
    /// It is invalid.
    Invalid,
    /// It is held by somebody who fills it.
    Held,
    /// A fill found nothing, and that is no longer believed.
    Outlived,
    /// It shows that there is no item, in a region that is sent only some of the items.
    NotSent,
}

/// What one look says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Readers see what the master has.
    Consistent,
    /// Readers see nothing and ask the master: always safe.
    Missing(Miss),
    /// Readers see something else.
    Different(Difference),
}

/// How what readers see differs from what the master has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// The cache shows an item that the master does not have, or that is past its expiry.
    #[error("the cache shows an item, the master has none")]
    NotDeleted,
    /// The cache shows that there is no item, and the master has one.
    #[error("the cache shows that there is no item, the master has one")]
    NotThere,
    /// Both have an item, and these attributes differ.
    #[error("these attributes differ: {}", .0.join(", "))]
    Attributes(Vec<String>),
    /// Both have an item, and its cached bytes differ.
    #[error("the cached bytes differ from those of the master's item")]
    Payload,
    /// The payloads are equal, and the items expire at other times.
    #[error("the item's expiry differs")]
    Expiry,
    /// The cached payload is no item.
    #[error("the cached payload is no item that can be decoded")]
    Undecodable,
    /// The master's item cannot be cached as its table's policy says, and readers see something all the same.
    #[error("the master's item cannot be cached ({0}), and the cache shows readers something")]
    Unshaped(ShapeError),
    /// The key holds something that is no entry: nobody overwrites it, and readers never get the item from here.
    #[error("the key holds what is no entry of this version ({0})")]
    Foreign(Foreign),
}

/// What stands where an entry should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A string that is no entry of this version.
    #[error(transparent)]
    Text(#[from] EntryError),
    /// A value of another type: a list, a hash.
    #[error("a value that is no string")]
    NoString,
}

impl Rules {
    /// By the table's policy. `only`: the attributes that are compared, where what is sent to the region has not all
    /// of them.
    #[must_use]
    pub const fn new(policy: TablePolicy, only: Option<Vec<String>>) -> Self {
        Self { policy, only, is_filtered: false }
    }

    /// The region is sent only some of the items (the conditions of the aggregator's filters, which are not known
    /// here): that it shows none where the master has one is no difference.
    #[must_use]
    pub fn filtered(self, is_filtered: bool) -> Self {
        Self { is_filtered, ..self }
    }

    /// What readers ought to see at `now_ms` of what the master has.
    #[must_use]
    pub fn expected(&self, item: Option<&Item>, now_ms: u64) -> Expected {
        let Some(item) = item else { return Expected::Absent };
        let Shaped { payload, expires_ms } = match shape::shape(&self.policy, item.clone()) {
            Ok(shaped) => shaped,
            Err(error) => return Expected::Unshaped(error),
        };
        if expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            return Expected::Absent;
        }
        match self.content(payload, expires_ms) {
            Some(content) if self.is_filtered => Expected::ContentIfSent(content),
            Some(content) => Expected::Content(content),
            // What was encoded here is decoded.
            None => Expected::Absent,
        }
    }

    /// What an entry shows readers at `now_ms`. None: the server has no string under the key.
    #[must_use]
    pub fn seen(&self, entry: Option<&Bytes>, now_ms: u64) -> Seen {
        let Some(entry) = entry else { return Seen::Miss(Miss::Unset) };
        let (header, payload) = match EntryHeader::decode(entry) {
            Ok(decoded) => decoded,
            Err(error) => return Seen::Foreign(error.into()),
        };
        let is_expired = header.is_expired(now_ms);
        match header.kind() {
            EntryKind::Live | EntryKind::Filled if is_expired => Seen::Absent,
            EntryKind::Live | EntryKind::Filled => self
                .content(entry.slice_ref(payload), header.expires_ms())
                .map_or(Seen::Undecodable, Seen::Content),
            EntryKind::Negative if is_expired => Seen::Miss(Miss::Outlived),
            EntryKind::Tombstone | EntryKind::Negative => Seen::Absent,
            EntryKind::Invalid => Seen::Miss(Miss::Invalid),
            EntryKind::Held => Seen::Miss(Miss::Held),
        }
    }

    /// What one look says: an entry against the master's item at `now_ms`.
    #[must_use]
    pub fn judge(&self, entry: Option<&Bytes>, item: Option<&Item>, now_ms: u64) -> Verdict {
        judge(&self.seen(entry, now_ms), &self.expected(item, now_ms))
    }

    /// None: the payload is no item.
    fn content(&self, payload: Bytes, expires_ms: Option<u64>) -> Option<Content> {
        match &self.policy.payload {
            PayloadForm::Attribute(_) => Some(Content::Raw(payload, expires_ms)),
            PayloadForm::Item => {
                let mut item = item::decode(payload).ok()?;
                if let Some(only) = &self.only {
                    item.attributes.retain(|name, _| only.contains(name));
                }
                item.attributes.values_mut().for_each(bring_to_one_form);
                Some(Content::Item(item, expires_ms))
            }
        }
    }
}

/// What readers see against what they ought to see.
#[must_use]
pub fn judge(seen: &Seen, expected: &Expected) -> Verdict {
    match (seen, expected) {
        (Seen::Foreign(foreign), _) => Verdict::Different(Difference::Foreign(*foreign)),
        // Nothing on both sides.
        (Seen::Miss(Miss::Unset), Expected::Absent) => Verdict::Consistent,
        (Seen::Miss(miss), _) => Verdict::Missing(*miss),
        (_, Expected::Unshaped(error)) => Verdict::Different(Difference::Unshaped(error.clone())),
        (Seen::Absent, Expected::Absent) => Verdict::Consistent,
        (Seen::Absent, Expected::Content(_)) => Verdict::Different(Difference::NotThere),
        (Seen::Absent, Expected::ContentIfSent(_)) => Verdict::Missing(Miss::NotSent),
        (Seen::Content(_) | Seen::Undecodable, Expected::Absent) => {
            Verdict::Different(Difference::NotDeleted)
        }
        (Seen::Undecodable, Expected::Content(_) | Expected::ContentIfSent(_)) => {
            Verdict::Different(Difference::Undecodable)
        }
        (Seen::Content(seen), Expected::Content(expected) | Expected::ContentIfSent(expected)) => {
            seen.difference(expected).map_or(Verdict::Consistent, Verdict::Different)
        }
    }
}

impl Content {
    /// How it differs from what it ought to be; none: it does not.
    fn difference(&self, expected: &Self) -> Option<Difference> {
        if self == expected {
            return None;
        }
        let (Self::Item(seen, _), Self::Item(expected, _)) = (self, expected) else {
            let same_bytes = matches!((self, expected), (Self::Raw(a, _), Self::Raw(b, _)) if a == b);
            return Some(if same_bytes { Difference::Expiry } else { Difference::Payload });
        };
        let (seen, expected) = (&seen.attributes, &expected.attributes);
        let names: BTreeSet<&String> = seen.keys().chain(expected.keys()).collect();
        let differing: Vec<String> =
            names.into_iter().filter(|name| seen.get(*name) != expected.get(*name)).cloned().collect();
        Some(if differing.is_empty() { Difference::Expiry } else { Difference::Attributes(differing) })
    }
}

/// What readers see, or ought to see, in 16 bytes: equal for equal states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

impl Digest {
    const ABSENT: Self = Self(0);

    fn of(content: &Content) -> Self {
        let mut hasher = Xxh3Default::new();
        let expires_ms = match content {
            Content::Item(item, expires_ms) => {
                hasher.update(&item::encode(item));
                expires_ms
            }
            Content::Raw(bytes, expires_ms) => {
                hasher.update(bytes);
                expires_ms
            }
        };
        hasher.update(&expires_ms.unwrap_or(u64::MAX).to_le_bytes());
        Self(hasher.digest128())
    }
}

impl Expected {
    /// None: it ought to be a miss.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Content(content) | Self::ContentIfSent(content) => Some(Digest::of(content)),
            Self::Absent => Some(Digest::ABSENT),
            Self::Unshaped(_) => None,
        }
    }
}

impl Seen {
    /// None: it shows nothing that the master could ever have had.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Content(content) => Some(Digest::of(content)),
            Self::Absent => Some(Digest::ABSENT),
            Self::Miss(_) | Self::Undecodable | Self::Foreign(_) => None,
        }
    }
}

/// DynamoDB nests at most 32 levels deep (AWS: DynamoDB quotas), and what is deeper was not decoded.
fn bring_to_one_form(attribute: &mut AttributeValue) {
    match &mut attribute.value {
        Some(Value::N(number)) => one_number(number),
        Some(Value::Ss(StringSet { values })) => values.sort_unstable(),
        Some(Value::Bs(BinarySet { values })) => values.sort_unstable(),
        Some(Value::Ns(NumberSet { values })) => {
            values.iter_mut().for_each(one_number);
            values.sort_unstable();
        }
        Some(Value::L(list)) => list.values.iter_mut().for_each(bring_to_one_form),
        Some(Value::M(map)) => map.attributes.values_mut().for_each(bring_to_one_form),
        Some(Value::S(_) | Value::B(_) | Value::Bool(_) | Value::Null(_)) | None => {}
    }
}

/// `1.50`, `1.5` and `15E-1` become `15E-1`. What is no number is left as it is.
fn one_number(text: &mut String) {
    if let Some(same) = decimal(text) {
        *text = same;
    }
}

fn decimal(text: &str) -> Option<String> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let without_tail = all.trim_end_matches('0');
    let digits = without_tail.trim_start_matches('0');
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    let moved = i64::try_from(all.len() - without_tail.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    match power.checked_add(moved)? {
        0 => Some(format!("{sign}{digits}")),
        exponent => Some(format!("{sign}{digits}E{exponent}")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use warmcast_cache::policy::TablePolicy;
    use warmcast_proto::item::{List, Map};
    use warmcast_proto::position::Position;

    use super::*;

    pub(crate) const NOW_MS: u64 = 1_784_000_000_000;

    pub(crate) fn rules() -> Rules {
        Rules::new(TablePolicy::default(), None)
    }

    fn expiring_rules() -> Rules {
        Rules::new(TablePolicy { expiry_attribute: Some("ttl".to_owned()), ..TablePolicy::default() }, None)
    }

    pub(crate) fn an_item(color: &str) -> Item {
        let attributes = [("id", Value::S("u1".to_owned())), ("color", Value::S(color.to_owned()))];
        Item { attributes: attributes.map(|(name, value)| (name.to_owned(), value.into())).into() }
    }

    fn until(color: &str, expires_s: u64) -> Item {
        let mut item = an_item(color);
        item.attributes.insert("ttl".to_owned(), Value::N(expires_s.to_string()).into());
        item
    }

    pub(crate) fn entry(kind: EntryKind, time_ms: u64, expires_ms: Option<u64>, payload: &[u8]) -> Bytes {
        let header = match expires_ms {
            None => EntryHeader::new(kind, Position::ZERO, time_ms),
            Some(expires_ms) => EntryHeader::expiring(kind, Position::ZERO, time_ms, expires_ms),
        };
        [header.unwrap().encode().as_ref(), payload].concat().into()
    }

    fn live(item: &Item) -> Bytes {
        entry(EntryKind::Live, NOW_MS, None, &item::encode(item))
    }

    fn marker(kind: EntryKind) -> Bytes {
        let expires_ms = (kind == EntryKind::Negative).then_some(NOW_MS + 1);
        entry(kind, NOW_MS, expires_ms, b"")
    }

    #[test]
    fn what_readers_see_is_what_the_master_has_or_not() {
        let (red, blue) = (an_item("red"), an_item("blue"));
        let judge = |entry: Option<&Bytes>, item| rules().judge(entry, item, NOW_MS);
        assert_eq!(judge(Some(&live(&red)), Some(&red)), Verdict::Consistent);
        let filled = entry(EntryKind::Filled, NOW_MS, None, &item::encode(&red));
        assert_eq!(judge(Some(&filled), Some(&red)), Verdict::Consistent);
        let differing = Difference::Attributes(vec!["color".to_owned()]);
        assert_eq!(judge(Some(&live(&blue)), Some(&red)), Verdict::Different(differing));
        assert_eq!(judge(Some(&live(&blue)), None), Verdict::Different(Difference::NotDeleted));
        for absent in [EntryKind::Tombstone, EntryKind::Negative] {
            assert_eq!(judge(Some(&marker(absent)), None), Verdict::Consistent);
            assert_eq!(judge(Some(&marker(absent)), Some(&red)), Verdict::Different(Difference::NotThere));
        }
        assert_eq!(judge(None, None), Verdict::Consistent, "nothing on both sides");
    }

    #[test]
    fn a_miss_is_missing_and_never_a_difference() {
        let outlived = entry(EntryKind::Negative, NOW_MS - 60_000, Some(NOW_MS), b"");
        let misses = [
            (None, Miss::Unset),
            (Some(marker(EntryKind::Invalid)), Miss::Invalid),
            (Some(marker(EntryKind::Held)), Miss::Held),
            (Some(outlived), Miss::Outlived),
        ];
        for (entry, miss) in misses {
            let verdict = rules().judge(entry.as_ref(), Some(&an_item("red")), NOW_MS);
            assert_eq!(verdict, Verdict::Missing(miss));
            let without = rules().judge(entry.as_ref(), None, NOW_MS);
            assert_ne!(
                std::mem::discriminant(&without),
                std::mem::discriminant(&Verdict::Different(Difference::Payload))
            );
        }
    }

    #[test]
    fn an_item_past_its_expiry_is_absent_on_both_sides() {
        let rules = expiring_rules();
        let now_s = NOW_MS / 1_000;
        let (past, coming) = (until("red", now_s), until("red", now_s + 1));
        let live = |item: &Item, expires_s: u64| {
            entry(EntryKind::Live, NOW_MS - 5, Some(expires_s * 1_000), &item::encode(item))
        };
        let judge = |entry: &Bytes, item: Option<&Item>| rules.judge(Some(entry), item, NOW_MS);
        assert_eq!(judge(&live(&past, now_s), Some(&past)), Verdict::Consistent);
        assert_eq!(judge(&live(&past, now_s), None), Verdict::Consistent, "DynamoDB has deleted it");
        assert_eq!(judge(&marker(EntryKind::Tombstone), Some(&past)), Verdict::Consistent);
        assert_eq!(judge(&live(&coming, now_s + 1), Some(&coming)), Verdict::Consistent);
        assert_eq!(judge(&live(&coming, now_s + 1), Some(&past)), Verdict::Different(Difference::NotDeleted));
        assert_eq!(judge(&live(&past, now_s), Some(&coming)), Verdict::Different(Difference::NotThere));
        let later = live(&coming, now_s + 2);
        assert_eq!(judge(&later, Some(&coming)), Verdict::Different(Difference::Expiry));
    }

    #[test]
    fn an_attributes_bytes_are_compared_as_they_are() {
        let payload = PayloadForm::Attribute("color".to_owned());
        let rules = Rules::new(TablePolicy { payload, ..TablePolicy::default() }, None);
        let entry = entry(EntryKind::Live, NOW_MS, None, b"red");
        let judge = |item: &Item| rules.judge(Some(&entry), Some(item), NOW_MS);
        assert_eq!(judge(&an_item("red")), Verdict::Consistent);
        assert_eq!(judge(&an_item("blue")), Verdict::Different(Difference::Payload));
        let mut without = an_item("red");
        without.attributes.remove("color");
        assert!(matches!(judge(&without), Verdict::Different(Difference::Unshaped(_))));
        assert_eq!(rules.judge(None, Some(&without), NOW_MS), Verdict::Missing(Miss::Unset));
    }

    #[test]
    fn only_the_attributes_that_are_asked_for_count() {
        let rules = Rules::new(TablePolicy::default(), Some(vec!["id".to_owned()]));
        let verdict = rules.judge(Some(&live(&an_item("blue"))), Some(&an_item("red")), NOW_MS);
        assert_eq!(verdict, Verdict::Consistent);
    }

    #[test]
    fn a_region_that_is_sent_only_some_items_may_show_none() {
        let (rules, red) = (rules().filtered(true), an_item("red"));
        let judge = |entry: &Bytes, item| rules.judge(Some(entry), item, NOW_MS);
        for absent in [EntryKind::Tombstone, EntryKind::Negative] {
            assert_eq!(judge(&marker(absent), Some(&red)), Verdict::Missing(Miss::NotSent));
            assert_eq!(judge(&marker(absent), None), Verdict::Consistent);
        }
        assert_eq!(judge(&live(&red), Some(&red)), Verdict::Consistent);
        assert_eq!(judge(&live(&red), None), Verdict::Different(Difference::NotDeleted));
        assert!(matches!(judge(&live(&an_item("blue")), Some(&red)), Verdict::Different(_)));
    }

    #[test]
    fn what_is_no_entry_or_no_item_is_told() {
        let judge = |entry: &[u8], item: Option<&Item>| {
            rules().judge(Some(&Bytes::copy_from_slice(entry)), item, NOW_MS)
        };
        for foreign in [b"".as_slice(), b"theirs", &[b'2'; 60]] {
            for item in [None, Some(&an_item("red"))] {
                let verdict = judge(foreign, item);
                assert!(matches!(verdict, Verdict::Different(Difference::Foreign(_))), "{verdict:?}");
            }
        }
        let broken = entry(EntryKind::Live, NOW_MS, None, b"\xff\xff");
        assert_eq!(judge(&broken, Some(&an_item("red"))), Verdict::Different(Difference::Undecodable));
        assert_eq!(judge(&broken, None), Verdict::Different(Difference::NotDeleted));
    }

    #[test]
    fn sets_have_no_order_and_numbers_one_value() {
        let item = |set: [&str; 2], numbers: [&str; 2], number: &str| {
            let owned = |values: [&str; 2]| values.map(str::to_owned).to_vec();
            let nested =
                Map { attributes: BTreeMap::from([("n".to_owned(), Value::N(number.to_owned()).into())]) };
            let list = List { values: vec![Value::M(nested).into()] };
            let attributes = [
                ("ss", Value::Ss(StringSet { values: owned(set) })),
                ("ns", Value::Ns(NumberSet { values: owned(numbers) })),
                ("l", Value::L(list)),
            ];
            Item { attributes: attributes.map(|(name, value)| (name.to_owned(), value.into())).into() }
        };
        let master = item(["a", "b"], ["1", "20"], "1.5");
        let judge = |cached: &Item| rules().judge(Some(&live(cached)), Some(&master), NOW_MS);
        assert_eq!(judge(&item(["b", "a"], ["2E1", "1.0"], "15e-1")), Verdict::Consistent);
        assert!(matches!(judge(&item(["b", "c"], ["20", "1"], "1.5")), Verdict::Different(_)));
        assert!(matches!(judge(&item(["a", "b"], ["20", "1"], "-1.5")), Verdict::Different(_)));
    }

    fn any_item() -> impl Strategy<Value = Option<Item>> {
        let color = prop_oneof![Just("red"), Just("blue"), Just("")];
        prop::option::of(
            (color, 0..3_u64).prop_map(|(color, later_s)| until(color, NOW_MS / 1_000 - 1 + later_s)),
        )
    }

    fn any_entry() -> impl Strategy<Value = Option<Bytes>> {
        let written = any_item().prop_map(|item| {
            let item = item.unwrap_or_else(|| an_item("plain"));
            let expires_ms = shape::shape(&expiring_rules().policy, item.clone()).unwrap().expires_ms;
            entry(EntryKind::Live, NOW_MS, expires_ms, &item::encode(&item))
        });
        prop::option::of(prop_oneof![
            3 => written,
            1 => Just(marker(EntryKind::Tombstone)),
            1 => Just(marker(EntryKind::Negative)),
            1 => Just(marker(EntryKind::Invalid)),
            1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from)
        ])
    }

    proptest! {
        #[test]
        fn digests_agree_with_the_judgement(entry in any_entry(), item in any_item()) {
            let rules = expiring_rules();
            let (seen, expected) = (rules.seen(entry.as_ref(), NOW_MS), rules.expected(item.as_ref(), NOW_MS));
            let is_equal = seen.digest().is_some() && seen.digest() == expected.digest();
            let is_nothing = seen == Seen::Miss(Miss::Unset) && expected == Expected::Absent;
            prop_assert_eq!(judge(&seen, &expected) == Verdict::Consistent, is_equal || is_nothing);
        }

        #[test]
        fn what_is_cached_as_the_policy_says_is_consistent(item in any_item()) {
            let rules = expiring_rules();
            if let Some(item) = item {
                let shaped = shape::shape(&rules.policy, item.clone()).unwrap();
                let cached = entry(EntryKind::Filled, 0, shaped.expires_ms, &shaped.payload);
                prop_assert_eq!(rules.judge(Some(&cached), Some(&item), NOW_MS), Verdict::Consistent);
            }
        }

        #[test]
        fn equal_numbers_have_one_form(digits in 1_u64..1_000_000, zeros in 0_usize..4, power in -3_i64..4) {
            let plain = format!("{digits}{}", "0".repeat(zeros));
            let padded = format!("{digits}.{}E{}", "0".repeat(zeros), i64::try_from(zeros).unwrap());
            prop_assert_eq!(decimal(&plain), decimal(&padded));
            prop_assert_eq!(decimal(&format!("{digits}E{power}")), decimal(&format!("{digits}0E{}", power - 1)));
            prop_assert_ne!(decimal(&plain), decimal(&format!("-{plain}")));
        }
    }
}
