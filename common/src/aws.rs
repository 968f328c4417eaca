//! AWS clients as both daemons use them, and what their errors mean.
//!
//! The SDK's retries are off: the code that makes a call retries it ([`crate::retry`]). Its timeouts are on:
//! by default a call whose answer never comes waits for ever.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::sync::OnceCell;

use crate::config::ServiceConfig;
use crate::retry::Class;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Builds the shared SDK configuration of one service.
pub async fn sdk_config(service: &ServiceConfig) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(region) = &service.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &service.endpoint {
        loader = loader.endpoint_url(endpoint.clone());
    }
    if let Some(fixed) = &service.credentials {
        loader = loader.credentials_provider(Credentials::new(
            fixed.access_key_id.clone(),
            fixed.secret_access_key.expose(),
            fixed.session_token.as_ref().map(|token| token.expose().to_owned()),
            None,
            "warmcast configuration",
        ));
    }
    loader.load().await
}

/// The credentials that the calls to a service are made with, for what signs by itself. Where they come from is found out
/// when they are first asked for.
#[derive(Debug)]
pub struct ServiceCredentials {
    service: ServiceConfig,
    provider: OnceCell<Option<SharedCredentialsProvider>>,
}

impl ServiceCredentials {
    /// Those of this service.
    pub fn new(service: ServiceConfig) -> Self {
        Self { service, provider: OnceCell::new() }
    }
}

impl ProvideCredentials for ServiceCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let load = async || sdk_config(&self.service).await.credentials_provider();
            let provider = self.provider.get_or_init(load).await.as_ref();
            provider.ok_or_else(CredentialsError::not_loaded_no_source)?.provide_credentials().await
        })
    }
}

/// An AWS call that failed: which, on what, why, and what it means.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} on {target}: {message}{}", remedy(*class, code.is_some()))]
pub struct CallError {
    /// The API operation, `GetRecords` say.
    pub operation: &'static str,
    /// What it was called on: a table, a stream, a shard.
    pub target: String,
    /// What to do about it.
    pub class: Class,
    /// The service's error code, if it answered with one.
    pub code: Option<String>,
    /// What the service or the connection said.
    pub message: String,
}

impl CallError {
    /// Reads an SDK error.
    pub fn new<E, R>(operation: &'static str, target: impl Into<String>, error: SdkError<E, R>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let answered = error.as_service_error();
        let code = answered.and_then(|e| e.code()).map(str::to_owned);
        let message = match answered {
            Some(e) => match (e.code(), e.message()) {
                (Some(code), Some(text)) => format!("{code}: {text}"),
                (Some(code), None) => code.to_owned(),
                (None, _) => chain(e),
            },
            None => chain(&error),
        };
        let class = classify(&error, code.as_deref());
        Self { operation, target: target.into(), class, code, message }
    }

    /// Whether the service answered with this error code.
    pub fn is_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// What an error says, and what those behind it say. The SDK's own `DisplayErrorContext` adds the error's `Debug`, which
/// has the whole answer in it where that could not be read.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

fn classify<E, R>(error: &SdkError<E, R>, code: Option<&str>) -> Class {
    match code {
        Some(code) => class_of_code(code),
        None => match error {
            // No credentials to be had is a construction or dispatch failure of the identity step.
            SdkError::DispatchFailure(failure) if failure.is_user() => Class::Denied,
            SdkError::ConstructionFailure(_) => Class::Denied,
            _ => Class::Transient,
        },
    }
}

/// What a service's error code means. A code that is not known is taken for transient: a retry with backoff
/// does no harm, and giving up might.
pub fn class_of_code(code: &str) -> Class {
    match code {
        "LimitExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "ProvisionedThroughputExceededException"
        | "KMSThrottlingException"
        | "TooManyRequestsException" => Class::Throttled,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException"
        | "IncompleteSignature"
        | "OptInRequired"
        | "KMSAccessDeniedException" => Class::Denied,
        "ResourceNotFoundException" | "TableNotFoundException" => Class::NotFound,
        "ValidationException"
        | "SerializationException"
        | "InvalidArgumentException"
        | "UnknownOperationException" => Class::Permanent,
        _ => Class::Transient,
    }
}

/// What a person can do about an error of this class, to be appended to its message.
fn remedy(class: Class, answered: bool) -> &'static str {
    match class {
        Class::Denied => " (check the credentials, their permissions and the region)",
        Class::NotFound => " (check the name and the region, or create it)",
        Class::Transient if !answered => " (check the endpoint and the network, if it lasts)",
        Class::Transient | Class::Throttled | Class::Permanent => "",
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::operation::get_item::GetItemError;

    use super::*;
    use crate::config::{Secret, StaticCredentials};

    #[test]
    fn throttling_has_two_forms_and_the_unknown_is_tried_again() {
        assert_eq!(class_of_code("LimitExceededException"), Class::Throttled);
        assert_eq!(class_of_code("ThrottlingException"), Class::Throttled);
        assert_eq!(class_of_code("UnrecognizedClientException"), Class::Denied);
        assert_eq!(class_of_code("ResourceNotFoundException"), Class::NotFound);
        assert_eq!(class_of_code("SomethingNew"), Class::Transient);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_in_the_error() {
        let error = SdkError::<GetItemError, &str>::response_error("it ends too early", "hunter2");
        let error = CallError::new("GetItem", "table profiles", error);
        assert_eq!(error.class, Class::Transient);
        assert_eq!(error.message, "response error: it ends too early");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn an_unreachable_endpoint_is_transient_and_named() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let service = ServiceConfig {
            region: Some("eu-west-1".to_owned()),
            endpoint: Some(format!("http://{closed}")),
            credentials: Some(StaticCredentials {
                access_key_id: "a".to_owned(),
                secret_access_key: Secret::new("hunter2"),
                session_token: None,
            }),
        };
        let client = aws_sdk_dynamodb::Client::new(&sdk_config(&service).await);
        let error = client.describe_table().table_name("profiles").send().await.unwrap_err();
        let error = CallError::new("DescribeTable", "table profiles", error);
        assert_eq!(error.class, Class::Transient);
        assert!(error.to_string().starts_with("DescribeTable on table profiles: "), "{error}");
        assert!(error.to_string().ends_with("(check the endpoint and the network, if it lasts)"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
