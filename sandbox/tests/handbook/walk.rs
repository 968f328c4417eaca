//! A recipe as it is followed: its commands one after the other, none left out.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use warmcast_sandbox::daemon::CommandOutput;

use crate::page::{Recipe, recipes};
use crate::shell::Shell;

/// What a command is run again and again for comes within this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each run is a process.
const PAUSE: Duration = Duration::from_millis(500);

/// The exit codes of every command.
pub(crate) const DONE: i32 = 0;
pub(crate) const PROBLEMS: i32 = 1;
const WRONG: i32 = 64;

/// The recipes that one test follows.
pub(crate) struct Chapter {
    titles: &'static [&'static str],
    followed: BTreeSet<String>,
}

impl Chapter {
    pub(crate) fn new(titles: &'static [&'static str]) -> Self {
        Self { titles, followed: BTreeSet::new() }
    }

    /// Begins to follow a recipe.
    pub(crate) fn recipe<'a>(&mut self, title: &str, shell: &'a mut Shell) -> Walk<'a> {
        let recipe = recipes().into_iter().find(|recipe| recipe.title == title);
        let recipe = recipe.unwrap_or_else(|| panic!("the handbook has no recipe {title:?}"));
        self.followed.insert(title.to_owned());
        Walk { shell, recipe, next: 0 }
    }

    /// Every recipe was begun.
    pub(crate) fn finish(self) {
        let titles: BTreeSet<String> = self.titles.iter().map(|&title| title.to_owned()).collect();
        assert_eq!(self.followed, titles, "every recipe of the chapter is followed");
    }
}

/// A recipe under way.
pub(crate) struct Walk<'a> {
    pub(crate) shell: &'a mut Shell,
    recipe: Recipe,
    next: usize,
}

impl Walk<'_> {
    /// Runs the next command, which begins with these words and must end with this exit code.
    pub(crate) async fn run(&mut self, words: &str, code: i32) -> CommandOutput {
        let output = self.take(words).await;
        assert_eq!(output.code, Some(code), "{}: {output}", self.recipe.title);
        output
    }

    /// Runs the next command until it ends with this exit code.
    pub(crate) async fn run_until(&mut self, words: &str, code: i32) -> CommandOutput {
        let mut output = self.take(words).await;
        let deadline = Instant::now() + PATIENCE;
        while output.code != Some(code) {
            let is_in_vain = output.code == Some(WRONG) || Instant::now() >= deadline;
            assert!(!is_in_vain, "{}: not within {PATIENCE:?}: {output}", self.recipe.title);
            sleep(PAUSE).await;
            output = self.shell.run(&output.command).await;
        }
        output
    }

    /// Runs the last command again until it ends with this exit code.
    pub(crate) async fn again_until(&mut self, code: i32) -> CommandOutput {
        self.next -= 1;
        self.run_until("", code).await
    }

    async fn take(&mut self, words: &str) -> CommandOutput {
        let Recipe { title, commands } = &self.recipe;
        let command = commands.get(self.next).unwrap_or_else(|| panic!("{title}: no command for {words:?}"));
        assert!(command.starts_with(words), "{title}: {words:?} was to be run, the page has {command:?}");
        self.next += 1;
        self.shell.run(command).await
    }

    /// Every command was run.
    pub(crate) fn done(self) {
        let Recipe { title, commands } = &self.recipe;
        assert_eq!(
            commands.get(self.next..).unwrap(),
            [] as [&str; 0],
            "{title}: commands that no test runs"
        );
    }
}
