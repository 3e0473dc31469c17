//! A record in one line of aligned columns.

use std::{borrow::Cow, fmt::Write};

use crate::{
    cli::{facts::Facts, output::cell},
    domain::ContentType,
};

/// Whether lines are coloured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Plain,
    Coloured,
}

impl Style {
    /// Colours on a terminal, unless NO_COLOR is set (no-color.org).
    pub(super) fn fitting(is_terminal: bool) -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_terminal && !is_unwanted { Self::Coloured } else { Self::Plain }
    }

    /// Time, type, operation, user, object and client address; `-` where the record has none.
    pub(super) fn line(self, facts: &Facts<'_>, kind: Option<ContentType>, bytes: usize) -> String {
        let shown = [&facts.created, &facts.operation, &facts.user, &facts.object, &facts.ip];
        if shown.into_iter().all(Option::is_none) {
            return format!("(a record without any of the columns, {bytes} bytes)");
        }
        let time = facts.created_at().map(|time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        let time = time.map(Cow::Owned).or_else(|| facts.created.clone());
        let columns = [
            (time.as_deref(), 19, "\u{1b}[2m"),
            (kind.map(short), 10, "\u{1b}[36m"),
            (facts.operation.as_deref(), 28, "\u{1b}[1m"),
            (facts.user.as_deref(), 32, "\u{1b}[32m"),
            (facts.object.as_deref(), 48, ""),
            (facts.ip.as_deref(), 45, "\u{1b}[33m"),
        ];
        let mut line = String::new();
        for (text, width, colour) in columns {
            let cell = cell(text, width);
            // A String takes whatever is written to it.
            let _ = match self {
                Self::Coloured if !colour.is_empty() => write!(line, "{colour}{cell} \u{1b}[0m"),
                _ => write!(line, "{cell} "),
            };
        }
        line.trim_end().to_owned()
    }
}

/// The content type without what all of them have.
fn short(kind: ContentType) -> &'static str {
    match kind {
        ContentType::AzureActiveDirectory => "AzureAD",
        ContentType::Exchange => "Exchange",
        ContentType::SharePoint => "SharePoint",
        ContentType::General => "General",
        ContentType::Dlp => "DLP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line_of_six_columns() {
        let record = br#"{"CreationTime":"2026-08-30T08:00:01","Operation":"FileAccessed","UserId":"amara.okafor@contoso.example",
            "ObjectId":"https://contoso.example/sites/Finanzen/Lohnabrechnung/2026/August.xlsx","ClientIP":"2001:db8::17"}"#;
        let line = |style: Style| style.line(&Facts::of(record), Some(ContentType::SharePoint), record.len());
        assert_eq!(
            line(Style::Plain),
            "2026-08-30T08:00:01 SharePoint FileAccessed                 amara.okafor@contoso.example     \
             https://contoso.example/sites/Finanzen/Lohnabre… 2001:db8::17"
        );
        assert!(line(Style::Coloured).contains("\u{1b}[1mFileAccessed"));
    }

    #[test]
    fn no_record_breaks_the_line_or_colours_it() {
        let hostile = include_str!("../../../docs/api/samples/hostile.jsonl");
        let worse = [r#"{"Operation":"a\u001b[2Jb\nc\u202e"}"#, r#"{"CreationTime":[1,{}],"UserId":7}"#, "{", ""];
        for record in hostile.lines().chain(worse) {
            let line = Style::Plain.line(&Facts::of(record.as_bytes()), None, record.len());
            assert!(!line.chars().any(char::is_control) && line.chars().count() < 190, "{line}");
        }
        assert_eq!(Style::Plain.line(&Facts::of(b"null"), None, 4), "(a record without any of the columns, 4 bytes)");
    }
}
