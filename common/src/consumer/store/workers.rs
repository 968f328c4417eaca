//! Heartbeats: one item for each worker, however many leases it has.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::compatibility::{Build, STATE_VERSION};
use super::super::coverage::{Coverage, LeaseSet};
use super::item::{FORMAT, Item, key, n, s};
use super::{StateStore, StoreError};
use crate::aws::CallError;

const PARTITION: &str = "workers";

/// What a worker tells the others with each beat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its share of the work relative to the others'.
    pub capacity: u32,
    /// The most leases it will have.
    pub leases_max: usize,
    /// Leases it has.
    pub leases: usize,
    /// Bytes a second that it reads.
    pub bytes_per_s: u64,
    /// The streams it can read.
    pub streams: BTreeSet<String>,
    /// It is stopping.
    pub leaving: bool,
    /// Grows when it did something to leases that others should look at.
    pub changes: u64,
    /// How far everything in its leases is done. `None` from a worker of a version that does not tell.
    pub coverage: Option<Coverage>,
    /// The program that it runs.
    pub build: Build,
    /// Its heartbeat takes a later version to read: it lives, and nothing more is known of it. It is given nothing.
    pub is_newer: bool,
}

/// A worker's heartbeat as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The worker's name.
    pub worker: String,
    /// The process: a name that is used by two processes shows by it.
    pub instance: String,
    /// Grows with each beat. Observers judge by their own clock how long it has not.
    pub counter: u64,
    /// What it told.
    pub report: Report,
}

impl StateStore {
    /// Announces a process under its worker's name, taking the name over from an earlier process.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn announce(&self, worker: &str, instance: &str, report: &Report) -> Result<(), CallError> {
        self.write_heartbeat(worker, instance, report, None).await
    }

    /// One beat.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process has taken the worker's name over.
    pub async fn beat(&self, worker: &str, instance: &str, report: &Report) -> Result<(), StoreError> {
        let answer = self.write_heartbeat(worker, instance, report, Some("instance = :instance")).await;
        fenced(answer, worker)
    }

    async fn write_heartbeat(
        &self,
        worker: &str,
        instance: &str,
        report: &Report,
        condition: Option<&str>,
    ) -> Result<(), CallError> {
        let mut set = "SET instance = :instance, #format = :format, #capacity = :capacity, \
            leases_max = :leases_max, leases = :leases, bytes_per_s = :rate, leaving = :leaving, \
            changes = :changes"
            .to_owned();
        let mut values: Vec<(&str, AttributeValue)> = Vec::new();
        let mut absent: Vec<&str> = Vec::new();
        let mut optional = |name: &'static str, placeholder, value: Option<AttributeValue>| match value {
            Some(value) => {
                set.push_str(&format!(", {name} = {placeholder}"));
                values.push((placeholder, value));
            }
            None => absent.push(name),
        };
        // A set in DynamoDB cannot be empty.
        let streams = (!report.streams.is_empty()).then(|| report.streams.iter().cloned().collect());
        let (coverage, leases) =
            (report.coverage.as_ref(), report.coverage.as_ref().map(|coverage| coverage.leases));
        let parked = coverage.map(|of| &of.parked).filter(|parked| !parked.is_empty());
        optional("streams", ":streams", streams.map(AttributeValue::Ss));
        optional("covers", ":covers", leases.map(|set| n(set.leases)));
        optional("covers_digest", ":digest", leases.map(|set| n(set.digest)));
        optional("watermark_ms", ":watermark", coverage.and_then(|of| of.watermark_ms).map(n));
        optional("parked", ":parked", parked.map(|of| AttributeValue::Ss(of.iter().cloned().collect())));
        optional("build", ":build", Some(build_value(instance, &report.build)));
        if !absent.is_empty() {
            set.push_str(&format!(" REMOVE {}", absent.join(", ")));
        }
        set.push_str(" ADD #counter :one");
        let mut request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(PARTITION, sort(worker))))
            .update_expression(set)
            .set_condition_expression(condition.map(str::to_owned))
            .expression_attribute_names("#format", "format")
            .expression_attribute_names("#counter", "counter")
            .expression_attribute_names("#capacity", "capacity")
            .expression_attribute_values(":instance", s(instance))
            .expression_attribute_values(":format", n(FORMAT))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":capacity", n(report.capacity.into()))
            .expression_attribute_values(":leases_max", n(report.leases_max as u64))
            .expression_attribute_values(":leases", n(report.leases as u64))
            .expression_attribute_values(":rate", n(report.bytes_per_s))
            .expression_attribute_values(":leaving", AttributeValue::Bool(report.leaving))
            .expression_attribute_values(":changes", n(report.changes));
        for (placeholder, value) in values {
            request = request.expression_attribute_values(placeholder, value);
        }
        self.answered("UpdateItem", request.send().await).map(|_| ())
    }

    /// Removes a worker's heartbeat, if the process is still the one named: a worker that left, or one that was
    /// seen dead for long and has no leases.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process has taken the worker's name over.
    pub async fn forget_worker(&self, worker: &str, instance: &str) -> Result<(), StoreError> {
        let answer = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key(PARTITION, sort(worker))))
            .condition_expression("instance = :instance")
            .expression_attribute_values(":instance", s(instance))
            .send()
            .await;
        let answer = self.answered("DeleteItem", answer).map(|_| ());
        fenced(answer, worker)
    }

    /// Every worker that announced itself and was not forgotten.
    ///
    /// # Errors
    /// When a call fails or an item is not a heartbeat.
    pub async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        let items = self.query(PARTITION, true).await?;
        items.iter().map(|attributes| read(&Item { table: self.table(), attributes })).collect()
    }
}

/// What every version keeps of a heartbeat: the name, `instance` and `counter`.
fn read(item: &Item<'_>) -> Result<Heartbeat, StoreError> {
    let worker = item.text("sk")?.strip_prefix("worker#");
    if item.format()? > STATE_VERSION {
        let report = Report { build: read_build(item)?, is_newer: true, leaving: true, ..Report::default() };
        return Ok(Heartbeat {
            worker: worker.ok_or_else(|| item.wrong("sk is not worker#WORKER".to_owned()))?.to_owned(),
            instance: item.text("instance")?.to_owned(),
            counter: item.number("counter")?,
            report,
        });
    }
    let count = |name| Ok::<_, StoreError>(usize::try_from(item.number(name)?).unwrap_or(usize::MAX));
    Ok(Heartbeat {
        worker: worker.ok_or_else(|| item.wrong("sk is not worker#WORKER".to_owned()))?.to_owned(),
        instance: item.text("instance")?.to_owned(),
        counter: item.number("counter")?,
        report: Report {
            capacity: u32::try_from(item.number("capacity")?).unwrap_or(u32::MAX),
            leases_max: count("leases_max")?,
            leases: count("leases")?,
            bytes_per_s: item.number("bytes_per_s")?,
            streams: item.text_set("streams")?.into_iter().collect(),
            leaving: item.flag("leaving")?,
            changes: item.number("changes")?,
            coverage: read_coverage(item)?,
            build: read_build(item)?,
            is_newer: false,
        },
    })
}

/// With the process that it is of: an older program that runs under the same name later leaves the attribute as it is.
fn build_value(instance: &str, build: &Build) -> AttributeValue {
    let mut of = HashMap::from([("instance".to_owned(), s(instance)), ("knows".to_owned(), n(build.knows))]);
    of.extend(build.software.as_ref().map(|software| ("software".to_owned(), s(software))));
    AttributeValue::M(of)
}

fn read_build(item: &Item<'_>) -> Result<Build, StoreError> {
    let attributes = match item.attributes.get("build") {
        None => return Ok(Build::default()),
        Some(AttributeValue::M(attributes)) => attributes,
        Some(_) => return Err(item.wrong("build is not a map".to_owned())),
    };
    let of = Item { table: item.table, attributes };
    let within = |error: StoreError| item.wrong(format!("build: {error}"));
    if of.text("instance").map_err(within)? != item.text("instance")? {
        return Ok(Build::default());
    }
    let software = of.optional_text("software").map_err(within)?.map(str::to_owned);
    Ok(Build { knows: of.number("knows").map_err(within)?, software })
}

fn read_coverage(item: &Item<'_>) -> Result<Option<Coverage>, StoreError> {
    let set = (item.optional_number("covers")?, item.optional_number("covers_digest")?);
    let (Some(leases), Some(digest)) = set else { return Ok(None) };
    let watermark_ms = item.optional_number("watermark_ms")?;
    let parked = item.text_set("parked")?.into_iter().collect();
    Ok(Some(Coverage { leases: LeaseSet { leases, digest }, watermark_ms, parked }))
}

fn fenced(answer: Result<(), CallError>, worker: &str) -> Result<(), StoreError> {
    answer.map_err(|error| match error.is_code("ConditionalCheckFailedException") {
        true => StoreError::Fenced { what: format!("worker name {worker}") },
        false => StoreError::Call(error),
    })
}

fn sort(worker: &str) -> String {
    format!("worker#{worker}")
}
