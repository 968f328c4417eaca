//! Which shards a replay reads, and from where. Pure: what makes no sense is refused before anything is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use warmcast_common::consumer::SequenceNumber;
use warmcast_common::daemon::ConfigError;
use warmcast_common::tool::Moment;

use crate::source::ListedShard;

/// A record of a shard: `SHARD=SEQUENCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The shard.
    pub shard: String,
    /// The record's sequence number.
    pub sequence: SequenceNumber,
}

impl FromStr for ShardPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shard, sequence) = text.split_once('=').ok_or("write SHARD=SEQUENCE")?;
        let sequence = sequence.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { shard: shard.to_owned(), sequence })
    }
}

/// Where a replay begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At a time, as it was written.
    Since(String),
    /// With these records, and whatever descends from their shards.
    Sequences(Vec<ShardPlace>),
    /// With the oldest record there is.
    Horizon,
}

/// The times between which records are applied, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Records that came then or later; for a replay by records or from the oldest one this is no bound, but the oldest
    /// time that the stream can have.
    pub(super) since_ms: u64,
    /// Whether that is a bound.
    pub(super) by_time: bool,
    /// Records that came before.
    pub(super) until_ms: u64,
}

/// A shard that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardPlan {
    pub(super) shard: String,
    pub(super) from: From,
    /// About when its first record came: milliseconds since the Unix epoch.
    pub(super) from_ms: u64,
    pub(super) is_open: bool,
}

/// Where a shard is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    Time(u64),
    Record(SequenceNumber),
    Horizon,
}

impl Begin {
    pub(super) fn new(since: Option<&str>, sequences: &[ShardPlace]) -> Self {
        match (since, sequences) {
            (Some(since), _) => Self::Since(since.to_owned()),
            (None, []) => Self::Horizon,
            (None, sequences) => Self::Sequences(sequences.to_vec()),
        }
    }

    /// As it was asked for.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Since(since) => format!("since {since}"),
            Self::Horizon => "from the oldest record".to_owned(),
            Self::Sequences(places) => {
                let mut places: Vec<String> = places
                    .iter()
                    .map(|ShardPlace { shard, sequence }| format!("{shard}={sequence}"))
                    .collect();
                places.sort_unstable();
                format!("from {}", places.join(" "))
            }
        }
    }
}

impl Span {
    /// What was asked for at `now_ms`, of a stream that keeps its records for `kept`.
    pub(super) fn new(
        since: Option<&str>,
        until: Option<&str>,
        kept: Duration,
        now_ms: u64,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut time = |flag: &str, text: Option<&str>, default_ms: u64| {
            let parsed = text.map_or(Ok(default_ms), |text| Moment::parse(text, now_ms).map(Moment::ms));
            parsed.map_err(|error| problems.push(format!("{flag}: {error}"))).ok()
        };
        let kept_since_ms = now_ms.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX));
        let (since_ms, until_ms) = (time("--since", since, kept_since_ms), time("--until", until, now_ms));
        let (Some(since_ms), Some(until_ms)) = (since_ms, until_ms) else {
            return Err(ConfigError { problems });
        };
        let oldest = format!(
            "the stream keeps its records for {} h: since {}",
            kept.as_secs() / 3_600,
            Moment::at_ms(kept_since_ms)
        );
        if since_ms < kept_since_ms {
            problems.push(format!(
                "--since {}: {oldest}; use --from-horizon for all that is left",
                Moment::at_ms(since_ms)
            ));
        }
        if until_ms > now_ms {
            problems.push(format!("--until {}: that is in the future", Moment::at_ms(until_ms)));
        } else if until_ms < kept_since_ms {
            problems.push(format!("--until {}: {oldest}", Moment::at_ms(until_ms)));
        } else if since_ms >= until_ms {
            let (since, until) = (Moment::at_ms(since_ms), Moment::at_ms(until_ms));
            problems.push(format!("nothing lies between --since {since} and --until {until}"));
        }
        match problems.as_slice() {
            [] => Ok(Self { since_ms, by_time: since.is_some(), until_ms }),
            _ => Err(ConfigError { problems }),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = if self.by_time { "time" } else { "all" };
        write!(formatter, "{bound}:{}:{}", self.since_ms, self.until_ms)
    }
}

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let by_time = match parts.next() {
            Some("time") => true,
            Some("all") => false,
            _ => return Err(()),
        };
        let mut time = || parts.next().and_then(|ms| ms.parse().ok()).ok_or(());
        Ok(Self { since_ms: time()?, by_time, until_ms: time()? })
    }
}

/// The shards that are read.
pub(super) fn plan(shards: &[ListedShard], begin: &Begin, span: Span) -> Result<Vec<ShardPlan>, ConfigError> {
    let froms = match begin {
        Begin::Since(_) => shards.iter().map(|shard| (shard.id.clone(), From::Time(span.since_ms))).collect(),
        Begin::Horizon => shards.iter().map(|shard| (shard.id.clone(), From::Horizon)).collect(),
        Begin::Sequences(places) => of_places(shards, places)?,
    };
    let planned = shards.iter().filter_map(|shard| {
        let from = froms.get(&shard.id)?.clone();
        Some(ShardPlan { shard: shard.id.clone(), from, from_ms: span.since_ms, is_open: shard.is_open() })
    });
    Ok(planned.collect())
}

/// The named shards from their records on, and whatever descends from them whole.
fn of_places(shards: &[ListedShard], places: &[ShardPlace]) -> Result<BTreeMap<String, From>, ConfigError> {
    let mut problems = Vec::new();
    let mut froms = BTreeMap::new();
    for ShardPlace { shard, sequence } in places {
        match shards.iter().find(|listed| listed.id == *shard) {
            None => {
                let known: Vec<&str> = shards.iter().map(|shard| shard.id.as_str()).collect();
                problems.push(format!(
                    "--from-sequence: the stream has no shard {shard}; it has {}",
                    known.join(", ")
                ));
            }
            Some(listed) => problems.extend(outside(listed, sequence)),
        }
        if froms.insert(shard.clone(), From::Record(sequence.clone())).is_some() {
            problems.push(format!("--from-sequence: shard {shard} is named twice"));
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    loop {
        let descends = |shard: &&ListedShard| {
            !froms.contains_key(&shard.id) && shard.parents.iter().any(|parent| froms.contains_key(parent))
        };
        let more: BTreeSet<String> = shards.iter().filter(descends).map(|shard| shard.id.clone()).collect();
        if more.is_empty() {
            return Ok(froms);
        }
        froms.extend(more.into_iter().map(|shard| (shard, From::Horizon)));
    }
}

fn outside(shard: &ListedShard, sequence: &SequenceNumber) -> Option<String> {
    let (first, last) = &shard.sequences;
    let is_before = first.as_ref().is_some_and(|first| sequence < first);
    let is_after = last.as_ref().is_some_and(|last| sequence > last);
    let shown = |bound: &Option<SequenceNumber>| bound.as_ref().map_or_else(String::new, ToString::to_string);
    (is_before || is_after).then(|| {
        format!(
            "--from-sequence: shard {} has the sequence numbers {} to {}",
            shard.id,
            shown(first),
            shown(last)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_341_600_000;
    const DAY: Duration = Duration::from_hours(24);
    const HOUR_MS: u64 = 3_600_000;

    fn number(text: &str) -> SequenceNumber {
        text.parse().unwrap()
    }

    fn shard(id: &str, parents: &[&str], sequences: (&str, Option<&str>)) -> ListedShard {
        ListedShard {
            id: id.to_owned(),
            parents: parents.iter().map(|&parent| parent.to_owned()).collect(),
            hash_keys: (0, 1),
            sequences: (Some(number(sequences.0)), sequences.1.map(number)),
        }
    }

    #[test]
    fn times_are_taken_as_they_were_meant_and_survive_a_stop() {
        let span = Span::new(Some("2h"), Some("1h"), DAY, NOW_MS).unwrap();
        assert_eq!((span.since_ms, span.until_ms), (NOW_MS - 2 * HOUR_MS, NOW_MS - HOUR_MS));
        assert_eq!(span.to_string().parse(), Ok(span));
        let all = Span::new(None, None, DAY, NOW_MS).unwrap();
        assert_eq!((all.since_ms, all.until_ms, all.by_time), (NOW_MS - 24 * HOUR_MS, NOW_MS, false));
        assert_eq!(all.to_string().parse(), Ok(all));
        assert!("x".parse::<Span>().is_err() && "time:1".parse::<Span>().is_err());
    }

    #[test]
    fn times_that_the_stream_does_not_have_are_refused_with_those_that_it_has() {
        for (since, until, expected) in [
            (
                Some("25h"),
                None,
                "keeps its records for 24 h: since 2026-11-21T10:00:00.000Z; use --from-horizon",
            ),
            (Some("1h"), Some("2026-11-22T11:00:00Z"), "in the future"),
            (Some("1h"), Some("2h"), "nothing lies between"),
            (None, Some("2d"), "--until 2026-11-20T10:00:00.000Z: the stream keeps"),
            (Some("yesterday"), Some("now"), "--since: \"yesterday\" is no time"),
        ] {
            let error = Span::new(since, until, DAY, NOW_MS).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let both = Span::new(Some("x"), Some("y"), DAY, NOW_MS).unwrap_err();
        assert_eq!(both.problems.len(), 2);
    }

    #[test]
    fn from_a_record_on_a_shard_is_read_with_what_descends_from_it() {
        let shards = [
            shard("a", &[], ("100", Some("200"))),
            shard("b", &[], ("100", None)),
            shard("c", &["a"], ("300", Some("400"))),
            shard("d", &["c", "x"], ("500", None)),
        ];
        let span = Span::new(None, None, DAY, NOW_MS).unwrap();
        let of = |places: &[&str]| {
            let places: Vec<ShardPlace> = places.iter().map(|place| place.parse().unwrap()).collect();
            plan(&shards, &Begin::new(None, &places), span)
        };
        let planned = of(&["a=150"]).unwrap();
        let froms: Vec<_> = planned.iter().map(|plan| (plan.shard.as_str(), plan.from.clone())).collect();
        assert_eq!(froms, [("a", From::Record(number("150"))), ("c", From::Horizon), ("d", From::Horizon)]);
        let error = of(&["e=1", "a=99", "a=201", "b=99"]).unwrap_err();
        assert_eq!(error.problems.len(), 5, "{error}");
        assert!(error.problems[0].ends_with("no shard e; it has a, b, c, d"), "{error}");
        assert!(error.problems[1].ends_with("has the sequence numbers 100 to 200"), "{error}");
        assert_eq!(plan(&shards, &Begin::Horizon, span).unwrap().len(), 4);
        assert!("a".parse::<ShardPlace>().is_err() && "a=x".parse::<ShardPlace>().is_err());
    }

    #[test]
    fn the_same_question_has_the_same_words() {
        let places = |texts: [&str; 2]| Begin::new(None, &texts.map(|text| text.parse().unwrap())).words();
        assert_eq!(places(["a=1", "b=2"]), places(["b=2", "a=1"]));
        assert_ne!(Begin::new(Some("1h"), &[]).words(), Begin::new(Some("2h"), &[]).words());
    }
}
