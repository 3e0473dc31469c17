//! A record in one line for a person: what happened, who did it, where. Whatever it holds, the line stays a line.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

/// The members that are shown. Any JSON may stand in them.
#[derive(Deserialize)]
struct Shown {
    #[serde(rename = "Id", default)]
    id: Value,
    #[serde(rename = "Operation", default)]
    operation: Value,
    #[serde(rename = "UserId", default)]
    user: Value,
    #[serde(rename = "Workload", default)]
    workload: Value,
}

/// Id, operation, user and workload in columns, at most 86 characters.
pub fn glimpse(record: &[u8]) -> String {
    let Ok(Shown { id, operation, user, workload }) = serde_json::from_slice(record) else {
        return format!("(a record that is no object, {} bytes)", record.len());
    };
    let line = format!("{} {} {} {}", cell(&id, 9), cell(&operation, 22), cell(&user, 30), cell(&workload, 22));
    line.trim_end().to_owned()
}

/// `value` in exactly `width` characters, none of which moves the cursor or turns the writing round.
fn cell(value: &Value, width: usize) -> String {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Null => Cow::Borrowed("-"),
        other => Cow::Owned(other.to_string()),
    };
    let plain = |c: char| if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' { c } else { '·' };
    let mut cut: String = text.chars().take(width + 1).map(plain).collect();
    if cut.chars().count() > width {
        cut = cut.chars().take(width - 1).chain(['…']).collect();
    }
    format!("{cut:<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_of_four_columns() {
        let record =
            br#"{"Id":"0f8fad5b-d9cb-469f","Operation":"FileAccessed","UserId":"a@b.example","Workload":"SharePoint"}"#;
        assert_eq!(glimpse(record), "0f8fad5b… FileAccessed           a@b.example                    SharePoint");
    }

    #[test]
    fn no_record_breaks_the_line() {
        for record in ["null", "{", "", "\"a bare string\"", "[1]", "{}", r#"{"Id":7,"UserId":{"a":[]}}"#] {
            let line = glimpse(record.as_bytes());
            assert!(!line.contains('\n') && line.chars().count() <= 86, "{record}: {line}");
        }
        let line = glimpse("{\"Operation\":\"a\\u001b[2Jb\\n\\u202ec\"}".as_bytes());
        assert_eq!(line, "-         a·[2Jb··c              -                              -");
    }
}
