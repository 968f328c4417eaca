//! How one AWS service is reached: region, endpoint, credentials. Each service of a daemon has its own, so
//! that all of it can run against local servers.

use super::{Secret, Section};

/// Settings of one AWS service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The AWS region; the SDK's default chain (`AWS_REGION`, profile, instance) decides if it is not set.
    pub region: Option<String>,
    /// Another address than the service's own, for local servers and VPC endpoints.
    pub endpoint: Option<String>,
    /// Fixed credentials; the SDK's default chain (environment, profile, role) decides if they are not set.
    pub credentials: Option<StaticCredentials>,
}

/// Credentials written in the configuration. Meant for local servers: production uses the default chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticCredentials {
    /// `aws_access_key_id`.
    pub access_key_id: String,
    /// `aws_secret_access_key`.
    pub secret_access_key: Secret,
    /// `aws_session_token`.
    pub session_token: Option<Secret>,
}

impl ServiceConfig {
    /// Takes the service's keys out of its section: `region`, `endpoint`, `access_key_id`,
    /// `secret_access_key`, `session_token`. The section is left open for keys of the service's own.
    pub fn read(section: &mut Section) -> Self {
        Self {
            region: section.text("region"),
            endpoint: section.http_url("endpoint"),
            credentials: StaticCredentials::read(section),
        }
    }
}

impl StaticCredentials {
    fn read(section: &mut Section) -> Option<Self> {
        let access_key_id = section.text("access_key_id");
        let secret_access_key = section.secret("secret_access_key");
        let session_token = section.secret("session_token");
        match (access_key_id, secret_access_key) {
            (Some(access_key_id), Some(secret_access_key)) => {
                Some(Self { access_key_id, secret_access_key, session_token })
            }
            (None, None) if session_token.is_none() => None,
            (None, _) => {
                section.note("access_key_id", "is required when other credentials are given");
                None
            }
            (_, None) => {
                section.note("secret_access_key", "is required when access_key_id is given");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violations;
    use super::*;

    fn read(text: &str) -> Result<ServiceConfig, Vec<String>> {
        let violations = Violations::default();
        let mut section = Section::root(text.parse().unwrap(), &violations);
        let config = ServiceConfig::read(&mut section);
        section.finish();
        violations.into_result(config).map_err(|noted| noted.into_iter().map(|v| v.path).collect())
    }

    #[test]
    fn credentials_are_given_whole_or_not_at_all() {
        assert_eq!(read("").unwrap(), ServiceConfig::default());
        assert!(read("access_key_id = 'a'\nsecret_access_key = 'b'").unwrap().credentials.is_some());
        assert_eq!(read("access_key_id = 'a'").unwrap_err(), ["secret_access_key"]);
        assert_eq!(read("secret_access_key = 'a'").unwrap_err(), ["access_key_id"]);
        assert_eq!(read("session_token = 'a'").unwrap_err(), ["access_key_id"]);
    }
}
