//! Log lines on standard error, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::{Log, LogFormat};

/// Every end of a partition is an error there, and what is one comes from `librdkafka` too.
const NOISE: &str = "rdkafka::client=off";

/// Starts logging for the whole process: to standard error, because standard output belongs to what a command prints.
/// Text has colours on a terminal only; JSON is one object a line.
///
/// # Errors
/// [`LogError::Filter`] when `log.level` is no filter; [`LogError::Started`] when logging was started before.
pub fn init_logs(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(&log.level).map_err(LogError::Filter)?;
    let filter = filter.add_directive(NOISE.parse().map_err(LogError::Filter)?);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LogError::Started)
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("could not read log.level as a filter such as `info` or `o365feed=debug,warn`")]
    Filter(#[source] ParseError),
    #[error("could not start logging: it is already started")]
    Started,
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
    use super::is_filter;

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
