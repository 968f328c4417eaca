//! What the file is made of. What a reader sees is written down here case by case, not computed.

use bytes::Bytes;
use warmcast_proto::entry::{EntryHeader, EntryKind, TIME_MS_MAX};
use warmcast_proto::item::{self, AttributeValue, BinarySet, Item, List, Map, NumberSet, StringSet, Value};
use warmcast_proto::key::{ItemKey, cache_key};
use warmcast_proto::position::Position;

use super::file::Sees::{self, Absent, Miss};
use super::file::{EntryVector, KeyVector, MissVector, Read, Vectors, hex, json_of_attributes};

const ABOUT: &str =
    "Test vectors for readers of Warmcast's cache entries; docs/entry-format.md explains them.";
const NOW_MS: u64 = 1_784_000_000_000;
const EXPIRES_MS: u64 = NOW_MS + 60_000;

/// The whole file.
pub(crate) fn vectors() -> Vectors {
    Vectors { about: ABOUT.to_owned(), keys: keys(), entries: entries(), misses: misses() }
}

fn keys() -> Vec<KeyVector> {
    let key = |prefix: &str, table: &str, partition: &[u8], sort: Option<&[u8]>| {
        let item_key = match sort {
            None => ItemKey::partition(Bytes::copy_from_slice(partition)),
            Some(sort) => ItemKey::composite(partition, sort),
        };
        KeyVector {
            prefix: prefix.to_owned(),
            table: table.to_owned(),
            partition_hex: hex(partition),
            sort_hex: sort.map(hex),
            key_hex: hex(cache_key(prefix, table, item_key.as_bytes())),
        }
    };
    vec![
        key("", "profiles", b"user-1", None),
        key("wc:", "profiles", b"user-1", None),
        // A partition key alone is not escaped.
        key("wc:", "profiles", b"user%1:2", None),
        key("", "a.Table_name-1", "k\u{e4}se".as_bytes(), None),
        key("", "visits", b"\x00\xff:%", None),
        // A number is its text.
        key("", "orders", b"-12.5", Some(b"7")),
        key("", "visits", b"user-1", Some(b"2026-07-14T03:33:20Z")),
        // In the partition key of a composite key % and : are escaped, % first; the sort key is as it is.
        key("", "visits", b"user%1:2", Some(b"seg:%9")),
        key("", "visits", b"%3A", Some(b"")),
        key("", "visits", b"", Some(b":")),
    ]
}

fn position() -> Position {
    Position::new(1, "4107372200000000044281155203".parse().unwrap()).unwrap()
}

fn no_floor() -> Position {
    Position::ZERO
}

/// An item with a value of every type.
fn every_type() -> Item {
    let text = |text: &str| AttributeValue::from(Value::S(text.to_owned()));
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let map = Map { attributes: [("list".to_owned(), Value::L(List { values: vec![] }).into())].into() };
    let list = List { values: vec![text(""), Value::Null(true).into(), Value::M(map.clone()).into()] };
    let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let attributes = [
        ("id", text("user-1")),
        ("text", text("gr\u{fc}n \u{2713}")),
        ("", text("x".repeat(200).as_str())),
        ("number", Value::N("-12345678901234567890123456789012345678E-10".to_owned()).into()),
        ("binary", Value::B(bytes(b"\x00\x01\xfe\xff")).into()),
        ("true", Value::Bool(true).into()),
        ("false", Value::Bool(false).into()),
        ("null", Value::Null(true).into()),
        ("list", Value::L(list).into()),
        ("map", Value::M(map).into()),
        ("texts", Value::Ss(StringSet { values: texts(&["a", "b"]) }).into()),
        ("numbers", Value::Ns(NumberSet { values: texts(&["1", "2.5"]) }).into()),
        ("binaries", Value::Bs(BinarySet { values: vec![bytes(b"\xff"), bytes(b"a")] }).into()),
    ];
    Item { attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into() }
}

fn small() -> Item {
    Item { attributes: [("id".to_owned(), Value::S("user-1".to_owned()).into())].into() }
}

fn with_item(name: &str, header: EntryHeader, item: &Item, reads: &[(u64, Sees)]) -> EntryVector {
    let vector = with_bytes(name, header, &item::encode(item), reads);
    EntryVector { item: Some(json_of_attributes(&item.attributes)), ..vector }
}

fn with_bytes(name: &str, header: EntryHeader, payload: &[u8], reads: &[(u64, Sees)]) -> EntryVector {
    let entry = [header.encode().as_ref(), payload].concat();
    EntryVector {
        name: name.to_owned(),
        kind: char::from(entry[1]).to_string(),
        entry_hex: hex(entry),
        generation: header.position().generation(),
        sequence: header.position().sequence().to_string(),
        time_ms: header.time_ms(),
        expires_ms: header.expires_ms(),
        payload_hex: hex(payload),
        item: None,
        reads: reads.iter().map(|&(now_ms, sees)| Read { now_ms, sees }).collect(),
    }
}

fn entries() -> Vec<EntryVector> {
    use EntryKind::{Filled, Held, Invalid, Live, Negative, Tombstone};
    let plain = |kind, position| EntryHeader::new(kind, position, NOW_MS).unwrap();
    let expiring = |kind, position| EntryHeader::expiring(kind, position, NOW_MS, EXPIRES_MS).unwrap();
    let always = |sees| [(0, sees), (NOW_MS, sees), (TIME_MS_MAX, sees)];
    let until_expiry = |before, after| {
        [(NOW_MS, before), (EXPIRES_MS - 1, before), (EXPIRES_MS, after), (EXPIRES_MS + 1, after)]
    };
    let highest = EntryHeader::expiring(Live, Position::MAX, TIME_MS_MAX, TIME_MS_MAX).unwrap();
    vec![
        with_item("live, every type", plain(Live, position()), &every_type(), &always(Sees::Item)),
        with_item(
            "live, an item without attributes",
            plain(Live, position()),
            &Item::default(),
            &always(Sees::Item),
        ),
        with_bytes(
            "live, the bytes of one attribute",
            plain(Live, position()),
            b"\x00raw\xff",
            &always(Sees::Item),
        ),
        with_bytes("live, an empty attribute", plain(Live, position()), b"", &always(Sees::Item)),
        with_item(
            "live, with an expiry",
            expiring(Live, position()),
            &small(),
            &until_expiry(Sees::Item, Absent),
        ),
        with_item(
            "live, every field at its highest",
            highest,
            &small(),
            &[(TIME_MS_MAX - 1, Sees::Item), (TIME_MS_MAX, Absent)],
        ),
        with_item("filled, no floor", plain(Filled, no_floor()), &small(), &always(Sees::Item)),
        with_item("filled over a floor", plain(Filled, position()), &small(), &always(Sees::Item)),
        with_item(
            "filled, with an expiry",
            expiring(Filled, position()),
            &small(),
            &until_expiry(Sees::Item, Absent),
        ),
        with_bytes(
            "filled, one attribute, with an expiry",
            expiring(Filled, no_floor()),
            b"1l00",
            &until_expiry(Sees::Item, Absent),
        ),
        with_bytes("tombstone", plain(Tombstone, position()), b"", &always(Absent)),
        with_bytes("negative, no floor", expiring(Negative, no_floor()), b"", &until_expiry(Absent, Miss)),
        with_bytes("negative over a floor", expiring(Negative, position()), b"", &until_expiry(Absent, Miss)),
        with_bytes("invalid", plain(Invalid, position()), b"", &always(Miss)),
        with_bytes("held, no floor", plain(Held, no_floor()), &[b'7'; 32], &always(Miss)),
        with_bytes(
            "held over a floor",
            plain(Held, position()),
            b"0123456789abcdef0123456789abcdef",
            &always(Miss),
        ),
    ]
}

fn misses() -> Vec<MissVector> {
    let live = EntryHeader::new(EntryKind::Live, position(), NOW_MS).unwrap().encode();
    let expiring = EntryHeader::expiring(EntryKind::Filled, position(), NOW_MS, EXPIRES_MS).unwrap().encode();
    let negative =
        EntryHeader::expiring(EntryKind::Negative, position(), NOW_MS, EXPIRES_MS).unwrap().encode();
    let item = item::encode(&small());
    let entry = |header: &[u8]| [header, &item].concat();
    let with = |header: &[u8], index: usize, byte: u8| {
        let mut entry = entry(header);
        entry[index] = byte;
        entry
    };
    let (live, expiring, negative) = (live.as_ref(), expiring.as_ref(), negative.as_ref());
    let mut too_large = entry(live);
    too_large[6..32].copy_from_slice(b"cde0suu7bcgsn5rimwenzyeeps");
    [
        ("empty", Vec::new()),
        ("a byte less than a header", live[..39].to_vec()),
        ("a byte less than a header with an expiry", expiring[..47].to_vec()),
        ("negative without its expiry", negative[..40].to_vec()),
        ("another version", with(live, 0, b'2')),
        ("no version", with(live, 0, 0)),
        ("an unknown kind", with(live, 1, b'z')),
        ("a kind in upper case", with(live, 1, b'L')),
        ("a generation with an upper-case letter", with(live, 3, b'A')),
        ("a sequence number with a minus sign", with(live, 6, b'-')),
        // What parsers of numbers like to pass over.
        ("a sequence number with an underscore", with(live, 20, b'_')),
        ("a sequence number above 10^40 - 1", too_large),
        ("a time with a space", with(live, 32, b' ')),
        ("a time with a plus sign", with(live, 32, b'+')),
        ("a time with a newline at its end", with(live, 39, b'\n')),
        ("an expiry with an upper-case letter", with(expiring, 47, b'Z')),
        ("an expiry with a byte that is no character", with(negative, 40, 0xff)),
        ("something else that is as long", br#"{"id":"user-1","segments":[1,2,3],"at":1784000000}"#.to_vec()),
    ]
    .map(|(name, entry)| MissVector { name: name.to_owned(), entry_hex: hex(entry) })
    .into()
}
