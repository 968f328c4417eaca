//! Which versions of the state table's rules the workers of a fleet know, and what they may do together. Pure.
//!
//! Every item says the *least* version that reads it (its `format`; none: the first). Every worker says with its heartbeat
//! the *newest* version that it knows. A version N reads everything of the versions before it, and does not take, change or
//! drop what takes a later one. A feature whose traces older workers would damage is used when every living worker knows
//! it. `docs/upgrading.md` has the rules for who changes a format.

use std::collections::BTreeMap;

use serde::Serialize;

/// The newest version of the state table's rules that this build knows.
///
/// - 1: everything up to the builds that did not announce a version. Some of them knew no lanes.
/// - 2: announces its version; leaves alone what takes a later one; knows the restart lock.
pub const STATE_VERSION: u64 = 2;

/// What workers that do not announce a version know for certain.
pub const UNANNOUNCED_VERSION: u64 = 1;

/// What a worker may do only if the others know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A lane is parked on a shard. A worker that knows no lanes goes on with the shard's checkpoint, and deletes the
    /// lease with the parked lane's place at the shard's end.
    Parking,
}

impl Feature {
    /// The version from which on every worker knows it.
    pub const fn since(self) -> u64 {
        match self {
            // Builds of version 1 with lanes cannot be told from those without.
            Self::Parking => 2,
        }
    }
}

/// What a worker says of the program that it runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Build {
    /// The newest version of the state table's rules that it knows.
    pub knows: u64,
    /// The program's version. `None` of one that does not tell.
    pub software: Option<String>,
}

impl Default for Build {
    /// A program that does not tell.
    fn default() -> Self {
        Self { knows: UNANNOUNCED_VERSION, software: None }
    }
}

impl Build {
    /// This program.
    pub fn this() -> Self {
        Self { knows: STATE_VERSION, software: Some(env!("CARGO_PKG_VERSION").to_owned()) }
    }
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let software = self.software.as_deref().unwrap_or("older");
        write!(f, "{software} (state {})", self.knows)
    }
}

/// The versions in a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compatibility {
    /// The living workers of each build, by name.
    workers: BTreeMap<Build, Vec<String>>,
}

impl Compatibility {
    /// Of the workers that live, by name.
    pub fn of<'a>(workers: impl IntoIterator<Item = (&'a str, &'a Build)>) -> Self {
        let mut by_build: BTreeMap<Build, Vec<String>> = BTreeMap::new();
        for (worker, build) in workers {
            by_build.entry(build.clone()).or_default().push(worker.to_owned());
        }
        by_build.values_mut().for_each(|workers| workers.sort_unstable());
        Self { workers: by_build }
    }

    /// Whether every worker knows it. Nobody is in the way of a fleet without workers.
    pub fn allows(&self, feature: Feature) -> bool {
        self.workers.keys().all(|build| build.knows >= feature.since())
    }

    /// The first worker that does not know it.
    pub fn hindered_by(&self, feature: Feature) -> Option<&str> {
        let older = self.workers.iter().find(|(build, _)| build.knows < feature.since());
        older.and_then(|(_, workers)| workers.first()).map(String::as_str)
    }

    /// Whether there is more than one build.
    pub fn is_mixed(&self) -> bool {
        self.workers.len() > 1
    }

    /// The builds, the oldest first, with how many workers run each.
    pub fn builds(&self) -> impl Iterator<Item = (&Build, usize)> {
        self.workers.iter().map(|(build, workers)| (build, workers.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(knows: &[u64]) -> Compatibility {
        let builds: Vec<(String, Build)> = (1..)
            .zip(knows)
            .map(|(number, knows)| (format!("w{number}"), Build { knows: *knows, software: None }))
            .collect();
        Compatibility::of(builds.iter().map(|(name, build)| (name.as_str(), build)))
    }

    #[test]
    fn lanes_are_parked_when_every_worker_knows_what_that_is() {
        assert!(fleet(&[]).allows(Feature::Parking));
        assert!(fleet(&[2, 3]).allows(Feature::Parking));
        let mixed = fleet(&[2, 1, 2]);
        assert!(!mixed.allows(Feature::Parking));
        assert_eq!(mixed.hindered_by(Feature::Parking), Some("w2"));
    }

    #[test]
    fn a_fleet_is_mixed_while_its_workers_run_different_programs() {
        assert!(!fleet(&[2, 2]).is_mixed());
        assert!(fleet(&[1, 2]).is_mixed());
        let (old, new) = (Build { software: Some("0.1.0".to_owned()), ..Build::this() }, Build::this());
        let of = |software: &str| Build { software: Some(software.to_owned()), ..new.clone() };
        assert!(Compatibility::of([("a", &of("0.9.1")), ("b", &of("0.9.2"))]).is_mixed());
        assert!(!Compatibility::of([("a", &old), ("b", &old)]).is_mixed());
    }

    #[test]
    fn a_program_that_does_not_tell_is_of_the_first_version() {
        assert_eq!(Build::default().knows, 1);
        assert_eq!(Build::default().to_string(), "older (state 1)");
    }
}
