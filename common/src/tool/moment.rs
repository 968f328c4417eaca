//! Times as operators write them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::now_ms;

/// Whole numbers from here on are milliseconds since the epoch: the year 2001. Below, a unit was forgotten.
const EPOCH_MS_MIN: u64 = 1_000_000_000_000;

/// A moment: how long ago (`15m`, `2h30m`, `1d`), a time (`2026-11-22T09:00:00Z`), or milliseconds since the Unix epoch.
/// Shown as a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    ms: u64,
}

/// What is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no time: give how long ago (15m, 2h30m, 1d), a time (2026-11-22T09:00:00Z), or milliseconds since the epoch"
)]
pub struct MomentError {
    given: String,
}

impl Moment {
    /// Milliseconds since the Unix epoch.
    pub const fn at_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.ms
    }

    /// Reads what an operator wrote at `now_ms`.
    ///
    /// # Errors
    /// It is no time.
    pub fn parse(text: &str, now_ms: u64) -> Result<Self, MomentError> {
        let wrong = || MomentError { given: text.to_owned() };
        if let Ok(ms) = text.parse::<u64>() {
            return if ms >= EPOCH_MS_MIN { Ok(Self { ms }) } else { Err(wrong()) };
        }
        if let Ok(ago) = humantime::parse_duration(text) {
            let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            return Ok(Self { ms: now_ms.saturating_sub(ago_ms) });
        }
        let time = humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?;
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
        Ok(Self { ms: u64::try_from(since.as_millis()).map_err(|_| wrong())? })
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    /// How long ago is counted from now.
    fn from_str(text: &str) -> Result<Self, MomentError> {
        Self::parse(text, now_ms())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time: Option<SystemTime> = UNIX_EPOCH.checked_add(Duration::from_millis(self.ms));
        // Beyond the year 9999 there is no such notation.
        let is_shown = self.ms < 253_402_300_800_000;
        match time.filter(|_| is_shown) {
            Some(time) => write!(formatter, "{}", humantime::format_rfc3339_millis(time)),
            None => write!(formatter, "{} ms", self.ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_341_600_000;

    #[test]
    fn a_moment_is_an_age_a_time_or_milliseconds() {
        for (text, expected) in [
            ("15m", NOW_MS - 900_000),
            ("2h 30m", NOW_MS - 9_000_000),
            ("1d", NOW_MS - 86_400_000),
            ("90s", NOW_MS - 90_000),
            ("2026-11-22T10:00:00Z", 1_795_341_600_000),
            ("2026-11-22 10:00:00", 1_795_341_600_000),
            ("2026-11-22T10:00:00.250Z", 1_795_341_600_250),
            ("1795341600000", 1_795_341_600_000),
            ("100000y", 0),
        ] {
            assert_eq!(Moment::parse(text, NOW_MS).map(Moment::ms), Ok(expected), "{text}");
        }
        for wrong in ["", "now", "15", "-15m", "2026-13-01T00:00:00Z", "1969-01-01T00:00:00Z", "m"] {
            let error = Moment::parse(wrong, NOW_MS).unwrap_err().to_string();
            assert!(error.contains("is no time: give how long ago"), "{error}");
        }
    }

    #[test]
    fn a_moment_shows_as_a_time_that_reads_back() {
        let moment = Moment::at_ms(1_795_341_600_250);
        assert_eq!(moment.to_string(), "2026-11-22T10:00:00.250Z");
        assert_eq!(Moment::parse(&moment.to_string(), 0), Ok(moment));
        assert_eq!(Moment::at_ms(u64::MAX).to_string(), format!("{} ms", u64::MAX));
    }
}
