//! Conditions as text. Pure.
//!
//! ```text
//! or       = and { OR and }
//! and      = not { AND not }
//! not      = NOT not | ( or ) | function | path compare
//! function = attribute_exists ( path ) | attribute_not_exists ( path )
//!          | begins_with ( path , 'text' ) | contains ( path , literal )
//! compare  = ( = | <> | < | <= | > | >= ) literal | BETWEEN literal AND literal | IN ( literal { , literal } )
//! path     = name { . name | [ number ] }       a name of other characters than letters, digits and _: "name"
//! literal  = 'text' | number | true | false     ' within a text: ''
//! ```
//!
//! Words may be in lower or upper case, functions are in lower case, as DynamoDB has it.

use super::condition::{Comparator, Condition, Literal, Node, Path, Step};
use super::number::Number;

/// The longest text (AWS: DynamoDB quotas, expressions have at most 4 KB).
const TEXT_BYTES_MAX: usize = 4 << 10;
/// How deep parentheses and NOT may be nested: the parser and the evaluation call themselves.
const DEPTH_MAX: usize = 64;

/// Why a text is not a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", place(self.text.as_str(), self.at))]
pub struct ConditionError {
    text: String,
    /// In bytes from the beginning.
    at: usize,
    reason: String,
}

/// Where it is: `, at character 7: age >>> ~ 5`.
fn place(text: &str, at: usize) -> String {
    let (before, behind) = text.split_at_checked(at).unwrap_or((text, ""));
    format!(", at character {}: {before}>>>{behind}", before.chars().count() + 1)
}

/// Reads a condition.
pub(super) fn condition(text: &str) -> Result<Condition, ConditionError> {
    if text.len() > TEXT_BYTES_MAX {
        let reason = format!("the condition has {} bytes, at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(ConditionError { text: String::new(), at: 0, reason });
    }
    let tokens = Lexer { text, at: 0 }.tokens()?;
    let mut parser = Parser { text, tokens: &tokens, next: 0 };
    let node = parser.or(0)?;
    match parser.peek() {
        Token::End => Ok(Condition(node)),
        _ => Err(parser.expected("AND, OR or the end")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, a function or a word such as AND.
    Word(String),
    /// A name in double quotes: never a word.
    Quoted(String),
    Text(String),
    Number(Number),
    Symbol(&'static str),
    End,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// The longer ones first.
const SYMBOLS: [&str; 12] = ["<>", "<=", ">=", "=", "<", ">", "(", ")", ",", ".", "[", "]"];

impl<'a> Lexer<'a> {
    fn tokens(mut self) -> Result<Vec<(Token, usize)>, ConditionError> {
        let mut tokens = Vec::new();
        loop {
            self.at = self.text.len() - self.rest().trim_start().len();
            let begin = self.at;
            let token = self.token()?;
            let is_end = token == Token::End;
            tokens.push((token, begin));
            if is_end {
                return Ok(tokens);
            }
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn token(&mut self) -> Result<Token, ConditionError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        match first {
            '\'' => self.quoted('\'').map(Token::Text),
            '"' => self.quoted('"').map(Token::Quoted),
            '-' | '+' | '0'..='9' => {
                let text = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
                Number::parse(text)
                    .map(Token::Number)
                    .ok_or_else(|| self.error(self.at - text.len(), format!("{text:?} is no number")))
            }
            c if c.is_alphanumeric() || c == '_' => {
                Ok(Token::Word(self.take(|c| c.is_alphanumeric() || c == '_').to_owned()))
            }
            _ => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => {
                    self.at += symbol.len();
                    Ok(Token::Symbol(symbol))
                }
                None => Err(self.error(self.at, format!("{first:?} has no meaning here"))),
            },
        }
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    /// What is between two quotes; a quote in it is written twice.
    fn quoted(&mut self, quote: char) -> Result<String, ConditionError> {
        let begin = self.at;
        let mut content = String::new();
        loop {
            self.at += quote.len_utf8();
            content.push_str(self.take(|c| c != quote));
            if self.rest().is_empty() {
                return Err(self.error(begin, format!("this {quote} is not closed")));
            }
            self.at += quote.len_utf8();
            if !self.rest().starts_with(quote) {
                return Ok(content);
            }
            content.push(quote);
        }
    }

    fn error(&self, at: usize, reason: String) -> ConditionError {
        ConditionError { text: self.text.to_owned(), at, reason }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// The last one is the end.
    tokens: &'a [(Token, usize)],
    next: usize,
}

impl Parser<'_> {
    fn or(&mut self, depth: usize) -> Result<Node, ConditionError> {
        self.list("OR", depth, Self::and, Node::Or)
    }

    fn and(&mut self, depth: usize) -> Result<Node, ConditionError> {
        self.list("AND", depth, Self::not, Node::And)
    }

    fn list(
        &mut self,
        word: &str,
        depth: usize,
        part: fn(&mut Self, usize) -> Result<Node, ConditionError>,
        join: fn(Vec<Node>) -> Node,
    ) -> Result<Node, ConditionError> {
        let first = part(self, depth)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_word(word) {
            parts.push(part(self, depth)?);
        }
        Ok(join(parts))
    }

    fn not(&mut self, depth: usize) -> Result<Node, ConditionError> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("nested more than {DEPTH_MAX} deep")));
        }
        if self.take_word("NOT") {
            return Ok(Node::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.take_symbol("(") {
            let node = self.or(depth + 1)?;
            self.symbol(")")?;
            return Ok(node);
        }
        // A function is a word before a parenthesis; an attribute may have the same name.
        let behind = self.tokens.get(self.next + 1).map(|(token, _)| token);
        match self.peek() {
            Token::Word(name) if behind == Some(&Token::Symbol("(")) => {
                let name = name.clone();
                self.function(&name)
            }
            _ => self.comparison(),
        }
    }

    fn function(&mut self, name: &str) -> Result<Node, ConditionError> {
        if !["attribute_exists", "attribute_not_exists", "begins_with", "contains"].contains(&name) {
            return Err(self.expected("attribute_exists, attribute_not_exists, begins_with or contains"));
        }
        self.next += 1;
        self.symbol("(")?;
        let path = self.path()?;
        let node = match name {
            "attribute_exists" => Node::Exists(path),
            "attribute_not_exists" => Node::Not(Box::new(Node::Exists(path))),
            "begins_with" => {
                self.symbol(",")?;
                let Token::Text(prefix) = self.peek().clone() else { return Err(self.expected("a 'text'")) };
                self.next += 1;
                Node::BeginsWith(path, prefix)
            }
            _ => {
                self.symbol(",")?;
                Node::Contains(path, self.literal()?)
            }
        };
        self.symbol(")")?;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Node, ConditionError> {
        let path = self.path()?;
        if self.take_word("BETWEEN") {
            let low = self.ordered_literal()?;
            if !self.take_word("AND") {
                return Err(self.expected("AND"));
            }
            let begin = self.next;
            let high = self.ordered_literal()?;
            let empty = match (&low, &high) {
                (Literal::Text(low), Literal::Text(high)) => low.as_bytes() > high.as_bytes(),
                (Literal::Number(low), Literal::Number(high)) => low > high,
                _ => return Err(self.error_at(begin, "both bounds must be texts or numbers".to_owned())),
            };
            if empty {
                return Err(self.error_at(begin, "the upper bound is below the lower".to_owned()));
            }
            return Ok(Node::Between(path, low, high));
        }
        if self.take_word("IN") {
            self.symbol("(")?;
            let mut literals = vec![self.literal()?];
            while self.take_symbol(",") {
                literals.push(self.literal()?);
            }
            self.symbol(")")?;
            return Ok(Node::In(path, literals));
        }
        let comparator = match self.peek() {
            Token::Symbol("=") => Comparator::Equal,
            Token::Symbol("<>") => Comparator::NotEqual,
            Token::Symbol("<") => Comparator::Less,
            Token::Symbol("<=") => Comparator::LessOrEqual,
            Token::Symbol(">") => Comparator::Greater,
            Token::Symbol(">=") => Comparator::GreaterOrEqual,
            _ => return Err(self.expected("=, <>, <, <=, >, >=, BETWEEN or IN")),
        };
        self.next += 1;
        let literal = match comparator {
            Comparator::Equal | Comparator::NotEqual => self.literal()?,
            _ => self.ordered_literal()?,
        };
        Ok(Node::Compare(path, comparator, literal))
    }

    fn path(&mut self) -> Result<Path, ConditionError> {
        let attribute = self.name()?;
        let mut steps = Vec::new();
        loop {
            if self.take_symbol(".") {
                steps.push(Step::Member(self.name()?));
            } else if self.take_symbol("[") {
                let index = match self.peek() {
                    Token::Number(number) => number.as_index(),
                    _ => None,
                };
                let Some(index) = index else { return Err(self.expected("a place in the list, from 0")) };
                self.next += 1;
                self.symbol("]")?;
                steps.push(Step::Index(index));
            } else {
                return Ok(Path { attribute, steps });
            }
        }
    }

    fn name(&mut self) -> Result<String, ConditionError> {
        let name = match self.peek() {
            Token::Word(word) if !is_reserved(word) => word.clone(),
            Token::Quoted(name) if !name.is_empty() => name.clone(),
            _ => return Err(self.expected("an attribute's name")),
        };
        self.next += 1;
        Ok(name)
    }

    fn literal(&mut self) -> Result<Literal, ConditionError> {
        let literal = match self.peek() {
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Number(number) => Literal::Number(number.clone()),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            _ => return Err(self.expected("a 'text', a number, true or false")),
        };
        self.next += 1;
        Ok(literal)
    }

    /// A literal that is less or more than others.
    fn ordered_literal(&mut self) -> Result<Literal, ConditionError> {
        let begin = self.next;
        match self.literal()? {
            Literal::Bool(_) => Err(self.error_at(begin, "true and false have no order".to_owned())),
            literal => Ok(literal),
        }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn is_word(&self, expected: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(expected))
    }

    fn take_word(&mut self, expected: &str) -> bool {
        let found = self.is_word(expected);
        self.next += usize::from(found);
        found
    }

    fn take_symbol(&mut self, expected: &'static str) -> bool {
        let found = *self.peek() == Token::Symbol(expected);
        self.next += usize::from(found);
        found
    }

    fn symbol(&mut self, expected: &'static str) -> Result<(), ConditionError> {
        if self.take_symbol(expected) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn expected(&self, what: &str) -> ConditionError {
        self.error(format!("expected {what}"))
    }

    fn error(&self, reason: String) -> ConditionError {
        self.error_at(self.next, reason)
    }

    fn error_at(&self, token: usize, reason: String) -> ConditionError {
        let at = self.tokens.get(token).map_or(self.text.len(), |&(_, at)| at);
        ConditionError { text: self.text.to_owned(), at, reason }
    }
}

fn is_reserved(word: &str) -> bool {
    ["AND", "OR", "NOT", "BETWEEN", "IN", "TRUE", "FALSE"]
        .iter()
        .any(|reserved| word.eq_ignore_ascii_case(reserved))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("", "expected an attribute's name, at character 1: >>>"),
            ("age ~ 5", "'~' has no meaning here, at character 5: age >>>~ 5"),
            ("größe = 'x", "this ' is not closed, at character 9: größe = >>>'x"),
            ("age =", "expected a 'text', a number, true or false, at character 6: age =>>>"),
            ("age = 1x", "\"1x\" is no number, at character 7: age = >>>1x"),
            ("age = 1 b = 2", "expected AND, OR or the end, at character 9: age = 1 >>>b = 2"),
            ("(age = 1", "expected ), at character 9: (age = 1>>>"),
            ("age > true", "true and false have no order, at character 7: age > >>>true"),
            (
                "age BETWEEN 1 AND 'x'",
                "both bounds must be texts or numbers, at character 19: age BETWEEN 1 AND >>>'x'",
            ),
            (
                "age BETWEEN 2 AND 1",
                "the upper bound is below the lower, at character 19: age BETWEEN 2 AND >>>1",
            ),
            (
                "size(age) > 1",
                "expected attribute_exists, attribute_not_exists, begins_with or contains, at character 1: >>>size(age) > 1",
            ),
            ("begins_with(id, 1)", "expected a 'text', at character 17: begins_with(id, >>>1)"),
            ("a[-1] = 1", "expected a place in the list, from 0, at character 3: a[>>>-1] = 1"),
            ("and = 1", "expected an attribute's name, at character 1: >>>and = 1"),
            ("a IN ()", "expected a 'text', a number, true or false, at character 7: a IN (>>>)"),
        ] {
            assert_eq!(condition(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn quotes_are_doubled_within_quotes() {
        let path = Path { attribute: "it's \"it\"".to_owned(), steps: Vec::new() };
        let expected = Node::Compare(path, Comparator::Equal, Literal::Text("it's".to_owned()));
        assert_eq!(condition("\"it's \"\"it\"\"\" = 'it''s'"), Ok(Condition(expected)));
    }

    #[test]
    fn too_long_and_too_deep_are_refused() {
        let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
        assert!(condition(&nested(DEPTH_MAX)).is_ok());
        assert!(
            condition(&nested(DEPTH_MAX + 1))
                .unwrap_err()
                .to_string()
                .starts_with("nested more than 64 deep")
        );
        assert!(condition(&format!("{}a = 1", "NOT ".repeat(1_000))).is_err());
        let long = format!("a = '{}'", "x".repeat(TEXT_BYTES_MAX));
        assert!(condition(&long).unwrap_err().to_string().contains("at most 4096 are allowed"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "[ab=<>'\"()\\[\\].,0-9 ANDORTIN_ä~-]{0,40}") {
            let _ = condition(&text);
        }
    }
}
