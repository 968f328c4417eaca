//! What a process uses, as Linux tells it.

use std::fs;
use std::time::Duration;

/// A process at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory now, in KiB.
    pub(crate) resident_kib: u64,
    /// The most there ever was, in KiB.
    pub(crate) resident_max_kib: u64,
    /// Time on a CPU of all its threads.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// The process' usage now; `None` once it has ended, or where there is no `/proc`.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self {
            resident_kib: field_kib(&status, "VmRSS:")?,
            resident_max_kib: field_kib(&status, "VmHWM:")?,
            cpu: cpu_of(pid)?,
        })
    }
}

/// Which build it is that is measured.
pub(crate) const BUILD: &str = if cfg!(debug_assertions) { "debug build" } else { "release build" };

/// What everything shares, and what it was busy with before.
pub(crate) fn cores() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = load_average().map_or_else(String::new, |load| format!(", load average {load} before it"));
    format!("{cores} cores{load}")
}

/// How many threads wanted a core, on average of the last minute: more than there are cores, and time is measured on a
/// machine that has other things to do.
fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Time on a CPU of the thread that asks; `None` where there is no `/proc`. A few milliseconds may be missing: the
/// scheduler adds up at its ticks.
pub(crate) fn thread_cpu() -> Option<Duration> {
    let account = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    account.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The scheduler's own account, in nanoseconds. The daemons' threads live as long as the daemons.
fn cpu_of(pid: u32) -> Option<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end between the listing and the look.
        let Ok(account) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        nanos += account.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_and_an_unknown_one_nothing() {
        let own = Usage::of(std::process::id()).unwrap();
        assert!(own.resident_kib > 100 && own.resident_max_kib >= own.resident_kib);
        assert_eq!(Usage::of(u32::MAX), None);
    }

    #[test]
    fn fields_are_found_by_their_names() {
        let status = "VmPeak:\t  9 kB\nVmHWM:\t    8 kB\nVmRSS:\t 7 kB\n";
        assert_eq!((field_kib(status, "VmRSS:"), field_kib(status, "VmHWM:")), (Some(7), Some(8)));
        assert_eq!(field_kib(status, "VmSwap:"), None);
    }
}
