//! What the server's answers mean. Pure.
//!
//! Every answer of a pipeline is judged by itself: an error of one entry says nothing about its neighbours.

use redis::{ServerError, Value};

use crate::outcome::{Outcome, Refusal};

/// The answer to one call of the apply script.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    Outcome(Outcome),
    /// It arrived after its deadline.
    PastDeadline,
    /// The entry is at fault: sending it again gives the same answer.
    Refused(Refusal),
    /// The server has lost the script.
    NoScript,
    /// The server is at fault: another time the entry may be taken.
    Unavailable(String),
}

impl Reply {
    pub(crate) fn read(answer: &Value) -> Self {
        match answer {
            Value::Int(1) => Self::Outcome(Outcome::Applied),
            Value::Int(2) => Self::Outcome(Outcome::Stale),
            Value::Int(3) => Self::Outcome(Outcome::TooOld),
            Value::Int(4) => Self::PastDeadline,
            Value::Int(5) => Self::Refused(Refusal::ForeignValue),
            Value::ServerError(error) => Self::read_error(error),
            // Another script under this hash, or a proxy that makes up answers.
            other => Self::Unavailable(format!("the apply script answered with {}", type_name(other))),
        }
    }

    fn read_error(error: &ServerError) -> Self {
        let text = describe(error);
        match error.code() {
            "NOSCRIPT" => Self::NoScript,
            // States of the server, or of this client's rights: they pass, or an operator ends them, and then
            // the same entry is taken.
            "LOADING" | "READONLY" | "OOM" | "CLUSTERDOWN" | "MASTERDOWN" | "BUSY" | "TRYAGAIN"
            | "MISCONF" | "NOREPLICAS" | "UNKILLABLE" | "NOAUTH" | "NOPERM" | "MOVED" | "ASK" => {
                Self::Unavailable(text)
            }
            _ => Self::Refused(Refusal::Server(text)),
        }
    }
}

/// The code and the words of the server's error.
pub(crate) fn describe(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// A value's type: its content may be anything, so it is not shown.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Int(_) => "another number",
        Value::BulkString(_) | Value::SimpleString(_) => "a text",
        Value::Array(_) => "an array",
        _ => "a value of another type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(wire: &str) -> Reply {
        Reply::read(&redis::parse_redis_value(wire.as_bytes()).unwrap())
    }

    #[test]
    fn the_scripts_numbers_are_its_outcomes() {
        assert_eq!(reply(":1\r\n"), Reply::Outcome(Outcome::Applied));
        assert_eq!(reply(":2\r\n"), Reply::Outcome(Outcome::Stale));
        assert_eq!(reply(":3\r\n"), Reply::Outcome(Outcome::TooOld));
        assert_eq!(reply(":4\r\n"), Reply::PastDeadline);
        assert_eq!(reply(":5\r\n"), Reply::Refused(Refusal::ForeignValue));
    }

    #[test]
    fn states_of_the_server_pass_and_the_entry_is_kept() {
        for code in [
            "LOADING",
            "READONLY",
            "OOM",
            "CLUSTERDOWN",
            "MASTERDOWN",
            "BUSY",
            "TRYAGAIN",
            "MISCONF",
            "NOREPLICAS",
            "NOAUTH",
            "NOPERM",
            "MOVED",
        ] {
            let reply = reply(&format!("-{code} 1 words of the server\r\n"));
            assert!(
                matches!(&reply, Reply::Unavailable(text) if text.starts_with(code)),
                "{code}: {reply:?}"
            );
        }
        assert_eq!(reply("-NOSCRIPT No matching script.\r\n"), Reply::NoScript);
    }

    #[test]
    fn other_errors_are_the_entrys_own() {
        let text = "ERR Protocol error: invalid bulk length".to_owned();
        assert_eq!(reply(&format!("-{text}\r\n")), Reply::Refused(Refusal::Server(text)));
    }

    #[test]
    fn answers_that_the_script_does_not_give_are_not_taken_for_done() {
        for wire in [":0\r\n", ":6\r\n", "$2\r\nOK\r\n", "+OK\r\n", "$-1\r\n", "*0\r\n"] {
            assert!(matches!(reply(wire), Reply::Unavailable(_)), "{wire:?}");
        }
    }
}
