//! Text into an expression, by recursive descent: `or` binds least, then `and`, then `not`.

use std::{iter::Peekable, str::CharIndices};

use super::{
    Expression, Field, Node, Test,
    glob::{Glob, Piece},
};
use crate::domain::ContentType;

/// Why a text is no expression: where it stops making sense, what stands there, and what could have stood there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {}: found {found}, expected {expected}; an example: {EXAMPLE}", place(*.line, *.column))]
pub struct NotAnExpression {
    /// Lines and characters are counted from 1.
    pub line: usize,
    pub column: usize,
    /// Cut when it is long; no control characters.
    pub found: String,
    pub expected: String,
}

fn place(line: usize, column: usize) -> String {
    if line == 1 { format!("column {column}") } else { format!("line {line}, column {column}") }
}

const EXAMPLE: &str = r#"operation in (FilePreviewed, "Page Viewed") and not user ~ "*@contoso.example""#;

/// Letters of what was found that a fault repeats.
const LONGEST_SHOWN: usize = 40;

pub(super) fn expression(text: &str) -> Result<Node, NotAnExpression> {
    let mut parser = Parser { text, letters: text.char_indices().peekable(), token: Token::End, at: 0, depth: 0 };
    parser.advance()?;
    let node = parser.any()?;
    match parser.token {
        Token::End => Ok(node),
        _ => Err(parser.expected("`and`, `or` or the end")),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A text in quotes, or a word that is none of the language.
    Text(Vec<Piece>, Quotes),
    And,
    Or,
    Not,
    In,
    Is,
    IsNot,
    Like,
    NotLike,
    Open,
    Close,
    Comma,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quotes {
    With,
    Without,
}

struct Parser<'a> {
    text: &'a str,
    letters: Peekable<CharIndices<'a>>,
    /// Looked at, not yet taken.
    token: Token,
    /// Where it begins, in bytes.
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Node, NotAnExpression> {
        self.several(&Token::Or, Self::all, Node::Any)
    }

    fn all(&mut self) -> Result<Node, NotAnExpression> {
        self.several(&Token::And, Self::one, Node::All)
    }

    fn several(
        &mut self,
        between: &Token,
        part: fn(&mut Self) -> Result<Node, NotAnExpression>,
        whole: fn(Vec<Node>) -> Node,
    ) -> Result<Node, NotAnExpression> {
        let first = part(self)?;
        if self.token != *between {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.token == *between {
            self.advance()?;
            nodes.push(part(self)?);
        }
        Ok(whole(nodes))
    }

    fn one(&mut self) -> Result<Node, NotAnExpression> {
        match &self.token {
            Token::Not => self.deeper(|parser| Ok(Node::Not(Box::new(parser.one()?)))),
            Token::Open => self.deeper(|parser| {
                let node = parser.any()?;
                parser.take(&Token::Close, "`and`, `or` or `)`")?;
                Ok(node)
            }),
            _ => self.comparison(),
        }
    }

    /// Takes the token and goes one level down.
    fn deeper(&mut self, part: impl Fn(&mut Self) -> Result<Node, NotAnExpression>) -> Result<Node, NotAnExpression> {
        if self.depth == Expression::MAX_DEPTH {
            return Err(self.expected(&format!("at most {} levels of `(` and `not`", Expression::MAX_DEPTH)));
        }
        self.depth += 1;
        self.advance()?;
        let node = part(self);
        self.depth -= 1;
        node
    }

    fn comparison(&mut self) -> Result<Node, NotAnExpression> {
        let field = self.field()?;
        self.advance()?;
        let operator = self.token.clone();
        if !matches!(operator, Token::Is | Token::IsNot | Token::Like | Token::NotLike | Token::In | Token::Not) {
            return Err(self.expected("`=`, `!=`, `~`, `!~`, `in` or `not in`"));
        }
        self.advance()?;
        if operator == Token::Not {
            self.take(&Token::In, "`in`")?;
        }
        let test = match operator {
            Token::Like | Token::NotLike => Test::Like(self.pattern()?),
            Token::In | Token::Not => Test::OneOf(self.list(field)?),
            _ => Test::OneOf(vec![self.value(field)?]),
        };
        let is_negated = matches!(operator, Token::IsNot | Token::NotLike | Token::Not);
        Ok(Node::Compare { field, is_negated, test })
    }

    fn field(&self) -> Result<Field, NotAnExpression> {
        let named = match &self.token {
            Token::Text(pieces, Quotes::Without) => {
                let name = literal(pieces).unwrap_or_default();
                Field::ALL.into_iter().find(|field| field.as_str().eq_ignore_ascii_case(&name))
            }
            _ => None,
        };
        named.ok_or_else(|| {
            self.expected("a field (content_type, record_type, operation, workload, user), `not` or `(`")
        })
    }

    fn list(&mut self, field: Field) -> Result<Vec<String>, NotAnExpression> {
        self.take(&Token::Open, "`(` and a list of values")?;
        let mut values = vec![self.value(field)?];
        while self.token == Token::Comma {
            self.advance()?;
            values.push(self.value(field)?);
        }
        self.take(&Token::Close, "`,` or `)`")?;
        Ok(values)
    }

    fn value(&mut self, field: Field) -> Result<String, NotAnExpression> {
        let Token::Text(pieces, _) = &self.token else {
            return Err(self.expected("a value (in quotes when it has spaces or is a word such as `and`)"));
        };
        let Some(value) = literal(pieces) else {
            return Err(self.expected(r"a value without `*` and `?`: patterns go behind `~`, and `\*` is a star"));
        };
        // A value that no record can have is a mistake, and would be found out late.
        match field {
            Field::ContentType if value.parse::<ContentType>().is_err() => {
                let names = ContentType::ALL.map(ContentType::as_str).join(", ");
                return Err(self.expected(&format!("one of {names}")));
            }
            Field::RecordType if !is_whole_number(&value) => {
                return Err(self.expected("a whole number such as 15"));
            }
            _ => {}
        }
        self.advance()?;
        Ok(value)
    }

    fn pattern(&mut self) -> Result<Glob, NotAnExpression> {
        let Token::Text(pieces, _) = &self.token else {
            return Err(self.expected("a pattern (in quotes when it has spaces)"));
        };
        let glob = Glob::new(pieces.clone());
        self.advance()?;
        Ok(glob)
    }

    fn take(&mut self, token: &Token, expected: &str) -> Result<(), NotAnExpression> {
        if self.token != *token {
            return Err(self.expected(expected));
        }
        self.advance()
    }

    /// Looks at the next token.
    fn advance(&mut self) -> Result<(), NotAnExpression> {
        while self.letters.next_if(|(_, letter)| letter.is_whitespace()).is_some() {}
        self.at = self.letters.peek().map_or(self.text.len(), |(at, _)| *at);
        let Some((_, letter)) = self.letters.next() else {
            self.token = Token::End;
            return Ok(());
        };
        self.token = match letter {
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '=' => Token::Is,
            '~' => Token::Like,
            '!' if self.letters.next_if(|(_, letter)| *letter == '=').is_some() => Token::IsNot,
            '!' if self.letters.next_if(|(_, letter)| *letter == '~').is_some() => Token::NotLike,
            '"' | '\'' => self.quoted(letter)?,
            letter if is_of_a_word(letter) => self.word(letter),
            _ => {
                let end = self.at + letter.len_utf8();
                return Err(self.fault(self.at, &self.text[self.at..end], "a word, a text in quotes or an operator"));
            }
        };
        Ok(())
    }

    fn word(&mut self, first: char) -> Token {
        let mut word = String::from(first);
        while let Some((_, letter)) = self.letters.next_if(|(_, letter)| is_of_a_word(*letter)) {
            word.push(letter);
        }
        match word.to_ascii_lowercase().as_str() {
            "and" => Token::And,
            "or" => Token::Or,
            "not" => Token::Not,
            "in" => Token::In,
            _ => Token::Text(word.chars().map(piece).collect(), Quotes::Without),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Token, NotAnExpression> {
        let mut pieces = Vec::new();
        while let Some((at, letter)) = self.letters.next() {
            match letter {
                '\\' => match self.letters.next() {
                    Some((_, letter @ ('"' | '\'' | '\\' | '*' | '?'))) => pieces.push(Piece::Literal(letter)),
                    _ => {
                        let expected = r#"`\\` for a backslash, or one of `\"`, `\'`, `\*`, `\?`"#;
                        return Err(self.fault(at, &self.text[at..], expected));
                    }
                },
                letter if letter == quote => return Ok(Token::Text(pieces, Quotes::With)),
                letter => pieces.push(piece(letter)),
            }
        }
        Err(self.fault(self.at, &self.text[self.at..], &format!("a closing {quote} behind it")))
    }

    /// The token that is looked at is not what should stand there.
    fn expected(&self, expected: &str) -> NotAnExpression {
        let end = self.letters.clone().next().map_or(self.text.len(), |(at, _)| at);
        self.fault(self.at, &self.text[self.at..end], expected)
    }

    fn fault(&self, at: usize, found: &str, expected: &str) -> NotAnExpression {
        let mut shown: String = found.chars().take(LONGEST_SHOWN).collect::<String>();
        shown = shown.replace(char::is_control, " ");
        if found.chars().nth(LONGEST_SHOWN).is_some() {
            shown.push('…');
        }
        let before = &self.text[..at];
        NotAnExpression {
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
            found: if found.is_empty() { "the end".to_owned() } else { format!("`{shown}`") },
            expected: expected.to_owned(),
        }
    }
}

/// What stands for itself in a word or between quotes, unless it is `*` or `?`.
fn piece(letter: char) -> Piece {
    match letter {
        '*' => Piece::Any,
        '?' => Piece::One,
        letter => Piece::Literal(letter),
    }
}

/// The text of these pieces; `None` when it is a pattern.
fn literal(pieces: &[Piece]) -> Option<String> {
    let letter = |piece: &Piece| match piece {
        Piece::Literal(letter) => Some(*letter),
        Piece::Any | Piece::One => None,
    };
    pieces.iter().map(letter).collect()
}

/// Operators of other languages are no words, so that a slip is told and not taken for a value.
fn is_of_a_word(letter: char) -> bool {
    !letter.is_whitespace() && !letter.is_control() && !"()[]{},=!~<>&|\"'`\\;".contains(letter)
}

/// As a record's type is read: digits, perhaps behind a minus.
fn is_whole_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
