//! What needs a look.

use serde::Serialize;

/// Something that needs a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A word for scripts: `worker`, `free-leases`, `gap`, `parked`, `backfill`, `watermark`, `cache`.
    pub kind: &'static str,
    /// What it is, for people.
    pub text: String,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}
