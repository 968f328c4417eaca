//! The tokens of ElastiCache's authentication by IAM: what a connection shows in place of a password.
//!
//! A token is a request to the service `elasticache` that is never sent: its URL, signed in its query as for S3's
//! presigned downloads, without the scheme (AWS: ElastiCache, "Authenticating with IAM"). The server checks it as the
//! service would.

use std::time::{Duration, SystemTime};

use aws_credential_types::{Credentials, provider::error::CredentialsError};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{Iam, Secret};

/// How long a token is good for logging in: as long as the service allows.
const GOOD_FOR: Duration = Duration::from_mins(15);

/// How long one token is used for new connections: long enough for a burst of them, and short enough for a server
/// whose clock is behind ours.
const USED_FOR: Duration = Duration::from_mins(5);

/// What is not encoded in a query that is signed (AWS: Signature Version 4, `UriEncode`).
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There are no AWS credentials to sign it with.
    #[error("get AWS credentials for its token: {reason}")]
    Credentials {
        /// What their provider says.
        reason: String,
        /// It may pass by itself: the service that has them did not answer.
        may_pass: bool,
    },
    /// It cannot be signed.
    #[error("sign its token: {reason}")]
    Signature {
        /// What is wrong.
        reason: String,
    },
}

impl TokenError {
    pub(crate) fn from_provider(error: &CredentialsError) -> Self {
        let may_pass = !matches!(
            error,
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)
        );
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::Credentials { reason: format!("{error}{cause}"), may_pass }
    }
}

/// The token by which `user` logs in, signed with these credentials at this time.
///
/// Connections make their own. This is for other clients of the same cache: `redis-cli`, say.
///
/// # Errors
/// It cannot be signed.
pub fn token(
    iam: &Iam,
    user: &str,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<Secret, TokenError> {
    let failed = |error: &dyn std::fmt::Display| TokenError::Signature { reason: error.to_string() };
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(GOOD_FOR);
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&iam.region)
        .name("elasticache")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?
        .into();
    // The service knows names in lower case only.
    let mut url = format!("{}/?Action=connect", iam.cache_name.to_ascii_lowercase());
    append(&mut url, "User", user);
    if iam.serverless {
        append(&mut url, "ResourceType", "ServerlessCache");
    }
    let whole = format!("https://{url}");
    let request = SignableRequest::new("GET", whole, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign(request, &params).map_err(|error| failed(&error))?.into_parts();
    for (name, value) in instructions.params() {
        append(&mut url, name, value);
    }
    Ok(Secret::new(url))
}

/// How long a token is used for new connections that was signed now with credentials of this expiry.
pub(crate) fn used_for(now: SystemTime, expiry: Option<SystemTime>) -> Duration {
    let left = expiry.map(|expiry| expiry.duration_since(now).unwrap_or_default());
    left.map_or(USED_FOR, |left| USED_FOR.min(left / 2))
}

fn append(url: &mut String, name: &str, value: &str) {
    url.push('&');
    url.push_str(name);
    url.push('=');
    url.extend(utf8_percent_encode(value, &ENCODED));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aws_credential_types::provider::SharedCredentialsProvider;

    use super::*;

    const KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const SESSION: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQW=";

    fn at_2026_11_22_09_30_05() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_339_805)
    }

    /// The order of a query's parameters means nothing.
    fn parts(token: &str) -> BTreeSet<&str> {
        token.split(['?', '&']).collect()
    }

    /// The expected tokens are those of AWS' own library: botocore 1.44.5, `RequestSigner.generate_presigned_url`, as
    /// the service's documentation has it.
    #[test]
    fn tokens_are_those_that_awss_own_library_signs() {
        let credentials = Credentials::from_keys("AKIAIOSFODNN7EXAMPLE", KEY, None);
        let iam =
            Iam::new("Profiles-Cache", "eu-west-1", SharedCredentialsProvider::new(credentials.clone()));
        let signed = token(&iam, "warmcast-writer", &credentials, at_2026_11_22_09_30_05()).unwrap();
        let expected = "profiles-cache/?Action=connect&User=warmcast-writer&X-Amz-Algorithm=AWS4-HMAC-SHA256\
            &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261122%2Feu-west-1%2Felasticache%2Faws4_request\
            &X-Amz-Date=20261122T093005Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
            &X-Amz-Signature=05637783dd5010ef66d5fd306b2e981e99b287d140369866fa175cf9f733742b";
        assert_eq!(parts(signed.expose()), parts(expected));
        assert!(signed.expose().starts_with("profiles-cache/?Action=connect&User=warmcast-writer&"));

        let credentials = Credentials::from_keys("ASIAIOSFODNN7EXAMPLE", KEY, Some(SESSION.to_owned()));
        let iam = Iam { cache_name: "profiles-serverless".to_owned(), serverless: true, ..iam };
        let iam = Iam { region: "us-east-1".to_owned(), ..iam };
        let signed = token(&iam, "warmcast reader+1", &credentials, at_2026_11_22_09_30_05()).unwrap();
        let expected = "profiles-serverless/?Action=connect&User=warmcast%20reader%2B1\
            &ResourceType=ServerlessCache&X-Amz-Algorithm=AWS4-HMAC-SHA256\
            &X-Amz-Credential=ASIAIOSFODNN7EXAMPLE%2F20261122%2Fus-east-1%2Felasticache%2Faws4_request\
            &X-Amz-Date=20261122T093005Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
            &X-Amz-Security-Token=AQoDYXdzEPT%2F%2F%2F%2F%2F%2F%2F%2F%2F%2FwEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ\
            8j4FZTwdQW%3D\
            &X-Amz-Signature=6fc3d5174201b7e4f4fbe769d2846093b861d197771ed2c2ca807ea0a97c752b";
        assert_eq!(parts(signed.expose()), parts(expected));
        let shown = format!("{iam:?} {signed:?} {credentials:?}");
        assert!(!shown.contains(KEY) && !shown.contains("Signature"), "{shown}");
    }

    #[test]
    fn a_token_is_used_for_minutes_and_never_as_long_as_the_credentials_behind_it() {
        let now = at_2026_11_22_09_30_05();
        let in_minutes = |minutes| Some(now + Duration::from_mins(minutes));
        assert_eq!(used_for(now, None), USED_FOR);
        assert_eq!(used_for(now, in_minutes(600)), USED_FOR);
        assert_eq!(used_for(now, in_minutes(4)), Duration::from_mins(2));
        assert_eq!(used_for(now, in_minutes(0)), Duration::ZERO);
        assert_eq!(used_for(now, Some(SystemTime::UNIX_EPOCH)), Duration::ZERO);
    }
}
