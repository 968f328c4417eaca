//! Which letters a command means, as an operator says it.

use clap::Args;

use super::filter::Filter;
use super::letter::ReasonClass;
use crate::tool::{Moment, RawKey};

/// The flags that choose letters; what is not given is not asked.
#[derive(Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// Only letters of this source: a daemon (cache-writer), or a daemon and its region (cache-writer/eu-west-1).
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
    /// Only letters whose reason contains this text.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only letters of this class: undecodable-record, undecodable-change or refused.
    #[arg(long, value_name = "CLASS", value_parser = class)]
    pub class: Option<ReasonClass>,
    /// Only letters of this table.
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Only letters of this key, written as they are listed: bytes that are no plain text as \xNN.
    #[arg(long, value_name = "KEY")]
    pub key: Option<RawKey>,
    /// Only letters that were last set aside or tried then or later: 15m, 2h, a time, or milliseconds since the epoch.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Only letters that were last set aside or tried before then.
    #[arg(long, value_name = "TIME")]
    pub before: Option<Moment>,
}

impl FilterArgs {
    /// The letters that are meant.
    pub fn filter(&self) -> Filter {
        Filter {
            source: self.source.clone(),
            reason: self.reason.clone(),
            class: self.class,
            since_ms: self.since.map(Moment::ms),
            before_ms: self.before.map(Moment::ms),
            table: self.table.clone(),
            key: self.key.clone().map(|RawKey(bytes)| bytes),
        }
    }
}

fn class(name: &str) -> Result<ReasonClass, String> {
    let names = || ReasonClass::ALL.map(ReasonClass::as_str).join(", ");
    ReasonClass::named(name).ok_or_else(|| format!("there are {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_there_is_not_is_refused_with_those_that_there_are() {
        assert_eq!(class("refused"), Ok(ReasonClass::Refused));
        assert!(class("other").unwrap_err().contains("undecodable-record, undecodable-change, refused"));
    }
}
