//! Which letters are meant.

use super::letter::{Kept, ReasonClass};

/// What a letter must be like; what is not set is not asked. The default is every letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Its source, or the beginning of it up to a slash: `cache-writer` is that of every region.
    pub source: Option<String>,
    /// A text that its reason contains.
    pub reason: Option<String>,
    /// Its class.
    pub class: Option<ReasonClass>,
    /// Its last attempt was then or later: milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Its last attempt was before then: milliseconds since the Unix epoch.
    pub before_ms: Option<u64>,
    /// Its table.
    pub table: Option<String>,
    /// The canonical bytes of its key.
    pub key: Option<Vec<u8>>,
}

impl Filter {
    /// Whether a letter is meant.
    pub fn matches(&self, letter: &Kept) -> bool {
        let envelope = &letter.envelope;
        let is = |wanted: &Option<String>, test: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(test);
        let source = &*envelope.origin.source;
        is(&self.source, &|wanted| {
            source.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }) && is(&self.reason, &|wanted| envelope.reason.contains(wanted))
            && is(&self.table, &|wanted| envelope.table.as_deref() == Some(wanted))
            && self.class.is_none_or(|wanted| envelope.class == wanted)
            && self.since_ms.is_none_or(|since_ms| letter.last_attempt_ms >= since_ms)
            && self.before_ms.is_none_or(|before_ms| letter.last_attempt_ms < before_ms)
            && (self.key.is_none() || self.key == envelope.key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn a_letter_is_meant_when_everything_that_is_asked_holds() {
        let letter = letter("1", b"x");
        let kept = Kept {
            id: letter.id(),
            envelope: letter.envelope,
            bytes_len: 1,
            first_attempt_ms: 100,
            last_attempt_ms: 200,
            attempts: 2,
        };
        let text = |text: &str| Some(text.to_owned());
        let any = Filter::default;
        for (filter, expected) in [
            (any(), true),
            (Filter { source: text("cache-writer"), ..any() }, true),
            (Filter { source: text("cache-writer/eu-west-1"), ..any() }, true),
            (Filter { source: text("cache-writer/eu-west"), ..any() }, false),
            (Filter { source: text("aggregator"), ..any() }, false),
            (Filter { reason: text("magic"), ..any() }, true),
            (Filter { reason: text("tragic"), ..any() }, false),
            (Filter { class: Some(ReasonClass::UndecodableRecord), ..any() }, true),
            (Filter { class: Some(ReasonClass::Refused), ..any() }, false),
            (Filter { since_ms: Some(200), before_ms: Some(201), ..any() }, true),
            (Filter { since_ms: Some(201), ..any() }, false),
            (Filter { before_ms: Some(200), ..any() }, false),
            (Filter { table: text("profiles"), key: Some(b"user\xff1".to_vec()), ..any() }, true),
            (Filter { table: text("profile"), ..any() }, false),
            (Filter { key: Some(b"user".to_vec()), ..any() }, false),
            (Filter { reason: text("magic"), table: text("other"), ..any() }, false),
        ] {
            assert_eq!(filter.matches(&kept), expected, "{filter:?}");
        }
    }
}
