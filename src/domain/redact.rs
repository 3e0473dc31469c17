//! Takes the sensitive text that DLP rules found out of a record, and leaves every other byte as it came.

use std::borrow::Cow;

use memchr::{memchr, memmem};

/// The member whose values go: the matches of a rule in clear text, with what stood around them.
///
/// Source: docs/api/contract.md 8.3, 8.4.
pub const REDACTED_MEMBER: &str = "SensitiveInformationDetections";

/// What stands for a value that went.
const NOTHING: &[u8] = b"{}";

/// The record with `{}` for every value of [`REDACTED_MEMBER`]: at any depth, however often, also when its name is written
/// with escapes; no other letter case. JSON inside of a string is text and stays.
///
/// Shape: borrowed when nothing had to go. `record` is one JSON value; of anything else the result is some bytes.
pub fn redacted(record: &[u8]) -> Cow<'_, [u8]> {
    // A name of letters alone can be written in no other way than as it is, or with `\u`.
    if memmem::find(record, REDACTED_MEMBER.as_bytes()).is_none() && memmem::find(record, b"\\u").is_none() {
        return Cow::Borrowed(record);
    }
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(quote) = memchr(b'"', &record[at..]) {
        let start = at + quote;
        at = string_end(record, start);
        // Only the name of a member has a colon behind it.
        let Some(value) = member_value(record, at).filter(|_| is_redacted(&record[start..at])) else { continue };
        at = value_end(record, value);
        if &record[value..at] != NOTHING {
            out.extend_from_slice(&record[copied..value]);
            out.extend_from_slice(NOTHING);
            copied = at;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(record);
    }
    out.extend_from_slice(&record[copied..]);
    Cow::Owned(out)
}

/// Whether a name, in its quotes, is the one.
fn is_redacted(quoted: &[u8]) -> bool {
    if memchr(b'\\', quoted).is_some() {
        return serde_json::from_slice::<String>(quoted).is_ok_and(|name| name == REDACTED_MEMBER);
    }
    quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) == Some(REDACTED_MEMBER.as_bytes())
}

/// Where the value begins, when a colon follows at `at`.
fn member_value(record: &[u8], at: usize) -> Option<usize> {
    let colon = skip_space(record, at);
    (record.get(colon) == Some(&b':')).then(|| skip_space(record, colon + 1))
}

fn skip_space(record: &[u8], at: usize) -> usize {
    let spaces = record[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    at + spaces
}

/// Behind the string that begins at `start`.
fn string_end(record: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(next) = record.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += next;
        if record[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    record.len()
}

/// Behind the value that begins at `start`.
fn value_end(record: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while let Some(byte) = record.get(at) {
        match byte {
            b'"' => at = string_end(record, at) - 1,
            b'{' | b'[' => depth += 1,
            // The end of what the value stands in; it was a number or a word.
            b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            return at;
        }
    }
    record.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn text(record: &str) -> String {
        String::from_utf8(redacted(record.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn only_the_value_goes() {
        for (record, expected) in [
            (r#"{"SensitiveInformationDetections":[1]}"#, r#"{"SensitiveInformationDetections":{}}"#),
            (
                r#"{"SensitiveInformationDetections" : "a\"}b" , "x":1}"#,
                r#"{"SensitiveInformationDetections" : {} , "x":1}"#,
            ),
            (r#"{"SensitiveInformationDetections":-1.5e3}"#, r#"{"SensitiveInformationDetections":{}}"#),
            (r#"{"SensitiveInformationDetections":null ,"x":1}"#, r#"{"SensitiveInformationDetections":{} ,"x":1}"#),
            (r#"{"\u0053ensitiveInformationDetections":[[]]}"#, r#"{"\u0053ensitiveInformationDetections":{}}"#),
            (
                r#"[[{"a":[{"SensitiveInformationDetections":{"DetectedValues":[{"Name":"4111"}]}}]}],"x"]"#,
                r#"[[{"a":[{"SensitiveInformationDetections":{}}]}],"x"]"#,
            ),
            (
                r#"{"SensitiveInformationDetections":{"SensitiveInformationDetections":1},"SensitiveInformationDetections":[2]}"#,
                r#"{"SensitiveInformationDetections":{},"SensitiveInformationDetections":{}}"#,
            ),
        ] {
            assert_eq!(text(record), expected);
        }
    }

    #[test]
    fn what_only_looks_like_it_stays_and_costs_no_copy() {
        for record in [
            r#"{"SensitiveInformationDetections":{}}"#,
            r#"{"sensitiveInformationDetections":[1]}"#,
            r#"{"SensitiveInformationDetections ":[1]}"#,
            r#"{"x":"SensitiveInformationDetections"}"#,
            r#"["SensitiveInformationDetections",{"x":1}]"#,
            r#"{"x":"{\"SensitiveInformationDetections\":[1]}"}"#,
            r#"{"x\"SensitiveInformationDetections":[1]}"#,
            r#"{"\ud83dSensitiveInformationDetections":[1]}"#,
            r#"{"x":"\u0041"}"#,
            "7",
            "",
        ] {
            assert!(
                matches!(redacted(record.as_bytes()), Cow::Borrowed(same) if same == record.as_bytes()),
                "{record}"
            );
        }
    }

    /// Real shapes, and hostile ones: nothing of a detection is left, and all else is the same.
    #[test]
    fn the_samples_lose_their_detections_and_nothing_else() {
        let files = [
            include_str!("../../docs/api/samples/DLP.All.jsonl"),
            include_str!("../../docs/api/samples/Audit.General.jsonl"),
            include_str!("../../docs/api/samples/Audit.Exchange.jsonl"),
            include_str!("../../docs/api/samples/hostile.jsonl"),
        ];
        let mut changed = 0;
        for line in files.iter().flat_map(|file| file.lines()).filter(|line| !line.trim().is_empty()) {
            let after = text(line);
            changed += usize::from(after != line);
            // A few hostile lines are beyond what a tree can hold.
            let (Ok(mut before), Ok(after)) = (serde_json::from_str(line), serde_json::from_str::<Value>(&after))
            else {
                continue;
            };
            blank(&mut before);
            assert_eq!(before, after);
        }
        assert!(changed >= 4, "{changed} samples have detections");
    }

    /// The same, said of a tree.
    fn blank(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if name == REDACTED_MEMBER {
                        *value = Value::Object(serde_json::Map::new());
                    }
                    blank(value);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(blank),
            _ => {}
        }
    }

    #[derive(Clone, Debug)]
    enum Json {
        Leaf(&'static str),
        List(Vec<Json>),
        /// Names as they are written.
        Members(Vec<(String, Json)>),
    }

    /// With `space` around everything, and with or without what must go.
    fn write(json: &Json, space: &str, redact: bool, out: &mut String) {
        match json {
            Json::Leaf(text) => out.push_str(text),
            Json::List(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(space);
                    write(value, space, redact, out);
                    out.push_str(space);
                }
                out.push(']');
            }
            Json::Members(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(&format!("{space}\"{name}\"{space}:{space}"));
                    let goes = serde_json::from_str::<String>(&format!("\"{name}\"")).unwrap() == REDACTED_MEMBER;
                    if redact && goes {
                        out.push_str("{}");
                    } else {
                        write(value, space, redact, out);
                    }
                    out.push_str(space);
                }
                out.push('}');
            }
        }
    }

    fn name() -> impl Strategy<Value = String> {
        let escaped = |letters: Vec<bool>| {
            let letter = |(letter, escape): (char, bool)| match escape {
                true => format!("\\u{:04X}", u32::from(letter)),
                false => letter.to_string(),
            };
            REDACTED_MEMBER.chars().zip(letters).map(letter).collect::<String>()
        };
        prop_oneof![
            Just(REDACTED_MEMBER.to_owned()),
            prop::collection::vec(any::<bool>(), REDACTED_MEMBER.len()).prop_map(escaped),
            prop::sample::select(vec!["", "x", "Id", "\\\"", "\\\\", "SensitiveInformationDetection", "a:b"])
                .prop_map(str::to_owned),
        ]
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaves = vec![
            "0",
            "-1.5E+3",
            "true",
            "null",
            "\"\"",
            "\"4111 1111\"",
            "\"}],:{[\"",
            "\"\\\\\"",
            "\"\\\"\"",
            "\"\\u0022\"",
            "\"SensitiveInformationDetections\"",
            "{}",
            "[]",
        ];
        prop::sample::select(leaves).prop_map(Json::Leaf).prop_recursive(5, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
                prop::collection::vec((name(), inner), 0..4).prop_map(Json::Members),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_other_byte_is_as_it_was(json in json(), space in prop::sample::select(vec!["", " ", "\r\n\t "])) {
            let (mut before, mut after) = (String::new(), String::new());
            write(&json, space, false, &mut before);
            write(&json, space, true, &mut after);
            prop_assert_eq!(text(&before), after.clone());
            prop_assert!(serde_json::from_str::<Value>(&after).is_ok());
            prop_assert_eq!(text(&after), after);
        }

        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec(
            prop::sample::select(vec![
                "\"SensitiveInformationDetections\"", ":", "{", "}", "[", "]", "\"", "\\", ",", "1", " ", "\\u0053",
            ]),
            0..20,
        )) {
            let bytes = pieces.concat();
            let _ = redacted(bytes.as_bytes());
        }
    }
}
