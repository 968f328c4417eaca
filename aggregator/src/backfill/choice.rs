//! What is backfilled, and whereto: the names that were given, held against the configuration. Pure.

use std::collections::BTreeSet;

use warmcast_common::consumer::Lanes;
use warmcast_common::daemon::ConfigError;

use crate::config::Config;

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// In the order of the configuration.
    pub(super) tables: Vec<String>,
    /// The regions' places in the configuration.
    pub(super) lanes: Lanes,
}

impl Choice {
    /// Everything that is wrong with it is in the error.
    pub(super) fn new(
        config: &Config,
        tables: &[String],
        regions: &[String],
        is_of_list: bool,
    ) -> Result<Self, ConfigError> {
        let known_tables: Vec<&str> = config.tables.iter().map(|table| &*table.name).collect();
        let known_regions: Vec<&str> = config.regions.iter().map(|region| &*region.name).collect();
        let mut problems = unknown("table", tables, &known_tables);
        problems.extend(unknown("region", regions, &known_regions));
        let chosen = |known: &&&str| tables.is_empty() || tables.iter().any(|name| name == **known);
        let tables: Vec<String> = known_tables.iter().filter(chosen).map(|&name| name.to_owned()).collect();
        if is_of_list && tables.len() != 1 {
            problems.push("--from has the keys of one table: name it with --table".to_owned());
        }
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let lane = |name: &String| known_regions.iter().position(|known| known == name);
        Ok(Self { tables, lanes: regions.iter().filter_map(lane).collect() })
    }
}

fn unknown(what: &str, given: &[String], known: &[&str]) -> Vec<String> {
    let unknown: BTreeSet<&str> =
        given.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
    let problem =
        |name| format!("there is no {what} {name} in the configuration; there is {}", known.join(", "));
    unknown.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use warmcast_common::config::Document;
    use warmcast_common::daemon::read;

    use super::*;

    fn choose(tables: &[&str], regions: &[&str], is_of_list: bool) -> Result<(Vec<String>, Lanes), String> {
        let text = "[dynamodb]\nregion = 'us-east-1'\n[tables.orders]\n[tables.profiles]\n\
                    [regions.eu-west-1]\nstream = 's'\n[regions.us-west-2]\nstream = 's'\n";
        let config: Config = read(Document::parse(text).unwrap()).unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Choice::new(&config, &names(tables), &names(regions), is_of_list)
            .map(|choice| (choice.tables, choice.lanes))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_those_of_the_configuration_each_once() {
        let (tables, lanes) = choose(&[], &["us-west-2", "us-west-2"], false).unwrap();
        assert_eq!((tables.join(" "), lanes), ("orders profiles".to_owned(), Lanes::one(1)));
        let (tables, lanes) = choose(&["profiles"], &["us-west-2", "eu-west-1"], true).unwrap();
        assert_eq!((tables.join(" "), lanes), ("profiles".to_owned(), Lanes::first(2)));
    }

    #[test]
    fn everything_that_is_not_there_is_named_with_what_there_is() {
        let error = choose(&["profile", "orders"], &["eu-west-3", "mars"], true).unwrap_err();
        assert_eq!(
            error,
            "there is no table profile in the configuration; there is orders, profiles; \
             there is no region eu-west-3 in the configuration; there is eu-west-1, us-west-2; \
             there is no region mars in the configuration; there is eu-west-1, us-west-2"
        );
        assert!(choose(&[], &["eu-west-1"], true).unwrap_err().contains("--from has the keys of one table"));
    }
}
