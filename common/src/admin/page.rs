//! The page for people: one file, which loads nothing, and what the browser is told that it may do.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The page.
pub(super) const PAGE: &str = include_str!("page/page.html");

/// Its media type.
pub(super) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// What the page may do: run its own script and use its own style, both by their digests, ask where it comes from, and
/// nothing else.
pub(super) fn content_security_policy() -> String {
    let mut policy =
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'"
            .to_owned();
    for (element, directive) in [("script", "script-src"), ("style", "style-src")] {
        let digest = STANDARD.encode(Sha256::digest(inline(element)));
        // Writing to a string does not fail.
        let _infallible = write!(policy, "; {directive} 'sha256-{digest}'");
    }
    policy
}

/// What stands between an element's tags.
fn inline(element: &str) -> &'static str {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let after = PAGE.split_once(&open).map_or("", |(_, after)| after);
    after.split_once(&close).map_or("", |(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_its_policy_allows_no_others() {
        for element in ["script", "style"] {
            assert!(inline(element).len() > 100);
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        let policy = content_security_policy();
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn the_page_writes_text_only_and_names_no_other_place() {
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "https://",
            "style=\"",
            "onclick=",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
        let elsewhere = PAGE.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://"));
    }
}
