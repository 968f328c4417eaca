//! `upgrade`: restarts one worker of the fleet, and nobody else's meanwhile.
//!
//! An operator's command, like flock(1), for each machine of a rolling upgrade: it takes the fleet's restart lock, waits
//! until the fleet is [settled](settled), runs the command that restarts the worker, and waits until that is back with its share
//! and everything is settled again. Killed half-way it leaves nothing to clean up: the lock ends by itself, and who is
//! next waits for the worker. What decides is pure; [`lock`] keeps the lock, [`command`] does the rest.

mod args;
mod settled;
mod lock;
mod command;

pub use args::{EXAMPLES, UpgradeArgs};
pub use command::{Fleet, upgrade};
pub use settled::{Before, not_back, unsettled};
