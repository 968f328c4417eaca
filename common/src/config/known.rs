//! What was read of a configuration, key by key: the sections that were asked for, their keys, what was given, and what
//! stands in where nothing was. [`effective`](super::effective) makes of it what an operator sees.

use std::cell::RefCell;
use std::rc::Rc;

use toml::Value;

/// Everything that was read; shared by the sections that note it. It may hold secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub(super) struct Known(Rc<RefCell<Vec<KnownSection>>>);

/// A section that was asked for.
pub(super) struct KnownSection {
    pub(super) path: Vec<String>,
    pub(super) kind: SectionKind,
    /// In the order in which they were read.
    pub(super) keys: Vec<KnownKey>,
}

/// What there is of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionKind {
    /// It is read, whether it was given or not.
    Read,
    /// It is not there, and nothing stands in for it.
    Absent,
    /// It may have sections of any name, and has none.
    NoNames,
}

/// A key that was asked for.
pub(super) struct KnownKey {
    pub(super) name: String,
    pub(super) value: KnownValue,
    pub(super) is_secret: bool,
}

/// What there is of a key.
pub(super) enum KnownValue {
    Given(Value),
    Default(Value),
    Unset,
}

impl Known {
    /// A section is read. Returns its place.
    pub(super) fn section(&self, path: Vec<String>, kind: SectionKind) -> usize {
        let mut sections = self.0.borrow_mut();
        sections.push(KnownSection { path, kind, keys: Vec::new() });
        sections.len() - 1
    }

    /// A key is read.
    pub(super) fn key(&self, section: usize, name: &str, given: Option<&Value>) {
        if let Some(section) = self.0.borrow_mut().get_mut(section) {
            let value = given.map_or(KnownValue::Unset, |value| KnownValue::Given(value.clone()));
            section.keys.push(KnownKey { name: name.to_owned(), value, is_secret: false });
        }
    }

    /// What stands in for a key that was not given.
    pub(super) fn stands_in(&self, section: usize, name: &str, default: Value) {
        self.change(section, name, |key| {
            if matches!(key.value, KnownValue::Unset) {
                key.value = KnownValue::Default(default);
            }
        });
    }

    /// A key's value is secret.
    pub(super) fn secret(&self, section: usize, name: &str) {
        self.change(section, name, |key| key.is_secret = true);
    }

    /// All of it, in the order in which it was read.
    pub(super) fn take(&self) -> Vec<KnownSection> {
        self.0.take()
    }

    fn change(&self, section: usize, name: &str, change: impl FnOnce(&mut KnownKey)) {
        let mut sections = self.0.borrow_mut();
        let keys = sections.get_mut(section).map(|section| &mut section.keys);
        if let Some(key) = keys.and_then(|keys| keys.iter_mut().find(|key| key.name == name)) {
            change(key);
        }
    }
}
