//! `upgrade`: restarts one worker of the fleet, and nobody else's meanwhile.
//!
//! An operator's command, like flock(1), for each machine of a rolling upgrade: it takes the fleet's restart lock, waits
//! until the fleet is [settled](settled), runs the command that restarts the worker, and waits until that is back with its share
//! and everything is settled again. Killed half-way it leaves nothing to clean up: the lock ends by itself, and who is
//! next waits for the worker. What decides is pure ([`settled`]); [`looks`] looks at the fleet, [`lock`] keeps the lock,
//! [`restart`] runs the command, and [`command`] does one after the other.

mod args;
mod settled;
mod tell;
mod looks;
mod lock;
mod restart;
mod command;

pub use args::{EXAMPLES, UpgradeArgs};
pub use command::upgrade;
pub use looks::Fleet;
pub use settled::{Before, not_back, unsettled};
