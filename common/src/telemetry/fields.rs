//! What an event says: its message, and its fields as JSON has them.

use std::fmt;

use serde_json::{Map, Value};
use tracing::Event;
use tracing::field::{Field, Visit};

/// An event's message and fields. Texts are cut to `text_bytes_max`.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) values: Map<String, Value>,
    text_bytes_max: usize,
}

impl Fields {
    /// Reads an event.
    pub(super) fn of(event: &Event<'_>, text_bytes_max: usize) -> Self {
        let mut fields = Self { message: String::new(), values: Map::new(), text_bytes_max };
        event.record(&mut fields);
        fields
    }

    /// What no event says.
    pub(super) fn made<const N: usize>(message: String, values: [(&str, Value); N]) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { message, values, text_bytes_max: usize::MAX }
    }

    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        // The `log` crate's events bring where they are from as fields.
        if !field.name().starts_with("log.") {
            self.values.insert(field.name().to_owned(), value.into());
        }
    }

    fn set_text(&mut self, field: &Field, mut text: String) {
        cut(&mut text, self.text_bytes_max);
        if field.name() == "message" {
            self.message = text;
        } else {
            self.set(field, text);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    /// JSON's numbers are 64 bits here: what is larger is a text.
    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.set(field, value),
            Err(_) => self.set(field, value.to_string()),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.set(field, value),
            Err(_) => self.set(field, value.to_string()),
        }
    }
}

/// Shortens a text to at most so many bytes, and says so.
fn cut(text: &mut String, bytes_max: usize) {
    const ELLIPSIS: &str = "…";
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub(ELLIPSIS.len())));
        text.push_str(ELLIPSIS);
    }
}
