//! The errors of the service, as they are on the wire, and those of a script that names what is not there.

use std::borrow::Cow;

/// An error code of DynamoDB Streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// `LimitExceededException`: throttling as the API documents it.
    LimitExceeded,
    /// `ThrottlingException`: throttling by the front end. Its type on the wire has no namespace, and the SDK has no
    /// type for it.
    Throttling,
    /// `ExpiredIteratorException`: the iterator is older than 15 minutes.
    ExpiredIterator,
    /// `TrimmedDataAccessException`: the records at the position are older than 24 hours and gone.
    TrimmedDataAccess,
    /// `ResourceNotFoundException`: no such stream or shard.
    ResourceNotFound,
    /// `InternalServerError`, the only one with HTTP status 500.
    InternalServer,
    /// `ValidationException`: a field is missing, malformed or out of range.
    Validation,
    /// `SerializationException`: the body is not JSON of the expected shape.
    Serialization,
    /// `UnknownOperationException`: no such operation.
    UnknownOperation,
}

impl ErrorCode {
    /// What `__type` says.
    #[must_use]
    pub fn wire_type(self) -> &'static str {
        match self {
            Self::LimitExceeded => "com.amazonaws.dynamodb.v20120810#LimitExceededException",
            Self::Throttling => "ThrottlingException",
            Self::ExpiredIterator => "com.amazonaws.dynamodb.v20120810#ExpiredIteratorException",
            Self::TrimmedDataAccess => "com.amazonaws.dynamodb.v20120810#TrimmedDataAccessException",
            Self::ResourceNotFound => "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException",
            Self::InternalServer => "com.amazonaws.dynamodb.v20120810#InternalServerError",
            Self::Validation => "com.amazon.coral.validate#ValidationException",
            Self::Serialization => "com.amazon.coral.service#SerializationException",
            Self::UnknownOperation => "com.amazon.coral.service#UnknownOperationException",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        if self == Self::InternalServer { 500 } else { 400 }
    }

    /// What the service says with it when there is no more to say.
    fn message(self) -> &'static str {
        match self {
            Self::LimitExceeded => "Subscriber limit exceeded",
            Self::Throttling => "Rate exceeded",
            Self::ExpiredIterator => {
                "The provided iterator exceeds the maximum age allowed: Iterator expired."
            }
            Self::TrimmedDataAccess => "The data you are trying to access has been trimmed.",
            Self::ResourceNotFound => "Requested resource not found",
            Self::InternalServer => "Internal server error",
            Self::Validation => "Invalid request",
            Self::Serialization => "The request body is not what the operation expects",
            Self::UnknownOperation => "The requested operation is not supported",
        }
    }
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    pub(super) message: Cow<'static, str>,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn no_stream(arn: &str) -> Self {
        Self::new(
            ErrorCode::ResourceNotFound,
            format!("Requested resource not found: Stream: {arn} not found"),
        )
    }

    pub(super) fn no_shard() -> Self {
        Self::new(ErrorCode::ResourceNotFound, "Requested resource not found: Shard does not exist")
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.message())
    }
}

/// A script of a test does not fit the state of the fake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// No stream with this ARN was created, or it was deleted or has aged out.
    #[error("no stream {0}: create it first")]
    NoStream(String),
    /// The stream has no such shard, or it has aged out.
    #[error("no shard {shard} in {stream}")]
    NoShard {
        /// The stream's ARN.
        stream: String,
        /// The id that was asked for.
        shard: String,
    },
    /// A closed shard takes no records and closes once.
    #[error("the shard {0} is closed: use one of its children")]
    ShardClosed(String),
    /// A stream is created once.
    #[error("the stream {0} is there already: give another label")]
    StreamExists(String),
}
