//! What was asked of a replay, held against the configuration: all that is wrong with it at once. Pure.

use std::num::NonZeroU64;
use std::time::Duration;

use warmcast_common::consumer::{Lanes, SequenceNumber};
use warmcast_common::daemon::ConfigError;
use warmcast_common::limits::DYNAMODB_STREAMS_RETENTION;
use warmcast_common::tool::{Moment, job_name};

use crate::config::Config;

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Tables; none: all that are configured.
    pub tables: Vec<String>,
    /// Regions.
    pub regions: Vec<String>,
    /// Keys as people write them, of the one table; `None`: all.
    pub keys: Option<Vec<String>>,
    /// Changes made at this time or later: a [`Moment`], as it was written.
    pub since: Option<String>,
    /// Records with this sequence number or a higher one.
    pub from: Option<SequenceNumber>,
    /// Changes made at this time or earlier: a [`Moment`], as it was written; `None`: now.
    pub until: Option<String>,
    /// Shards that are read at a time.
    pub shards: usize,
    /// Bytes sent to a region in a second.
    pub bytes_per_s: Option<NonZeroU64>,
    /// Records read in a second.
    pub records_per_s: Option<NonZeroU64>,
    /// What a run before left undone is begun anew.
    pub anew: bool,
    /// Pause between two renewals of a claim to a shard; as a rule
    /// [`GUEST_RENEWAL_INTERVAL`](warmcast_common::limits::GUEST_RENEWAL_INTERVAL).
    pub renewal_interval: Duration,
}

/// What was asked, as far as it is known without a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The tables.
    pub tables: Vec<String>,
    /// The regions, by their places in the configuration.
    pub lanes: Lanes,
}

/// Why a text is no moment that a replay can begin or end with.
fn moment(flag: &str, text: &str, now_ms: u64) -> Result<Moment, String> {
    let moment = Moment::parse(text, now_ms).map_err(|error| format!("{flag}: {error}"))?;
    if moment.ms() > now_ms {
        return Err(format!("{flag} {text}: {moment} is in the future"));
    }
    Ok(moment)
}

impl Ask {
    /// Holds it against the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with what would be accepted.
    pub fn check(&self, config: &Config, now_ms: u64) -> Result<Scope, ConfigError> {
        let mut problems = Vec::new();
        let known: Vec<&str> = config.tables.iter().map(|table| table.name.as_str()).collect();
        for table in self.tables.iter().filter(|table| !known.contains(&table.as_str())) {
            problems.push(format!("--table {table}: the configuration has {}", known.join(", ")));
        }
        let mut tables = self.tables.clone();
        if tables.is_empty() {
            tables = known.iter().map(|table| (*table).to_owned()).collect();
        }
        tables.sort();
        tables.dedup();
        let one = |what: &str| format!("{what} is of one table: name it with --table ({})", known.join(", "));
        if self.keys.is_some() && tables.len() != 1 {
            problems.push(one("a key"));
        }
        if self.keys.as_ref().is_some_and(Vec::is_empty) {
            problems.push("--keys-file: there is no key in it".to_owned());
        }
        if self.from.is_some() && tables.len() != 1 {
            problems.push(one("--from-sequence"));
        }
        let lanes = self.lanes(config, &mut problems);
        self.check_times(now_ms, &mut problems);
        if problems.is_empty() { Ok(Scope { tables, lanes }) } else { Err(ConfigError { problems }) }
    }

    fn lanes(&self, config: &Config, problems: &mut Vec<String>) -> Lanes {
        let place = |name: &String| config.regions.iter().position(|region| region.name == *name);
        let known =
            || config.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
        let mut lanes = Lanes::NONE;
        for name in &self.regions {
            match place(name) {
                Some(lane) => lanes = lanes.or(Lanes::one(lane)),
                None => problems.push(format!("--region {name}: the configuration has {}", known())),
            }
        }
        if self.regions.is_empty() {
            problems.push(format!("--region: name at least one of {}", known()));
        }
        lanes
    }

    fn check_times(&self, now_ms: u64, problems: &mut Vec<String>) {
        let read = |flag: &str, text: &Option<String>, problems: &mut Vec<String>| {
            let moment = text.as_ref().map(|text| moment(flag, text, now_ms))?;
            moment.map_err(|problem| problems.push(problem)).ok()
        };
        let (since, until) = (read("--since", &self.since, problems), read("--until", &self.until, problems));
        let retention_ms = u64::try_from(DYNAMODB_STREAMS_RETENTION.as_millis()).unwrap_or(u64::MAX);
        let oldest = Moment::at_ms(now_ms.saturating_sub(retention_ms));
        for (flag, moment) in [("--since", since), ("--until", until)] {
            if let Some(moment) = moment.filter(|moment| *moment < oldest) {
                problems.push(format!(
                    "{flag} {moment}: the streams keep records for 24 h, since {oldest}; what is older takes a backfill"
                ));
            }
        }
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            problems.push(format!("--since {since} is after --until {until}"));
        }
    }

    /// The name of its job: the same for the same question, however fast it is to be answered.
    pub fn job(&self, scope: &Scope) -> String {
        let mut regions: Vec<&str> = self.regions.iter().map(String::as_str).collect();
        regions.sort_unstable();
        regions.dedup();
        let mut keys: Vec<&str> = self.keys.iter().flatten().map(String::as_str).collect();
        keys.sort_unstable();
        keys.dedup();
        let tables = scope.tables.iter().map(String::as_str);
        let from = self.from.as_ref().map_or("", SequenceNumber::as_str);
        let texts = [self.since.as_deref().unwrap_or(""), from, self.until.as_deref().unwrap_or("")];
        // Empty texts between the lists, so that no name is taken for one of the next list.
        let asked: Vec<&str> =
            tables.chain([""]).chain(regions).chain([""]).chain(keys).chain([""]).chain(texts).collect();
        job_name("replay", &asked)
    }

    /// What it is, for people.
    pub fn describe(&self, scope: &Scope) -> String {
        let mut text = format!("replay of {} to {}", scope.tables.join(", "), self.regions.join(", "));
        let keys = self.keys.as_ref().map(|keys| format!("{} keys", keys.len()));
        let from = self.from.as_ref().map(|from| format!("from {from}"));
        let since = self.since.as_ref().map(|since| format!("since {since}"));
        let until = self.until.as_ref().map(|until| format!("until {until}"));
        for part in [keys, from, since, until].into_iter().flatten() {
            text += ", ";
            text += &part;
        }
        text
    }

    /// Its times, if it was asked at `asked_ms` and is done at `now_ms`: since when, and until when.
    pub fn times(&self, asked_ms: u64, now_ms: u64) -> (Option<u64>, u64) {
        let at = |text: &String| Moment::parse(text, asked_ms).ok().map(Moment::ms);
        let until_ms = self.until.as_ref().and_then(at);
        (self.since.as_ref().and_then(at), until_ms.unwrap_or(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warmcast_common::config::Document;
    use warmcast_common::daemon::read;

    const NOW_MS: u64 = 1_795_341_600_000;

    fn config() -> Config {
        let text =
            "[tables.profiles]\n[tables.budgets]\n[regions.near]\nstream='s'\n[regions.far]\nstream='s'";
        read(Document::parse(text).unwrap()).unwrap()
    }

    fn ask(tables: &[&str], regions: &[&str]) -> Ask {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ask { tables: own(tables), regions: own(regions), shards: 1, ..Ask::default() }
    }

    fn problems(ask: &Ask) -> Vec<String> {
        ask.check(&config(), NOW_MS).unwrap_err().problems
    }

    #[test]
    fn without_a_table_all_are_meant_and_regions_are_named() {
        let config = config();
        let far = config.regions.iter().position(|region| region.name == "far").unwrap();
        let scope = ask(&[], &["far"]).check(&config, NOW_MS).unwrap();
        assert_eq!((scope.tables.join(" "), scope.lanes), ("budgets profiles".to_owned(), Lanes::one(far)));
        assert_eq!(problems(&ask(&[], &[])).len(), 1, "to all regions only if they are named");
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_what_would_be_right() {
        let wrong = Ask {
            keys: Some(vec!["user-1".to_owned()]),
            since: Some("25h".to_owned()),
            until: Some("2030-01-01T00:00:00Z".to_owned()),
            ..ask(&["profiles", "profile"], &["here"])
        };
        let text = problems(&wrong).join("\n");
        let expected = [
            "--table profile: the configuration has budgets, profiles",
            "a key is of one table: name it with --table (budgets, profiles)",
            "--region here: the configuration has far, near",
            "--until 2030-01-01T00:00:00Z: 2030-01-01T00:00:00.000Z is in the future",
            "--since 2026-11-21T09:00:00.000Z: the streams keep records for 24 h, since 2026-11-21T10:00:00.000Z",
        ];
        for expected in expected {
            assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
        }
        let reversed = Ask {
            since: Some("1h".to_owned()),
            until: Some("2h".to_owned()),
            from: Some("1".parse().unwrap()),
            keys: Some(Vec::new()),
            ..ask(&[], &["near"])
        };
        let text = problems(&reversed).join("\n");
        for expected in ["is after --until", "--from-sequence is of one table", "there is no key in it"] {
            assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
        }
    }

    #[test]
    fn the_same_question_is_the_same_job_however_it_is_put() {
        let job = |ask: &Ask| ask.job(&ask.check(&config(), NOW_MS).unwrap());
        let one = Ask { since: Some("2h".to_owned()), ..ask(&["profiles"], &["near", "far"]) };
        let same = Ask { shards: 9, anew: true, ..one.clone() };
        let same = Ask { regions: vec!["far".to_owned(), "near".to_owned()], ..same };
        assert_eq!(job(&one), job(&same));
        for other in [
            Ask { since: None, until: one.since.clone(), ..one.clone() },
            Ask { keys: Some(vec!["a".to_owned()]), ..one.clone() },
            Ask { tables: Vec::new(), ..one.clone() },
            Ask { regions: vec!["near".to_owned()], ..one.clone() },
        ] {
            assert_ne!(job(&other), job(&one), "{other:?}");
        }
    }

    #[test]
    fn how_long_ago_is_counted_from_when_it_was_asked_and_the_end_is_now() {
        let ask = Ask { since: Some("1s".to_owned()), ..ask(&[], &["near"]) };
        assert_eq!(ask.times(NOW_MS, NOW_MS + 5), (Some(NOW_MS - 1_000), NOW_MS + 5));
        let ask = Ask { since: None, until: Some("2s".to_owned()), ..ask };
        assert_eq!(ask.times(NOW_MS, NOW_MS + 5), (None, NOW_MS - 2_000));
    }
}
