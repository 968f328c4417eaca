//! The life of streams and shards as the real aggregator lives through it: the fake of DynamoDB Streams plays the
//! service with all its moods, and what must come of it is read from Kinesis and from the state table.
//!
//! Each test has a world of its own. `make test` builds the aggregator.

#[cfg(test)]
mod master;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod life;

#[cfg(test)]
mod describes;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod gaps;
#[cfg(test)]
mod hangs;
#[cfg(test)]
mod lineage;
#[cfg(test)]
mod listings;
#[cfg(test)]
mod new_streams;
#[cfg(test)]
mod replays;
#[cfg(test)]
mod starts;
