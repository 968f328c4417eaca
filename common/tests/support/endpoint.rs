//! Asking a daemon's admin endpoint.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use warmcast_common::http::{self, Answer, Bounds, HttpError};

const BOUNDS: Bounds = Bounds { body_bytes_max: 16 << 20, within: Duration::from_secs(60) };

/// An address of this machine that is no other process', and no other's of this one who gives another number.
pub(crate) fn address(number: u8) -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 64 | high, middle, low), 9_640 + u16::from(number)).into()
}

/// What it answers; `None` while nobody listens.
pub(crate) async fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    match http::get(&format!("http://{address}{path}"), headers, BOUNDS).await {
        Err(HttpError::Connect { .. }) => None,
        answer => Some(answer.unwrap()),
    }
}

/// What `/readyz` says.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// Its status is 200.
    pub(crate) ready: bool,
    /// The conditions that are met.
    pub(crate) met: Vec<String>,
    /// Those that are not, and why.
    pub(crate) unmet: Vec<(String, String)>,
}

impl Readiness {
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let Some(answer) = ask(address, "/readyz", &[]).await else { return Self::default() };
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let mut readiness = Self { ready: answer.status == 200, ..Self::default() };
        assert_eq!(body["ready"], readiness.ready, "{answer:?}");
        for condition in body["conditions"].as_array().unwrap() {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            match condition["met"] == true {
                true => readiness.met.push(text("name")),
                false => readiness.unmet.push((text("name"), text("why"))),
            }
        }
        readiness
    }
}
