//! Items of the state table, to and from DynamoDB's attribute values.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::CallError;

use super::super::compatibility::STATE_VERSION;
use super::{StateStore, StoreError};

/// The least version that reads the items which this version writes, but for those that say another one.
pub(super) const FORMAT: u64 = 1;

/// An item as the SDK has it.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// An item that is being read.
pub(super) struct Item<'a> {
    pub(super) table: &'a str,
    pub(super) attributes: &'a Attributes,
}

impl Item<'_> {
    pub(super) fn text(&self, name: &str) -> Result<&str, StoreError> {
        self.optional_text(name)?.ok_or_else(|| self.wrong(format!("{name} is missing")))
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&str>, StoreError> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(format!("{name} is not a string"))),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, StoreError> {
        match self.attributes.get(name) {
            Some(AttributeValue::N(digits)) => {
                digits.parse().map_err(|_| self.wrong(format!("{name} is not a whole number: {digits:?}")))
            }
            Some(_) => Err(self.wrong(format!("{name} is not a number"))),
            None => Err(self.wrong(format!("{name} is missing"))),
        }
    }

    pub(super) fn optional_number(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.attributes.contains_key(name).then(|| self.number(name)).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, StoreError> {
        match self.attributes.get(name) {
            None => Ok(false),
            Some(AttributeValue::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(format!("{name} is not a boolean"))),
        }
    }

    pub(super) fn text_set(&self, name: &str) -> Result<Vec<String>, StoreError> {
        match self.attributes.get(name) {
            None => Ok(Vec::new()),
            Some(AttributeValue::Ss(texts)) => Ok(texts.clone()),
            Some(_) => Err(self.wrong(format!("{name} is not a set of strings"))),
        }
    }

    /// The least version that reads it. An item that does not say is of the first.
    pub(super) fn format(&self) -> Result<u64, StoreError> {
        Ok(self.optional_number("format")?.unwrap_or(1))
    }

    /// Refuses an item that takes a later version.
    pub(super) fn check_format(&self) -> Result<(), StoreError> {
        match self.format()? {
            format if format <= STATE_VERSION => Ok(()),
            other => Err(self.wrong(format!("format {other} is not known to this version"))),
        }
    }

    pub(super) fn wrong(&self, reason: String) -> StoreError {
        let key = |name| match self.attributes.get(name) {
            Some(AttributeValue::S(text)) => text.clone(),
            _ => String::new(),
        };
        StoreError::Item { table: self.table.to_owned(), pk: key("pk"), sk: key("sk"), reason }
    }
}

/// The key of an item.
pub(super) fn key(pk: impl Into<String>, sk: impl Into<String>) -> Attributes {
    HashMap::from([("pk".to_owned(), s(pk)), ("sk".to_owned(), s(sk))])
}

/// A new item with its key and the layout's version.
pub(super) fn new_item(pk: impl Into<String>, sk: impl Into<String>) -> Attributes {
    let mut item = key(pk, sk);
    item.insert("format".to_owned(), n(FORMAT));
    item
}

pub(super) fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn n(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

impl StateStore {
    /// One item, strongly consistent.
    pub(super) async fn get(&self, key: Attributes) -> Result<Option<Attributes>, CallError> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = request.set_key(Some(key)).send().await;
        Ok(self.answered("GetItem", answer)?.item)
    }

    /// Every item of a partition, page by page.
    pub(super) async fn query(&self, pk: &str, consistent: bool) -> Result<Vec<Attributes>, CallError> {
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(consistent)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", s(pk))
                .set_exclusive_start_key(from)
                .send()
                .await;
            let answer = self.answered("Query", answer)?;
            items.extend(answer.items.unwrap_or_default());
            match answer.last_evaluated_key {
                Some(key) if !key.is_empty() => from = Some(key),
                _ => return Ok(items),
            }
        }
    }

    /// Writes an item where there is none. Returns whether there was none.
    pub(super) async fn put_new(&self, item: Attributes) -> Result<bool, CallError> {
        let answer = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await;
        let answer = self.answered("PutItem", answer);
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.is_code("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(error),
        }
    }
}
