//! Which stream a lease is of, and whether that is the stream that we read.
//!
//! Only applications with several streams write it down, as `ACCOUNT:STREAM:EPOCH`, where EPOCH is the time of the
//! stream's creation in seconds, as the application was told it. The adapter for DynamoDB Streams makes a STREAM of
//! a stream's ARN, `REGION$ACCOUNT$TABLE$LABEL` with `_` for each `:` of the label, and an EPOCH of 1.

use std::collections::BTreeMap;
use std::fmt;

use super::lease::KclLease;

/// A stream as an application with several of them names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KclStream {
    /// The AWS account.
    pub account: String,
    /// The stream's name.
    pub name: String,
    /// When it was created, in seconds since the epoch, as the application was told.
    pub epoch: u64,
}

/// Whether KCL's stream is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// As far as the names tell.
    Same,
    /// The names are the same, but not the times of creation: it may have been made anew since, or the application
    /// was told another time. KCL does not check it.
    OtherEpoch,
    /// It is another one.
    Other,
}

/// Why no stream of the table was selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// There are several.
    #[error("the lease table has several streams: name one with --kcl-stream: {}", streams.join(", "))]
    Several {
        /// Their identifiers.
        streams: Vec<String>,
    },
    /// None has the name that was given.
    #[error("--kcl-stream {wanted}: the lease table has no such stream; it has: {}", streams.join(", "))]
    NoSuch {
        /// The name.
        wanted: String,
        /// The identifiers of those that there are.
        streams: Vec<String>,
    },
    /// The table has the leases of one stream, and does not name it.
    #[error(
        "--kcl-stream {wanted}: the lease table does not name its stream, which is that of a KCL application with \
         one stream only; leave the flag out if it is this one"
    )]
    Unnamed {
        /// The name.
        wanted: String,
    },
}

impl KclStream {
    /// Reads `ACCOUNT:STREAM:EPOCH`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (account, name, epoch) = (parts.next()?, parts.next()?, parts.next()?);
        let good = parts.next().is_none()
            && !account.is_empty()
            && account.bytes().all(|b| b.is_ascii_digit())
            && !name.is_empty();
        let epoch = epoch.parse().ok()?;
        good.then(|| Self { account: account.to_owned(), name: name.to_owned(), epoch })
    }

    /// The table, and the end of the ARN, of a DynamoDB stream.
    fn dynamodb(&self) -> Option<(&str, String)> {
        let mut parts = self.name.split('$');
        let (region, account) = (parts.next()?, parts.next()?);
        let (table, label) = (parts.next()?, parts.next()?.replace('_', ":"));
        let end = format!(":dynamodb:{region}:{account}:table/{table}/stream/{label}");
        parts.next().is_none().then_some((table, end))
    }

    /// Whether it is the stream that our leases name `ours`: the ARN of a DynamoDB stream, or the ARN of a Kinesis
    /// stream with `@` and the time of its creation in seconds.
    pub fn sameness(&self, ours: &str) -> Sameness {
        let same = |same: bool| if same { Sameness::Same } else { Sameness::Other };
        if let Some((_, arn_end)) = self.dynamodb() {
            return same(ours.ends_with(&arn_end));
        }
        let (arn, created) = ours.rsplit_once('@').unwrap_or((ours, ""));
        if !arn.ends_with(&format!(":{}:stream/{}", self.account, self.name)) {
            return Sameness::Other;
        }
        if created.parse() == Ok(self.epoch) { Sameness::Same } else { Sameness::OtherEpoch }
    }

    fn is_called(&self, wanted: &str) -> bool {
        self.to_string() == wanted
            || self.name == wanted
            || self.dynamodb().is_some_and(|(table, _)| table == wanted)
    }
}

impl fmt::Display for KclStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.account, self.name, self.epoch)
    }
}

/// The leases of one stream: the one that is `wanted`, or the only one that there is.
///
/// # Errors
/// When that is not one stream.
pub fn select(
    leases: Vec<KclLease>,
    wanted: Option<&str>,
) -> Result<(Option<KclStream>, Vec<KclLease>), SelectError> {
    let mut by_stream: BTreeMap<Option<KclStream>, Vec<KclLease>> = BTreeMap::new();
    for lease in leases {
        by_stream.entry(lease.stream.clone()).or_default().push(lease);
    }
    let names = |streams: &BTreeMap<Option<KclStream>, _>| -> Vec<String> {
        let name = |stream: &Option<KclStream>| {
            stream.as_ref().map_or_else(|| "one without a name".to_owned(), ToString::to_string)
        };
        streams.keys().map(name).collect()
    };
    let all = names(&by_stream);
    if let Some(wanted) = wanted {
        if by_stream.keys().all(Option::is_none) && !by_stream.is_empty() {
            return Err(SelectError::Unnamed { wanted: wanted.to_owned() });
        }
        by_stream.retain(|stream, _| stream.as_ref().is_some_and(|stream| stream.is_called(wanted)));
        if by_stream.is_empty() {
            return Err(SelectError::NoSuch { wanted: wanted.to_owned(), streams: all });
        }
    }
    if by_stream.len() > 1 {
        return Err(SelectError::Several { streams: names(&by_stream) });
    }
    Ok(by_stream.pop_first().unwrap_or_default())
}

#[cfg(test)]
mod tests;
