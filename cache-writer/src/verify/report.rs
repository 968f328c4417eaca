//! What a run found, for people and for scripts.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use warmcast_common::tool::Moment;

use super::case::Lasting;
use super::docket::Counts;
use super::judge::Miss;
use super::shown::ShownEntry;

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// It came to its end; else it was stopped, and the rest is what was found until then.
    pub is_complete: bool,
    /// How long it took.
    pub took_s: f64,
    /// Keys that were looked at.
    pub looked_at: u64,
    /// Readers saw nothing, and ask the master: no mismatch.
    pub missing: Missing,
    /// The share of the others that was consistent, by age.
    pub consistent: Vec<AtAge>,
    /// How far entries were behind, by keys.
    pub staleness: Vec<Staleness>,
    /// Of those that caught up: keys that change too often to be met equal, and were newer than the first look.
    pub always_changing: u64,
    /// Keys that differ after the last look, and are wrong.
    pub mismatches: u64,
    /// Keys that differ after the last look, in a region that is behind: not judged.
    pub behind: u64,
    /// Keys that differed at first and were not followed, because more differed than are: not judged.
    pub not_followed: u64,
    /// Keys that could not be looked at.
    pub unread: u64,
    /// The last reason why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_because: Option<String>,
    /// Keys with the cache's prefix that are no item's of the master: is the prefix shared with others?
    pub strangers: u64,
    /// Every change made before it is applied in this region.
    pub watermark: Option<Watermark>,
    /// Keys that differ after the last look, up to a bound.
    pub lasting: Vec<Finding>,
    /// What the repair came to, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repaired>,
}

/// Keys that readers saw nothing of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Missing {
    /// All of them.
    pub keys: u64,
    /// Of those that were looked at.
    pub share: f64,
    /// No entry.
    pub absent: u64,
    /// Invalid entries.
    pub invalid: u64,
    /// Held by somebody who fills them.
    pub held: u64,
    /// Known absent once, and that is no longer believed.
    pub outlived: u64,
    /// Shown as absent, in a region that is sent only some of the items.
    pub not_sent: u64,
}

/// The share of entries that were consistent at an age.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtAge {
    /// How long after the first look.
    pub age_s: f64,
    /// Keys that differed still.
    pub different: u64,
    /// Keys that the share is of: those that were not missing, and whose difference was followed.
    pub of: u64,
    /// 0 to 1.
    pub share: f64,
}

/// How many entries were so far behind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Staleness {
    /// At most so long; 0: not at all. None: longer than the last look.
    pub up_to_s: Option<f64>,
    /// Keys.
    pub keys: u64,
}

/// How far the region is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Watermark {
    /// Every change made before it is applied.
    pub time: String,
    /// How long ago that was, in milliseconds.
    pub lag_ms: u64,
}

/// A key that differs after the last look.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// `mismatch`, or `behind`: the region is, and the change may be on its way.
    pub verdict: &'static str,
    /// The table.
    pub table: String,
    /// The key, as `--key` takes it.
    pub key: String,
    /// How it differs.
    pub difference: String,
    /// When it was first looked at.
    pub since: String,
    /// What the cache has; none: nothing.
    pub cache: Option<ShownEntry>,
    /// What the master has, as DynamoDB's JSON; none: nothing.
    pub master: Option<String>,
    /// What became of its repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<String>,
}

/// What a repair came to, in keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Nothing was changed: these would have been.
    pub is_dry_run: bool,
    /// Looked at once more, and consistent or a miss.
    pub mended: u64,
    /// Still different, or it could not be done.
    pub failed: u64,
}

/// The word for a verdict.
#[must_use]
pub const fn verdict(lasting: Lasting) -> &'static str {
    match lasting {
        Lasting::Mismatch => "mismatch",
        Lasting::Behind => "behind",
    }
}

impl Report {
    /// From what was counted, with looks at these ages.
    #[must_use]
    pub fn new(counts: &Counts, ages: &[Duration], took: Duration) -> Self {
        let missing_keys: u64 = counts.missing.values().sum();
        let of_kind = |miss| counts.missing.get(&miss).copied().unwrap_or_default();
        let shown = counts.looked_at - missing_keys;
        let different_at = |look: usize| counts.different.get(look).copied().unwrap_or_default();
        let followed = shown - counts.not_followed;
        let first = AtAge::new(Duration::ZERO, different_at(0), shown);
        let later =
            ages.iter().enumerate().map(|(index, age)| AtAge::new(*age, different_at(index + 1), followed));
        let not_at_all = Staleness { up_to_s: Some(0.0), keys: shown - different_at(0) };
        let caught_up = ages.iter().zip(&counts.caught_up);
        let caught_up =
            caught_up.map(|(age, keys)| Staleness { up_to_s: Some(age.as_secs_f64()), keys: *keys });
        let longer = Staleness { up_to_s: None, keys: counts.mismatches + counts.behind };
        Self {
            is_complete: true,
            took_s: took.as_secs_f64(),
            looked_at: counts.looked_at,
            missing: Missing {
                keys: missing_keys,
                share: share(missing_keys, counts.looked_at),
                absent: of_kind(Miss::Unset),
                invalid: of_kind(Miss::Invalid),
                held: of_kind(Miss::Held),
                outlived: of_kind(Miss::Outlived),
                not_sent: of_kind(Miss::NotSent),
            },
            consistent: std::iter::once(first).chain(later).collect(),
            staleness: std::iter::once(not_at_all).chain(caught_up).chain(std::iter::once(longer)).collect(),
            always_changing: counts.always_changing,
            mismatches: counts.mismatches,
            behind: counts.behind,
            not_followed: counts.not_followed,
            unread: counts.unread,
            unread_because: counts.unread_because.as_ref().map(ToString::to_string),
            strangers: counts.strangers,
            watermark: None,
            lasting: Vec::new(),
            repair: None,
        }
    }

    /// Everything was looked at and nothing needs a look by a person.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let is_mended = self.repair.is_some_and(|repair| !repair.is_dry_run && repair.failed == 0);
        (self.mismatches == 0 || is_mended) && self.behind + self.not_followed + self.unread == 0
    }

    /// For people.
    #[must_use]
    pub fn human(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = self.write_counts(&mut text).and_then(|()| self.write_lasting(&mut text));
        text
    }

    fn write_counts(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{} keys looked at in {:.1} s", self.looked_at, self.took_s)?;
        let missing = &self.missing;
        let kinds = [
            ("absent", missing.absent),
            ("invalid", missing.invalid),
            ("held", missing.held),
            ("outlived", missing.outlived),
            ("not sent", missing.not_sent),
        ];
        let kinds =
            kinds.into_iter().filter(|(_, keys)| *keys > 0).map(|(name, keys)| format!(", {name} {keys}"));
        let kinds: String = kinds.collect();
        writeln!(
            out,
            "  missing (readers ask the master): {}, {}{kinds}",
            missing.keys,
            percent(missing.share)
        )?;
        for at in &self.consistent {
            let age =
                if at.age_s > 0.0 { format!("after {}", seconds(at.age_s)) } else { "at once".to_owned() };
            writeln!(
                out,
                "  consistent {age:<12} {:>10}  ({} of {} differ)",
                percent(at.share),
                at.different,
                at.of
            )?;
        }
        let staleness = self.staleness.iter().map(|bar| match bar.up_to_s {
            Some(0.0) => format!("none {}", bar.keys),
            Some(up_to_s) => format!("up to {} {}", seconds(up_to_s), bar.keys),
            None => format!("longer {}", bar.keys),
        });
        writeln!(out, "  staleness: {}", staleness.collect::<Vec<_>>().join(", "))?;
        match &self.watermark {
            Some(watermark) => {
                writeln!(out, "  watermark: {}, {} ms ago", watermark.time, watermark.lag_ms)?;
            }
            None => writeln!(out, "  watermark: not known")?,
        }
        let notes = [
            (
                self.always_changing,
                "keys change too often to be met equal, and were newer than the first look",
            ),
            (self.not_followed, "keys differed and were not followed: more than --differences-max"),
            (
                self.strangers,
                "keys with the cache's prefix are no item's of the master: is it shared with others?",
            ),
            (self.unread, "keys could not be looked at"),
        ];
        for (count, what) in notes.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(out, "  {count} {what}")?;
        }
        if let Some(reason) = &self.unread_because {
            writeln!(out, "    because: {reason}")?;
        }
        Ok(())
    }

    fn write_lasting(&self, out: &mut String) -> std::fmt::Result {
        if self.behind > 0 {
            writeln!(
                out,
                "{} keys differ and are not judged: the region has not applied all that was made before they were \
                 looked at",
                self.behind
            )?;
        }
        let end = if self.is_complete { "" } else { ", until it was stopped" };
        writeln!(out, "lasting mismatches: {}{end}", self.mismatches)?;
        for finding in &self.lasting {
            writeln!(out, "  {} {}: {}", finding.table, finding.key, finding.difference)?;
            if finding.verdict == verdict(Lasting::Behind) {
                writeln!(out, "    not judged: the region is behind")?;
            }
            match &finding.cache {
                Some(entry) => {
                    let part = |name: &str, part: &Option<String>| {
                        part.as_ref().map_or_else(String::new, |part| format!(", {name}{part}"))
                    };
                    let position = part("position ", &entry.position);
                    let (time, expires) = (part("", &entry.time), part("expires ", &entry.expires));
                    writeln!(out, "    cache:  {}{position}{time}{expires}", entry.kind)?;
                    if let Some(payload) = &entry.payload {
                        writeln!(out, "            {payload}")?;
                    }
                }
                None => writeln!(out, "    cache:  nothing that readers could use")?,
            }
            writeln!(out, "    master: {}", finding.master.as_deref().unwrap_or("no such item"))?;
            if let Some(repair) = &finding.repair {
                writeln!(out, "    repair: {repair}")?;
            }
        }
        let not_shown = (self.mismatches + self.behind).saturating_sub(self.lasting.len() as u64);
        if not_shown > 0 {
            writeln!(out, "  and {not_shown} more")?;
        }
        match self.repair {
            Some(Repaired { is_dry_run: true, .. }) => {
                writeln!(out, "nothing was repaired: --dry-run")
            }
            Some(Repaired { mended, failed, .. }) => {
                writeln!(out, "{mended} repaired, {failed} not")
            }
            None => Ok(()),
        }
    }
}

impl AtAge {
    fn new(age: Duration, different: u64, of: u64) -> Self {
        Self { age_s: age.as_secs_f64(), different, of, share: share(of.saturating_sub(different), of) }
    }
}

impl Watermark {
    /// At `now_ms`.
    #[must_use]
    pub fn new(watermark_ms: u64, now_ms: u64) -> Self {
        Self { time: Moment::at_ms(watermark_ms).to_string(), lag_ms: now_ms.saturating_sub(watermark_ms) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: u64, of: u64) -> f64 {
    if of == 0 { if part == 0 { 1.0 } else { 0.0 } } else { part as f64 / of as f64 }
}

/// With four digits, cut and not rounded: what is less than all is never shown as 100 %.
fn percent(share: f64) -> String {
    format!("{:.4} %", (share * 1_000_000.0 + 1e-6).floor() / 10_000.0)
}

fn seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts {
            looked_at: 100_100,
            missing: [(Miss::Unset, 90), (Miss::Invalid, 10)].into(),
            different: vec![30, 10, 1],
            not_followed: 5,
            caught_up: vec![14, 9],
            became_missing: 1,
            mismatches: 1,
            ..Counts::default()
        }
    }

    const AGES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];

    #[test]
    fn shares_are_of_what_readers_see_and_never_rounded_up() {
        let report = Report::new(&counts(), &AGES, Duration::from_secs(3));
        let shown: Vec<(u64, u64)> = report.consistent.iter().map(|at| (at.different, at.of)).collect();
        assert_eq!(shown, [(30, 100_000), (10, 99_995), (1, 99_995)]);
        assert_eq!(percent(report.consistent[0].share), "99.9700 %");
        assert_eq!(percent(99_999_999.0 / 100_000_000.0), "99.9999 %");
        assert_eq!((percent(1.0), percent(0.0)), ("100.0000 %".to_owned(), "0.0000 %".to_owned()));
        assert_eq!((report.missing.keys, report.missing.absent, report.missing.invalid), (100, 90, 10));
        let staleness: Vec<u64> = report.staleness.iter().map(|bar| bar.keys).collect();
        assert_eq!(staleness, [99_970, 14, 9, 1]);
    }

    #[test]
    fn a_report_is_clean_if_nothing_needs_a_person() {
        let clean = Counts { looked_at: 5, different: vec![2, 0, 0], ..Counts::default() };
        let report = |counts: &Counts| Report::new(counts, &AGES, Duration::ZERO);
        assert!(report(&clean).is_clean());
        for unclean in [
            Counts { mismatches: 1, ..clean.clone() },
            Counts { behind: 1, ..clean.clone() },
            Counts { not_followed: 1, ..clean.clone() },
            Counts { unread: 1, ..clean.clone() },
        ] {
            assert!(!report(&unclean).is_clean(), "{unclean:?}");
        }
        let mut repaired = report(&Counts { mismatches: 1, ..clean });
        repaired.repair = Some(Repaired { mended: 1, ..Repaired::default() });
        assert!(repaired.is_clean());
        repaired.repair = Some(Repaired { is_dry_run: true, ..Repaired::default() });
        assert!(!repaired.is_clean());
    }

    #[test]
    fn people_are_told_everything() {
        let mut report = Report::new(&counts(), &AGES, Duration::from_secs(3));
        report.watermark = Some(Watermark::new(1_784_000_000_000, 1_784_000_001_500));
        report.lasting.push(Finding {
            verdict: "mismatch",
            table: "profiles".to_owned(),
            key: "user-1".to_owned(),
            difference: "these attributes differ: color".to_owned(),
            since: "2026-07-14T03:33:20.000Z".to_owned(),
            cache: None,
            master: Some("{}".to_owned()),
            repair: None,
        });
        let text = report.human();
        for part in [
            "100100 keys looked at in 3.0 s",
            "missing (readers ask the master): 100, 0.0999 %, absent 90, invalid 10\n",
            "consistent at once       99.9700 %  (30 of 100000 differ)",
            "consistent after 1m      99.9899 %",
            "staleness: none 99970, up to 1m 14, up to 5m 9, longer 1",
            "watermark: 2026-07-14T03:33:20.000Z, 1500 ms ago",
            "5 keys differed and were not followed",
            "lasting mismatches: 1\n",
            "profiles user-1: these attributes differ: color",
            "master: {}",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["lasting"][0]["key"], "user-1");
        assert_eq!(json["staleness"][3]["up_to_s"], serde_json::Value::Null);
    }
}
