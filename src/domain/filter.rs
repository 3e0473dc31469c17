//! A small language that says which records are meant: `operation = FileAccessed and user ~ "*@contoso.example"`.
//! One door: [`Expression`], and [`Filter`] which puts expressions to use. The grammar is in docs/filters.md; settings and commands read it alike.

mod glob; // patterns with `*` and `?`
mod parse; // text into an expression, or a fault with its column
mod rules; // drop, or another topic

use std::fmt;

use self::glob::Glob;
pub use self::{
    parse::NotAnExpression,
    rules::{Filter, Route, Way},
};

/// What is asked of a record: a tree of comparisons, never deeper than [`Expression::MAX_DEPTH`].
///
/// Three-valued: a comparison on a field that the record lacks is *unknown*, and so is whatever depends on it (Kleene's
/// strong logic). Letters compare in either case, because the service spells its own names in several
/// (`DLPRuleMatch`, `DlpRuleMatch`).
///
/// [`Display`](fmt::Display) writes it so that [`Expression::parse`] gives the same expression again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(Node);

/// The record that an expression is asked about. `None` is a field that the record lacks; an empty text is a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// `Audit.SharePoint`: the content type that the record came in.
    pub content_type: Option<&'a str>,
    /// `RecordType`, a whole number in decimal.
    pub record_type: Option<&'a str>,
    /// `Operation`.
    pub operation: Option<&'a str>,
    /// `Workload`.
    pub workload: Option<&'a str>,
    /// `UserId`.
    pub user: Option<&'a str>,
}

impl Expression {
    /// How deep parentheses and `not` may stand in one another.
    pub const MAX_DEPTH: usize = 32;

    /// # Errors
    /// [`NotAnExpression`] with the first character that does not fit.
    pub fn parse(text: &str) -> Result<Self, NotAnExpression> {
        parse::expression(text).map(Self)
    }

    /// Whether the record is meant, beyond doubt: *unknown* is no.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.truth(subject) == Some(true)
    }

    /// `None` when it depends on a field that the record lacks.
    fn truth(&self, subject: &Subject<'_>) -> Option<bool> {
        self.0.truth(subject)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// At least two.
    Any(Vec<Node>),
    /// At least two.
    All(Vec<Node>),
    Not(Box<Node>),
    Compare {
        field: Field,
        is_negated: bool,
        test: Test,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// One of these texts; at least one. `=` is a list of one.
    OneOf(Vec<String>),
    Like(Glob),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    ContentType,
    RecordType,
    Operation,
    Workload,
    User,
}

impl Field {
    const ALL: [Self; 5] = [Self::ContentType, Self::RecordType, Self::Operation, Self::Workload, Self::User];

    fn as_str(self) -> &'static str {
        match self {
            Self::ContentType => "content_type",
            Self::RecordType => "record_type",
            Self::Operation => "operation",
            Self::Workload => "workload",
            Self::User => "user",
        }
    }

    fn of<'a>(self, subject: &Subject<'a>) -> Option<&'a str> {
        match self {
            Self::ContentType => subject.content_type,
            Self::RecordType => subject.record_type,
            Self::Operation => subject.operation,
            Self::Workload => subject.workload,
            Self::User => subject.user,
        }
    }
}

impl Node {
    fn truth(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Self::Any(nodes) => decided_by(true, nodes, subject),
            Self::All(nodes) => decided_by(false, nodes, subject),
            Self::Not(node) => node.truth(subject).map(|truth| !truth),
            Self::Compare { field, is_negated, test } => Some(test.holds(field.of(subject)?) != *is_negated),
        }
    }
}

/// One node of this `truth` decides for all; without one, an unknown leaves all unknown.
fn decided_by(truth: bool, nodes: &[Node], subject: &Subject<'_>) -> Option<bool> {
    let mut all = Some(!truth);
    for node in nodes {
        match node.truth(subject) {
            Some(decisive) if decisive == truth => return Some(truth),
            Some(_) => {}
            None => all = None,
        }
    }
    all
}

impl Test {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::OneOf(values) => values.iter().any(|value| text.chars().map(fold).eq(value.chars().map(fold))),
            Self::Like(glob) => glob.matches(text),
        }
    }
}

/// A letter in lower case, where that is one letter.
fn fold(letter: char) -> char {
    let mut lower = letter.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => letter,
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(nodes) => joined(f, " or ", nodes),
            Self::All(nodes) => joined(f, " and ", nodes),
            Self::Not(node) => {
                f.write_str("not ")?;
                node.within(f)
            }
            Self::Compare { field, is_negated, test } => {
                let negation = if *is_negated { "!" } else { "" };
                match test {
                    Test::Like(glob) => write!(f, "{} {negation}~ {glob}", field.as_str()),
                    Test::OneOf(values) => match values.as_slice() {
                        [value] => write!(f, "{} {negation}= {}", field.as_str(), Quoted(value)),
                        values => {
                            let texts: Vec<_> = values.iter().map(|value| Quoted(value).to_string()).collect();
                            let negation = if *is_negated { "not " } else { "" };
                            write!(f, "{} {negation}in ({})", field.as_str(), texts.join(", "))
                        }
                    },
                }
            }
        }
    }
}

impl Node {
    /// As a part of another: in parentheses where it would come apart.
    fn within(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(_) | Self::All(_) => write!(f, "({self})"),
            Self::Not(_) | Self::Compare { .. } => write!(f, "{self}"),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, word: &str, nodes: &[Node]) -> fmt::Result {
    for (at, node) in nodes.iter().enumerate() {
        if at > 0 {
            f.write_str(word)?;
        }
        node.within(f)?;
    }
    Ok(())
}

/// A text as it is written in an expression; always in quotes, so that no text is taken for a word of the language.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        self.0.chars().try_for_each(|letter| write_literal(f, letter))?;
        f.write_str("\"")
    }
}

/// A letter that stands for itself, within quotes.
fn write_literal(f: &mut fmt::Formatter<'_>, letter: char) -> fmt::Result {
    if matches!(letter, '"' | '\\' | '*' | '?') {
        f.write_str("\\")?;
    }
    write!(f, "{letter}")
}

#[cfg(test)]
mod tests;
