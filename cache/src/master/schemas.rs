//! The primary keys of tables: described once, then remembered.
//!
//! A key schema never changes while its table lives. One call describes a table for everybody who waits for it,
//! and a failure is remembered for a moment: DescribeTable has a low limit of its own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_sdk_dynamodb::Client;
use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};

use super::{
    error::{Failure, MasterError},
    key::KeySchema,
};

/// How long a failure is believed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The most tables remembered (AWS: DynamoDB quotas, 10,000 tables per account and region at most). Beyond it,
/// all are forgotten: names that are no tables cannot fill the memory.
const TABLES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Schemas {
    tables: Mutex<HashMap<Arc<str>, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    schema: OnceCell<Arc<KeySchema>>,
    failure: Mutex<Option<(Instant, MasterError)>>,
}

impl Schemas {
    /// The table's primary key, within this time.
    pub(crate) async fn get(
        &self,
        client: &Client,
        table: &Arc<str>,
        timeout: Duration,
    ) -> Result<Arc<KeySchema>, MasterError> {
        let slot = self.slot(table);
        let described = slot.schema.get_or_try_init(|| async {
            let failed = slot.failure.lock().clone();
            if let Some((_, error)) = failed.filter(|(at, _)| at.elapsed() < FAILURE_PAUSE) {
                return Err(error);
            }
            let described = describe(client, table, timeout).await;
            if let Err(error) = &described {
                *slot.failure.lock() = Some((Instant::now(), error.clone()));
            }
            described
        });
        described.await.cloned()
    }

    /// Forgets a table: what was known of it does not fit.
    pub(crate) fn forget(&self, table: &str) {
        self.tables.lock().remove(table);
    }

    fn slot(&self, table: &Arc<str>) -> Arc<Slot> {
        let mut tables = self.tables.lock();
        if let Some(slot) = tables.get(table) {
            return Arc::clone(slot);
        }
        if tables.len() >= TABLES_MAX {
            tables.clear();
        }
        Arc::clone(tables.entry(Arc::clone(table)).or_default())
    }
}

async fn describe(
    client: &Client,
    table: &Arc<str>,
    timeout: Duration,
) -> Result<Arc<KeySchema>, MasterError> {
    let failed =
        |failure| MasterError::Call { operation: "DescribeTable", table: Arc::clone(table), failure };
    let call = client.describe_table().table_name(&**table).send();
    let answer = tokio::time::timeout(timeout, call)
        .await
        .map_err(|_| failed(Failure::timeout(timeout)))?
        .map_err(|error| failed(Failure::new(&error)))?;
    let schema = answer.table().and_then(KeySchema::of);
    let what = "it was described without a primary key of strings, numbers or binaries";
    schema.map(Arc::new).ok_or_else(|| MasterError::Answer { table: Arc::clone(table), what: what.into() })
}
