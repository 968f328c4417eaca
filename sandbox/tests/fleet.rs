//! The benchmark of a fleet, small: every scenario runs, and every promise that does not depend on speed is kept.

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    fn values<'a>(report: &'a Value, scenario: &str, name: &str) -> Vec<f64> {
        let figures = report["figures"].as_array().unwrap();
        let is_it = |figure: &&'a Value| figure["scenario"] == scenario && figure["name"] == name;
        let figure =
            figures.iter().find(is_it).unwrap_or_else(|| panic!("no {name} of {scenario}: {report:#}"));
        figure["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    }

    #[test]
    fn a_small_fleet_goes_through_every_scenario_and_keeps_its_promises() {
        let output = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["fleet", "--output", "json", "--live", "40", "--generations", "3", "--workers", "2"])
            .args(["--runs", "1", "--idle-s", "1", "--loaded-shards", "10", "--records-per-second", "200"])
            .args(["--lease-duration-ms", "4000", "--heartbeat-interval-ms", "1000"])
            .args(["--sync-interval-ms", "1000", "--idle-poll-max-ms", "500"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"));

        // Speed is not for a test that shares its machine: a missed target is not looked at, a broken promise is.
        assert_eq!(report["violations"], serde_json::json!([]), "{report:#}");
        let all_read = "from starting the processes until every live shard was read";
        assert_eq!(values(&report, "cold start", all_read).len(), 1);
        assert_eq!(values(&report, "warm start", all_read).len(), 1);
        for scenario in ["kill", "stop"] {
            let shards = values(&report, scenario, "live shards of that worker");
            assert!((15.0..=25.0).contains(&shards[0]), "{scenario}: {shards:?}");
        }
        assert!(values(&report, "idle", "writes to the state table")[0] > 0.0);
        assert_eq!(values(&report, "idle", "memory of each worker, resident").len(), 2);
        let put = values(&report, "rolling restart", "records put");
        assert!(put[0] >= 100.0, "{put:?}");
        assert_eq!(values(&report, "rolling restart", "records lost"), [0.0]);
        let verdict = if output.status.success() { "PASS" } else { "FAIL" };
        assert_eq!(report["verdict"], verdict, "the exit code tells the verdict");
    }

    #[test]
    fn a_fleet_is_upgraded_from_the_commit_before_under_load() {
        let output = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["upgrade", "--output", "json", "--rate", "150", "--keys", "300", "--baseline-s", "2"])
            .args(["--table-shards", "6", "--target-shards", "3", "--together"])
            .args(["--lease-duration-ms", "6000", "--heartbeat-interval-ms", "1000"])
            .args(["--sync-interval-ms", "500", "--listing-interval-ms", "1000"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        // There is none where the version before does not build, for example: what to do about it is said there.
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"));

        // Two versions ran side by side, or there is a reason that no commit can help. Without that, formats that do not
        // go together would pass.
        let previous = &report["previous"];
        let (revision, why) = (previous["revision"].as_str(), previous["why"]["kind"].as_str());
        let is_excused = match why {
            Some("no_history" | "late" | "configuration") => true,
            Some("asked_for") => std::env::var("WARMCAST_PREVIOUS").is_ok_and(|value| value == "present"),
            _ => false,
        };
        assert!(revision.is_some() != is_excused, "{previous:#}");

        // Nothing lost, nothing wrong, and a watermark that never went back, whatever the speed.
        assert_eq!(report["violations"], serde_json::json!([]), "{report:#}");
        let of = |name: &str| values(&report, "rolling upgrade", name)[0];
        assert_eq!(
            (of("mismatches"), of("rows missing"), of("records set aside")),
            (0.0, 0.0, 0.0),
            "{report:#}"
        );
        assert!(of("rows compared") > 250.0, "{report:#}");
        for worker in ["aggregator-1", "aggregator-3", "cache-writer-eu-west-1-2", "cache-writer-eu-west-1-4"]
        {
            assert!(of(&format!("{worker}, until all was settled")) > 0.0);
        }
        // For whoever reads a log: what it was upgraded from, and what readers noticed.
        let increase = of("largest increase of p99 lag");
        println!("{previous}; largest increase of p99 lag: {increase} s");
    }
}
