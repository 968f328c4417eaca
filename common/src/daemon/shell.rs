//! `completions` and `man`: what shells and man(1) are to know of a daemon's command line, made of the command line
//! itself.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

use super::{Outcome, print};

/// The flags of `completions`.
#[derive(Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// The flags of `man`.
#[derive(Args)]
pub(super) struct Man {
    /// Write a page for the program and for each of its commands into this directory, which is created if it is missing.
    /// Without it the program's own page is printed.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Completions {
    pub(super) fn carry_out(&self, mut whole: clap::Command) -> Result<Outcome, anyhow::Error> {
        let (name, mut script) = (whole.get_name().to_owned(), Vec::new());
        clap_complete::generate(self.shell, &mut whole, name, &mut script);
        written(&script)
    }
}

impl Man {
    pub(super) fn carry_out(&self, whole: clap::Command) -> Result<Outcome, anyhow::Error> {
        match &self.directory {
            Some(directory) => {
                write_pages(whole, directory).with_context(|| format!("write to {}", directory.display()))?;
                Ok(Outcome::Done)
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(whole).render(&mut page)?;
                written(&page)
            }
        }
    }
}

fn write_pages(whole: clap::Command, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(whole.disable_help_subcommand(true), directory)
}

fn written(text: &[u8]) -> Result<Outcome, anyhow::Error> {
    print(&String::from_utf8_lossy(text)).context("write to standard output")?;
    Ok(Outcome::Done)
}
