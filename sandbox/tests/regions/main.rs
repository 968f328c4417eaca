//! Regions that fail alone, as the real aggregator lives through it: the fake of DynamoDB Streams is what it reads, each
//! region is behind a proxy with faults, and in the end each must have the newest state of every key.
//!
//! Each test has a world of its own. `make test` builds the aggregator.

#[cfg(test)]
mod command;
#[cfg(test)]
mod steps;

#[cfg(test)]
mod outages;
#[cfg(test)]
mod parked;
#[cfg(test)]
mod slow;
