//! Dead letters in a DynamoDB table: for all workers of a fleet, and for whoever looks into them.
//!
//! | `pk` | `sk` | attributes |
//! |---|---|---|
//! | LETTER | `letter` | everything about it; `content`, or `parts` with their number |
//! | LETTER | `part#NNNN` | `content`: the next bytes |
//!
//! LETTER is the letter's id. Every item has `format`, the version of this layout, and `expires_s`, the table's Time to
//! Live attribute. Parts are written before their letter and deleted after it, so a letter that is there is whole.

mod item;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, TableStatus, TimeToLiveSpecification, TimeToLiveStatus};

use super::encoding::{Stored, decode};
use super::filter::Filter;
use super::letter::{Kept, Letter, LetterId};
use super::store::{LetterError, Page};
use crate::aws::CallError;
use crate::own_table::{create_table, table_status};
use crate::retry::{Backoff, Class};
use item::{Attributes, LETTER, Update, key, part_item, part_key};

const EXPIRES_S: &str = "expires_s";

/// Dead letters in a table. Calls are not retried here.
#[derive(Clone, Debug)]
pub(super) struct TableStore {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) create: bool,
    pub(super) retention: Duration,
}

impl TableStore {
    /// Makes sure that letters can be stored: the table is there, or is created if that is allowed.
    pub(super) async fn prepare(&self) -> Result<(), LetterError> {
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match table_status(&self.client, &self.table, self.target()).await {
                Ok(Some(TableStatus::Active)) => break,
                Ok(_) => {}
                Err(error) if error.class != Class::NotFound => return Err(error.into()),
                Err(_) if self.create => {
                    tracing::info!(table = self.table, "creating the table of dead letters");
                    create_table(&self.client, &self.table, self.target()).await?;
                }
                Err(_) => return Err(LetterError::TableMissing { table: self.table.clone() }),
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
        if let Err(error) = self.expire_letters().await {
            // Letters are stored all the same; they only stay longer.
            tracing::warn!(%error, attribute = EXPIRES_S, "dead letters do not expire: enable the table's Time to Live");
        }
        Ok(())
    }

    /// Stores a letter, or notes that it was met again.
    pub(super) async fn set_aside(&self, letter: &Letter, at_ms: u64) -> Result<Kept, LetterError> {
        match self.try_set_aside(letter, at_ms).await {
            Err(LetterError::Call(error)) if error.class == Class::NotFound => {
                self.prepare().await?;
                self.try_set_aside(letter, at_ms).await
            }
            outcome => outcome,
        }
    }

    async fn try_set_aside(&self, letter: &Letter, at_ms: u64) -> Result<Kept, LetterError> {
        let (id, stored) = (letter.id(), Stored::of(&letter.bytes));
        let expires_s = at_ms / 1_000 + self.retention.as_secs();
        let parts = stored.parts();
        if parts.len() > 1 {
            for (number, content) in parts.iter().enumerate() {
                let item = part_item(id, number, content, expires_s);
                let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
                put.send().await.map_err(|e| self.failed("PutItem", e))?;
            }
        }
        self.update(id, item::set_aside(letter, &stored, &parts, at_ms, expires_s)).await
    }

    /// Notes an attempt that failed again. `None`: there is no such letter any more.
    pub(super) async fn failed_again(
        &self,
        id: LetterId,
        reason: &str,
        at_ms: u64,
    ) -> Result<Option<Kept>, LetterError> {
        match self.update(id, item::failed_again(reason, at_ms)).await {
            Ok(kept) => Ok(Some(kept)),
            Err(LetterError::Call(error)) if error.is_code("ConditionalCheckFailedException") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn update(&self, id: LetterId, update: Update) -> Result<Kept, LetterError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(id, LETTER)))
            .update_expression(update.expression)
            .set_condition_expression(update.condition)
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values(Some(update.values))
            .return_values(aws_sdk_dynamodb::types::ReturnValue::AllNew)
            .send()
            .await
            .map_err(|e| self.failed("UpdateItem", e))?;
        self.kept(&answer.attributes.unwrap_or_default())
    }

    /// A letter with its bytes.
    pub(super) async fn get(&self, id: LetterId) -> Result<Option<(Kept, Letter)>, LetterError> {
        let mut items = self.query(id, |query| query).await?.into_iter();
        let Some(first) = items.next() else { return Ok(None) };
        if first.get("sk").and_then(|sk| sk.as_s().ok()).is_none_or(|sk| sk != LETTER) {
            // Parts without their letter are on their way to it, or left of it.
            return Ok(None);
        }
        let kept = self.kept(&first)?;
        let layout = item::layout(&first).map_err(|reason| self.wrong(&first, reason))?;
        let mut content = item::content(&first).to_vec();
        let mut parts = 0;
        for (number, part) in items.enumerate() {
            if part.get("sk").and_then(|sk| sk.as_s().ok()) == Some(&part_key(number)) {
                content.extend_from_slice(item::content(&part));
                parts += 1;
            }
        }
        if parts != layout.parts {
            return Err(self.wrong(&first, format!("{parts} of {} parts are there", layout.parts)));
        }
        let bytes = decode(layout.encoding, content).map_err(|reason| self.wrong(&first, reason))?;
        let letter = Letter { envelope: kept.envelope.clone(), bytes: bytes.into() };
        Ok(Some((kept, letter)))
    }

    /// The letters of one page of the table, without their bytes, in no order.
    pub(super) async fn list(&self, filter: &Filter, from: Option<&str>) -> Result<Page, LetterError> {
        // A page may end within a letter, after one of its parts.
        let from = match from.map(|from| from.split_once('/').unwrap_or((from, LETTER))) {
            None => None,
            Some((id, sk)) => Some(key(id.parse()?, sk)),
        };
        let (names, projection) = item::projection();
        let answer = self
            .client
            .scan()
            .table_name(&self.table)
            .set_exclusive_start_key(from)
            .projection_expression(projection)
            // Parts have no letter's key; the filter is applied after the page was read.
            .filter_expression("#sk = :letter")
            .set_expression_attribute_names(Some(names))
            .expression_attribute_values(":letter", AttributeValue::S(LETTER.to_owned()))
            .send()
            .await;
        let answer = match answer.map_err(|e| CallError::new("Scan", self.target(), e)) {
            Ok(answer) => answer,
            // Created with the first letter.
            Err(error) if error.class == Class::NotFound && self.create => return Ok(Page::default()),
            Err(error) => return Err(error.into()),
        };
        let mut letters = Vec::new();
        for item in answer.items.unwrap_or_default() {
            letters.push(self.kept(&item)?);
        }
        letters.retain(|letter| filter.matches(letter));
        let last = answer.last_evaluated_key.unwrap_or_default();
        let text = |name: &str| last.get(name).and_then(|value| value.as_s().ok());
        let next = text("pk").zip(text("sk")).map(|(pk, sk)| format!("{pk}/{sk}"));
        Ok(Page { letters, next })
    }

    /// Deletes a letter; one that is not there is deleted already.
    pub(super) async fn delete(&self, id: LetterId) -> Result<(), LetterError> {
        // The letter comes before its parts, which mean nothing without it.
        for mut item in self.query(id, |query| query.projection_expression("pk, sk")).await? {
            item.retain(|name, _| matches!(name.as_str(), "pk" | "sk"));
            let delete = self.client.delete_item().table_name(&self.table).set_key(Some(item));
            delete.send().await.map_err(|e| self.failed("DeleteItem", e))?;
        }
        Ok(())
    }

    /// The items of a letter, the letter itself first.
    async fn query(
        &self,
        id: LetterId,
        with: impl Fn(QueryFluentBuilder) -> QueryFluentBuilder,
    ) -> Result<Vec<Attributes>, LetterError> {
        let mut items = Vec::new();
        let mut from: Option<HashMap<_, _>> = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", AttributeValue::S(id.to_string()))
                .set_exclusive_start_key(from);
            let answer = with(query).send().await.map_err(|e| self.failed("Query", e))?;
            items.extend(answer.items.unwrap_or_default());
            match answer.last_evaluated_key {
                Some(key) if !key.is_empty() => from = Some(key),
                _ => return Ok(items),
            }
        }
    }

    fn kept(&self, item: &Attributes) -> Result<Kept, LetterError> {
        item::kept(item).map_err(|reason| self.wrong(item, reason))
    }

    fn wrong(&self, item: &Attributes, reason: String) -> LetterError {
        let id = item.get("pk").and_then(|pk| pk.as_s().ok()).cloned().unwrap_or_default();
        LetterError::Letter { place: self.target(), id, reason }
    }

    /// Sees to it that the table's Time to Live is on, if that is ours to do.
    async fn expire_letters(&self) -> Result<(), CallError> {
        let described = self.client.describe_time_to_live().table_name(&self.table).send().await;
        let described = described.map_err(|e| CallError::new("DescribeTimeToLive", self.target(), e))?;
        let status = described.time_to_live_description.and_then(|ttl| ttl.time_to_live_status);
        if !self.create || matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
            return Ok(());
        }
        let on = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES_S).build().ok();
        let request = self.client.update_time_to_live().table_name(&self.table);
        let answer = request.set_time_to_live_specification(on).send().await;
        answer.map(drop).map_err(|e| CallError::new("UpdateTimeToLive", self.target(), e))
    }

    fn failed<E, R>(
        &self,
        operation: &'static str,
        error: aws_smithy_runtime_api::client::result::SdkError<E, R>,
    ) -> LetterError
    where
        E: std::error::Error
            + aws_smithy_types::error::metadata::ProvideErrorMetadata
            + Send
            + Sync
            + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        CallError::new(operation, self.target(), error).into()
    }

    pub(super) fn target(&self) -> String {
        format!("dead-letter table {}", self.table)
    }
}
