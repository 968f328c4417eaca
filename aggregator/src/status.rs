//! `status`: the fleet, its tables and its regions, from the state table.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_dynamodb::Client;
use tokio_util::sync::CancellationToken;
use warmcast_common::admin::FleetLook;
use warmcast_common::aws::sdk_config;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::Lane;
use warmcast_common::consumer::store::{Heartbeat, StateStore, StoreError};
use warmcast_common::daemon::{Outcome, OutputFormat};
use warmcast_common::dead_letter::LetterError;
use warmcast_common::limits::DYNAMODB_STREAMS_RETENTION;
use warmcast_common::status::{
    Criteria, LanesLook, Look, Shown, StatusArgs, StreamName, Summary, Survey, letter_store, watch, watermark,
};

use crate::config::Config;

/// Carries out `status`.
///
/// # Errors
/// When the state table cannot be read.
pub async fn status(args: StatusArgs, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let letters = letter_store(&args, &config.dead_letters, &dynamodb)?;
    let store = StateStore::new(dynamodb, &config.state.table);
    let mut survey = Survey::new(store, letters, config.worker.lease_duration);
    watch(&args, &shutdown, async || {
        let look = look(&args, &config, &mut survey).await.context("look at the fleet")?;
        Ok(show(&args, &config, &look, &survey)?)
    })
    .await
}

/// The looks at the fleet that the admin endpoint shows.
pub(crate) struct FleetLooks {
    args: StatusArgs,
    config: Config,
    survey: Survey,
}

impl FleetLooks {
    /// Its calls are counted where those of `store` are.
    pub(crate) fn new(config: &Config, store: StateStore, dynamodb: &Client) -> Result<Self, LetterError> {
        let args = StatusArgs::attended(config.admin.watermark_bound);
        let letters = letter_store(&args, &config.dead_letters, dynamodb)?;
        let survey = Survey::new(store, letters, config.worker.lease_duration);
        Ok(Self { args, config: config.clone(), survey })
    }
}

impl FleetLook for FleetLooks {
    async fn look(&mut self) -> Result<serde_json::Value, anyhow::Error> {
        let Self { args, config, survey } = self;
        let mut look = look(args, config, survey).await.context("look at the fleet")?;
        until_told(args, config, survey, &mut look).await?;
        Ok(show(args, config, &look, survey)?.json)
    }
}

async fn look(args: &StatusArgs, config: &Config, survey: &mut Survey) -> Result<Look, anyhow::Error> {
    let heartbeats = survey.heartbeats().await?;
    let streams = streams(survey.store(), config, &heartbeats).await?;
    let mut look = survey.look(streams).await?;
    if args.watch.is_none() {
        survey.settle(&mut look).await?;
        until_told(args, config, survey, &mut look).await?;
    }
    Ok(look)
}

async fn until_told(
    args: &StatusArgs,
    config: &Config,
    survey: &mut Survey,
    look: &mut Look,
) -> Result<(), StoreError> {
    let is_told = |look: &Look, observer: &_| {
        watermark(look, observer, &criteria(config, args.watermark_bound))
            .err()
            .is_none_or(|hold| !hold.is_of_leases())
    };
    survey.until_told(look, is_told).await
}

fn show(
    args: &StatusArgs,
    config: &Config,
    look: &Look,
    survey: &Survey,
) -> Result<Shown, serde_json::Error> {
    let criteria = Criteria { worst: args.shards_listed(), ..criteria(config, args.watermark_bound) };
    let summary = Summary::of(look, survey.observer(), &criteria);
    let title = format!("aggregators of state table {}", config.state.table);
    Ok(Shown {
        json: match args.output {
            OutputFormat::Json => serde_json::to_value(&summary)?,
            OutputFormat::Human => serde_json::Value::Null,
        },
        text: summary.to_text(&title, ""),
        outcome: summary.outcome(),
    })
}

/// What a look is judged by: all the tables, all the regions.
pub(crate) fn criteria(config: &Config, watermark_bound: Duration) -> Criteria {
    let lane = |region: &crate::config::RegionConfig| Lane {
        name: region.name.as_str().into(),
        start: region.start.lane(),
    };
    let lanes = config.regions.iter().map(lane).collect();
    Criteria {
        target: None,
        streams_min: config.tables.len(),
        lanes: Some(LanesLook { lanes, retention: DYNAMODB_STREAMS_RETENTION }),
        ..Criteria::new(now_ms(), watermark_bound)
    }
}

/// The streams of the configured tables, those of before included, what else the workers read, and what a region was ever
/// fed from.
pub(crate) async fn streams(
    store: &StateStore,
    config: &Config,
    heartbeats: &[Heartbeat],
) -> Result<Vec<StreamName>, StoreError> {
    let mut streams = Vec::new();
    for table in &config.tables {
        let generations = store.generations(&table.name).await?;
        let newest = generations.iter().map(|generation| generation.number).max();
        streams.extend(generations.into_iter().map(|generation| StreamName {
            label: table.name.clone(),
            superseded: Some(generation.number) < newest,
            ..StreamName::of(&generation.stream)
        }));
    }
    let read: BTreeSet<&String> = heartbeats.iter().flat_map(|beat| &beat.report.streams).collect();
    for stream in read {
        if !streams.iter().any(|known| known.stream == *stream) {
            streams.push(StreamName { label: table_of(stream).to_owned(), ..StreamName::of(stream) });
        }
    }
    let lanes = store.lanes().await?;
    let fed: BTreeSet<&String> = lanes.values().flat_map(|lane| lane.added_ms.keys()).collect();
    for stream in fed {
        if !streams.iter().any(|known| known.stream == *stream) {
            let label = table_of(stream).to_owned();
            streams.push(StreamName { label, is_read: false, ..StreamName::of(stream) });
        }
    }
    Ok(streams)
}

/// The table in a stream's ARN (AWS: `arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE/stream/LABEL`).
fn table_of(stream: &str) -> &str {
    let table = stream.split_once(":table/").and_then(|(_, rest)| rest.split_once('/'));
    table.map_or(stream, |(table, _)| table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_called_by_its_table() {
        assert_eq!(
            table_of("arn:aws:dynamodb:us-east-1:1:table/profiles/stream/2026-01-01T00:00:00.000"),
            "profiles"
        );
        assert_eq!(table_of("s"), "s");
    }
}
