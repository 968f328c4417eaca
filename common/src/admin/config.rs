//! The `[admin]` section.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::token::TOKEN_BYTES_MIN;
use crate::config::{Secret, Section};

/// The `[admin]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; `None`: there is no endpoint.
    pub listen: Option<SocketAddr>,
    /// What has to be shown to see more than whether the process is alive and ready.
    pub token: Option<TokenSource>,
    /// A watermark that is older needs a look, and makes a region's cache-writers unready.
    pub watermark_bound: Duration,
}

/// Where the bearer token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// The configuration itself: its environment, most likely.
    Value(Secret),
    /// A file.
    File(PathBuf),
}

impl AdminConfig {
    /// Takes the section's fields. `port` is the daemon's own, so that both can run on one machine.
    pub fn read(mut section: Section, port: u16) -> Self {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let enabled = section.boolean("enabled", true);
        let listen = section.text_or("listen", || default.to_string());
        let listen = listen.parse().unwrap_or_else(|_| {
            section.note(
                "listen",
                format!("expected ADDRESS:PORT, as {default} or [::1]:{port}, found {listen:?}"),
            );
            default
        });
        let beyond_loopback = section.boolean("beyond_loopback", false);
        if !is_loopback(listen.ip()) && !beyond_loopback {
            section.note(
                "listen",
                format!("{listen} can be reached from other machines: that needs beyond_loopback = true, and should have a bearer token"),
            );
        }
        let config = Self {
            listen: enabled.then_some(listen),
            token: read_token(&mut section),
            watermark_bound: section.duration_ms("watermark_bound_ms", 1_000..=86_400_000, 60_000),
        };
        section.finish();
        config
    }

    /// Whether other machines can reach it.
    pub fn is_beyond_loopback(&self) -> bool {
        self.listen.is_some_and(|listen| !is_loopback(listen.ip()))
    }
}

fn read_token(section: &mut Section) -> Option<TokenSource> {
    let file = section.path("bearer_token_file").map(TokenSource::File);
    let Some(token) = section.secret("bearer_token") else { return file };
    if file.is_some() {
        section.note("bearer_token", "is given beside bearer_token_file: give one of them");
    }
    let is_header_text = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !is_header_text || token.expose().len() < TOKEN_BYTES_MIN {
        section.note(
            "bearer_token",
            format!(
                "must have at least {TOKEN_BYTES_MIN} characters, all of them printable ASCII without spaces"
            ),
        );
    }
    Some(TokenSource::Value(token))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Violation, Violations};

    fn read(text: &str) -> Result<AdminConfig, Vec<Violation>> {
        let violations = Violations::default();
        let root = Section::root(text.parse().unwrap(), &violations);
        violations.into_result(AdminConfig::read(root, 9640))
    }

    #[test]
    fn by_default_it_is_for_this_machine_only() {
        let config = read("").unwrap();
        assert_eq!(config.listen, Some("127.0.0.1:9640".parse().unwrap()));
        assert!(config.token.is_none() && !config.is_beyond_loopback());
        assert_eq!(read("enabled = false").unwrap().listen, None);
    }

    #[test]
    fn an_address_beyond_loopback_needs_to_be_meant() {
        for listen in ["0.0.0.0:9640", "[::]:9640", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let noted = read(&format!("listen = '{listen}'")).unwrap_err();
            assert!(
                noted[0].to_string().starts_with("listen: ")
                    && noted[0].message.contains("beyond_loopback = true")
            );
            assert!(
                read(&format!("listen = '{listen}'\nbeyond_loopback = true")).unwrap().is_beyond_loopback()
            );
        }
        for listen in ["127.0.0.9:0", "[::1]:9640", "[::ffff:127.0.0.1]:1"] {
            assert!(!read(&format!("listen = '{listen}'")).unwrap().is_beyond_loopback());
        }
    }

    #[test]
    fn every_mistake_is_noted_and_no_token_is_shown() {
        let text = "enabled = 1\nlisten = 'here'\nbearer_token = 'hunter2'\nbearer_token_file = 'f'\nwatermark_bound_ms = 1\nx = 1";
        let noted = read(text).unwrap_err();
        let paths: Vec<&str> = noted.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, ["enabled", "listen", "bearer_token", "bearer_token", "watermark_bound_ms", "x"]);
        assert!(!format!("{noted:?}").contains("hunter2"));
        let good = read("bearer_token = 'hunter2-hunter2-hunter2'").unwrap();
        assert!(!format!("{good:?}").contains("hunter2"));
    }
}
