//! `redrive list`: letters, newest first, page by page.
//!
//! A store has no order by time, so that each page reads all of it; what is kept in memory is one page.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use clap::Args;
use serde::Serialize;

use super::filter::Filter;
use super::letter::{Kept, LetterId};
use super::selection::FilterArgs;
use super::shown::LetterReport;
use super::store::{LetterError, LetterStore};
use crate::daemon::{ConfigArgs, Outcome, OutputFormat};
use crate::tool::report;

/// Letters on one page of `redrive list` at most.
const PAGE_LETTERS_MAX: u16 = 10_000;

/// The flags of `redrive list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Where the letters are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How many to list.
    #[arg(long, value_name = "LETTERS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=i64::from(PAGE_LETTERS_MAX)))]
    pub limit: u16,
    /// Go on after a page: what it told as `next`.
    #[arg(long, value_name = "NEXT")]
    pub from: Option<Cursor>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// The letters that are meant: a page of them, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListReport {
    /// Letters that are meant, on all pages.
    pub total: u64,
    /// Letters in the store, whether they are meant or not.
    pub stored: u64,
    /// This page, those that were last set aside or tried first.
    pub letters: Vec<LetterReport>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// A letter's place in a listing, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(Reverse<u64>, LetterId);

impl Cursor {
    fn of(kept: &Kept) -> Self {
        Self(Reverse(kept.last_attempt_ms), kept.id)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.0.0, self.1)
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-').and_then(|(ms, id)| Some((ms.parse().ok()?, id.parse().ok()?)));
        let (ms, id) = parts.ok_or_else(|| "give what a page told as `next`".to_owned())?;
        Ok(Self(Reverse(ms), id))
    }
}

/// Prints the letters that are meant.
///
/// # Errors
/// The store cannot be read.
pub async fn list(store: &LetterStore, args: &ListArgs) -> Result<Outcome, anyhow::Error> {
    let page = page(store, &args.filter.filter(), args.limit.into(), args.from).await?;
    report(args.output, &page, || page.lines())?;
    Ok(Outcome::Done)
}

/// The letters that are meant: a page of them.
///
/// # Errors
/// The store cannot be read.
pub async fn page(
    store: &LetterStore,
    filter: &Filter,
    limit: usize,
    from: Option<Cursor>,
) -> Result<ListReport, LetterError> {
    let mut page = BTreeMap::new();
    let (mut total, mut stored, mut has_more) = (0, 0, false);
    let mut next = None;
    loop {
        let found = store.list(&Filter::default(), next.as_deref()).await?;
        stored += found.letters.len() as u64;
        for kept in found.letters.into_iter().filter(|kept| filter.matches(kept)) {
            total += 1;
            let place = Cursor::of(&kept);
            if from.is_none_or(|from| place > from) {
                page.insert(place, LetterReport::from(&kept));
            }
            if page.len() > limit {
                page.pop_last();
                has_more = true;
            }
        }
        next = found.next;
        if next.is_none() {
            break;
        }
    }
    let next = page.last_key_value().filter(|_| has_more).map(|(last, _)| last.to_string());
    Ok(ListReport { total, stored, letters: page.into_values().collect(), next })
}

impl ListReport {
    /// For people.
    pub fn lines(&self) -> String {
        let mut text: String = self.letters.iter().map(LetterReport::lines).collect();
        let others = match self.stored {
            stored if stored > self.total => format!(" (of {stored} that are stored)"),
            _ => String::new(),
        };
        text += &format!("{} letters{others}\n", self.total);
        if let Some(next) = &self.next {
            text += &format!("more with --from {next}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn the_newest_letter_is_the_first_and_a_place_reads_back() {
        let id = letter("1", b"").id();
        let places = [Cursor(Reverse(20), id), Cursor(Reverse(10), id)];
        assert!(places.is_sorted());
        assert_eq!(places[0].to_string().parse(), Ok(places[0]));
        assert!("x".parse::<Cursor>().is_err() && "5-x".parse::<Cursor>().is_err());
    }
}
