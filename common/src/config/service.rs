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
    /// `secret_access_key`, `session_token`, and `insecure_endpoint`, without which an endpoint beyond this machine has
    /// to be `https://`. The section is left open for keys of the service's own.
    pub fn read(section: &mut Section) -> Self {
        Self::read_with(section, None).0
    }

    /// As [`read`](Self::read), with the address of another part of the service under a key of its own.
    pub fn read_with(section: &mut Section, more: Option<&'static str>) -> (Self, Option<String>) {
        let config = Self {
            region: section.text("region"),
            endpoint: section.http_url("endpoint"),
            credentials: StaticCredentials::read(section),
        };
        let other = more.and_then(|name| section.http_url(name));
        if !section.boolean("insecure_endpoint", false) {
            refuse_insecure(section, "endpoint", config.endpoint.as_deref());
            refuse_insecure(section, more.unwrap_or_default(), other.as_deref());
        }
        (config, other)
    }
}

/// Notes an endpoint that would be talked to in the clear, beyond this machine.
fn refuse_insecure(section: &Section, name: &str, endpoint: Option<&str>) {
    if let Some(host) = endpoint.and_then(|url| url.strip_prefix("http://"))
        && !is_loopback(host)
    {
        section.note(
            name,
            "http:// is for this machine's own addresses: use https://, or set insecure_endpoint = true",
        );
    }
}

/// Whether what stands after `http://` is this machine.
fn is_loopback(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    // A user before the host would be taken for the host.
    !authority.contains('@')
        && (host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()))
}

impl StaticCredentials {
    fn read(section: &mut Section) -> Option<Self> {
        let access_key_id = section.text("access_key_id");
        let secret_access_key = section.secret_or_file("secret_access_key", "secret_access_key_file");
        let session_token = section.secret_or_file("session_token", "session_token_file");
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

    #[test]
    fn an_endpoint_in_the_clear_is_on_this_machine_or_asked_for() {
        for good in [
            "http://127.0.0.1:8000",
            "http://localhost:1/path",
            "http://LOCALHOST",
            "http://[::1]:8000",
            "https://vpce-1.dynamodb.eu-west-1.vpce.amazonaws.com",
            "http://10.0.0.1'\ninsecure_endpoint = true\nregion = 'x",
        ] {
            assert!(read(&format!("endpoint = '{good}'")).is_ok(), "{good}");
        }
        for bad in [
            "http://10.0.0.1:8000",
            "http://dynamodb.local",
            "http://localhost.evil.com",
            "http://localhost@evil.com",
            "http://localhost:x@evil.com",
            "http://[::2]",
            "http://127.0.0.1.evil.com",
        ] {
            assert_eq!(read(&format!("endpoint = '{bad}'")).unwrap_err(), ["endpoint"], "{bad}");
        }
    }

    #[test]
    fn secrets_come_from_files_as_well_and_from_one_place_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let text = format!("access_key_id = 'a'\nsecret_access_key_file = '{}'", file.display());
        assert_eq!(read(&text).unwrap_err(), ["secret_access_key_file", "secret_access_key"]);
        std::fs::write(&file, "hunter2\n").unwrap();
        let given = read(&text).unwrap();
        assert_eq!(given.credentials.as_ref().unwrap().secret_access_key.expose(), "hunter2");
        assert!(!format!("{given:?}").contains("hunter2"));
        assert_eq!(
            read(&format!("{text}\nsecret_access_key = 'b'")).unwrap_err(),
            ["secret_access_key_file"]
        );
    }
}
