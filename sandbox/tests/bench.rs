//! The benchmark of the Reader, small: every part of it runs, and every answer is right. How fast is not for a test.

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    #[test]
    fn a_small_benchmark_of_the_reader_measures_everything() {
        let output = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["bench", "reader", "--output", "json", "--callers", "1,4", "--runs", "2"])
            .args(["--round-ms", "100", "--profiles", "500", "--connections", "2"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"));

        let values = |scenario: &str, name: &str| -> Vec<f64> {
            let figures = report["figures"].as_array().unwrap();
            let is_it = |figure: &&Value| figure["scenario"] == scenario && figure["name"] == name;
            let figure = figures.iter().find(is_it).unwrap_or_else(|| panic!("no {name}: {report:#}"));
            figure["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        for callers in ["1 caller(s)", "4 caller(s)"] {
            for name in ["profiles, plain client", "profiles, Reader", "p99 of a call, Reader"] {
                let values = values(callers, name);
                assert!(values.len() == 2 && values.iter().all(|value| *value > 0.0), "{name}: {values:?}");
            }
            let ratios = values(callers, "throughput, Reader to plain");
            assert!(ratios.len() == 2 && ratios.iter().all(|ratio| ratio.is_finite()), "{ratios:?}");
        }
        let hits = values("first level, one thread", "hits, one profile a call");
        assert!(hits.iter().all(|hits| *hits > 1_000.0), "{hits:?}");
        assert_eq!(report["violations"], serde_json::json!([]), "{report:#}");
        let verdict = if output.status.success() { "PASS" } else { "FAIL" };
        assert_eq!(report["verdict"], verdict, "the exit code tells the verdict");
    }

    #[test]
    fn bytes_are_measured_for_every_batch_size_and_compression() {
        let output = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args([
                "bench",
                "bytes",
                "--output",
                "json",
                "--updates",
                "400",
                "--changes",
                "1,16",
                "--cpu-ms",
                "0",
            ])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"));
        let value = |scenario: &str, name: &str| -> f64 {
            let figures = report["figures"].as_array().unwrap();
            let is_it = |figure: &&Value| figure["scenario"] == scenario && figure["name"] == name;
            let figure = figures.iter().find(is_it).unwrap_or_else(|| panic!("no {name}: {report:#}"));
            figure["values"][0].as_f64().unwrap()
        };
        let json = value("plain JSON, one record each", "JSON, record");
        for way in ["lz4", "zstd 1", "zstd 3", "zstd 9"] {
            let of =
                |changes: &str| value(&format!("{changes} change(s) a frame"), &format!("{way}, record"));
            assert!(of("16") < of("1") && of("1") < json, "{way}: {report:#}");
        }
        for changes in ["1", "16"] {
            let aggregated = value(&format!("{changes} change(s) a frame"), "KPL, record");
            assert!(aggregated > json && aggregated < 1.5 * json, "JSON with its keys: {report:#}");
        }
        let with_dictionary = value("1 change(s) a frame", "zstd 3, dictionary, record");
        assert!(with_dictionary < value("1 change(s) a frame", "zstd 3, record"), "{report:#}");
        assert!(output.status.success() && report["verdict"] == "PASS", "{report:#}");
    }

    #[test]
    fn too_few_profiles_for_a_call_are_refused() {
        let output = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["bench", "reader", "--profiles", "31"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("at least 32 profiles"), "{errors}");
    }
}
