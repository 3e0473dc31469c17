//! A record in one line for a person: what happened, who did it, where. Whatever it holds, the line stays a line.

use crate::cli::{facts::Facts, output::cell};

/// Id, operation, user and workload in columns, at most 86 characters.
pub fn glimpse(record: &[u8]) -> String {
    let facts = Facts::of(record);
    if facts == Facts::default() {
        return format!("(a record without any of the columns, {} bytes)", record.len());
    }
    let columns = [(facts.id, 9), (facts.operation, 22), (facts.user, 30), (facts.workload, 22)];
    let cells = columns.map(|(text, width)| cell(text.as_deref(), width));
    cells.join(" ").trim_end().to_owned()
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
        assert_eq!(line, "-         a�[2Jb��c              -                              -");
    }
}
