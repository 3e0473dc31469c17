//! Where a JSON value ends, found without reading what it says.

use memchr::memchr2;

/// Follows one element from its first byte to its last, over any number of chunks.
/// Only quotes and brackets count; whether it is JSON is for the reader of the whole element to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boundary {
    /// A number or a word: it ends before whatever cannot be part of one.
    is_scalar: bool,
    /// Open brackets.
    depth: u64,
    in_string: bool,
    /// The previous chunk ended with the backslash of an escape.
    escaped: bool,
}

impl Boundary {
    /// The boundary of an element that begins with `first`; `None` when no JSON value begins so.
    pub(super) fn of_element(first: u8) -> Option<Self> {
        let is_scalar = match first {
            b'{' | b'[' | b'"' => false,
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => true,
            _ => return None,
        };
        Some(Self { is_scalar, depth: 0, in_string: false, escaped: false })
    }

    pub(super) fn is_scalar(&self) -> bool {
        self.is_scalar
    }

    /// How many of `bytes` belong to the element; `None` when all do and it goes on.
    pub(super) fn end_in(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.is_scalar {
            return bytes.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']'));
        }
        let mut at = 0;
        loop {
            if self.in_string {
                at += self.string_end_in(&bytes[at..])?;
            } else {
                at += self.bracket_or_quote_in(&bytes[at..])?;
            }
            if self.depth == 0 && !self.in_string {
                return Some(at);
            }
        }
    }

    /// How many bytes there are up to the closing quote, with it.
    fn string_end_in(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.escaped {
                bytes.get(at)?; // the chunk ended behind the backslash
                at += 1;
                self.escaped = false;
            }
            at += memchr2(b'"', b'\\', &bytes[at..])? + 1;
            if bytes[at - 1] == b'"' {
                self.in_string = false;
                return Some(at);
            }
            self.escaped = true;
        }
    }

    /// How many bytes there are up to the next thing that counts outside of strings, with it.
    fn bracket_or_quote_in(&mut self, bytes: &[u8]) -> Option<usize> {
        let at = bytes.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
        match bytes[at] {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            // The first byte opened a bracket, and the element ends when the last one closes: depth is not 0 here.
            _ => self.depth -= 1,
        }
        Some(at + 1)
    }
}
