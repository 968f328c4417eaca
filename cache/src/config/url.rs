//! From a URL to a configuration. Pure.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::{Address, CacheConfig, Password, SENTINEL_PORT, SERVER_PORT, Secret, Servers, TlsConfig};

/// A URL names no cache. It is not repeated here: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing that is known stands before `://`.
    #[error(
        "the cache's URL begins with none of redis:, rediss: (with TLS), redis+unix:, redis+sentinel:, \
         rediss+sentinel:, redis+cluster: and rediss+cluster:"
    )]
    Scheme,
    /// The rest does not fit the scheme.
    #[error(
        "the cache's URL is not of the form redis://[[user]:password@]host[:port][/db], redis+unix:///path, \
         redis+sentinel://[[user]:password@]host[:port],host[:port]/master[/db] or \
         redis+cluster://[[user]:password@]host[:port],host[:port] (special characters in the user, the password \
         and names are percent-encoded): {0}"
    )]
    Form(&'static str),
}

enum Kind {
    Standalone,
    Unix,
    Sentinel,
    Cluster,
}

pub(super) fn parse(url: &str) -> Result<CacheConfig, UrlError> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
    let (kind, with_tls) = parse_scheme(scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // The last one: a careless password may have an '@'.
    let (user, hosts) =
        authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
    let (servers, db) = match kind {
        Kind::Unix => {
            let has_path = authority.is_empty() && !path.is_empty();
            has_path.then_some(()).ok_or(UrlError::Form("a socket needs its absolute path"))?;
            (Servers::Standalone(Address::Unix(PathBuf::from(format!("/{}", decode(path)?)))), None)
        }
        Kind::Standalone => (Servers::Standalone(parse_host(hosts, SERVER_PORT)?), Some(path)),
        Kind::Cluster => (Servers::Cluster(parse_hosts(hosts, SERVER_PORT)?), Some(path)),
        Kind::Sentinel => {
            let (master, db) = path.split_once('/').unwrap_or((path, ""));
            let master = decode(master)?;
            (!master.is_empty()).then_some(()).ok_or(UrlError::Form("the master's name is missing"))?;
            let addresses = parse_hosts(hosts, SENTINEL_PORT)?;
            (Servers::Sentinel { addresses, master, username: None, password: None }, Some(db))
        }
    };
    let mut config = CacheConfig::new(servers);
    config.tls = with_tls.then(TlsConfig::default);
    if let Some(db) = db.filter(|db| !db.is_empty()) {
        config.db = parse_db(db)?;
    }
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        config.username = Some(decode(name)?).filter(|name| !name.is_empty());
        config.password = Some(decode(password)?).filter(|password| !password.is_empty()).map(fixed);
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        read_parameter(parameter, &mut config)?;
    }
    if config.servers.is_cluster() && config.db != 0 {
        return Err(UrlError::Form("a cluster has no databases but 0"));
    }
    Ok(config)
}

fn parse_scheme(scheme: &str) -> Result<(Kind, bool), UrlError> {
    let (protocol, form) = scheme.split_once('+').unwrap_or((scheme, ""));
    let with_tls = match protocol {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        // As other clients have it.
        "unix" if form.is_empty() => return Ok((Kind::Unix, false)),
        _ => return Err(UrlError::Scheme),
    };
    let kind = match form {
        "" => Kind::Standalone,
        "unix" if !with_tls => Kind::Unix,
        "sentinel" => Kind::Sentinel,
        "cluster" => Kind::Cluster,
        _ => return Err(UrlError::Scheme),
    };
    Ok((kind, with_tls))
}

fn parse_hosts(hosts: &str, default_port: u16) -> Result<Vec<Address>, UrlError> {
    hosts.split(',').map(|host| parse_host(host, default_port)).collect()
}

fn parse_host(text: &str, default_port: u16) -> Result<Address, UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(UrlError::Form("an IPv6 address is not closed"))?,
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    if host.is_empty() || host.contains(['/', '@', '[', ']', ',']) {
        return Err(UrlError::Form("a host is missing, or there is one too many"));
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| UrlError::Form("a port is not a number up to 65535"))?,
        None if port.is_empty() => default_port,
        None => return Err(UrlError::Form("something follows an IPv6 address that is not a port")),
    };
    Ok(Address::Tcp { host: host.to_owned(), port })
}

fn parse_db(text: &str) -> Result<i64, UrlError> {
    let db = text.parse().ok().filter(|db| *db >= 0);
    db.ok_or(UrlError::Form("the database is not a number"))
}

fn read_parameter(parameter: &str, config: &mut CacheConfig) -> Result<(), UrlError> {
    let (name, value) = parameter.split_once('=').ok_or(UrlError::Form("a parameter has no value"))?;
    let value = decode(value)?;
    match (name, &mut config.servers) {
        ("db", _) => config.db = parse_db(&value)?,
        ("user", _) => config.username = Some(value),
        ("pass", _) => config.password = Some(fixed(value)),
        ("sentinel_user", Servers::Sentinel { username, .. }) => *username = Some(value),
        ("sentinel_pass", Servers::Sentinel { password, .. }) => *password = Some(fixed(value)),
        _ => return Err(UrlError::Form("a parameter is unknown here")),
    }
    Ok(())
}

fn fixed(password: String) -> Password {
    Password::Fixed(Secret::new(password))
}

fn decode(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| UrlError::Form("percent-encoded text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn urls_name_server_database_and_user() {
        let config = parse("redis://writer:s%3Acret@cache.internal:6380/3").unwrap();
        assert_eq!(config.servers, Servers::Standalone(tcp("cache.internal", 6380)));
        assert_eq!(config.db, 3);
        assert_eq!(config.username.as_deref(), Some("writer"));
        assert_eq!(config.password, Some(fixed("s:cret".to_owned())));
        assert_eq!(config.tls, None);

        let config = parse("redis://127.0.0.1").unwrap();
        assert_eq!(config.servers.to_string(), "127.0.0.1:6379");
        assert_eq!((config.username, config.password), (None, None));

        let config = parse("redis://:word@[::1]:7000/").unwrap();
        assert_eq!(config.servers.to_string(), "[::1]:7000");
        assert_eq!((config.username, config.password), (None, Some(fixed("word".to_owned()))));
        assert_eq!(parse("valkeys://[::1]").unwrap().servers.to_string(), "[::1]:6379");
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        let config = parse("redis+unix:///run/redis.sock?db=1&user=writer&pass=s%26cret").unwrap();
        assert_eq!(config.servers, Servers::Standalone(Address::Unix("/run/redis.sock".into())));
        assert_eq!(config.db, 1);
        assert_eq!(config.username.as_deref(), Some("writer"));
        assert_eq!(config.password, Some(fixed("s&cret".to_owned())));
    }

    #[test]
    fn sentinels_and_their_master_have_credentials_of_their_own() {
        let config = parse(
            "rediss+sentinel://writer:one@s1,s2:5000,[::1]/my%20master/2?sentinel_user=watch&sentinel_pass=two",
        )
        .unwrap();
        assert_eq!(
            config.servers,
            Servers::Sentinel {
                addresses: vec![tcp("s1", 26379), tcp("s2", 5000), tcp("::1", 26379)],
                master: "my master".to_owned(),
                username: Some("watch".to_owned()),
                password: Some(fixed("two".to_owned())),
            }
        );
        assert_eq!((config.username.as_deref(), config.db), (Some("writer"), 2));
        assert_eq!(config.password, Some(fixed("one".to_owned())));
        assert_eq!(config.tls, Some(TlsConfig::default()));
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_nodes() {
        let config = parse("valkey+cluster://a:7000,b").unwrap();
        assert_eq!(config.servers, Servers::Cluster(vec![tcp("a", 7000), tcp("b", 6379)]));
        assert!(parse("rediss+cluster://a").unwrap().tls.is_some());
    }

    #[test]
    fn what_names_no_cache_is_refused_and_never_shown() {
        for url in [
            "redis://:hunter2@localhost:port",
            "http://:hunter2@localhost",
            "redis://:hunter2@localhost/x",
            "redis://:hunter2@localhost/-1",
            "redis://:hunter2@",
            ":hunter2@",
            "redis://:hunter2@a,",
            "redis://:hunter2@[::1",
            "redis://:hunter2@[::1]x",
            "redis://:hunter2@a/0?what=1",
            "redis://:hunter2@a/0?sentinel_user=1",
            "redis+cluster://:hunter2@a/1",
            "redis+sentinel://:hunter2@a",
            "redis+unix://:hunter2@host/path",
            "rediss+unix:///hunter2",
            "redis://hunter2%ff@a",
        ] {
            let error = parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let config = parse("redis://:hunter2@localhost").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
