//! Conditions on an item: what they are, and whether an item meets one. Pure.
//!
//! They mean what DynamoDB's condition expressions mean (AWS: Condition and filter expressions): a comparison with an
//! attribute that is missing or of another type is false, `<>` is true exactly where `=` is false, numbers compare as
//! numbers and texts by their UTF-8 bytes.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::str::FromStr;

use aws_sdk_dynamodbstreams::types::AttributeValue as Attribute;

use super::number::Number;
use super::parse::{self, ConditionError};

/// An item as a stream record has it.
pub(crate) type Image = HashMap<String, Attribute>;

/// What an item must be like. Read from text: see [`ConditionError`] for what is wrong with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(pub(super) Node);

/// A part of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// One of them holds.
    Or(Vec<Node>),
    /// All of them hold.
    And(Vec<Node>),
    /// It does not hold.
    Not(Box<Node>),
    /// `attribute_exists(path)`.
    Exists(Path),
    /// `path = literal` and so on.
    Compare(Path, Comparator, Literal),
    /// `path BETWEEN literal AND literal`, both included.
    Between(Path, Literal, Literal),
    /// `path IN (literal, ...)`.
    In(Path, Vec<Literal>),
    /// `begins_with(path, 'text')`: of a text or a binary.
    BeginsWith(Path, String),
    /// `contains(path, literal)`: a text has a part, a set or a list has a member.
    Contains(Path, Literal),
}

/// Where a value is in an item: an attribute's name, then members of maps and places in lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The attribute.
    pub(super) attribute: String,
    /// The way down from there.
    pub(super) steps: Vec<Step>,
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `.name`, of a map.
    Member(String),
    /// `[0]`, of a list.
    Index(usize),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparator {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A value that stands in the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    /// `'text'`
    Text(String),
    /// `-1.5`
    Number(Number),
    /// `true`, `false`
    Bool(bool),
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        parse::condition(text)
    }
}

impl Condition {
    /// Whether an item meets it.
    pub(super) fn matches(&self, image: &Image) -> bool {
        self.0.holds(image)
    }
}

impl Node {
    /// The parser bounds how deep it goes.
    fn holds(&self, image: &Image) -> bool {
        match self {
            Self::Or(nodes) => nodes.iter().any(|node| node.holds(image)),
            Self::And(nodes) => nodes.iter().all(|node| node.holds(image)),
            Self::Not(node) => !node.holds(image),
            Self::Exists(path) => path.find(image).is_some(),
            Self::Compare(path, comparator, literal) => {
                comparator.accepts(path.find(image).and_then(|value| literal.order_of(value)))
            }
            Self::Between(path, low, high) => path.find(image).is_some_and(|value| {
                Comparator::GreaterOrEqual.accepts(low.order_of(value))
                    && Comparator::LessOrEqual.accepts(high.order_of(value))
            }),
            Self::In(path, literals) => path.find(image).is_some_and(|value| {
                literals.iter().any(|literal| literal.order_of(value) == Some(Ordering::Equal))
            }),
            Self::BeginsWith(path, prefix) => match path.find(image) {
                Some(Attribute::S(text)) => text.starts_with(prefix),
                Some(Attribute::B(blob)) => blob.as_ref().starts_with(prefix.as_bytes()),
                _ => false,
            },
            Self::Contains(path, literal) => path.find(image).is_some_and(|value| literal.is_in(value)),
        }
    }
}

impl Path {
    fn find<'a>(&self, image: &'a Image) -> Option<&'a Attribute> {
        let attribute = image.get(&self.attribute)?;
        self.steps.iter().try_fold(attribute, |value, step| match (step, value) {
            (Step::Member(name), Attribute::M(map)) => map.get(name),
            (Step::Index(index), Attribute::L(list)) => list.get(*index),
            _ => None,
        })
    }
}

impl Comparator {
    /// Whether it holds for a value with this order to the literal; none: they do not compare.
    fn accepts(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order.is_some_and(Ordering::is_lt),
            Self::LessOrEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order.is_some_and(Ordering::is_gt),
            Self::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

impl Literal {
    /// How `value` stands to this literal; none if it is of another type. The parser allows booleans only where
    /// equality is asked for.
    fn order_of(&self, value: &Attribute) -> Option<Ordering> {
        match (value, self) {
            (Attribute::S(value), Self::Text(text)) => Some(value.as_bytes().cmp(text.as_bytes())),
            (Attribute::N(value), Self::Number(number)) => Some(Number::parse(value)?.cmp(number)),
            (Attribute::Bool(value), Self::Bool(flag)) => Some(value.cmp(flag)),
            _ => None,
        }
    }

    fn is_in(&self, value: &Attribute) -> bool {
        let is_it = |member: &Attribute| self.order_of(member) == Some(Ordering::Equal);
        match (value, self) {
            (Attribute::S(text), Self::Text(part)) => text.contains(part),
            (Attribute::B(blob), Self::Text(part)) => contains_bytes(blob.as_ref(), part.as_bytes()),
            (Attribute::Ss(members), Self::Text(text)) => members.contains(text),
            (Attribute::Ns(members), Self::Number(number)) => {
                members.iter().any(|member| Number::parse(member).as_ref() == Some(number))
            }
            (Attribute::L(members), _) => members.iter().any(is_it),
            _ => false,
        }
    }
}

fn contains_bytes(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_types::Blob;

    fn item() -> Image {
        let s = |text: &str| Attribute::S(text.to_owned());
        let n = |text: &str| Attribute::N(text.to_owned());
        let geo = Image::from([
            ("country".to_owned(), s("DE")),
            ("cities".to_owned(), Attribute::L(vec![s("Köln"), n("7.0")])),
        ]);
        [
            ("id", s("user-1")),
            ("age", n("42")),
            ("score", n("-0.1234567890123456789012345678901234567")),
            ("consent", Attribute::Bool(true)),
            ("gone", Attribute::Null(true)),
            ("geo", Attribute::M(geo)),
            ("tags", Attribute::Ss(vec!["a".to_owned(), "b".to_owned()])),
            ("caps", Attribute::Ns(vec!["1".to_owned(), "2.50".to_owned()])),
            ("raw", Attribute::B(Blob::new(b"abc\xff".to_vec()))),
            ("odd name", s("x")),
            ("AND", s("y")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn holds(condition: &str) -> bool {
        let parsed = condition.parse::<Condition>().unwrap_or_else(|error| panic!("{condition}: {error}"));
        parsed.matches(&item())
    }

    #[test]
    fn what_holds_of_an_item_is_met() {
        for condition in [
            "attribute_exists(age)",
            "attribute_exists(gone)",
            "attribute_not_exists(nothing)",
            "attribute_not_exists(geo.cities[2])",
            "age = 42.0 AND age <> 41",
            "age > 41 and age >= 42 And age < 43 AND age <= 4.2E1",
            "score > -0.1234567890123456789012345678901234568",
            "age BETWEEN 42 AND 42 AND id BETWEEN 'user' AND 'user-2'",
            "geo.country IN ('US', 'DE')",
            "age IN (1, 42)",
            "geo.cities[0] = 'Köln'",
            "contains(geo.cities, 7)",
            "contains(tags, 'b') AND contains(caps, 2.5) AND contains(id, 'ser') AND contains(raw, 'bc')",
            "begins_with(id, 'user-') AND begins_with(raw, 'ab')",
            "consent = true AND consent <> FALSE",
            "\"odd name\" = 'x' AND \"AND\" = 'y'",
            "NOT (age = 1 OR id = 'z')",
            "NOT NOT age = 42",
            "age = 1 AND age = 2 OR age = 42",
        ] {
            assert!(holds(condition), "{condition}");
        }
    }

    #[test]
    fn what_does_not_hold_is_not_met_and_other_types_never_compare() {
        for condition in [
            "attribute_exists(nothing)",
            "attribute_exists(geo.nothing)",
            "attribute_exists(age.country)",
            "age = '42'",
            "id = 42",
            "id < 'USER'",
            "nothing = 1",
            "nothing < 1",
            "nothing BETWEEN 1 AND 2",
            "nothing IN (1)",
            "gone = true",
            "contains(tags, 'c')",
            "contains(tags, 1)",
            "contains(age, 4)",
            "begins_with(age, '4')",
            "age = 42 AND NOT consent = true",
            "age = 1 OR age = 2 AND age = 42",
        ] {
            assert!(!holds(condition), "{condition}");
        }
    }

    #[test]
    fn unequal_is_the_opposite_of_equal_also_where_there_is_nothing() {
        assert!(holds("nothing <> 1") && holds("age <> '42'") && !holds("age <> 42"));
    }
}
