//! `[verify]`: comparing the cache with the master all the time.

use std::time::Duration;

use warmcast_common::config::Section;

/// When keys that differ are looked at again. After the last look a difference is a mismatch.
const AGES_S: [u64; 5] = [5, 15, 60, 300, 600];

/// `[verify]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// Keys looked at in a second; 0: none.
    pub keys_per_s: u64,
    /// The region is sent only some of the items: that it shows none where the master has one is no difference.
    pub is_filtered: bool,
    /// When keys that differ are looked at again, after their first look, ascending.
    pub ages: Vec<Duration>,
}

impl VerifyConfig {
    /// Reads the section. It needs `[master]`.
    pub(super) fn read(mut section: Section, has_master: bool) -> Self {
        let keys_per_s = section.integer("keys_per_s", 0..=10_000, 0);
        if keys_per_s > 0 && !has_master {
            section.note("keys_per_s", "compares the cache with the master tables: [master] is needed");
        }
        let is_filtered = section.boolean("filtered", false);
        section.finish();
        Self { keys_per_s, is_filtered, ages: AGES_S.map(Duration::from_secs).to_vec() }
    }
}
