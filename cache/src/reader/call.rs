//! One call of the reader, from its keys to its answers.
//!
//! In this order: the first level; one read of the server; the master (`fallback`), for as long as the deadline
//! allows. Whatever is not known by then is missing.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Inner,
    answer::{Answer, ReadError},
    config::ReadOptions,
    first_level::Kept,
    judge::{Known, Miss, Seen, see},
    stats::Tally,
};
use crate::outcome::CacheError;

/// The answers of a call so far.
pub(super) struct Call<'a> {
    pub(super) inner: &'a Inner,
    pub(super) options: ReadOptions,
    pub(super) deadline: Instant,
    /// The watermark when the call began: what is read since reflects every change made before it.
    pub(super) as_of_ms: u64,
    /// By the keys' order; none: not yet.
    answers: Vec<Option<Answer>>,
    /// What neither the first level nor the server knew.
    pub(super) misses: Vec<(usize, Miss)>,
    pub(super) tally: Tally,
    /// How many keys could not be read, and why the first one could not.
    failures: usize,
    failure: Option<ReadError>,
}

impl<'a> Call<'a> {
    pub(super) fn new(inner: &'a Inner, keys: usize, options: ReadOptions) -> Self {
        // A deadline beyond what the clock counts is none; a month is as good.
        let now = Instant::now();
        let deadline = now.checked_add(options.deadline).unwrap_or(now + Duration::from_hours(24 * 30));
        let answers = vec![None; keys];
        Self {
            inner,
            options,
            deadline,
            as_of_ms: inner.watermark.get(),
            answers,
            misses: Vec::new(),
            tally: Tally::default(),
            failures: 0,
            failure: None,
        }
    }

    /// Asks the first level; whether it answered.
    pub(super) fn recall(&mut self, index: usize, cache_key: &[u8], now_ms: u64) -> bool {
        let Some(answer) = self.inner.recall(cache_key, self.options, now_ms) else { return false };
        self.tally.first_level_hits += 1;
        self.give(index, answer);
        true
    }

    /// Takes what the server had under a key. `as_of_ms` is the watermark from before it was asked.
    pub(super) fn take(
        &mut self,
        index: usize,
        cache_key: &[u8],
        entry: Result<Option<Bytes>, CacheError>,
        as_of_ms: u64,
        now_ms: u64,
    ) {
        match entry.map(|entry| see(entry, now_ms)) {
            Ok(Seen::Known(known)) => {
                match known {
                    Known::Item(_) => self.tally.hits += 1,
                    Known::Absent { .. } => self.tally.absent += 1,
                }
                self.know(index, cache_key, known, as_of_ms, now_ms);
            }
            Ok(Seen::Miss(miss)) => {
                self.tally.misses += 1;
                self.misses.push((index, miss));
            }
            Err(error) => self.fail(index, ReadError::Cache(error)),
        }
    }

    /// A key could not be read.
    pub(super) fn fail(&mut self, index: usize, error: ReadError) {
        self.tally.unavailable += 1;
        self.failures += 1;
        self.failure.get_or_insert(error);
        self.give(index, Answer::Missing { filling: false });
    }

    pub(super) fn know(&mut self, index: usize, cache_key: &[u8], known: Known, as_of_ms: u64, now_ms: u64) {
        if let Some(first_level) = &self.inner.first_level {
            first_level.offer(cache_key, now_ms, || Kept { known: known.clone(), as_of_ms });
        }
        let answer = known.answer(as_of_ms, self.options.staleness_max, now_ms);
        self.give(index, answer.unwrap_or(Answer::Missing { filling: false }));
    }

    pub(super) fn give(&mut self, index: usize, answer: Answer) {
        self.tally.stale += u64::from(matches!(answer, Answer::Stale(..)));
        if let Some(place) = self.answers.get_mut(index) {
            *place = Some(answer);
        }
    }

    /// The answers; or why there is not a single one.
    pub(super) fn finish(mut self) -> Result<Vec<Answer>, ReadError> {
        for (index, miss) in std::mem::take(&mut self.misses) {
            self.give(index, Answer::Missing { filling: miss == Miss::BeingFilled });
        }
        self.inner.counters.add(&self.tally);
        if let Some(failure) = self.failure
            && self.failures == self.answers.len()
        {
            return Err(failure);
        }
        let missing = Answer::Missing { filling: false };
        Ok(self.answers.into_iter().map(|answer| answer.unwrap_or_else(|| missing.clone())).collect())
    }
}
