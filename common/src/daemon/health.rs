//! `health`: asks a running daemon on this machine whether it is alive, or ready. For containers that have neither a shell
//! nor curl: their health check is the program itself.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::{ConfigArgs, DaemonConfig, Outcome, print};

/// The most of an answer that is read, in bytes. The rest tells nobody more.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The flags of `health`.
#[derive(Args)]
pub(super) struct HealthCheck {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask whether it is ready (/readyz), not only whether it is alive (/healthz).
    #[arg(long)]
    ready: bool,
    /// The longest wait for an answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
}

impl HealthCheck {
    pub(super) fn carry_out<C: DaemonConfig>(&self) -> Result<Outcome, anyhow::Error> {
        let config = super::read::<C>(self.config.document()?).map_err(super::ConfigError::from)?;
        let Some(listen) = config.admin().listen else {
            bail!("admin.enabled is false: there is nobody to ask");
        };
        if listen.port() == 0 {
            bail!("admin.listen has port 0, any that is free: give it one, so that it can be asked");
        }
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let at = reachable(listen);
        let answer = ask(at, path, Duration::from_millis(self.timeout_ms))
            .with_context(|| format!("http://{at}{path} does not answer"))?;
        let (is_good, body) =
            read_answer(&answer).with_context(|| format!("http://{at}{path} answers no HTTP"))?;
        print(&format!("{}\n", body.trim_end()))?;
        Ok(if is_good { Outcome::Done } else { Outcome::Problems })
    }
}

/// Where a server that listens on every address is reached on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

fn ask(at: SocketAddr, path: &str, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // HTTP/1.0: the answer ends with the connection, in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the status is 200, and the body.
fn read_answer(answer: &str) -> Option<(bool, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status == "200", body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_when_its_status_is_200() {
        assert_eq!(read_answer("HTTP/1.0 200 OK\r\nx: y\r\n\r\nok\n"), Some((true, "ok\n")));
        assert_eq!(read_answer("HTTP/1.1 503 Service Unavailable\r\n\r\nfleet"), Some((false, "fleet")));
        assert_eq!(read_answer("+OK"), None);
    }

    #[test]
    fn a_server_on_every_address_is_asked_on_this_machine() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9640"), "127.0.0.1:9640");
        assert_eq!(reached("[::]:9640"), "[::1]:9640");
        assert_eq!(reached("10.0.0.1:1"), "10.0.0.1:1");
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert!(ask(at, "/healthz", Duration::from_millis(20)).is_err());
    }
}
