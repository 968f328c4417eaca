//! How a bidder reads, checked as a whole.

use std::time::Duration;

use crate::{config::CacheConfig, policy::Tables, read::ReadFrom};
#[cfg(feature = "master")]
use crate::{filler::FillerConfig, master::MasterConfig};

/// How a [`Reader`](super::Reader) reads.
///
/// ```
/// use std::time::Duration;
/// use warmcast_cache::{CacheConfig, reader::{FirstLevelConfig, ReaderConfig}};
///
/// let config = ReaderConfig {
///     deadline: Duration::from_millis(20),
///     staleness_max: Some(Duration::from_secs(30)),
///     first_level: Some(FirstLevelConfig { bytes_max: 256 << 20, ttl: Duration::from_millis(500) }),
///     ..ReaderConfig::new(CacheConfig::from_url("redis://localhost").unwrap())
/// };
/// assert!(config.violations().is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// The cache, and its tables' policies: the same as the cache-writer's.
    pub cache: CacheConfig,
    /// Which of a key's servers is read.
    pub read_from: ReadFrom,
    /// The longest that a call takes, whatever happens; a call may have its own ([`ReadOptions`]). More than 0.
    pub deadline: Duration,
    /// How far the region may be behind the master for an answer to be [`Fresh`](super::Answer::Fresh); none: it
    /// is not judged. A call may have its own. The clocks of this machine and of the master's region are compared,
    /// and the watermark is published once a second: so a few seconds, not milliseconds.
    pub staleness_max: Option<Duration>,
    /// Entries that this process keeps for a moment; none: every read goes to the server.
    pub first_level: Option<FirstLevelConfig>,
    /// What becomes of a miss; none: it stays one, until a change comes.
    #[cfg(feature = "master")]
    pub master: Option<MasterFallback>,
}

/// Entries that this process keeps for a moment: items, and the knowledge that there is none. A key is kept when it
/// is read for the fourth time with no pause longer than `ttl`, so keys that are read rarely cost nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstLevelConfig {
    /// The most memory, about: keys, entries and what managing them takes. More than 0.
    pub bytes_max: u64,
    /// How long an entry is kept: so much older may an answer be. More than 0, at most a minute.
    pub ttl: Duration,
}

impl Default for FirstLevelConfig {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, ttl: Duration::from_secs(1) }
    }
}

/// The longest time in the first level: an item's changes are not seen meanwhile.
const FIRST_LEVEL_TTL_MAX: Duration = Duration::from_mins(1);

/// Reading the master table after a miss, and filling the cache with what it has.
#[cfg(feature = "master")]
#[derive(Clone, Debug)]
pub struct MasterFallback {
    /// A client of the master's region, with the SDK's own retries off. It needs the permissions
    /// `dynamodb:BatchGetItem` and `dynamodb:DescribeTable`.
    pub client: aws_sdk_dynamodb::Client,
    /// The bounds of reading the master.
    pub master: MasterConfig,
    /// The bounds of filling.
    pub filler: FillerConfig,
}

#[cfg(feature = "master")]
impl MasterFallback {
    /// With the default bounds.
    #[must_use]
    pub fn new(client: aws_sdk_dynamodb::Client) -> Self {
        Self { client, master: MasterConfig::default(), filler: FillerConfig::default() }
    }
}

/// What one call wants, where that is not what the configuration says.
///
/// ```no_run
/// # async fn example(reader: warmcast_cache::Reader, key: warmcast_proto::key::ItemKey) {
/// use std::time::Duration;
/// use warmcast_cache::reader::ReadOptions;
///
/// let options = ReadOptions { deadline: Duration::from_millis(5), ..reader.options() };
/// let answer = reader.get_with("profiles", &key, options).await;
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The longest that the call takes.
    pub deadline: Duration,
    /// How far the region may be behind for an answer to be fresh; none: it is not judged.
    pub staleness_max: Option<Duration>,
    /// After a miss, wait for the master's answer, as long as the deadline allows. Otherwise the call answers
    /// [`Missing`](super::Answer::Missing) at once, and the cache is filled for the next one: for a bidder whose
    /// master is farther away than its deadline.
    pub wait_for_master: bool,
}

impl ReaderConfig {
    /// The defaults: from replicas where there are some, within 50 ms, fresh if at most 10 s behind, with a first
    /// level, without the master.
    #[must_use]
    pub fn new(cache: CacheConfig) -> Self {
        Self {
            cache,
            read_from: ReadFrom::Replica,
            deadline: Duration::from_millis(50),
            staleness_max: Some(Duration::from_secs(10)),
            first_level: Some(FirstLevelConfig::default()),
            #[cfg(feature = "master")]
            master: None,
        }
    }

    /// What is wrong with it, all of it; each names the key. None: it can be used.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut check = |is_right: bool, what: &str| {
            if !is_right {
                violations.push(what.to_owned());
            }
        };
        check(!self.deadline.is_zero(), "deadline must be longer than 0");
        check(self.cache.connections >= 1, "cache.connections must be at least 1");
        check(!self.cache.connect_timeout.is_zero(), "cache.connect_timeout must be longer than 0");
        check(!self.cache.response_timeout.is_zero(), "cache.response_timeout must be longer than 0");
        if let Some(first_level) = &self.first_level {
            check(first_level.bytes_max > 0, "first_level.bytes_max must be above 0");
            let is_right = !first_level.ttl.is_zero() && first_level.ttl <= FIRST_LEVEL_TTL_MAX;
            check(is_right, "first_level.ttl must be longer than 0 and at most a minute");
        }
        violations.extend(table_violations(&self.cache.tables));
        #[cfg(feature = "master")]
        violations.extend(self.master.iter().flat_map(MasterFallback::violations));
        violations
    }

    pub(crate) const fn options(&self) -> ReadOptions {
        ReadOptions { deadline: self.deadline, staleness_max: self.staleness_max, wait_for_master: true }
    }
}

#[cfg(feature = "master")]
impl MasterFallback {
    fn violations(&self) -> Vec<String> {
        let mut violations: Vec<String> =
            self.master.violations().into_iter().map(|what| format!("master.{what}")).collect();
        violations.extend(self.filler.violations().into_iter().map(|what| format!("filler.{what}")));
        if self.filler.hold <= self.master.read_timeout {
            violations.push("filler.hold must be longer than master.read_timeout".to_owned());
        }
        violations
    }
}

fn table_violations(tables: &Tables) -> Vec<String> {
    let all = std::iter::once(("default", &tables.default));
    let all = all.chain(tables.named.iter().map(|(name, policy)| (&**name, policy)));
    let is_short = |ttl: Option<Duration>| ttl.is_some_and(|ttl| ttl < crate::policy::LIVE_TTL_MIN);
    let short = all.filter(|(_, policy)| is_short(policy.live_ttl));
    short.map(|(name, _)| format!("cache.tables, {name}: live_ttl must be at least a minute")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_named_at_once() {
        let right = ReaderConfig::new(CacheConfig::from_url("redis://localhost").unwrap());
        assert_eq!(right.violations(), Vec::<String>::new());
        let mut wrong = ReaderConfig {
            deadline: Duration::ZERO,
            first_level: Some(FirstLevelConfig { bytes_max: 0, ttl: Duration::from_hours(1) }),
            ..right
        };
        wrong.cache.connections = 0;
        wrong.cache.tables.default.live_ttl = Some(Duration::from_secs(1));
        let violations = wrong.violations();
        assert_eq!(violations.len(), 5, "{violations:?}");
    }
}
