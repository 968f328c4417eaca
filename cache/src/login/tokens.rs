//! Tokens for all connections of one cache: one serves several, for a while.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials as _;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    config::{Iam, Secret},
    token::{TokenError, token, used_for},
};

/// The longest wait for AWS credentials: their providers have a few calls to make at most.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct Tokens {
    pub(crate) iam: Iam,
    pub(crate) user: String,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    token: Option<Token>,
    /// The last failure to make one, and when it was known.
    failure: Option<(Instant, TokenError)>,
}

struct Token {
    text: Secret,
    made: Instant,
    used_until: Instant,
}

impl Tokens {
    pub(super) fn new(iam: Iam, user: &str) -> Self {
        Self { iam, user: user.to_owned(), latest: Mutex::default() }
    }

    /// A token that was made after `newer_than`. Callers that waited while another's attempt failed share its
    /// failure.
    pub(crate) async fn get(&self, newer_than: Option<Instant>) -> Result<Secret, TokenError> {
        let called = Instant::now();
        let mut latest = self.latest.lock().await;
        let is_good =
            |token: &&Token| called < token.used_until && newer_than.is_none_or(|than| token.made > than);
        if let Some(token) = latest.token.as_ref().filter(is_good) {
            return Ok(token.text.clone());
        }
        if let Some((_, failure)) = latest.failure.as_ref().filter(|(known, _)| *known >= called) {
            return Err(failure.clone());
        }
        match self.make().await {
            Ok((text, used_for)) => {
                let made = Instant::now();
                let token = Token { text: text.clone(), made, used_until: made + used_for };
                *latest = Latest { token: Some(token), failure: None };
                Ok(text)
            }
            Err(error) => {
                latest.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    pub(super) async fn forget(&self) {
        self.latest.lock().await.token = None;
    }

    async fn make(&self) -> Result<(Secret, Duration), TokenError> {
        let provided = timeout(CREDENTIALS_WITHIN, self.iam.credentials.provide_credentials()).await;
        let late = || TokenError::Credentials {
            reason: format!("none came within {CREDENTIALS_WITHIN:?}"),
            may_pass: true,
        };
        let credentials = provided.map_err(|_| late())?.map_err(|error| TokenError::from_provider(&error))?;
        let now = SystemTime::now();
        let text = token(&self.iam, &self.user, &credentials, now)?;
        Ok((text, used_for(now, credentials.expiry())))
    }
}
