//! The admin endpoint: what monitoring, orchestrators and people ask one process, over HTTP.
//!
//! It has a thread and a runtime of its own, so it also answers when the runtime that does the work is stuck, and
//! then says so. It only reads: what other threads have counted, and the last look at the fleet, which the main runtime
//! makes when somebody asks ([`Surveys`]). Nothing that is asked of it makes it call another service.
//!
//! It is for the machine itself unless it is told otherwise (`beyond_loopback`), and then wants a token. Connections, heads of
//! requests and times are bounded; requests have no bodies. docs/admin.md lists the routes.

mod config;
mod token;
mod rates;
mod surveys;
mod report;
mod plain;
mod page;
mod guard;
mod routes;
mod server;

pub use config::{AdminConfig, TokenSource};
pub use rates::{Figure, Reading, WATERMARK_AGE};
pub use server::{Admin, AdminError, Attended};
pub use surveys::{FleetLook, Surveys};
pub use token::TokenError;

#[cfg(test)]
mod tests;
