//! Patterns: `*` stands for any letters or none, `?` for one.

use std::fmt;

use super::{fold, write_literal};

/// A pattern for a whole text, in either letter case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// `*`
    Any,
    /// `?`
    One,
    /// A letter that stands for itself.
    Literal(char),
}

impl Glob {
    pub(super) fn new(pieces: Vec<Piece>) -> Self {
        Self(pieces)
    }

    /// Takes at most the product of both lengths, and no memory.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (mut rest, mut at) = (text.chars(), 0);
        // The last `*` met, and the text behind what it has taken so far.
        let mut star = None;
        loop {
            let here = rest.clone();
            match (self.0.get(at), rest.next()) {
                (None, None) => return true,
                (Some(Piece::Any), _) => {
                    star = Some((at, here.clone()));
                    rest = here;
                    at += 1;
                }
                (Some(Piece::One), Some(_)) => at += 1,
                (Some(Piece::Literal(wanted)), Some(letter)) if fold(*wanted) == fold(letter) => at += 1,
                (_, _) => {
                    // Only the last `*` need take more: whatever an earlier one could take, it can.
                    let Some((place, taken)) = &mut star else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    rest = taken.clone();
                    at = *place + 1;
                }
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for piece in &self.0 {
            match piece {
                Piece::Any => f.write_str("*")?,
                Piece::One => f.write_str("?")?,
                Piece::Literal(letter) => write_literal(f, *letter)?,
            }
        }
        f.write_str("\"")
    }
}
