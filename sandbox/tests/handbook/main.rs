//! The operator's handbook, carried out: every recipe of `docs/handbook.md` is followed in a world of its kind, with the
//! commands of its `sh` blocks as they stand there.
//!
//! A recipe that no test follows fails here, and so does a command that was not run. What the page takes for granted
//! of its reader is the shell's business ([`shell`]): the configuration files by their names, and what `$NAMES` stand for.

#[cfg(test)]
mod page;
#[cfg(test)]
mod shell;
#[cfg(test)]
mod walk;
#[cfg(test)]
mod ground;

#[cfg(test)]
mod beginnings;
#[cfg(test)]
mod caches;
#[cfg(test)]
mod regions;

#[cfg(test)]
mod tests {
    use crate::{beginnings, caches, page, regions};

    #[test]
    fn every_recipe_has_a_test() {
        let mut tested = [regions::RECIPES, caches::RECIPES, beginnings::RECIPES].concat();
        let mut written: Vec<String> = page::recipes().into_iter().map(|recipe| recipe.title).collect();
        tested.sort_unstable();
        written.sort_unstable();
        assert_eq!(written, tested);
    }
}
