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

/// An AWS service that is called, by the name that the SDK's variables for single services have: `AWS_ENDPOINT_URL_KINESIS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsService {
    /// `DYNAMODB`
    DynamoDb,
    /// `DYNAMODB_STREAMS`
    DynamoDbStreams,
    /// `KINESIS`
    Kinesis,
}

/// Gives credentials, for those who have none of their own: roles are assumed there.
const TOKEN_SERVICE: &str = "STS";

impl ServiceConfig {
    /// Takes the service's keys out of its section: `region`, `endpoint`, `access_key_id`,
    /// `secret_access_key`, `session_token`, and `insecure_endpoint`, without which an endpoint beyond this machine has
    /// to be `https://`, whether it is named here or by the SDK's variables. The section is left open for keys of the
    /// service's own.
    pub fn read(section: &mut Section, service: AwsService) -> Self {
        Self::read_with(section, service, None).0
    }

    /// As [`read`](Self::read), with the address of another service under a key of its own. Without that it is at
    /// `endpoint`, too.
    pub fn read_with(
        section: &mut Section,
        service: AwsService,
        more: Option<(&'static str, AwsService)>,
    ) -> (Self, Option<String>) {
        let config = Self {
            region: section.text("region"),
            endpoint: section.http_url("endpoint"),
            credentials: StaticCredentials::read(section),
        };
        let other = more.and_then(|(name, _)| section.http_url(name));
        if section.boolean("insecure_endpoint", false) {
            return (config, other);
        }
        refuse_insecure(section, "endpoint", config.endpoint.as_deref());
        if config.endpoint.is_none() {
            refuse_insecure_variable(section, service.in_variables());
        }
        if let Some((name, service)) = more {
            refuse_insecure(section, name, other.as_deref());
            if config.endpoint.is_none() && other.is_none() {
                refuse_insecure_variable(section, service.in_variables());
            }
        }
        if config.credentials.is_none() {
            refuse_insecure_variable(section, TOKEN_SERVICE);
        }
        (config, other)
    }
}

impl AwsService {
    const fn in_variables(self) -> &'static str {
        match self {
            Self::DynamoDb => "DYNAMODB",
            Self::DynamoDbStreams => "DYNAMODB_STREAMS",
            Self::Kinesis => "KINESIS",
        }
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

/// Notes the variable that tells the SDK where this service is, if it would be talked to in the clear there. The SDK takes
/// more forms of an address than the configuration does, so what is not known for good is refused. An empty one is as
/// good as none.
fn refuse_insecure_variable(section: &Section, service: &str) {
    let Some((name, url)) = section.endpoint_variable(service) else { return };
    let is_good = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => is_loopback(rest),
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("https"),
        None => url.is_empty(),
    };
    if !is_good {
        let message = format!(
            "expected https://HOST, or http:// with an address of this machine; or set insecure_endpoint = true in {}",
            section.header()
        );
        section.note_variable(&name, message);
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
        let config = ServiceConfig::read(&mut section, AwsService::DynamoDb);
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

    /// The variables that are refused, for a section of DynamoDB and its streams.
    fn refused(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let violations = Violations::default();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let root = Section::root(format!("[dynamodb]\n{text}").parse().unwrap(), &violations);
        let mut section = root.with_endpoints(&variables).section("dynamodb");
        let more = Some(("streams_endpoint", AwsService::DynamoDbStreams));
        ServiceConfig::read_with(&mut section, AwsService::DynamoDb, more);
        let noted = violations.into_result(()).err().into_iter().flatten();
        noted
            .map(|violation| {
                assert!(violation.message.ends_with("insecure_endpoint = true in [dynamodb]"), "{violation}");
                violation.path
            })
            .collect()
    }

    const KEYS: &str = "access_key_id = 'a'\nsecret_access_key = 'b'\n";
    const CLEAR: &str = "http://10.0.0.1:8000";

    #[test]
    fn the_sdks_variables_may_name_no_endpoint_in_the_clear_either() {
        for clear in
            [CLEAR, "HTTP://dynamodb.local", "http://localhost@evil.com", "dynamodb.local", " http://a"]
        {
            assert_eq!(refused("", &[("AWS_ENDPOINT_URL", clear)]), ["AWS_ENDPOINT_URL"], "{clear}");
        }
        for good in ["http://127.0.0.1:8000", "Http://localhost", "https://10.0.0.1", ""] {
            assert!(refused("", &[("AWS_ENDPOINT_URL", good)]).is_empty(), "{good}");
        }
        let each = ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS", "AWS_ENDPOINT_URL_STS"];
        for name in each {
            assert_eq!(refused("", &[(name, CLEAR)]), [name]);
            assert!(refused("insecure_endpoint = true", &[(name, CLEAR)]).is_empty());
        }
        assert_eq!(refused("", &each.map(|name| (name, CLEAR))), each);
        assert!(refused("", &[("AWS_ENDPOINT_URL_KINESIS", CLEAR)]).is_empty());
        // The variable of the service wins over the one for all.
        assert_eq!(
            refused(KEYS, &[("AWS_ENDPOINT_URL", "https://a"), ("AWS_ENDPOINT_URL_DYNAMODB", CLEAR)]),
            ["AWS_ENDPOINT_URL_DYNAMODB"]
        );
    }

    #[test]
    fn a_variable_is_looked_at_where_it_takes_effect() {
        let all = [("AWS_ENDPOINT_URL", CLEAR)];
        let streams = "streams_endpoint = 'https://a'\n";
        assert_eq!(
            refused("endpoint = 'https://a'", &all),
            ["AWS_ENDPOINT_URL"],
            "credentials come from there"
        );
        assert!(refused(&format!("endpoint = 'https://a'\n{KEYS}"), &all).is_empty());
        assert_eq!(refused(&format!("{streams}{KEYS}"), &all), ["AWS_ENDPOINT_URL"]);
        let of_streams = [("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", CLEAR)];
        assert!(refused(&format!("{streams}{KEYS}"), &of_streams).is_empty());
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
