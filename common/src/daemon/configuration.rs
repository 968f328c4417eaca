//! `config`: whether the configuration is good, and what takes effect. Nothing is opened for it.

use std::path::Path;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{ConfigArgs, ConfigError, DaemonConfig, Outcome, OutputFormat, help, print};
use crate::config::read_effective;

/// The flags of `config`.
#[derive(Args)]
pub(super) struct Configuration {
    #[command(subcommand)]
    command: ConfigurationCommand,
}

#[derive(Subcommand)]
enum ConfigurationCommand {
    /// Check the configuration and report every violation at once.
    #[command(after_help = help::CONFIG_CHECK)]
    Check(ConfigurationArgs),
    /// Show every key with the value that takes effect and where that comes from: default, file, the name of an
    /// environment variable, or --set. Secrets are not shown.
    #[command(after_help = help::CONFIG_SHOW)]
    Show(ConfigurationArgs),
}

#[derive(Args)]
struct ConfigurationArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

impl Configuration {
    pub(super) fn carry_out<C: DaemonConfig>(&self) -> Result<Outcome, anyhow::Error> {
        match &self.command {
            ConfigurationCommand::Check(args) => check::<C>(args),
            ConfigurationCommand::Show(args) => show::<C>(args),
        }
    }
}

fn check<C: DaemonConfig>(args: &ConfigurationArgs) -> Result<Outcome, anyhow::Error> {
    let file = &args.config.config;
    let checked = args.config.document().and_then(|document| Ok(super::read::<C>(document)?));
    let problems = checked.as_ref().err().map_or(&[][..], |error| &error.problems);
    match args.output {
        OutputFormat::Human if problems.is_empty() => write(&good(file))?,
        OutputFormat::Human => {}
        OutputFormat::Json => write(&json(&serde_json::json!({
            "file": file, "good": problems.is_empty(), "problems": problems,
        }))?)?,
    }
    checked?;
    Ok(Outcome::Done)
}

fn show<C: DaemonConfig>(args: &ConfigurationArgs) -> Result<Outcome, anyhow::Error> {
    let document = args.config.document()?;
    let (_, effective) = read_effective(document, C::read).map_err(ConfigError::from)?;
    match args.output {
        OutputFormat::Human => write(&effective.to_toml())?,
        OutputFormat::Json => write(&json(&effective)?)?,
    }
    Ok(Outcome::Done)
}

/// What is said of a good configuration.
pub(super) fn good(file: &Path) -> String {
    format!("{}: configuration is good\n", file.display())
}

fn json(value: &impl serde::Serialize) -> Result<String, anyhow::Error> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn write(text: &str) -> Result<(), anyhow::Error> {
    print(text).context("write to standard output")
}
