//! What an upgrade says to whoever typed it, on standard error.

use tokio::time::{Duration, Instant};

/// What is in the way is told again after so long.
const TELL_INTERVAL: Duration = Duration::from_secs(30);
/// So many reasons are told.
const REASONS_MAX: usize = 8;

#[expect(clippy::print_stderr, reason = "the progress of a command, to whoever typed it")]
pub(super) fn tell(what: &str) {
    eprintln!("{what}");
}

/// Reasons on a line, the first few.
pub(super) fn join(why: &[String]) -> String {
    let more = why.len().saturating_sub(REASONS_MAX);
    let shown = why.iter().take(REASONS_MAX).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{shown}; and {more} more") } else { shown }
}

/// Says what is waited for when that is news, and again now and then.
#[derive(Default)]
pub(super) struct Teller {
    told: Option<(Instant, Vec<String>)>,
}

impl Teller {
    pub(super) fn wait(&mut self, what: &str, why: &[String]) {
        if self.is_news(why) {
            tell(&format!("{what}: {}", join(why)));
        }
    }

    fn is_news(&mut self, why: &[String]) -> bool {
        // Numbers change all the time.
        let words = |why: &String| why.chars().filter(|c| !c.is_ascii_digit()).collect();
        let words: Vec<String> = why.iter().map(words).collect();
        let is_told = |(at, told): &(Instant, Vec<String>)| *told == words && at.elapsed() < TELL_INTERVAL;
        if self.told.as_ref().is_some_and(is_told) {
            return false;
        }
        self.told = Some((Instant::now(), words));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(of: &[&str]) -> Vec<String> {
        of.iter().map(|why| (*why).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_the_way_is_told_when_it_is_news_and_again_now_and_then() {
        let mut teller = Teller::default();
        assert!(teller.is_news(&reasons(&["the watermark is 61 s old"])));
        assert!(!teller.is_news(&reasons(&["the watermark is 62 s old"])), "only the number is another");
        assert!(teller.is_news(&reasons(&["worker w is stopping"])));
        tokio::time::advance(TELL_INTERVAL).await;
        assert!(teller.is_news(&reasons(&["worker w is stopping"])));
    }

    #[test]
    fn of_many_reasons_the_first_are_told_and_the_others_counted() {
        assert_eq!(join(&reasons(&["a", "b"])), "a; b");
        assert_eq!(join(&vec!["a".to_owned(); REASONS_MAX + 2]), "a; a; a; a; a; a; a; a; and 2 more");
    }
}
