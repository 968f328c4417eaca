//! The last part of every command's help: exit codes and command lines that work.

use clap::Command;

/// In the texts below: the program's name.
const PROGRAM: &str = "{program}";

pub(super) const RUN: &str = "\
Exit codes: 0 after a clean stop, and with --check-config if the configuration is good; 1 when it could not go on; 64 \
wrong flags or configuration.

Examples:
  {program} run --config /etc/warmcast/{program}.toml
  A key from the environment, one from a flag:
    WARMCAST__LOG__FORMAT=json {program} run --config {program}.toml --set log.level=debug";

pub(super) const CONFIG_CHECK: &str = "\
Exit codes: 0 it is good; 2 could not run; 64 it is not, or wrong flags.

Examples:
  {program} config check --config {program}.toml
  {program} config check --config {program}.toml --output json";

pub(super) const CONFIG_SHOW: &str = "\
Exit codes: 0 done; 2 could not run; 64 wrong flags or configuration.

Examples:
  {program} config show --config {program}.toml
  What would take effect with another value:
    {program} config show --config {program}.toml --set log.level=debug
  Only what is not a default:
    {program} config show --config {program}.toml --output json | jq 'map(select(.source.from | IN(\"default\", \"unset\") | not))'";

pub(super) const HEALTH: &str = "\
It asks the admin endpoint, as the configuration has it. Alive is a process that runs tasks; ready is one whose conditions \
are met, which its answer names. Restart what is not alive; what is not ready needs time, or something that it depends on.

Exit codes: 0 it is; 1 it is not; 2 it does not answer; 64 wrong flags or configuration.

Examples:
  {program} health --config {program}.toml
  {program} health --config {program}.toml --ready
  The health check of a container that has WARMCAST_CONFIG in its environment:
    HEALTHCHECK CMD [\"/usr/bin/{program}\", \"health\"]";

pub(super) const COMPLETIONS: &str = "\
Exit codes: 0 done; 2 could not run; 64 wrong flags.

Examples:
  For every bash of this machine:
    {program} completions bash > /etc/bash_completion.d/{program}
  For this zsh:
    source <({program} completions zsh)";

pub(super) const MAN: &str = "\
Exit codes: 0 done; 2 could not run; 64 wrong flags.

Examples:
  {program} man | man -l -
  {program} man --directory /usr/local/share/man/man1";

/// Puts the program's name where it belongs. A command that says nothing of its own shows what the group that it is in
/// says of all its commands.
pub(super) fn complete(command: Command, program: &str) -> Command {
    let own = command.get_after_help().map(|text| text.to_string().replace(PROGRAM, program));
    let command = match &own {
        Some(text) => command.after_help(text.clone()),
        None => command,
    };
    let of_group = own.filter(|_| command.get_name() != program);
    command.mut_subcommands(|each| {
        let each = match (each.get_after_help(), &of_group) {
            (None, Some(text)) => each.after_help(text.clone()),
            _ => each,
        };
        complete(each, program)
    })
}
