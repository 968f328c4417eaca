//! How tables are cached: `[entries]` for all of them, `[tables.NAME]` where one differs.

use std::time::Duration;

use warmcast_cache::policy::{LIVE_TTL_MIN, PayloadForm, TablePolicy, Tables, WritePolicy};
use warmcast_common::config::Section;

/// A year: longer is "until it is evicted".
const TTL_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;

/// Reads all policies.
pub(super) fn read(root: &mut Section) -> Tables {
    let default = policy(root.section("entries"), &TablePolicy::default());
    let named = root
        .optional_named_sections("tables")
        .into_iter()
        .map(|(name, section)| (name.as_str().into(), policy(section, &default)))
        .collect();
    Tables { default, named }
}

/// A policy: what its section does not say is as in `base`.
fn policy(mut section: Section, base: &TablePolicy) -> TablePolicy {
    let writes = [("all", WritePolicy::All), ("present", WritePolicy::Present)];
    let payload_attribute = section.text("payload_attribute").map(PayloadForm::Attribute);
    let policy = TablePolicy {
        write: section.choice("write", &writes, base.write),
        live_ttl: live_ttl(&mut section, base.live_ttl),
        negative_ttl: section.duration_ms("negative_ttl_ms", 1_000..=86_400_000, millis(base.negative_ttl)),
        expiry_attribute: section.text("expiry_attribute").or_else(|| base.expiry_attribute.clone()),
        attributes: section.texts("attributes").or_else(|| base.attributes.clone()),
        payload: payload_attribute.unwrap_or_else(|| base.payload.clone()),
        key_prefix: section.text_even_empty("key_prefix").or_else(|| base.key_prefix.clone()),
        strict_margin: strict_margin(&mut section, base.strict_margin),
    };
    inherited(&section, base);
    if policy.attributes.is_some() && matches!(policy.payload, PayloadForm::Attribute(_)) {
        section.note(
            "attributes",
            "chooses among attributes, but payload_attribute makes one of them the payload",
        );
    }
    section.finish();
    policy
}

/// Tells what stands in, from the other tables' section, for texts that are not given.
fn inherited(section: &Section, base: &TablePolicy) {
    if let Some(expiry_attribute) = &base.expiry_attribute {
        section.default_is("expiry_attribute", expiry_attribute.as_str());
    }
    if let Some(attributes) = &base.attributes {
        section.default_is("attributes", attributes.clone());
    }
    if let PayloadForm::Attribute(name) = &base.payload {
        section.default_is("payload_attribute", name.as_str());
    }
    if let Some(key_prefix) = &base.key_prefix {
        section.default_is("key_prefix", key_prefix.as_str());
    }
}

fn live_ttl(section: &mut Section, base: Option<Duration>) -> Option<Duration> {
    off_or_at_least(section, "live_ttl_ms", millis(LIVE_TTL_MIN), TTL_MS_MAX, base)
}

fn strict_margin(section: &mut Section, base: Option<Duration>) -> Option<Duration> {
    // Below 1.5 s the rounding of creation times alone would make a change look older than a read before it.
    off_or_at_least(section, "strict_margin_ms", 1_500, 600_000, base)
}

/// A duration of which 0 says that there is none.
fn off_or_at_least(
    section: &mut Section,
    name: &'static str,
    min_ms: u64,
    max_ms: u64,
    base: Option<Duration>,
) -> Option<Duration> {
    match section.integer(name, 0..=max_ms, base.map_or(0, millis)) {
        0 => None,
        ms if ms < min_ms => {
            section.note(name, format!("expected 0 (none) or at least {min_ms}, found {ms}"));
            None
        }
        ms => Some(Duration::from_millis(ms)),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warmcast_common::config::Document;
    use warmcast_common::config::Violations;

    fn tables(text: &str) -> Result<Tables, Vec<String>> {
        let _ = Document::parse(text).unwrap();
        let violations = Violations::default();
        let mut root = Section::root(text.parse().unwrap(), &violations);
        let tables = read(&mut root);
        root.finish();
        violations.into_result(tables).map_err(|noted| noted.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_table_differs_from_the_others_in_what_its_section_says() {
        let tables = tables(
            "[entries]
            live_ttl_ms = 3600000
            expiry_attribute = 'ttl'
            [tables.profiles]
            write = 'present'
            payload_attribute = 'blob'
            key_prefix = ''
            [tables.segments]
            live_ttl_ms = 0
            strict_margin_ms = 3000",
        )
        .unwrap();
        assert_eq!(tables.policy("others").live_ttl, Some(Duration::from_hours(1)));
        let profiles = tables.policy("profiles");
        assert_eq!(
            (profiles.write, profiles.live_ttl),
            (WritePolicy::Present, Some(Duration::from_hours(1)))
        );
        assert_eq!(profiles.payload, PayloadForm::Attribute("blob".to_owned()));
        assert_eq!(
            (profiles.key_prefix.as_deref(), profiles.expiry_attribute.as_deref()),
            (Some(""), Some("ttl"))
        );
        let segments = tables.policy("segments");
        assert_eq!((segments.write, segments.live_ttl), (WritePolicy::All, None));
        assert_eq!(segments.strict_margin, Some(Duration::from_secs(3)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let noted = tables(
            "[entries]
            live_ttl_ms = 500
            strict_margin_ms = 10
            [tables.a]
            attributes = ['x']
            payload_attribute = 'blob'
            surprise = 1",
        )
        .unwrap_err();
        let starts =
            ["entries.live_ttl_ms", "entries.strict_margin_ms", "tables.a.attributes", "tables.a.surprise"];
        assert_eq!(noted.len(), starts.len(), "{noted:?}");
        assert!(noted.iter().zip(starts).all(|(noted, start)| noted.starts_with(start)), "{noted:?}");
    }
}
