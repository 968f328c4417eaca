//! Figures by hand, what must hold of any workload, and that docs/cost.md shows what the command prints.

use clap::Parser;
use proptest::prelude::*;

use super::model::{Model, System};
use super::workload::{Capacity, StreamMode};
use super::*;

const DOCS: &str = include_str!("../../../docs/cost.md");

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    cost: CostArgs,
}

fn args(line: &str) -> CostArgs {
    CommandLine::try_parse_from(line.split_whitespace()).unwrap().cost
}

fn report(line: &str) -> Report {
    args(line).report(None).unwrap()
}

fn of(workload: &Workload) -> [System; 4] {
    Model { workload, prices: &Prices::built_in().unwrap() }.systems()
}

fn dollars(system: &System, what: &str) -> f64 {
    system.lines.iter().find(|line| line.what.contains(what)).unwrap().dollars_per_month
}

fn has(system: &System, what: &str) -> bool {
    system.lines.iter().any(|line| line.what.contains(what))
}

fn close(dollars: f64, expected: f64) {
    assert!((dollars - expected).abs() < 0.01, "{dollars} is not {expected}");
}

/// 20,000 writes/s are 52,560 million a month; all prices are those of us-east-1.
#[test]
fn lines_are_what_they_are_by_hand() {
    let regions = ["us-west-2", "us-east-2"].map(str::to_owned).to_vec();
    let workload = Workload { regions, wire_bytes: Some(400.0), ..Workload::default() };
    let [own, tables, through, ttl] = of(&workload);
    close(dollars(&own, "writes to the tables"), 52_560.0 * 0.625);
    // 20 shards, as 20,000 write units and 200 GB have 20 partitions, at 12.5 reads a second.
    close(dollars(&own, "DynamoDB Streams"), 20.0 * 12.5 * 2_628_000.0 / 100_000.0 * 0.02);
    let sent_gb = 52_560e6 * 400.0 / f64::from(1 << 30);
    close(dollars(&own, "changes sent"), sent_gb * 0.02 + sent_gb * 0.01);
    // 8,000,000 bytes/s need 7.6 shards, of which there are half as many more: 12.
    close(dollars(&own, "Kinesis: shards"), 2.0 * 12.0 * 730.0 * 0.015);
    // 625 frames/s of 12,800 bytes, and a watermark for each shard.
    close(dollars(&own, "PUT payload units"), 2.0 * (625.0 + 12.0) * 2.628 * 0.014);
    // 100 GB and 150 bytes for each 1,024: 114.6 GB in nodes of 9.8 GB.
    close(dollars(&own, "ElastiCache"), 2.0 * 2.0 * 12.0 * 730.0 * 0.1752);
    // One in a hundred of 50,000, in two regions.
    close(dollars(&own, "strongly consistent reads"), 1_000.0 * 2.628 * 0.125);
    close(dollars(&own, "Fargate: aggregators"), 2.0 * 730.0 * (2.0 * 0.04048 + 4.0 * 0.004445));
    close(dollars(&tables, "writes to each replica"), 3.0 * 52_560.0 * 0.625);
    close(dollars(&tables, "reads in each region"), 2.0 * 50_000.0 * 0.5 * 2.628 * 0.125);
    close(dollars(&tables, "storage"), 3.0 * 200.0 * 0.25);
    close(dollars(&through, "reads of the master"), 2.0 * 50_000.0 * 0.5 * 2.628 * 0.125);
    close(dollars(&ttl, "reads of the master"), 2.0 * 10_000.0 * 0.5 * 2.628 * 0.125);
    // The master's and both regions' NAT gateways cost the same.
    let filled_gb = 500.0 * 1_024.0 * 2_628_000.0 / f64::from(1 << 30);
    close(dollars(&own, "NAT"), 2.0 * (sent_gb + filled_gb) * 0.045);
    // What DynamoDB replicates is in no VPC, and where bidders are is not known.
    assert!(![&tables, &through, &ttl].into_iter().any(|system| has(system, "NAT")));
    assert!(of(&Workload { nat: false, ..workload.clone() }).iter().all(|system| !has(system, "NAT")));
    let on_demand = Workload { stream_mode: StreamMode::OnDemand, ..workload.clone() };
    let [own, ..] = of(&on_demand);
    close(dollars(&own, "on-demand streams"), 2.0 * 730.0 * 0.04);
    // Frames are charged as 13 KB, watermarks as 1 KB.
    let written_gb = (625.0 * 13.0 + 12.0) * 1_024.0 * 2_628_000.0 / f64::from(1 << 30);
    close(dollars(&own, "Kinesis: written"), 2.0 * written_gb * 0.08);
    close(dollars(&own, "Kinesis: read"), 2.0 * sent_gb * 0.04);
    assert!(!has(&own, "shards") && !has(&own, "PUT"));
    let workload = Workload { capacity: Capacity::Provisioned, ..workload };
    close(dollars(&of(&workload)[0], "writes to the tables"), 28_572.0 * 730.0 * 0.00065);
}

#[test]
fn without_traffic_only_what_stands_there_costs() {
    let workload = Workload { writes_per_s: 0.0, reads_per_s: 0.0, ..Workload::default() };
    let [own, tables, through, ttl] = of(&workload);
    let paid = |system: &System| -> Vec<&'static str> {
        system.lines.iter().filter(|line| line.dollars_per_month > 0.0).map(|line| line.what).collect()
    };
    let standing = [
        "storage of the tables",
        "DynamoDB Streams: reads",
        "Kinesis: shards",
        "Kinesis: PUT payload units",
        "ElastiCache: primaries and replicas",
        "state tables: checkpoints and heartbeats",
        "Fargate: aggregators",
        "Fargate: cache-writers",
    ];
    assert_eq!(paid(&own), standing);
    assert_eq!(paid(&tables), ["storage of each replica"]);
    assert_eq!(paid(&through), ["storage of the tables"]);
    assert_eq!(paid(&ttl), ["storage of the tables", "ElastiCache: primaries and replicas"]);
}

#[test]
fn a_region_that_is_the_masters_gets_its_changes_for_nothing_but_kinesis() {
    let workload = Workload { regions: vec!["us-east-1".to_owned()], ..Workload::default() };
    let [own, tables, ..] = of(&workload);
    close(dollars(&own, "changes sent"), 0.0);
    close(dollars(&own, "items sent"), 0.0);
    close(dollars(&own, "NAT"), 0.0);
    close(dollars(&tables, "replicated items"), 0.0);
    assert!(dollars(&own, "Kinesis: shards") > 0.0);
}

fn workloads() -> impl Strategy<Value = Workload> {
    let rates = (0.0..200_000.0_f64, 0.0..1e6_f64, 0.0..=100.0_f64);
    let sizes = (1.0..100_000.0_f64, 1.0..1_000.0_f64, 0.0..1e13_f64, 0.0..1e12_f64);
    let modes = (any::<bool>(), any::<bool>(), any::<bool>());
    (rates, sizes, 1_usize..=4, modes).prop_map(
        |((writes, reads, hits), sizes, regions, (provisioned, on_demand, nat))| {
            let (item_bytes, changes_per_frame, table_bytes, working_set_bytes) = sizes;
            let mut workload = Workload {
                writes_per_s: writes,
                reads_per_s: reads,
                hit_percent: hits,
                item_bytes,
                changes_per_frame,
                table_bytes,
                working_set_bytes,
                capacity: if provisioned { Capacity::Provisioned } else { Capacity::OnDemand },
                stream_mode: if on_demand { StreamMode::OnDemand } else { StreamMode::Provisioned },
                nat,
                ..Workload::default()
            };
            workload.regions.truncate(regions);
            workload
        },
    )
}

proptest! {
    #[test]
    fn more_never_costs_less(
        workload in workloads(),
        more in 1.0..10.0_f64,
        what in 0_usize..6,
    ) {
        let mut greater = workload.clone();
        match what {
            0 => greater.writes_per_s *= more,
            1 => greater.reads_per_s *= more,
            2 => greater.hit_percent /= more,
            3 => greater.working_set_bytes *= more,
            4 => greater.table_bytes *= more,
            _ => greater.regions.push("sa-east-1".to_owned()),
        }
        for (less, more) in of(&workload).iter().zip(of(&greater)) {
            let (less_dollars, more_dollars) = (less.dollars_per_month, more.dollars_per_month);
            prop_assert!(more_dollars >= less_dollars * (1.0 - 1e-9), "{}: {less_dollars} {more_dollars}", less.name);
        }
    }

    #[test]
    fn lines_are_not_negative_and_add_up(workload in workloads()) {
        for system in of(&workload) {
            prop_assert!(system.lines.iter().all(|line| line.dollars_per_month >= 0.0 && line.dollars_per_month.is_finite()));
            let sum: f64 = system.lines.iter().map(|line| line.dollars_per_month).sum();
            prop_assert!((sum - system.dollars_per_month).abs() <= sum * 1e-9);
            prop_assert!(system.dynamodb_dollars_per_month <= sum * (1.0 + 1e-9));
        }
    }
}

#[test]
fn what_is_given_wins_over_a_file_over_what_was_measured_over_the_scenario() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "writes_per_s = 7\nreads_per_s = 8\nregions = ['eu-west-1']\ncapacity = 'provisioned'\nnat = true",
    )
    .unwrap();
    let line = format!(
        "cost --scenario today --given {} --reads-per-s 9 --item-bytes 2048 --without-nat",
        file.path().display()
    );
    let measured = Measured::of(SCRAPE, 1_000.0 + 7_200.0).unwrap();
    let workload = args(&line).report(Some(&measured)).unwrap().workload;
    assert_eq!((workload.writes_per_s, workload.reads_per_s, workload.item_bytes), (7.0, 9.0, 2_048.0));
    assert_eq!(
        (workload.regions.as_slice(), workload.capacity),
        (["eu-west-1".to_owned()].as_slice(), Capacity::Provisioned)
    );
    assert_eq!((workload.changes_per_frame, workload.wire_bytes), (8.0, Some(500.0)), "as it was measured");
    assert_eq!((workload.stream_mode, workload.nat), (StreamMode::OnDemand, false));
    let given = args("cost --stream-mode provisioned").report(Some(&measured)).unwrap();
    assert_eq!(given.workload.stream_mode, StreamMode::Provisioned);
    assert!(given.assumptions.iter().any(|line| line.starts_with("the regions' streams are provisioned")));
    assert_eq!(workload.table_bytes, Workload::adroll(false).table_bytes, "as the scenario has it");
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "write_per_s = 1\nregions = ['a', 'a']\ncapacity = 'free'\nreplicas = 9")
        .unwrap();
    let line = format!("cost --given {} --hit-percent 101", file.path().display());
    let error = args(&line).report(None).unwrap_err().downcast::<ConfigError>().unwrap();
    let named: Vec<&str> = error.problems.iter().filter_map(|problem| problem.split(':').next()).collect();
    assert_eq!(named, ["hit_percent", "replicas", "capacity", "regions", "write_per_s"], "{error}");
}

/// Of one of two aggregators, two hours after it started.
const SCRAPE: &str = "\
# TYPE warmcast_start_time_seconds gauge
warmcast_start_time_seconds 1000.0
# TYPE warmcast_records_read counter
warmcast_records_read_total 7200000
warmcast_leases{state=\"own\"} 10
warmcast_leases{state=\"others\"} 30
warmcast_leases{state=\"finished\"} 5
warmcast_frame_changes_sum 8000.0
warmcast_frame_changes_count 1000
warmcast_frame_changes_bucket{le=\"1.0\"} 0
warmcast_frame_body_bytes_total 9600000
warmcast_sent_bytes_total{region=\"eu-west-1\"} 3000000
warmcast_sent_bytes_total{region=\"us-west-2\"} 1000000
warmcast_region_on_demand{region=\"eu-west-1\"} 1
warmcast_region_on_demand{region=\"us-west-2\"} 1
warmcast_changes_sent_total{region=\"us-west-2\"} 2000
warmcast_changes_sent_total{region=\"eu-west-1\"} 6000
# EOF
";

#[test]
fn a_running_aggregator_tells_rates_sizes_shards_and_regions() {
    let measured = Measured::of(SCRAPE, 1_000.0 + 7_200.0).unwrap();
    let expected = Measured {
        elapsed_s: 7_200.0,
        share: 0.25,
        writes_per_s: 4_000.0,
        changes_per_frame: Some(8.0),
        wire_bytes: Some(500.0),
        body_bytes: Some(1_200.0),
        table_shards: Some(40.0),
        is_on_demand: Some(true),
        regions: vec!["eu-west-1".to_owned(), "us-west-2".to_owned()],
    };
    assert_eq!(measured, expected);
    let mixed = SCRAPE.replace("on_demand{region=\"eu-west-1\"} 1", "on_demand{region=\"eu-west-1\"} 0");
    assert_eq!(Measured::of(&mixed, 8_200.0).unwrap().is_on_demand, None, "streams that differ");
    assert!(Measured::of("", 1.0).unwrap_err().to_string().contains("warmcast_start_time_seconds"));
    assert!(Measured::of(SCRAPE, 1_000.0).is_err(), "it has just started");
}

#[test]
fn over_three_quarters_are_saved_at_the_prices_of_2018() {
    let report = report("cost --scenario adroll-2018");
    let tables = &report.saved[0];
    assert!(
        tables.against.contains("global tables") && tables.percent > 75.0 && tables.dynamodb_percent > 75.0
    );
    assert!(report.assumptions.iter().any(|line| line.contains("of 2018, not verified")), "{report:?}");
}

/// The block without a command line is cut out of what the command prints.
#[test]
fn the_docs_show_what_on_demand_streams_cost() {
    let printed = report("cost --writes-per-s 20000 --item-bytes 1024 --stream-mode on-demand").lines();
    let of_warmcast = printed.split("\n\n").find(|system| system.starts_with("  Warmcast")).unwrap();
    let shown = |line: &&str| line.contains(" Kinesis: ") || line.contains(" in all ");
    let saved = printed.lines().filter(|line| line.contains(" % against "));
    let lines: Vec<&str> = of_warmcast.lines().filter(shown).chain(saved).collect();
    let block = format!("```text\n{}\n```", lines.join("\n"));
    assert!(lines.len() == 7 && DOCS.contains(&block), "docs/cost.md: on-demand streams:\n{block}");
}

/// Each block of docs/cost.md that begins with a command line has what that prints.
#[test]
fn the_docs_show_what_the_command_prints() {
    let blocks = DOCS.split("```text\n$ aggregator ").skip(1);
    let shown: Vec<(&str, &str)> =
        blocks.map(|block| block.split("```").next().unwrap().split_once('\n').unwrap()).collect();
    assert_eq!(shown.len(), 3);
    for (line, printed) in shown {
        let expected = report(line).lines();
        assert!(printed == expected, "docs/cost.md: `aggregator {line}` prints:\n{expected}");
    }
}
