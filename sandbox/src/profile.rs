//! User profiles as an ad platform keeps them: cookie id, targeting segments with timestamps, scores, geography,
//! how often each campaign was shown.
//!
//! The schema repeats from user to user, as it does in a real table; values do not, because whoever measures how well
//! profiles compress would measure the generator otherwise. What is fixed (countries, names of interests) comes from
//! short lists, as it does in reality.
//!
//! Every DynamoDB type occurs, with the values that are easily lost on the way: empty texts and maps, numbers
//! of 38 digits, texts beyond ASCII, sets, nested documents. Everything is drawn from the caller's seeded
//! generator, so a run can be repeated.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use rand::Rng;
use rand::RngExt as _;

use crate::world::KEY_ATTRIBUTE;

/// The attribute that rises with every write of a key.
pub const VERSION_ATTRIBUTE: &str = "version";
/// The attribute with the writer's clock at the write.
pub const WRITTEN_AT_ATTRIBUTE: &str = "written_at_ms";

const SEGMENTS: u32 = 400;
const SEGMENTS_PER_PROFILE_MAX: u32 = 24;
const CAMPAIGNS_PER_PROFILE_MAX: u32 = 6;
const MONTH_S: u64 = 30 * 24 * 3600;
const PLACES: [(&str, &str, &str); 6] = [
    ("DE", "Berlin", "Köln"),
    ("JP", "東京都", "渋谷区"),
    ("US", "CA", "San José"),
    ("BR", "SP", "São Paulo"),
    ("GR", "Αττική", "Αθήνα"),
    ("FR", "", ""),
];
const INTERESTS: [&str; 8] =
    ["travel", "sports", "cooking", "finance", "gaming", "music", "gardening", "cinéma 🎬"];

/// An item as the SDK takes it.
pub type Item = HashMap<String, AttributeValue>;

/// The parts of an UpdateItem. Every part sets a value, none adds to one, so sending it twice does no harm.
#[derive(Clone, Debug)]
pub struct Update {
    /// The update expression.
    pub expression: String,
    /// Its `#names`.
    pub names: HashMap<String, String>,
    /// Its `:values`.
    pub values: Item,
}

/// The cookie id of a user. Spread like real ones: neighbours share no prefix.
#[must_use]
pub fn cookie_id(user: u64) -> String {
    // The finalizer of SplitMix64: a bijection, so two users never share a cookie.
    let mut mixed = user.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("ck-{:016x}", mixed ^ (mixed >> 31))
}

/// The whole profile of a user at a version.
pub fn profile(rng: &mut impl Rng, cookie_id: &str, version: u64, now_ms: u64) -> Item {
    let mut item = HashMap::from([
        (KEY_ATTRIBUTE.to_owned(), text(cookie_id)),
        (VERSION_ATTRIBUTE.to_owned(), number(version)),
        (WRITTEN_AT_ATTRIBUTE.to_owned(), number(now_ms)),
        ("segments".to_owned(), segments(rng, now_ms)),
        ("scores".to_owned(), scores(rng)),
        ("geo".to_owned(), geography(rng)),
        ("interests".to_owned(), AttributeValue::Ss(interests(rng))),
        ("frequency_caps".to_owned(), AttributeValue::Ns(frequency_caps(rng))),
        ("device_hashes".to_owned(), AttributeValue::Bs(device_hashes(rng))),
        ("fingerprint".to_owned(), AttributeValue::B(Blob::new(random_bytes(rng, 32)))),
        ("consent".to_owned(), AttributeValue::Bool(rng.random_bool(0.8))),
        ("nickname".to_owned(), text(&nickname(rng))),
        ("account".to_owned(), text(&uuid(rng))),
        ("shown".to_owned(), shown(rng, now_ms)),
        ("history".to_owned(), AttributeValue::L(Vec::new())),
        ("extensions".to_owned(), AttributeValue::M(HashMap::new())),
    ]);
    if rng.random_bool(0.3) {
        item.insert("opted_out_at".to_owned(), AttributeValue::Null(true));
    }
    item
}

/// A change to a few attributes of an existing profile: one segment in place, the scores, sometimes an
/// attribute more or less.
pub fn update(rng: &mut impl Rng, version: u64, now_ms: u64) -> Update {
    let mut expression =
        "SET #version = :version, #written = :written, #segments.#segment = :now, #scores = :scores"
            .to_owned();
    let mut names = HashMap::from([
        ("#version".to_owned(), VERSION_ATTRIBUTE.to_owned()),
        ("#written".to_owned(), WRITTEN_AT_ATTRIBUTE.to_owned()),
        ("#segments".to_owned(), "segments".to_owned()),
        ("#segment".to_owned(), segment(rng)),
        ("#scores".to_owned(), "scores".to_owned()),
    ]);
    let mut values = HashMap::from([
        (":version".to_owned(), number(version)),
        (":written".to_owned(), number(now_ms)),
        (":now".to_owned(), number(now_ms / 1000)),
        (":scores".to_owned(), scores(rng)),
    ]);
    match rng.random_range(0..4) {
        0 => {
            expression.push_str(", #geo = :geo");
            names.insert("#geo".to_owned(), "geo".to_owned());
            values.insert(":geo".to_owned(), geography(rng));
        }
        1 => {
            expression.push_str(" REMOVE #nickname");
            names.insert("#nickname".to_owned(), "nickname".to_owned());
        }
        2 => {
            expression.push_str(", #interests = :interests");
            names.insert("#interests".to_owned(), "interests".to_owned());
            values.insert(":interests".to_owned(), AttributeValue::Ss(interests(rng)));
        }
        _ => {}
    }
    Update { expression, names, values }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn segment(rng: &mut impl Rng) -> String {
    format!("seg-{}", rng.random_range(0..SEGMENTS))
}

fn segments(rng: &mut impl Rng, now_ms: u64) -> AttributeValue {
    let count = rng.random_range(0..=SEGMENTS_PER_PROFILE_MAX);
    let now_s = now_ms / 1000;
    let mut entry = || (segment(rng), number(now_s.saturating_sub(rng.random_range(0..MONTH_S))));
    AttributeValue::M((0..count).map(|_| entry()).collect())
}

fn scores(rng: &mut impl Rng) -> AttributeValue {
    let mut scores: Vec<AttributeValue> = (0..rng.random_range(1..6))
        .map(|_| AttributeValue::N(format!("{:.4}", rng.random_range(-1.0..1.0_f64))))
        .collect();
    // What a double would lose: 38 digits, and exponents.
    let digits = rng.random_range(10_u128.pow(37)..10_u128.pow(38));
    scores.push(AttributeValue::N(format!("0.{digits}")));
    scores.push(AttributeValue::N(format!("-9.{}E-{}", rng.random_range(1..10), rng.random_range(100..126))));
    AttributeValue::L(scores)
}

/// Campaigns that the user has seen, each with how often and when last.
fn shown(rng: &mut impl Rng, now_ms: u64) -> AttributeValue {
    let count = rng.random_range(0..=CAMPAIGNS_PER_PROFILE_MAX);
    let now_s = now_ms / 1000;
    let mut entry = || {
        let times = number(rng.random_range(1..20));
        let last_s = number(now_s.saturating_sub(rng.random_range(0..MONTH_S)));
        (format!("cmp-{:08x}", rng.random::<u32>()), AttributeValue::L(vec![times, last_s]))
    };
    AttributeValue::M((0..count).map(|_| entry()).collect())
}

/// Empty for half of the users; else with what has to be escaped somewhere.
fn nickname(rng: &mut impl Rng) -> String {
    match rng.random_bool(0.5) {
        true => String::new(),
        false => format!("Zoë \"{:x}\" \\ \u{1F36A}\n", rng.random::<u32>()),
    }
}

/// A random UUID's text (RFC 9562, version 4).
fn uuid(rng: &mut impl Rng) -> String {
    let bits: u128 = rng.random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (4 << 76) | (2 << 62);
    let hex = format!("{bits:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

fn geography(rng: &mut impl Rng) -> AttributeValue {
    let (country, region, city) =
        PLACES.get(rng.random_range(0..PLACES.len())).copied().unwrap_or(("", "", ""));
    AttributeValue::M(HashMap::from([
        ("country".to_owned(), text(country)),
        ("region".to_owned(), text(region)),
        ("city".to_owned(), text(city)),
        ("latitude".to_owned(), degrees(rng, 90.0)),
        ("longitude".to_owned(), degrees(rng, 180.0)),
    ]))
}

fn degrees(rng: &mut impl Rng, limit: f64) -> AttributeValue {
    AttributeValue::N(format!("{:.6}", rng.random_range(-limit..limit)))
}

/// One to four members: DynamoDB refuses an empty set, and a member twice.
fn interests(rng: &mut impl Rng) -> Vec<String> {
    let first = rng.random_range(0..INTERESTS.len());
    let count = rng.random_range(1..=4);
    INTERESTS.iter().cycle().skip(first).take(count).map(|&interest| interest.to_owned()).collect()
}

fn frequency_caps(rng: &mut impl Rng) -> Vec<String> {
    let first = rng.random_range(-3..100);
    (0..rng.random_range(1..=5)).map(|step| (first + step * 7).to_string()).collect()
}

fn device_hashes(rng: &mut impl Rng) -> Vec<Blob> {
    (0..rng.random_range(1..=3_u8))
        .map(|index| {
            let mut hash = random_bytes(rng, 15);
            // The index keeps the members of a set apart.
            hash.push(index);
            Blob::new(hash)
        })
        .collect()
}

fn random_bytes(rng: &mut impl Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn cookies_are_distinct() {
        let cookies: HashSet<String> = (0..10_000).map(cookie_id).collect();
        assert_eq!(cookies.len(), 10_000);
    }

    #[test]
    fn the_same_seed_gives_the_same_profile() {
        let draw = |seed| profile(&mut StdRng::seed_from_u64(seed), "ck", 1, 1_700_000_000_000);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_type_of_dynamodb_occurs() {
        fn collect(value: &AttributeValue, seen: &mut HashSet<&'static str>) {
            let name = match value {
                AttributeValue::S(_) => "S",
                AttributeValue::N(_) => "N",
                AttributeValue::B(_) => "B",
                AttributeValue::Bool(_) => "BOOL",
                AttributeValue::Null(_) => "NULL",
                AttributeValue::L(values) => {
                    values.iter().for_each(|value| collect(value, seen));
                    "L"
                }
                AttributeValue::M(map) => {
                    map.values().for_each(|value| collect(value, seen));
                    "M"
                }
                AttributeValue::Ss(_) => "SS",
                AttributeValue::Ns(_) => "NS",
                AttributeValue::Bs(_) => "BS",
                other => panic!("{other:?}"),
            };
            seen.insert(name);
        }
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen = HashSet::new();
        for _ in 0..50 {
            profile(&mut rng, "ck", 1, 0).values().for_each(|value| collect(value, &mut seen));
        }
        assert_eq!(seen.len(), 10, "{seen:?}");
    }

    #[test]
    fn sets_have_no_member_twice() {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..500 {
            let caps = frequency_caps(&mut rng);
            assert_eq!(caps.iter().collect::<HashSet<_>>().len(), caps.len());
            let liked = interests(&mut rng);
            assert_eq!(liked.iter().collect::<HashSet<_>>().len(), liked.len());
        }
    }
}
