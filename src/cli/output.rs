//! How a command tells its result: a table for people, JSON for programs.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Serialize, Serializer};

use super::{Failure, print};

/// In which form the result is told.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct OutputArgs {
    /// A table for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    #[default]
    Table,
    Json,
}

impl OutputArgs {
    pub(super) fn is_json(self) -> bool {
        self.output == Form::Json
    }

    /// For commands that also have a flag for JSON.
    pub(super) fn or_json(self, json: bool) -> Self {
        if json { Self { output: Form::Json } } else { self }
    }

    /// Prints `value` as JSON, or what `people` makes of it.
    ///
    /// # Errors
    /// When standard output cannot be written to, unless its reader has seen enough.
    pub(super) fn show<T: Serialize>(self, value: &T, people: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.output {
            Form::Table => print(&people(value)),
            Form::Json => {
                let mut text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
                text.push('\n');
                print_json(&text)
            }
        }
    }
}

/// Prints lines of JSON: as they are for a program, and on a terminal so that nothing in them is obeyed.
pub(super) fn print_json(lines: &str) -> Result<(), Failure> {
    print(&if io::stdout().is_terminal() { Cow::Owned(harmless_lines(lines)) } else { Cow::Borrowed(lines) })
}

/// Whole lines that others wrote, as they are for a program, and for a terminal so that nothing in them is obeyed.
pub(super) fn for_stdout(lines: &[u8], is_terminal: bool) -> Cow<'_, [u8]> {
    if is_terminal {
        Cow::Owned(harmless_lines(&String::from_utf8_lossy(lines)).into_bytes())
    } else {
        Cow::Borrowed(lines)
    }
}

/// For `serialize_with`: a value as the text that it is displayed as.
pub(super) fn as_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Columns without lines, as wide as what stands in them; ends with a line feed.
pub(super) fn table<R: IntoIterator<Item = String>>(headings: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| harmless(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// What others wrote, fit for a terminal: no control character, so that nothing of it is obeyed.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() || is_direction(letter) { '\u{fffd}' } else { letter }).collect()
}

/// As [`harmless`], for a text of several lines: line feeds stay.
pub(super) fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

/// Of an address that is not ours only the host is told: what follows it may be somebody's secret.
pub(super) fn host_of(address: &str) -> String {
    let host = url::Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "an address that cannot be read".to_owned())
}

/// At most so much of a text that somebody else wrote stands in a cell of a table.
const LONGEST_CELL: usize = 120;

/// The beginning of a text, for a cell of a table.
pub(super) fn shortened(text: &str) -> String {
    cut(text, LONGEST_CELL)
}

/// At most `width` characters of a text; the last one says that there are more.
pub(super) fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// What others wrote, in exactly `width` characters of a line; `-` for nothing.
pub(super) fn cell(text: Option<&str>, width: usize) -> String {
    let text = cut(&harmless(text.unwrap_or("-")), width);
    format!("{text:<width$}")
}

/// Marks that turn the order of the letters after them around.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Says something beside the result, on standard error, and nothing in it is obeyed. Nobody listening there is no failure.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless_lines(text));
}

/// Asks a person whether to go on; `None` when standard input is no terminal, so that there is nobody to ask.
///
/// # Errors
/// When the terminal cannot be read.
pub(super) fn confirmed(question: &str) -> Result<Option<bool>, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    // Whoever cannot read the question does not say yes to it.
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(anyhow::Error::from)?;
    Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")))
}

/// How often a bar is drawn though nothing has come.
const TICK: Duration = Duration::from_millis(200);

/// A bar on the terminal's standard error; nothing when it is piped. `length` 0: not known, so that it counts and turns.
pub(super) fn progress(length: u64, doing: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (length, template) = match length {
        0 => (None, "{spinner} {msg} {pos}"),
        length => (Some(length), "{msg} {wide_bar} {pos}/{len} {eta}"),
    };
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(doing);
    // A spinner that stands still would look like a command that does.
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_letters_end() {
        assert_eq!((cut("Müller", 6), cut("Müller", 4)), ("Müller".to_owned(), "Mül…".to_owned()));
        assert_eq!(
            (cell(Some("Müller"), 4), cell(Some("a\n"), 4), cell(None, 2)),
            ("Mül…".into(), "a�  ".into(), "- ".into())
        );
        assert_eq!(shortened(&"x".repeat(1_000)).chars().count(), LONGEST_CELL);
    }

    #[test]
    fn a_terminal_obeys_no_line_and_a_program_gets_each_byte() {
        let lines = b"{\"a\":\"\x1b[2J\xc2\x9b\xd8\x9c\"}\n\xff\r\n";
        assert_eq!(*for_stdout(lines, false), lines[..]);
        assert_eq!(String::from_utf8_lossy(&for_stdout(lines, true)), "{\"a\":\"�[2J��\"}\n��\n");
        assert_eq!(harmless_lines("a: b\n  c\td"), "a: b\n  c�d");
    }

    #[test]
    fn a_table_is_aligned_and_obeys_nothing_that_others_wrote() {
        let rows = [["Audit.Exchange", "enabled"], ["DLP.All", "\u{1b}[31mred\u{202e}\n"]];
        let told = table(&["content type", "status"], rows.map(|row| row.map(str::to_owned)));
        insta::assert_snapshot!(told, @r"
        CONTENT TYPE    STATUS
        Audit.Exchange  enabled
        DLP.All         �[31mred��
        ");
    }
}
