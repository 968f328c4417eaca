//! Letters for people and for scripts.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::letter::{Kept, Letter, LetterId};
use super::store::LetterStore;
use crate::daemon::{ConfigArgs, Outcome, OutputFormat};
use crate::tool::{Moment, RawKey, report};

/// The flags of `redrive show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Where the letters are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The letter's name, as it is listed.
    #[arg(value_name = "ID")]
    pub id: LetterId,
    /// Write the letter's bytes, as they are kept, to this file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub raw: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Everything about a letter but its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterReport {
    /// Its name.
    pub id: String,
    /// The daemon, and its region.
    pub source: String,
    /// The stream that it was read from, or could not be put into.
    pub stream: String,
    /// The shard.
    pub shard: Option<String>,
    /// The sequence number of its record.
    pub position: Option<String>,
    /// Which part of its record it is.
    pub index: Option<u32>,
    /// The table.
    pub table: Option<String>,
    /// The canonical bytes of the key; what is no plain text as `\xNN`.
    pub key: Option<String>,
    /// The class of the reason.
    pub class: &'static str,
    /// Why it could not be used.
    pub reason: String,
    /// What the bytes are.
    pub form: &'static str,
    /// How many bytes it has; more than [`DEAD_LETTER_BYTES_MAX`](crate::limits::DEAD_LETTER_BYTES_MAX) are not kept.
    pub bytes: u64,
    /// When it was first set aside: milliseconds since the Unix epoch.
    pub first_attempt_ms: u64,
    /// When it was last set aside, or tried again in vain.
    pub last_attempt_ms: u64,
    /// How often.
    pub attempts: u64,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: LetterReport,
    content: Value,
}

impl From<&Kept> for LetterReport {
    fn from(kept: &Kept) -> Self {
        let envelope = &kept.envelope;
        Self {
            id: kept.id.to_string(),
            source: envelope.origin.source.to_string(),
            stream: envelope.origin.stream.to_string(),
            shard: envelope.origin.shard.as_deref().map(str::to_owned),
            position: envelope.origin.position.as_deref().map(str::to_owned),
            index: envelope.index,
            table: envelope.table.as_deref().map(str::to_owned),
            key: envelope.key.as_deref().map(RawKey::text),
            class: envelope.class.as_str(),
            reason: envelope.reason.clone(),
            form: envelope.form.as_str(),
            bytes: kept.bytes_len,
            first_attempt_ms: kept.first_attempt_ms,
            last_attempt_ms: kept.last_attempt_ms,
            attempts: kept.attempts,
        }
    }
}

impl LetterReport {
    /// Two lines for a listing.
    pub(super) fn lines(&self) -> String {
        let Self { id, source, class, attempts, reason, .. } = self;
        let item = match (&self.table, &self.key) {
            (Some(table), Some(key)) => format!("{table} {key}"),
            (Some(table), None) => table.clone(),
            (None, _) => "-".to_owned(),
        };
        let at = Moment::at_ms(self.last_attempt_ms);
        format!("{id}  {at}  {source}  {class}  {item}  attempts: {attempts}\n    {reason}\n")
    }

    /// A line for each field.
    fn fields(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let index = self.index.map_or_else(String::new, |index| format!(", part {index}"));
        [
            ("letter", self.id.clone()),
            ("source", self.source.clone()),
            ("stream", self.stream.clone()),
            ("shard", text(&self.shard)),
            ("position", text(&self.position) + &index),
            ("table", text(&self.table)),
            ("key", text(&self.key)),
            ("class", self.class.to_owned()),
            ("reason", self.reason.clone()),
            ("bytes", format!("{} ({})", self.bytes, self.form)),
            ("first attempt", Moment::at_ms(self.first_attempt_ms).to_string()),
            ("last attempt", Moment::at_ms(self.last_attempt_ms).to_string()),
            ("attempts", self.attempts.to_string()),
        ]
        .map(|(name, value)| format!("{name:<14} {value}\n"))
        .concat()
    }
}

/// Shows a letter with its bytes, as far as `content` can read them.
///
/// # Errors
/// There is no such letter, the store cannot be read, or the file cannot be written.
pub async fn show(
    store: &LetterStore,
    args: &ShowArgs,
    content: impl Fn(&Letter) -> Value,
) -> Result<Outcome, anyhow::Error> {
    let found = store.get(args.id).await?;
    let (kept, letter) = found.ok_or_else(|| anyhow!("{} has no letter {}", store.place(), args.id))?;
    if let Some(path) = &args.raw {
        let written = File::create_new(path).and_then(|mut file| file.write_all(&letter.bytes));
        written.with_context(|| format!("write the letter's bytes to {}", path.display()))?;
    }
    let shown = Shown { letter: LetterReport::from(&kept), content: content(&letter) };
    let human = || {
        let content = serde_json::to_string_pretty(&shown.content).unwrap_or_default();
        format!("{}content:\n{content}\n", shown.letter.fields())
    };
    report(args.output, &shown, human)?;
    Ok(Outcome::Done)
}
