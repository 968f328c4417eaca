//! A letter as a JSON file that a person can read, too. Pure.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::letter::{Envelope, Form, Kept, Letter, LetterId, Origin, ReasonClass};

/// The version of the file's layout.
const FORMAT: u64 = 1;

pub(super) fn encode(kept: &Kept, bytes: &[u8]) -> String {
    let Envelope { origin, index, table, key, class, reason, form } = &kept.envelope;
    let value = json!({
        "format": FORMAT,
        "source": &*origin.source,
        "stream": &*origin.stream,
        "shard": origin.shard.as_deref(),
        "position": origin.position.as_deref(),
        "index": index,
        "table": table.as_deref(),
        "key": key.as_deref().map(|key| key.escape_ascii().to_string()),
        "key_base64": key.as_deref().map(|key| BASE64_STANDARD.encode(key)),
        "class": class.as_str(),
        "reason": reason,
        "form": form.as_str(),
        "first_attempt_ms": kept.first_attempt_ms,
        "last_attempt_ms": kept.last_attempt_ms,
        "attempts": kept.attempts,
        "bytes_len": kept.bytes_len,
        "bytes_base64": BASE64_STANDARD.encode(bytes),
    });
    format!("{value:#}\n")
}

pub(super) fn decode(id: LetterId, text: &str) -> Result<(Kept, Letter), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let file = File(&value);
    match file.number("format")? {
        FORMAT => {}
        other => return Err(format!("format {other} is not known to this version")),
    }
    let shared = |name: &str| file.optional_text(name).map(Arc::from);
    let (class, form) = (file.text("class")?, file.text("form")?);
    let origin = Origin {
        source: file.text("source")?.into(),
        stream: file.text("stream")?.into(),
        shard: shared("shard"),
        position: shared("position"),
    };
    let envelope = Envelope {
        origin,
        index: value.get("index").and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok()),
        table: shared("table"),
        key: file.optional_text("key_base64").map(bytes).transpose()?,
        class: ReasonClass::named(class).ok_or_else(|| format!("class {class:?} is not known"))?,
        reason: file.text("reason")?.to_owned(),
        form: Form::named(form).ok_or_else(|| format!("form {form:?} is not known"))?,
    };
    let kept = Kept {
        id,
        envelope: envelope.clone(),
        bytes_len: file.number("bytes_len")?,
        first_attempt_ms: file.number("first_attempt_ms")?,
        last_attempt_ms: file.number("last_attempt_ms")?,
        attempts: file.number("attempts")?,
    };
    Ok((kept, Letter { envelope, bytes: bytes(file.text("bytes_base64")?)?.into() }))
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(text).map_err(|error| format!("no base64: {error}"))
}

struct File<'a>(&'a Value);

impl<'a> File<'a> {
    fn optional_text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.optional_text(name).ok_or_else(|| format!("{name} is missing or not a text"))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        let number = self.0.get(name).and_then(Value::as_u64);
        number.ok_or_else(|| format!("{name} is missing or not a whole number"))
    }
}
