//! Configuration: a TOML file, overlaid by the environment, overlaid by flags, read field by field.
//!
//! Fields are read by hand rather than derived, because an operator deserves every mistake of a file at once,
//! with its path, its range and what was found: a derived reader stops at the first. The steps:
//!
//! 1. [`Document::load`] merges the three layers into one tree.
//! 2. A daemon takes its fields out of [`Section`]s; every violation is noted, a default stands in, and reading
//!    goes on.
//! 3. [`Section::finish`] notes every key nobody asked for.
//! 4. [`Violations::into_result`] refuses the configuration if anything was noted.

mod secret;
mod document;
mod known;
mod section;
mod service;
mod effective;

pub use document::{Document, LoadError, Source};
pub use effective::{Effective, EffectiveKey, read_effective};
pub use secret::{Secret, SecretFileError};
pub use section::{Section, Violation, Violations};
pub use service::{AwsService, ServiceConfig, StaticCredentials};

/// The exit code for a wrong configuration or command line (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
