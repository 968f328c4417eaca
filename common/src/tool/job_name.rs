//! What makes two runs of a command the same job.

use xxhash_rust::xxh3::Xxh3Default;

/// The name of a job: its kind, and a hash of everything that was asked, in order. The same question asked again goes on
/// where the run before was stopped; any other is another job.
pub fn job_name(kind: &str, asked: &[&str]) -> String {
    let mut hash = Xxh3Default::new();
    for text in asked {
        // Lengths first, so that no two lists are the same bytes.
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    format!("{kind}-{:016x}", hash.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_the_same_when_the_same_is_asked() {
        let name = job_name("replay", &["profiles", "eu-west-1"]);
        assert_eq!(name, job_name("replay", &["profiles", "eu-west-1"]));
        assert!(name.starts_with("replay-") && name.len() == "replay-".len() + 16, "{name}");
        for other in [
            job_name("backfill", &["profiles", "eu-west-1"]),
            job_name("replay", &["eu-west-1", "profiles"]),
            job_name("replay", &["profileseu-west-1", ""]),
            job_name("replay", &["profiles"]),
        ] {
            assert_ne!(other, name);
        }
    }
}
