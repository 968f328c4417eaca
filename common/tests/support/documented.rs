//! What the tests of the daemons' command lines share: whether help tells what there is to tell.

/// What is missing in the help of a command and of all below it.
pub(crate) fn undocumented(command: &clap::Command) -> Vec<String> {
    let mut missing = Vec::new();
    look(command, command.get_name(), &mut missing);
    missing
}

fn look(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
    if command.get_about().is_none() {
        missing.push(format!("{path}: what it is for"));
    }
    for of in command.get_arguments().filter(|of| of.get_help().is_none() && of.get_long_help().is_none()) {
        missing.push(format!("{path}: the help of {}", of.get_id()));
    }
    let below: Vec<&clap::Command> = command.get_subcommands().collect();
    if below.is_empty() {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for wanted in ["Exit codes:", "Examples:", path] {
            if !text.contains(wanted) {
                missing.push(format!("{path}: {wanted:?} after its help"));
            }
        }
    }
    for of in below {
        look(of, &format!("{path} {}", of.get_name()), missing);
    }
}
