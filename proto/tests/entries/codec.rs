//! The file against the codec.

use std::collections::BTreeSet;

use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::item;

use super::file::{Sees, checked_in, hex, json_of_attributes, path, unhex};
use super::vectors::vectors;

#[test]
fn the_vectors_are_what_the_codec_writes() {
    let current = vectors();
    if std::env::var_os("WARMCAST_REGENERATE").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&current).unwrap();
        std::fs::write(path(), text + "\n").unwrap();
    }
    let checked_in = checked_in();
    let entries = checked_in.entries.iter().zip(&current.entries);
    let changed = entries.filter(|(a, b)| a != b).map(|(_, current)| &current.name).collect::<Vec<_>>();
    assert!(
        checked_in == current,
        "{} is not what the codec makes (entries that differ: {changed:?}). Readers in other languages rely on it: \
         if the change is meant, run `WARMCAST_REGENERATE=1 cargo test -p warmcast-proto --test entries vectors_are` and commit \
         the result",
        path().display()
    );
}

#[test]
fn the_codec_reads_each_vector_and_every_kind_has_one() {
    let mut kinds = BTreeSet::new();
    for vector in checked_in().entries {
        let name = &vector.name;
        let entry = unhex(&vector.entry_hex);
        let (header, payload) = EntryHeader::decode(&entry).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(header.position().generation(), vector.generation, "{name}");
        assert_eq!(header.position().sequence().to_string(), vector.sequence, "{name}");
        assert_eq!((header.time_ms(), header.expires_ms()), (vector.time_ms, vector.expires_ms), "{name}");
        assert_eq!(hex(payload), vector.payload_hex, "{name}");
        if let Some(expected) = vector.item {
            let item = item::decode(payload.to_vec().into()).unwrap();
            assert_eq!(json_of_attributes(&item.attributes), expected, "{name}");
        }
        for read in vector.reads {
            assert_eq!(sees(header, read.now_ms), read.sees, "{name} at {}", read.now_ms);
        }
        kinds.insert(vector.kind);
    }
    assert_eq!(kinds.into_iter().collect::<String>(), "fhilntxy");
}

/// What the header's table in `warmcast_proto::entry` says.
fn sees(header: EntryHeader, now_ms: u64) -> Sees {
    match (header.kind(), header.is_expired(now_ms)) {
        (EntryKind::Live | EntryKind::Filled, false) => Sees::Item,
        (EntryKind::Live | EntryKind::Filled, true) | (EntryKind::Tombstone, _) => Sees::Absent,
        (EntryKind::Negative, false) => Sees::Absent,
        (EntryKind::Negative, true) | (EntryKind::Invalid | EntryKind::Held, _) => Sees::Miss,
    }
}

#[test]
fn the_codec_refuses_what_is_no_entry() {
    for vector in checked_in().misses {
        let entry = unhex(&vector.entry_hex);
        let refused = EntryHeader::decode(&entry);
        assert!(refused.is_err(), "{}: {refused:?}", vector.name);
    }
}
