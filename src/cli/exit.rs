//! What the exit code says to whoever started the process.

use std::{fmt, process::ExitCode};

/// How a command ended. The numbers are documented in `--help` and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Fine,
    /// Nothing foreseen: a bug, or a machine in trouble.
    Unexpected,
    Usage,
    /// Microsoft refuses tenant, client or consent, and will until a person acts.
    Microsoft,
    /// Topics, authorisation, or another group's ledger.
    Kafka,
    /// Another process has our `kafka.slot`.
    SlotTaken,
    /// Commits made no progress; a restart begins anew.
    Watchdog,
    /// Something is missing or there twice: `demo` or `reconcile` found it.
    Incomplete,
    /// `doctor` found something that costs data sooner or later.
    Ailing,
    /// `doctor` found something that does not work.
    Ill,
}

impl Exit {
    pub const ALL: [Self; 10] = [
        Self::Fine,
        Self::Unexpected,
        Self::Usage,
        Self::Microsoft,
        Self::Kafka,
        Self::SlotTaken,
        Self::Watchdog,
        Self::Incomplete,
        Self::Ailing,
        Self::Ill,
    ];

    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Unexpected => 1,
            Self::Usage => 2, // as clap has it
            Self::Microsoft => 3,
            Self::Kafka => 4,
            Self::SlotTaken => 5,
            Self::Watchdog => 6,
            Self::Incomplete => 7,
            Self::Ailing => 8,
            Self::Ill => 9,
        }
    }

    /// For the help of a command, in a few words.
    fn short(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unexpected => "try again",
            Self::Usage => "wrong usage or settings",
            Self::Microsoft => "Microsoft refuses",
            Self::Kafka => "Kafka refuses or cannot be read",
            Self::SlotTaken => "another process is at it",
            Self::Watchdog => "no progress, start again",
            Self::Incomplete => "something is missing",
            Self::Ailing => "warnings",
            Self::Ill => "failures",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Fine => "fine; or stopped as asked",
            Self::Unexpected => "an unexpected failure; starting again may help",
            Self::Usage => "wrong usage or wrong settings",
            Self::Microsoft => "Microsoft refuses for good: tenant, client or consent",
            Self::Kafka => "Kafka refuses: topics, authorisation, or a ledger of another group",
            Self::SlotTaken => "another process uses this slot (kafka.slot)",
            Self::Watchdog => "no progress: the watchdog ended the process; starting again helps",
            Self::Incomplete => "something is missing or repeated; the command tells what",
            Self::Ailing => "doctor found warnings",
            Self::Ill => "doctor found failures",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The codes for `--help`.
pub(super) fn guide() -> String {
    let lines: Vec<String> = Exit::ALL.map(|exit| format!("  {}  {}", exit.code(), exit.meaning())).into();
    format!(
        "Exit codes:\n{}\n  130  told to stop twice, and ended at once: what is open is rolled back",
        lines.join("\n")
    )
}

/// What stands below the help of a command: `text`, then how it may end other than well.
pub(super) fn with_codes(text: &str, others: &[Exit]) -> String {
    let codes = [&[Exit::Fine], others].concat();
    let codes: Vec<String> = codes.iter().map(|exit| format!("{} {}", exit.code(), exit.short())).collect();
    format!("{text}\n\nExit codes: {}.", codes.join("; "))
}

/// Why a command failed, for a person, and the exit code, for a program.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }
}

/// For `?`: whatever nobody gave a code is unexpected.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Unexpected, error }
    }
}

/// With all causes, in one line each.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_own_code() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_failure_tells_its_causes() {
        let cause = std::io::Error::other("the disk is full");
        let failure = Failure::from(anyhow::Error::from(cause).context("could not write"));
        assert_eq!(
            (failure.exit, failure.to_string().as_str()),
            (Exit::Unexpected, "could not write: the disk is full")
        );
    }
}
