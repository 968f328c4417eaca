//! The whole path with the real daemons: DynamoDB, Kinesis and Redis on free loopback ports.
//!
//! Each test has a world of its own. `make test` builds the daemons and installs what the worlds need.

#[cfg(test)]
mod support;

#[cfg(test)]
mod backfills;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bidders;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod dynamodb_local;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod otlp;
#[cfg(test)]
mod packages;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod panels;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod watermarks;
