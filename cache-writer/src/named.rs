//! The tables and keys that a command names: looked up before anything is done, so that what is not there is refused
//! with what there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use warmcast_cache::master::FailureClass;
use warmcast_cache::{Master, MasterError, Tables};
use warmcast_common::daemon::ConfigError;
use warmcast_common::tool::RawKey;
use warmcast_proto::key_text::KeyShape;

/// The tables that a command names, each with how its keys are written; `None` without a master that could tell.
pub type NamedTables = BTreeMap<Arc<str>, Option<KeyShape>>;

/// Looks tables up in the master, if there is one. Without it every name is taken for a table's.
///
/// # Errors
/// [`ConfigError`] for tables that the master does not have; or the master could not be asked.
pub async fn find_tables(
    names: &[String],
    master: Option<&Master>,
    configured: &Tables,
) -> Result<NamedTables, anyhow::Error> {
    let (mut found, mut problems) = (NamedTables::new(), Vec::new());
    for name in names {
        let name: Arc<str> = name.as_str().into();
        let shape = match master {
            None => None,
            Some(master) => match master.key_shape(&name).await {
                Ok(shape) => Some(shape),
                Err(error) if is_missing(&error) => {
                    problems.push(missing(&name, configured));
                    continue;
                }
                Err(error) => return Err(error.into()),
            },
        };
        found.insert(name, shape);
    }
    if problems.is_empty() { Ok(found) } else { Err(ConfigError { problems }.into()) }
}

/// The canonical bytes of a key as an operator wrote it: by the shape of its table's keys, or, where that is not known, the
/// bytes themselves ([`RawKey`]).
///
/// # Errors
/// It is no key of the table; the words say how one is written.
pub fn read_key(shape: Option<&KeyShape>, text: &str) -> Result<Bytes, String> {
    match shape {
        Some(shape) => shape.parse(text).map(|key| key.into_bytes()).map_err(|error| error.to_string()),
        None => text.parse().map(|RawKey(key)| key.into()).map_err(|error| format!("{error}")),
    }
}

fn is_missing(error: &MasterError) -> bool {
    matches!(error, MasterError::Call { failure, .. } if failure.class == FailureClass::NotFound)
}

fn missing(name: &str, configured: &Tables) -> String {
    let known: Vec<&str> = configured.named.keys().map(|name| &**name).collect();
    let known = match known.as_slice() {
        [] => String::new(),
        known => format!("; the configuration names {}", known.join(", ")),
    };
    format!("the master has no table {name}{known}")
}
