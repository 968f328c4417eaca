//! The built-in files, what is refused, and the arithmetic by hand.

use super::*;

fn refused(text: &str) -> Vec<String> {
    match Prices::parse(Path::new("p.toml"), text) {
        Err(PricesError::Violations { violations, .. }) => violations.into_iter().map(|v| v.path).collect(),
        other => panic!("{other:?}"),
    }
}

fn close(dollars: f64, expected: f64) {
    assert!((dollars - expected).abs() < 1e-9, "{dollars} is not {expected}");
}

#[test]
fn the_built_in_prices_are_complete_and_a_region_without_its_own_has_the_services() {
    let prices = Prices::built_in().unwrap();
    let dynamodb = |region| prices.dynamodb.prices_in(Some(region)).write_request_units_dollars(1e6);
    close(dynamodb("us-east-1"), 0.625);
    close(dynamodb("mars-north-1"), 0.625);
    close(prices.dynamodb.prices_in(None).write_request_units_dollars(1e6), 0.625);
    close(dynamodb("eu-west-1"), 0.705);
    let ireland = prices.dynamodb.published_in(Some("eu-west-1"));
    close(ireland.prices.stream_reads_dollars(1e5), 0.02);
    assert!(!ireland.verified && ireland.known_from == 2024, "{ireland:?}");
    let egress = |from, to| prices.egress.prices_in(Some(from)).dollars(to, GB_BYTES);
    close(egress("us-east-1", Some("us-east-2")), 0.01);
    close(egress("us-east-1", Some("eu-west-1")), 0.02);
    close(egress("us-east-1", None), 0.02);
    close(egress("ap-northeast-1", Some("us-east-1")), 0.09);
    let nat = |region| prices.nat.prices_in(Some(region)).dollars(GB_BYTES);
    close(nat("us-east-1"), 0.045);
    close(nat("ap-southeast-1"), 0.059);
    let then = Prices::built_in_2018().unwrap();
    close(then.dynamodb.prices_in(None).replicated_write_capacity_dollars(1_000.0), 0.975);
}

#[test]
fn everything_that_is_wrong_with_a_file_is_named_at_once() {
    let text = BUILT_IN
        .replace("gb = 0.01\n", "gb = '1'\n")
        .replace("stream_reads_100k = 0.02", "stream_reads_100k = -0.02")
        .replace("shard_hour = 0.017", "shard_hours = 0.017")
        .replace("vcpu_hour = 0.04048", "");
    assert_eq!(
        refused(&text),
        [
            "dynamodb.stream_reads_100k",
            "kinesis.regions.eu-west-1.shard_hours",
            "egress.regions.us-east-1.to.us-east-2.gb",
            "egress.regions.us-east-2.to.us-east-1.gb",
            "fargate.vcpu_hour",
        ]
    );
    assert!(refused("").len() > 20);
    assert_eq!(refused("[").len(), 1);
}

/// Operators have copies of the file, and an upgrade must not stop at one.
#[test]
fn a_file_of_before_nat_gateways_had_a_price_is_taken_with_the_built_in_one() {
    let (before, rest) = BUILT_IN.split_once("[nat]").unwrap();
    let (_, after) = rest.split_once("[elasticache]").unwrap();
    let prices = Prices::parse(Path::new("p.toml"), &format!("{before}[elasticache]{after}")).unwrap();
    assert_eq!(prices, Prices::built_in().unwrap());
    assert_eq!(refused(&BUILT_IN.replace("gb = 0.045", "gb_processed = 0.045")).len(), 2);
}

#[test]
fn a_file_is_loaded_and_named_in_what_is_wrong_with_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), BUILT_IN).unwrap();
    assert_eq!(Prices::load(file.path()).unwrap(), Prices::built_in().unwrap());
    std::fs::write(file.path(), BUILT_IN.replace("verified", "sure")).unwrap();
    let error = Prices::load(file.path()).unwrap_err().to_string();
    assert!(
        error.contains(&*file.path().to_string_lossy()) && error.contains("dynamodb.verified: is required")
    );
    assert!(Prices::load(Path::new("/does/not/exist")).is_err());
    let violations = Violations::default();
    let section = |text: &str| Section::root(text.parse().unwrap(), &violations);
    assert_eq!(PricesConfig::read(section("")).load().unwrap(), Prices::built_in().unwrap());
    PricesConfig::read(section(&format!("file = '{}'", file.path().display())));
    let noted = violations.into_result(()).unwrap_err();
    assert!(noted.len() == 1 && noted[0].path == "file", "{noted:?}");
}

#[test]
fn units_are_rounded_up_as_aws_bills_them() {
    assert_eq!([0.0, 1.0, 1_024.0, 1_025.0].map(Dynamodb::write_units), [1.0, 1.0, 1.0, 2.0]);
    assert_eq!([1_065.0, 4_096.0, 4_097.0].map(Dynamodb::read_units), [1.0, 1.0, 2.0]);
    assert_eq!([1.0, 25_000.0, 25_001.0].map(Kinesis::put_units), [1.0, 1.0, 2.0]);
    let rounded = [0.0, 1.0, 1_024.0, 1_025.0].map(Kinesis::on_demand_record_bytes);
    assert_eq!(rounded, [1_024.0, 1_024.0, 1_024.0, 2_048.0]);
}

/// Each figure by hand, from the prices in config/prices.toml.
#[test]
fn so_much_of_a_service_costs_so_many_dollars() {
    let prices = Prices::built_in().unwrap();
    let dynamodb = prices.dynamodb.prices_in(None);
    close(dynamodb.read_request_units_dollars(8e6), 1.0);
    close(dynamodb.replicated_write_request_units_dollars(52_560e6), 32_850.0);
    close(dynamodb.write_capacity_dollars(20_000.0 * MONTH_HOURS), 9_490.0);
    close(dynamodb.read_capacity_dollars(1_000.0), 0.13);
    close(dynamodb.storage_month_dollars(4.0 * GB_BYTES), 1.0);
    let kinesis = prices.kinesis.prices_in(None);
    close(kinesis.shards_dollars(20.0 * MONTH_HOURS), 219.0);
    close(kinesis.put_units_dollars(1_000e6), 14.0);
    close(kinesis.fan_out_dollars(10.0, 100.0 * GB_BYTES), 0.15 + 1.3);
    close(kinesis.on_demand_streams_dollars(100.0), 4.0);
    close(kinesis.on_demand_in_dollars(100.0 * GB_BYTES), 8.0);
    close(kinesis.on_demand_out_dollars(100.0 * GB_BYTES), 4.0);
    close(kinesis.on_demand_fan_out_dollars(100.0 * GB_BYTES), 5.0);
    let cache = prices.elasticache.prices_in(None);
    assert_eq!([0.0, 9.8, 9.9].map(|gb| cache.nodes(gb * GB_BYTES)), [1.0, 1.0, 2.0]);
    close(cache.nodes_dollars(100.0), 17.52);
    close(prices.fargate.prices_in(None).tasks_dollars(100.0, 2.0, 4.0 * GB_BYTES), 8.096 + 1.778);
}
