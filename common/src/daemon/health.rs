//! `health`: asks a running daemon on this machine whether it is alive, or ready. For containers that have neither a shell
//! nor curl: their health check is the program itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::{ConfigArgs, DaemonConfig, Outcome, print};
use crate::http::{self, Bounds};

/// The largest answer, in bytes: a handful of conditions.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

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
        let url = format!("http://{}{path}", reachable(listen));
        let bounds =
            Bounds { body_bytes_max: ANSWER_BYTES_MAX, within: Duration::from_millis(self.timeout_ms) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(http::get(&url, &[], bounds)).with_context(|| format!("ask {url}"))?;
        print(&format!("{}\n", answer.body.trim_end()))?;
        Ok(if answer.status == 200 { Outcome::Done } else { Outcome::Problems })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_asked_on_this_machine() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9640"), "127.0.0.1:9640");
        assert_eq!(reached("[::]:9640"), "[::1]:9640");
        assert_eq!(reached("10.0.0.1:1"), "10.0.0.1:1");
    }
}
