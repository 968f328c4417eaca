//! Generations: which stream of a table came first.
//!
//! Sequence numbers of a table's new stream are not comparable with those of the old one, so a position begins
//! with a generation that grows with each new stream. One item for each stream of a table, written once.

use super::item::{Item, new_item, s};
use super::{StateStore, StoreError};

/// The stream of one generation of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Counted from one: zero is less than every position.
    pub number: u32,
    /// The stream's ARN.
    pub stream: String,
}

/// The generation of `stream` among those known: the one it has, or the next.
pub fn next_generation(known: &[Generation], stream: &str) -> u32 {
    known
        .iter()
        .find(|generation| generation.stream == stream)
        .map_or_else(|| known.iter().map(|g| g.number).max().unwrap_or(0) + 1, |generation| generation.number)
}

impl StateStore {
    /// The generation of a table's stream, assigned now if the stream is new.
    ///
    /// # Errors
    /// When a call fails or an item is not a generation.
    pub async fn generation(&self, table: &str, stream: &str) -> Result<u32, StoreError> {
        loop {
            let number = next_generation(&self.generations(table).await?, stream);
            let mut item = new_item(format!("table#{table}"), format!("generation#{number:010}"));
            item.insert("stream".to_owned(), s(stream));
            if self.put_new(item).await? {
                tracing::info!(table, stream, generation = number, "new stream of a table");
            } else if self.generations(table).await?.iter().any(|g| g.number == number && g.stream == stream)
            {
                return Ok(number);
            }
        }
    }

    /// Every generation of a table.
    ///
    /// # Errors
    /// When a call fails or an item is not a generation.
    pub async fn generations(&self, table: &str) -> Result<Vec<Generation>, StoreError> {
        let items = self.query(&format!("table#{table}"), true).await?;
        let read = |attributes| {
            let item = Item { table: self.table(), attributes };
            item.check_format()?;
            let number = item.text("sk")?.strip_prefix("generation#").and_then(|digits| digits.parse().ok());
            Ok(Generation {
                number: number.ok_or_else(|| item.wrong("sk is not generation#NUMBER".to_owned()))?,
                stream: item.text("stream")?.to_owned(),
            })
        };
        items.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stream_is_a_higher_generation_and_a_known_one_keeps_its_own() {
        let known = |streams: &[&str]| -> Vec<Generation> {
            (1..).zip(streams).map(|(number, s)| Generation { number, stream: (*s).to_owned() }).collect()
        };
        assert_eq!(next_generation(&[], "a"), 1);
        assert_eq!(next_generation(&known(&["a", "b"]), "c"), 3);
        assert_eq!(next_generation(&known(&["a", "b"]), "a"), 1);
    }
}
