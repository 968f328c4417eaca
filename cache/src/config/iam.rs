//! Logging in to Amazon ElastiCache with an AWS identity in place of a password.

use std::{fmt, time::Duration};

use aws_credential_types::provider::SharedCredentialsProvider;

/// ElastiCache cuts a connection that was logged in so long ago (AWS: ElastiCache, "Authenticating with IAM").
pub(crate) const CUT_AFTER: Duration = Duration::from_hours(12);

/// Logging in to a cache of Amazon ElastiCache with an AWS identity: each connection shows a token, which is a signed
/// request that is good for 15 minutes, and shows another one before the server cuts it after 12 hours.
///
/// The name of the user is [`CacheConfig::username`](super::CacheConfig::username); ElastiCache wants a user with IAM
/// authentication whose id and name are the same. The identity needs `elasticache:Connect` on the cache and on the user.
/// TLS is required.
#[derive(Clone)]
pub struct Iam {
    /// The id of the replication group, or the name of the serverless cache.
    pub cache_name: String,
    /// The AWS region that it is in.
    pub region: String,
    /// It is a serverless cache.
    pub serverless: bool,
    /// Who we are. `SdkConfig::credentials_provider` of the crate aws-config has the SDK's default chain.
    pub credentials: SharedCredentialsProvider,
    /// How long after a connection logged in it does so again; up to an eighth earlier, so that not all do it at once.
    pub renew_after: Duration,
    /// How long after a connection last logged in successfully it is replaced by a new one. Longer than
    /// `renew_after`, and shorter than the 12 hours of the server by more than the pauses between attempts, which grow
    /// to 5 minutes.
    pub replace_after: Duration,
}

impl Iam {
    /// For a cache that is not serverless, with the default intervals: 6 hours and 11 hours.
    #[must_use]
    pub fn new(
        cache_name: impl Into<String>,
        region: impl Into<String>,
        credentials: SharedCredentialsProvider,
    ) -> Self {
        Self {
            cache_name: cache_name.into(),
            region: region.into(),
            serverless: false,
            credentials,
            renew_after: Duration::from_hours(6),
            replace_after: Duration::from_hours(11),
        }
    }

    /// What cannot be used of it.
    pub(crate) fn violation(&self) -> Option<&'static str> {
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !is_plain(&self.cache_name) || !is_plain(&self.region) {
            return Some("IAM authentication needs the cache's name and region: letters, digits and hyphens");
        }
        let is_in_order = self.renew_after < self.replace_after && self.replace_after < CUT_AFTER;
        (!is_in_order || self.renew_after.is_zero())
            .then_some("IAM authentication: renew_after < replace_after < 12 hours is needed")
    }
}

/// Without the credentials, whatever their provider shows of them.
impl fmt::Debug for Iam {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Iam")
            .field("cache_name", &self.cache_name)
            .field("region", &self.region)
            .field("serverless", &self.serverless)
            .field("renew_after", &self.renew_after)
            .field("replace_after", &self.replace_after)
            .finish_non_exhaustive()
    }
}
