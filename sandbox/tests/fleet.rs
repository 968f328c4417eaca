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
}
