//! What both daemons run: the shard consumer, configuration, telemetry, shutdown, retry, service limits.
//!
//! The crate knows neither a stream API nor Redis: a daemon brings a [`consumer::StreamSource`] to read from
//! and a [`consumer::Processor`] to hand records to. The modules stand in the order in which a running daemon
//! meets them.

pub mod limits;
pub mod config;
pub mod telemetry;
pub mod metrics;
pub mod otlp;
pub mod prices;
pub mod health;
pub mod shutdown;
pub mod clock;
pub mod fence;
pub mod retry;
pub mod aws;
pub mod http;
mod own_table;
mod plain;
pub mod daemon;
pub mod tool;
pub mod consumer;
pub mod warm;
pub mod dead_letter;
pub mod status;
pub mod upgrade;
pub mod admin;
pub mod systemd;
pub mod attend;
