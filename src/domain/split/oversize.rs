//! A record that is too large to hold: what can be known of it while it passes.

use sha2::{Digest, Sha256};

/// The longest `Id` that is recognised in a record that is not held, in bytes with its quotes. A GUID has 38.
const ID_MAX: usize = 4096;

/// Reads the `Id` and a hash from a record's bytes, in constant memory.
/// Brackets and strings are followed; whether the rest is JSON is not checked, because the record is a gap either way.
#[derive(Debug, Default)]
pub(super) struct Oversize {
    length: u64,
    hash: Sha256,
    depth: u64,
    in_string: bool,
    escaped: bool,
    is_object: bool,
    /// Behind the colon of a top-level member.
    at_value: bool,
    name_is_id: bool,
    /// The top-level string that is being read, with its quotes, cut at [`ID_MAX`].
    string: Vec<u8>,
    id: Option<String>,
}

impl Oversize {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.hash.update(bytes);
        for &byte in bytes {
            if self.in_string {
                self.inside_string(byte);
            } else {
                self.outside_string(byte);
            }
        }
    }

    /// In bytes, of what was taken so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The usable `Id` if there was one (the last one wins), and the hash of all bytes.
    pub(super) fn finish(self) -> (Option<String>, [u8; 32]) {
        (self.id, self.hash.finalize().into())
    }

    fn inside_string(&mut self, byte: u8) {
        if self.depth == 1 && self.string.len() < ID_MAX {
            self.string.push(byte);
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                if self.depth == 1 && self.is_object {
                    self.string_ended();
                }
            }
            _ => {}
        }
    }

    fn outside_string(&mut self, byte: u8) {
        if self.depth == 1
            && self.at_value
            && self.name_is_id
            && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'}')
        {
            self.id = None; // a value begins; if it is a string, its end says more
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.string.clear();
                self.string.push(byte);
            }
            b'{' | b'[' => {
                self.is_object |= self.depth == 0 && byte == b'{';
                self.depth += 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' if self.depth == 1 => self.at_value = true,
            b',' if self.depth == 1 => self.at_value = false,
            _ => {}
        }
    }

    fn string_ended(&mut self) {
        // A string that was cut has lost its closing quote, so it is no JSON and gives no text.
        let text = serde_json::from_slice::<String>(&self.string).ok();
        if !self.at_value {
            self.name_is_id = text.as_deref() == Some("Id");
        } else if self.name_is_id {
            self.id = text.filter(|id| !id.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(record: &str) -> Option<String> {
        let mut passing = Oversize::default();
        record.as_bytes().iter().for_each(|byte| passing.take(&[*byte]));
        assert_eq!(passing.length(), record.len() as u64);
        passing.finish().0
    }

    #[test]
    fn the_id_is_the_last_top_level_one_that_is_a_string() {
        for (record, id) in [
            (r#"{"Deep":{"Id":"no"},"Id" : "yes","List":[{"Id":"no"},"Id",":"]}"#, Some("yes")),
            (r#"{"Id":"a","\u0049d":"\"b\\"}"#, Some("\"b\\")),
            (r#"{"Id":"a","Id":7}"#, None),
            (r#"{"Id":"a","Id":{"Id":"b"}}"#, None),
            (r#"{"Id":"a","Id":""}"#, None),
            (r#"{"Text":"Id","Other":"x","id":"y"}"#, None),
            (r#"["Id",":","x"]"#, None),
            (r#""Id""#, None),
        ] {
            assert_eq!(id_of(record).as_deref(), id, "{record}");
        }
    }

    #[test]
    fn an_id_that_is_itself_too_long_is_not_kept() {
        assert_eq!(id_of(&format!(r#"{{"Id":"{}"}}"#, "x".repeat(ID_MAX))), None);
    }
}
