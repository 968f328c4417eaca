//! What the state table was called for, and with what result: each call is billed.

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::StateStore;
use crate::aws::CallError;
use crate::metrics::CounterSet;
use crate::retry::Class;

/// The operations that are counted by themselves.
const OPERATIONS: [&str; 7] =
    ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "TransactWriteItems", "other"];
const RESULTS: [&str; 4] = ["ok", "refused", "throttled", "failed"];

/// Calls to the state table since the process started.
#[derive(Debug)]
pub struct StateCalls([(&'static str, CounterSet); OPERATIONS.len()]);

impl Default for StateCalls {
    fn default() -> Self {
        Self(OPERATIONS.map(|operation| (operation, CounterSet::new(&RESULTS))))
    }
}

impl StateCalls {
    /// Each operation with each result, and how often there was that.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let of = |(operation, results): &'_ (&'static str, CounterSet)| {
            let operation = *operation;
            results.iter().map(move |(result, count)| (operation, result, count)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of)
    }

    fn count<T>(&self, operation: &'static str, answer: &Result<T, CallError>) {
        let result = match answer {
            Ok(_) => "ok",
            Err(error) if is_refused(error) => "refused",
            Err(error) if error.class == Class::Throttled => "throttled",
            Err(_) => "failed",
        };
        let found = self.0.iter().find(|(known, _)| *known == operation).or_else(|| self.0.last());
        if let Some((_, results)) = found {
            results.add(result, 1);
        }
    }
}

/// Whether a condition was not met: somebody else was faster.
fn is_refused(error: &CallError) -> bool {
    error.is_code("ConditionalCheckFailedException") || error.is_code("TransactionCanceledException")
}

impl StateStore {
    /// What it was called for.
    pub fn calls(&self) -> &StateCalls {
        &self.calls
    }

    /// Reads the answer to a call, and counts it.
    pub(super) fn answered<T, E, R>(
        &self,
        operation: &'static str,
        answer: Result<T, SdkError<E, R>>,
    ) -> Result<T, CallError>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let answer = answer.map_err(|error| CallError::new(operation, self.target(), error));
        self.calls.count(operation, &answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: &str, class: Class) -> Result<(), CallError> {
        let (target, message) = (String::new(), String::new());
        Err(CallError { operation: "PutItem", target, class, code: Some(code.to_owned()), message })
    }

    #[test]
    fn calls_are_counted_by_what_came_of_them() {
        let calls = StateCalls::default();
        calls.count("PutItem", &Ok(()));
        calls.count("PutItem", &failed("ConditionalCheckFailedException", Class::Transient));
        calls.count("PutItem", &failed("ThrottlingException", Class::Throttled));
        calls.count("BatchGetItem", &failed("AccessDeniedException", Class::Denied));
        let counted: Vec<_> = calls.iter().filter(|(.., count)| *count > 0).collect();
        assert_eq!(
            counted,
            [
                ("PutItem", "ok", 1),
                ("PutItem", "refused", 1),
                ("PutItem", "throttled", 1),
                ("other", "failed", 1)
            ]
        );
        assert_eq!(calls.iter().count(), 28, "all are there from the start");
    }
}
