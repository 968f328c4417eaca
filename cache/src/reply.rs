//! What the servers' errors mean. Pure.
//!
//! Every answer of a pipeline is judged by itself: an error of one entry says nothing about its neighbours.

use redis::{RedisError, ServerError, Value};

use crate::{
    config::{Address, SERVER_PORT},
    outcome::Refusal,
};

/// What to make of one answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is one.
    Answer(Value),
    /// The server has lost the script.
    NoScript,
    /// The key belongs to another server, for good.
    Moved(Redirect),
    /// The key is on its way to another server: this one call goes there.
    Ask(Redirect),
    /// The server is a replica, or has become one.
    ReadOnly(String),
    /// The server is at fault: another time the entry may be taken.
    Unavailable(String),
    /// The entry is at fault: sending it again gives the same answer.
    Refused(Refusal),
}

/// Where a server sends a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// None: the host of the server that said it.
    host: Option<String>,
    port: u16,
}

impl Redirect {
    /// Reads `slot host:port`.
    fn read(details: &str) -> Option<Self> {
        let (_slot, address) = details.trim().split_once(' ')?;
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // An empty host is the server's own, a '?' a name that it does not know (Redis: CLUSTER SLOTS).
        let host = (!host.is_empty() && host != "?").then(|| host.to_owned());
        Some(Self { host, port: port.parse().ok()? })
    }

    pub(crate) fn address(&self, said_by: &Address) -> Address {
        let own_host = || match said_by {
            Address::Tcp { host, .. } => host.clone(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let port = if self.port == 0 { SERVER_PORT } else { self.port };
        Address::Tcp { host: self.host.clone().unwrap_or_else(own_host), port }
    }
}

impl Verdict {
    pub(crate) fn read(answer: Value) -> Self {
        match answer {
            Value::ServerError(error) => Self::read_error(&error),
            other => Self::Answer(other),
        }
    }

    fn read_error(error: &ServerError) -> Self {
        let text = describe(error);
        let redirect = || error.details().and_then(Redirect::read);
        match error.code() {
            "NOSCRIPT" => Self::NoScript,
            "MOVED" => redirect().map_or(Self::Unavailable(text), Self::Moved),
            "ASK" => redirect().map_or(Self::Unavailable(text), Self::Ask),
            "READONLY" => Self::ReadOnly(text),
            code if PASSING.contains(&code) => Self::Unavailable(text),
            "ERR" if passes(&text) => Self::Unavailable(text),
            _ => Self::Refused(Refusal::Server(text)),
        }
    }
}

/// States of the server, or of this client's rights: they pass, or an operator ends them, and then the same entry
/// is taken.
const PASSING: [&str; 11] = [
    "LOADING",
    "OOM",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "BUSY",
    "TRYAGAIN",
    "MISCONF",
    "NOREPLICAS",
    "UNKILLABLE",
    "NOAUTH",
    "NOPERM",
];

/// Inside scripts a right that is missing has another code since Redis 7.0, and before it any error of a command
/// stands within that of the script.
fn passes(text: &str) -> bool {
    let is_within = |code: &&str| text.contains(&format!("-{code} "));
    text.contains("The user executing the script can't")
        || (text.contains("Error running script") && PASSING.iter().chain(&["READONLY"]).any(is_within))
}

/// The code and the words of the server's error.
pub(crate) fn describe(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// What the client library says of a failure, in one line. Neither an address nor a password is part of it.
pub(crate) fn describe_failure(error: &RedisError) -> String {
    if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(wire: &str) -> Verdict {
        Verdict::read(redis::parse_redis_value(wire.as_bytes()).unwrap())
    }

    #[test]
    fn states_of_the_server_pass_and_the_entry_is_kept() {
        for code in [
            "LOADING",
            "OOM",
            "CLUSTERDOWN",
            "MASTERDOWN",
            "BUSY",
            "TRYAGAIN",
            "MISCONF",
            "NOREPLICAS",
            "NOAUTH",
            "NOPERM",
        ] {
            let verdict = verdict(&format!("-{code} words of the server\r\n"));
            assert!(
                matches!(&verdict, Verdict::Unavailable(text) if text.starts_with(code)),
                "{code}: {verdict:?}"
            );
        }
        assert_eq!(verdict("-NOSCRIPT No matching script.\r\n"), Verdict::NoScript);
        assert!(matches!(verdict("-READONLY You can't write.\r\n"), Verdict::ReadOnly(_)));
        for within in [
            "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -OOM command not allowed",
            "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:3.",
        ] {
            assert!(matches!(verdict(&format!("-{within}\r\n")), Verdict::Unavailable(_)), "{within}");
        }
    }

    #[test]
    fn other_errors_are_the_entrys_own_and_other_answers_are_answers() {
        let text = "ERR Protocol error: invalid bulk length".to_owned();
        assert_eq!(verdict(&format!("-{text}\r\n")), Verdict::Refused(Refusal::Server(text)));
        assert_eq!(verdict(":1\r\n"), Verdict::Answer(Value::Int(1)));
        assert_eq!(verdict("$-1\r\n"), Verdict::Answer(Value::Nil));
    }

    #[test]
    fn redirects_name_a_server() {
        let said_by = Address::Tcp { host: "here".to_owned(), port: 1 };
        let address = |wire: &str| match verdict(wire) {
            Verdict::Moved(redirect) | Verdict::Ask(redirect) => redirect.address(&said_by).to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(address("-MOVED 3999 10.0.0.1:6381\r\n"), "10.0.0.1:6381");
        assert_eq!(address("-ASK 3999 node.internal:6381\r\n"), "node.internal:6381");
        assert_eq!(address("-MOVED 3999 ::1:6381\r\n"), "[::1]:6381");
        assert_eq!(address("-MOVED 3999 :6381\r\n"), "here:6381");
        assert_eq!(address("-MOVED 3999 ?:6381\r\n"), "here:6381");
        for garbled in ["-MOVED\r\n", "-MOVED 3999\r\n", "-ASK 3999 host\r\n", "-ASK 3999 host:x\r\n"] {
            assert!(matches!(verdict(garbled), Verdict::Unavailable(_)), "{garbled}");
        }
    }
}
