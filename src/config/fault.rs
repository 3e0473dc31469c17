//! What is wrong with the settings, where, and what was probably meant.

use std::{fmt, sync::Arc};

/// Everything that is wrong with the settings, one line a fault: file first, by line, then the environment.
///
/// Shape of a line: "o365feed.yaml:12: fetch.concurrency: `zero` is not a whole number of at least 1".
/// No line repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    faults: Vec<Fault>,
}

impl ConfigErrors {
    /// How many faults there are; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.faults.len()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Where a value was written. Ordered as faults are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    File(Arc<str>),
    Line(Arc<str>, usize),
    Variable(String),
    Nowhere,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    place: Place,
    /// Empty when the fault is not about one key.
    key: String,
    text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(file) => write!(f, "{file}: ")?,
            Place::Line(file, line) => write!(f, "{file}:{line}: ")?,
            // The variable's name is the key's.
            Place::Variable(name) => return write!(f, "{name}: {}", self.text),
            Place::Nowhere => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// Collects faults, so that the operator learns all of them at once.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, place: &Place, key: &str, text: impl Into<String>) {
        let fault = Fault { place: place.clone(), key: key.to_owned(), text: text.into() };
        if !self.0.contains(&fault) {
            self.0.push(fault);
        }
    }

    /// `value` when nothing was wrong. A value may be missing only where a fault says why.
    pub(super) fn verdict<T>(mut self, value: Option<T>) -> Result<T, ConfigErrors> {
        self.0.sort();
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(ConfigErrors { faults: self.0 }),
        }
    }
}

/// The known name that `unknown` was probably meant to be. A known last part counts most: the key may only stand in the wrong group.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this the guess confuses more than it helps.
    const LIKELY: f64 = 0.5;
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |name: &str| {
        let whole = strsim::normalized_damerau_levenshtein(unknown, name);
        whole.max(0.9 * strsim::normalized_damerau_levenshtein(&last(unknown), &last(name)))
    };
    let best = known.map(|name| (likeness(name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| LIKELY <= *score).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_by_a_typo_or_in_another_group() {
        let known = ["kafka.group", "kafka.slot", "fetch.concurrency", "fetch.memory"];
        let near = |unknown| nearest(unknown, known.into_iter());
        assert_eq!(near("kafka.gruop"), Some("kafka.group"));
        assert_eq!(near("concurrency"), Some("fetch.concurrency"));
        assert_eq!(near("kafka.memroy"), Some("fetch.memory"));
        assert_eq!(near("zzzzzzzz"), None);
    }

    #[test]
    fn faults_come_in_the_order_of_the_file_then_the_environment() {
        let file: Arc<str> = "o365feed.yaml".into();
        let mut faults = Faults::default();
        faults.add(&Place::Variable("O365FEED_A".to_owned()), "a", "bad");
        faults.add(&Place::Line(file.clone(), 12), "b.c", "worse");
        faults.add(&Place::Line(file, 2), "d", "worst");
        let told = faults.verdict(Some(())).unwrap_err();
        assert_eq!(told.to_string(), "o365feed.yaml:2: d: worst\no365feed.yaml:12: b.c: worse\nO365FEED_A: bad");
    }
}
