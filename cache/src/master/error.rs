//! Why an item could not be read from the master.

use std::{sync::Arc, time::Duration};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::key::KeyError;

/// Why an item was not read. The cache is as it was: its reader has a miss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterError {
    /// Not tried, to spare the master and whoever waits. It may be another time.
    #[error("the read of table {table} was not tried: {reason}")]
    Shed {
        /// The table.
        table: Arc<str>,
        /// Why.
        reason: ShedReason,
    },
    /// No answer in time: it waited for its turn or for the budget, or DynamoDB did not process it.
    #[error("no answer to a read of table {table} within {after:?}")]
    Timeout {
        /// The table.
        table: Arc<str>,
        /// The configured `read_timeout`.
        after: Duration,
    },
    /// DynamoDB refused the call, or could not be reached.
    #[error("{operation} on table {table}: {failure}")]
    Call {
        /// `BatchGetItem`, `DescribeTable` or `Scan`.
        operation: &'static str,
        /// The table.
        table: Arc<str>,
        /// What happened, and what to do.
        failure: Failure,
    },
    /// The bytes are no key of this table.
    #[error("no key of table {table}: {reason}")]
    Key {
        /// The table.
        table: Arc<str>,
        /// Why.
        reason: KeyError,
    },
    /// DynamoDB described the table, or answered, in a way that this version cannot use.
    #[error("table {table}: {what}")]
    Answer {
        /// The table.
        table: Arc<str>,
        /// What was wrong.
        what: Arc<str>,
    },
    /// The worker has ended: the runtime that it was made in is gone.
    #[error("reads of the master have ended with the runtime that they were started in")]
    Stopped,
}

/// Why a read was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShedReason {
    /// Too many calls failed or were slow.
    #[error("the breaker is open, because too many reads failed or were slow; again in {retry_after:?}")]
    Breaker {
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// As many keys wait as may.
    #[error("{keys_max} keys wait already (queue_keys_max)")]
    QueueFull {
        /// The bound.
        keys_max: usize,
    },
}

/// What became of a call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", self.class.remedy())]
pub struct Failure {
    /// What to do about it.
    pub class: FailureClass,
    /// The service's error code, if it answered with one.
    pub code: Option<Arc<str>>,
    /// What the service or the connection said.
    pub message: Arc<str>,
}

/// What to do about a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// The table gives less than is asked of it: passes, or needs more capacity.
    Throttled,
    /// A connection, a timeout, a 5xx answer: likely to pass.
    Transient,
    /// Credentials or permissions.
    Denied,
    /// There is no such table.
    NotFound,
    /// The call itself is wrong.
    Permanent,
}

impl FailureClass {
    /// Sending the call again may help.
    pub(crate) const fn passes(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient)
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Throttled => " (raise the table's capacity, or lower read_units_per_second_max)",
            Self::Transient => " (check the endpoint and the network, if it lasts)",
            Self::Denied => {
                " (check the credentials, the region, and the permissions dynamodb:BatchGetItem, \
                 dynamodb:DescribeTable and, to walk through tables, dynamodb:Scan)"
            }
            Self::NotFound => " (check the table's name and the region)",
            Self::Permanent => "",
        }
    }

    /// What is not known is taken for passing: trying again does no harm.
    fn of_code(code: &str) -> Self {
        match code {
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "TooManyRequestsException" => Self::Throttled,
            "AccessDeniedException"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "ExpiredTokenException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "IncompleteSignatureException"
            | "OptInRequired" => Self::Denied,
            "ResourceNotFoundException" | "TableNotFoundException" => Self::NotFound,
            "ValidationException" | "SerializationException" | "UnknownOperationException" => Self::Permanent,
            _ => Self::Transient,
        }
    }
}

impl Failure {
    pub(crate) fn timeout(after: Duration) -> Self {
        Self {
            class: FailureClass::Transient,
            code: None,
            message: format!("no answer within {after:?} (call_timeout)").into(),
        }
    }

    pub(crate) fn new<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let answered = error.as_service_error();
        let code = answered.and_then(ProvideErrorMetadata::code);
        let message = match (code, answered.and_then(ProvideErrorMetadata::message)) {
            (Some(code), Some(text)) => format!("{code}: {text}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => chain(error),
        };
        let class = match (code, error) {
            (Some(code), _) => FailureClass::of_code(code),
            // No credentials to be had is a failure before the call leaves.
            (None, SdkError::ConstructionFailure(_)) => FailureClass::Denied,
            (None, SdkError::DispatchFailure(failure)) if failure.is_user() => FailureClass::Denied,
            (None, _) => FailureClass::Transient,
        };
        Self { class, code: code.map(Arc::from), message: message.into() }
    }

    pub(crate) fn is_validation(&self) -> bool {
        self.code.as_deref() == Some("ValidationException")
    }
}

/// What an error says, and what those behind it say. The SDK's own `DisplayErrorContext` adds the error's `Debug`, which
/// has the whole answer in it, a row say, where that could not be read.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

impl MasterError {
    /// It was not even tried.
    #[must_use]
    pub const fn is_shed(&self) -> bool {
        matches!(self, Self::Shed { .. })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::operation::get_item::GetItemError;

    use super::*;

    #[test]
    fn codes_say_what_to_do_and_the_unknown_may_pass() {
        let class = FailureClass::of_code;
        assert_eq!(class("ProvisionedThroughputExceededException"), FailureClass::Throttled);
        assert_eq!(class("UnrecognizedClientException"), FailureClass::Denied);
        assert_eq!(class("ResourceNotFoundException"), FailureClass::NotFound);
        assert_eq!(class("ValidationException"), FailureClass::Permanent);
        assert_eq!(class("SomethingNew"), FailureClass::Transient);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_in_the_error() {
        let error = SdkError::<GetItemError, &str>::response_error("it ends too early", "hunter2");
        let failure = Failure::new(&error);
        assert_eq!(failure.class, FailureClass::Transient);
        assert_eq!(&*failure.message, "response error: it ends too early");
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }

    #[test]
    fn errors_name_what_failed_and_what_to_do() {
        let failure = Failure {
            class: FailureClass::NotFound,
            code: Some("ResourceNotFoundException".into()),
            message: "ResourceNotFoundException: no such table".into(),
        };
        let error = MasterError::Call { operation: "DescribeTable", table: "profiles".into(), failure };
        assert_eq!(
            error.to_string(),
            "DescribeTable on table profiles: ResourceNotFoundException: no such table (check the table's name \
             and the region)"
        );
    }
}
