//! Log lines on standard error, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::{Traces, TracesError};
use crate::config::{self, Log, LogFormat, Settings};

/// Every end of a partition is an error there, and what is one comes from `librdkafka` too.
const NOISE: &str = "rdkafka::client=off";

/// Starts logging for the whole process: to standard error, because standard output belongs to what a command prints.
/// Text has colours on a terminal only; JSON is one object a line, with the fields of the span around it in `span`.
///
/// # Errors
/// [`LogError::Filter`] when `log.level` is no filter; [`LogError::Started`] when logging was started before.
pub fn init_logs(log: &Log) -> Result<(), LogError> {
    init(vec![lines(log)?])
}

/// Like [`init_logs`], and sends spans to the collector of the settings, if they name one; within a runtime.
///
/// # Errors
/// Also [`LogError::Traces`] when nothing can be sent there.
pub fn init_logs_and_traces(settings: &Settings) -> Result<Option<Traces>, LogError> {
    let mut layers = vec![lines(&settings.log)?];
    let traces = match &settings.traces.otlp_endpoint {
        Some(to) => Some(Traces::begin(to, config::is_loopback(to), &settings.kafka.slot)?),
        None => None,
    };
    layers.extend(traces.as_ref().map(|traces| traces.layer().boxed()));
    init(layers)?;
    Ok(traces)
}

type Layers = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

fn init(layers: Layers) -> Result<(), LogError> {
    tracing_subscriber::registry().with(layers).try_init().map_err(|_| LogError::Started)
}

fn lines(log: &Log) -> Result<Box<dyn Layer<Registry> + Send + Sync>, LogError> {
    let filter = EnvFilter::builder().parse(&log.level).map_err(LogError::Filter)?;
    let filter = filter.add_directive(NOISE.parse().map_err(LogError::Filter)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    Ok(match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        // Spans of ours do not stand within each other: the list would only say the same again.
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    })
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("could not read log.level as a filter such as `info` or `o365feed=debug,warn`")]
    Filter(#[source] ParseError),
    #[error("could not start logging: it is already started")]
    Started,
    #[error(transparent)]
    Traces(#[from] TracesError),
}

/// Whether `level` is a filter that [`init_logs`] takes. Stricter than the library, which reads the misspelt level
/// `inof` as the name of a module and then logs nothing.
pub(crate) fn is_filter(level: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| part.contains(['=', '[']) || LEVELS.contains(&part.trim().to_lowercase().as_str());
    // The filter's parser cuts other texts between bytes of a character, and panics.
    level.is_ascii() && level.split(',').all(known) && EnvFilter::builder().parse(level).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use tracing::{Subscriber, level_filters::LevelFilter};
    use url::Url;

    use super::*;

    /// The level below which a line costs one comparison, wherever it stands.
    #[tokio::test]
    async fn nothing_below_the_level_is_looked_at_and_traces_want_no_more_than_debug() {
        let log = Log { format: LogFormat::Text, level: "librdkafka=warn,info".to_owned() };
        let least = |layers: Layers| tracing_subscriber::registry().with(layers).max_level_hint();
        assert_eq!(least(vec![lines(&log).unwrap()]), Some(LevelFilter::INFO));
        let nowhere = Url::parse("http://127.0.0.1:1").unwrap();
        let traces = Traces::begin(&nowhere, true, "a").unwrap();
        assert_eq!(least(vec![lines(&log).unwrap(), traces.layer().boxed()]), Some(LevelFilter::DEBUG));
        traces.end().await;
    }

    /// A level, and a message with an ellipsis for each part that is filled in.
    type Line = (String, String);

    #[test]
    fn every_line_that_an_operator_may_meet_is_documented_and_no_other() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let logged = lines_below(&root.join("src"));
        assert!(40 < logged.len(), "only {} lines found", logged.len());
        let page = fs::read_to_string(root.join("docs/logs.md")).unwrap();
        let documented: BTreeSet<Line> = page.lines().filter_map(row).collect();
        let lacks: Vec<_> = logged.difference(&documented).collect();
        let surplus: Vec<_> = documented.difference(&logged).collect();
        assert!(
            lacks.is_empty() && surplus.is_empty(),
            "docs/logs.md lacks {lacks:#?}, and has for nothing {surplus:#?}"
        );
    }

    /// The level and the message of a row such as "| warn | `trouble with Kafka: …` | …".
    fn row(line: &str) -> Option<Line> {
        let (level, rest) = line.strip_prefix("| ")?.split_once(" | `")?;
        let (message, _) = rest.split_once("` |")?;
        ["info", "warn", "error"].contains(&level).then(|| (level.to_owned(), message.to_owned()))
    }

    fn lines_below(folder: &Path) -> BTreeSet<Line> {
        let mut lines = BTreeSet::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                lines.extend(lines_below(&path));
            } else {
                lines.extend(lines_of(&fs::read_to_string(path).unwrap()));
            }
        }
        lines
    }

    /// Found by the macros' names. A message is the first text in its macro that is not the value of a field.
    fn lines_of(source: &str) -> Vec<Line> {
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut lines = Vec::new();
        for level in ["info", "warn", "error"] {
            let name = format!("{level}!(");
            for (at, _) in code.match_indices(&name) {
                let opens = at + name.len();
                let quote = opens + code[opens..].find('"').unwrap();
                assert!(!code[..quote].ends_with("= "), "a field with a text of its own: {}", &code[at..=quote]);
                lines.push((level.to_owned(), message(&code[quote + 1..])));
            }
        }
        lines
    }

    /// The text up to its closing quote, as people see it.
    fn message(text: &str) -> String {
        let (mut message, mut chars) = (String::new(), text.chars().peekable());
        loop {
            match chars.next().unwrap() {
                '"' => return message,
                '{' => {
                    chars.by_ref().find(|c| *c == '}').unwrap();
                    message.push('…');
                }
                '\\' => {
                    let escaped = chars.next().unwrap();
                    assert_eq!(escaped, '\n', "only the end of a source line is escaped in a message");
                    while chars.next_if(|c| c.is_whitespace()).is_some() {}
                }
                other => message.push(other),
            }
        }
    }

    #[test]
    fn the_search_for_lines_sees_messages_as_people_do() {
        let source = r#"warn!(partition, "no {x} of {}"); tracing::error!(%a, "long \
                        text"); debug!("not told"); info!("a"#
            .to_owned()
            + "\")";
        let told = [("info", "a"), ("warn", "no … of …"), ("error", "long text")];
        assert_eq!(lines_of(&source), told.map(|(level, text)| (level.to_owned(), text.to_owned())));
    }

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for good in ["info", "WARN", "off", "o365feed=debug,warn", "o365feed::api=trace", "info,[run]=debug"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", " ", "inof", "info,,warn", "o365feed=loud", "info warn"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }
}
