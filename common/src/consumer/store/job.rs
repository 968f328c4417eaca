//! Jobs: how far the operators' commands got, so that one that was stopped goes on there.
//!
//! One item says what a job is, and one for each of its parts up to where that is done (the table of [`super`]). A job that is done is deleted. One that was left behind is harmless: what it did is done, and after a week it begins anew.

use std::collections::BTreeMap;

use super::item::{Item, key, n, new_item, s};
use super::{StateStore, StoreError};
use crate::aws::CallError;

const JOBS: &str = "jobs";
const PART: &str = "part#";
/// A job that was begun so long ago is forgotten: the places of its parts say nothing any more.
const FORGOTTEN_AFTER_MS: u64 = 7 * 86_400_000;

/// A job that was begun and is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// When it was begun: milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// What it is, for people.
    pub what: String,
    /// Up to where each of its parts is done, in the words of its command; parts that have not begun are not there.
    pub places: BTreeMap<String, String>,
}

impl StateStore {
    /// Begins a job, or goes on with the one of this name that a run before left behind.
    ///
    /// # Errors
    /// When a call fails, or what is there is no job.
    pub async fn begin_job(&self, name: &str, what: &str, now_ms: u64) -> Result<Job, StoreError> {
        if let Some(job) = self.jobs().await?.remove(name) {
            if now_ms.saturating_sub(job.began_ms) < FORGOTTEN_AFTER_MS {
                return Ok(Job { places: self.places(name).await?, ..job });
            }
            self.end_job(name).await?;
        }
        let mut item = new_item(JOBS, name);
        item.insert("what".to_owned(), s(what));
        item.insert("began_ms".to_owned(), n(now_ms));
        self.put_new(item).await?;
        Ok(Job { began_ms: now_ms, what: what.to_owned(), places: BTreeMap::new() })
    }

    /// Notes up to where a part of a job is done.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn job_place(&self, name: &str, part: &str, place: &str) -> Result<(), CallError> {
        let mut item = new_item(partition(name), format!("{PART}{part}"));
        item.insert("place".to_owned(), s(place));
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item)).send().await;
        self.answered("PutItem", put).map(|_| ())
    }

    /// The job is done: it is forgotten, its parts first.
    ///
    /// # Errors
    /// When a call fails. Ending it again goes on.
    pub async fn end_job(&self, name: &str) -> Result<(), StoreError> {
        for part in self.places(name).await?.into_keys() {
            self.delete_job_item(partition(name), format!("{PART}{part}")).await?;
        }
        Ok(self.delete_job_item(JOBS.to_owned(), name.to_owned()).await?)
    }

    /// The jobs that were begun and are not done, by name, without the places of their parts.
    ///
    /// # Errors
    /// When a call fails, or an item is no job.
    pub async fn jobs(&self) -> Result<BTreeMap<String, Job>, StoreError> {
        let items = self.query(JOBS, true).await?;
        let read = |attributes| {
            let item = Item { table: self.table(), attributes };
            item.check_format()?;
            let (began_ms, what) = (item.number("began_ms")?, item.text("what")?.to_owned());
            Ok((item.text("sk")?.to_owned(), Job { began_ms, what, places: BTreeMap::new() }))
        };
        items.iter().map(read).collect()
    }

    async fn places(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let items = self.query(&partition(name), true).await?;
        let read = |attributes| {
            let item = Item { table: self.table(), attributes };
            item.check_format()?;
            let part = item.text("sk")?.strip_prefix(PART);
            let part = part.ok_or_else(|| item.wrong("sk is not part#PART".to_owned()))?;
            Ok((part.to_owned(), item.text("place")?.to_owned()))
        };
        items.iter().map(read).collect()
    }

    async fn delete_job_item(&self, pk: String, sk: String) -> Result<(), CallError> {
        let request = self.client.delete_item().table_name(&self.table).set_key(Some(key(pk, sk)));
        self.answered("DeleteItem", request.send().await).map(|_| ())
    }
}

fn partition(name: &str) -> String {
    format!("job#{name}")
}
