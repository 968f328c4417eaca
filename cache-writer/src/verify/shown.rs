//! Entries and items as people and scripts are shown them: what readers get as JSON, cut to a bound.

use serde::Serialize;
use warmcast_cache::policy::{PayloadForm, TablePolicy};
use warmcast_common::tool::Moment;
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::item::{self, Item};
use warmcast_proto::json::ItemJson;

use super::look::Evidence;

/// The most characters of a payload that are shown.
pub const PAYLOAD_CHARS_MAX: usize = 2_000;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownEntry {
    /// `live`, `filled`, `tombstone`, `negative`, `invalid`, `held`; `foreign`: no entry of this version.
    pub kind: &'static str,
    /// Its floor: 30 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Its time; what of, depends on the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Its expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Its payload: the item as DynamoDB's JSON, or text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

impl ShownEntry {
    /// An entry's bytes, of a table with this policy.
    #[must_use]
    pub fn new(entry: &[u8], policy: &TablePolicy) -> Self {
        let Ok((header, payload)) = EntryHeader::decode(entry) else {
            let payload = Some(cut(&String::from_utf8_lossy(entry)));
            return Self { kind: "foreign", position: None, time: None, expires: None, payload };
        };
        let time = |ms: u64| Moment::at_ms(ms).to_string();
        let has_payload = matches!(header.kind(), EntryKind::Live | EntryKind::Filled);
        Self {
            kind: header.kind().as_str(),
            position: Some(header.position().to_string()),
            time: Some(time(header.time_ms())),
            expires: header.expires_ms().map(time),
            payload: has_payload.then(|| show_payload(payload, policy)),
        }
    }
}

/// An item as DynamoDB's JSON.
#[must_use]
pub fn show_item(item: &Item) -> String {
    // Nothing in an item cannot be written.
    cut(&serde_json::to_string(&ItemJson(item)).unwrap_or_default())
}

/// The two sides of a look, in one line each.
#[must_use]
pub fn show_cache(evidence: &Evidence, policy: &TablePolicy) -> Option<ShownEntry> {
    evidence.entry.as_ref().map(|entry| ShownEntry::new(entry, policy))
}

fn show_payload(payload: &[u8], policy: &TablePolicy) -> String {
    match &policy.payload {
        PayloadForm::Item => match item::decode(payload.to_vec().into()) {
            Ok(item) => show_item(&item),
            Err(_) => format!("{} bytes that are no item", payload.len()),
        },
        PayloadForm::Attribute(_) => cut(&String::from_utf8_lossy(payload)),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(PAYLOAD_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::judge::tests::{NOW_MS, an_item, entry};
    use super::*;

    #[test]
    fn entries_are_shown_with_their_payload_as_json() {
        let policy = TablePolicy::default();
        let live = entry(EntryKind::Live, NOW_MS, None, &item::encode(&an_item("red")));
        let shown = ShownEntry::new(&live, &policy);
        assert_eq!((shown.kind, shown.expires), ("live", None));
        assert_eq!(shown.payload.as_deref(), Some(r#"{"color":{"S":"red"},"id":{"S":"u1"}}"#));
        assert_eq!(shown.time.as_deref(), Some("2026-07-14T03:33:20.000Z"));
        let held = ShownEntry::new(&entry(EntryKind::Held, NOW_MS, None, b"token"), &policy);
        assert_eq!((held.kind, held.payload), ("held", None), "tokens are not shown");
        assert_eq!(ShownEntry::new(b"theirs", &policy).payload.as_deref(), Some("theirs"));
    }

    #[test]
    fn long_payloads_are_cut_between_characters() {
        let shown = ShownEntry::new(&Bytes::from("ö".repeat(5_000)), &TablePolicy::default());
        let payload = shown.payload.unwrap();
        assert_eq!(payload.chars().filter(|c| *c == 'ö').count(), PAYLOAD_CHARS_MAX);
        assert!(payload.ends_with("… (10000 bytes)"), "{payload}");
    }
}
