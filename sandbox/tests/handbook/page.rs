//! The page: its recipes, and the commands of each.

const PAGE: &str = include_str!("../../../docs/handbook.md");

/// A section with commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) title: String,
    /// As a shell would be given them, in their order.
    pub(crate) commands: Vec<String>,
}

/// The recipes of the handbook.
pub(crate) fn recipes() -> Vec<Recipe> {
    parse(PAGE)
}

fn parse(page: &str) -> Vec<Recipe> {
    let mut recipes = vec![Recipe::default()];
    let mut in_block = None;
    let mut whole = String::new();
    for line in page.lines() {
        match (line.strip_prefix("```"), in_block) {
            (Some(_), Some(_)) => in_block = None,
            (Some(language), None) => in_block = Some(language),
            (None, Some("sh")) => match line.strip_suffix('\\') {
                Some(part) => whole.push_str(part),
                None => {
                    let command = std::mem::take(&mut whole) + line;
                    let is_command = !command.trim().is_empty() && !command.starts_with('#');
                    recipes.last_mut().unwrap().commands.extend(is_command.then_some(command));
                }
            },
            (None, Some(_)) => {}
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ") {
                    recipes.push(Recipe { title: title.to_owned(), commands: Vec::new() });
                }
            }
        }
    }
    assert_eq!(in_block, None, "a block that does not end");
    recipes.retain(|recipe| !recipe.commands.is_empty());
    recipes
}

#[test]
fn commands_belong_to_the_section_that_they_stand_in() {
    let page = "# T\n## One\n```sh\na --b\n# a remark\n\nc \\\n  d\n```\ntext\n```text\n## no\nx\n```\n## Two\n\
                ## Three\n```sh\ne\n```\n```sh\nf\n```\n";
    let recipe = |title: &str, commands: &[&str]| Recipe {
        title: title.to_owned(),
        commands: commands.iter().map(|&command| command.to_owned()).collect(),
    };
    assert_eq!(parse(page), [recipe("One", &["a --b", "c   d"]), recipe("Three", &["e", "f"])]);
}

#[test]
fn there_is_no_command_outside_of_a_recipe() {
    assert!(recipes().iter().all(|recipe| !recipe.title.is_empty()));
}
