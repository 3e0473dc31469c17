//! What went wrong on the way, told as it happens, and the exit code that follows from it.

use std::io;

use super::{sink::Brought, survey::Unlisted};
use crate::cli::{Exit, Failure, output::harmless};

/// What could not be had.
#[derive(Default)]
pub(super) struct Troubles {
    /// Sources that were not listed to the end, and the exit code of the first.
    sources: usize,
    exit: Option<Exit>,
    contents: usize,
}

impl Troubles {
    pub(super) fn unlisted(&mut self, unlisted: Unlisted) {
        let failure = unlisted.failure();
        eprintln!("{failure}");
        self.sources += 1;
        self.exit.get_or_insert(failure.exit);
    }

    pub(super) fn lost(&mut self, tenant: &str, content_id: &str, lost: &Brought) {
        let why = match lost {
            Brought::Missing(unfetched) => unfetched.told(),
            Brought::TooLarge(bytes) => {
                format!(
                    "content {}: one of its records has {bytes} bytes, more than is held here",
                    harmless(content_id)
                )
            }
            Brought::Whole(_) | Brought::Before => return,
        };
        eprintln!("tenant {tenant}: {why}");
        self.contents += 1;
    }

    /// # Errors
    /// When there was any trouble; `sources` were asked for.
    pub(super) fn ending(&self, sources: usize) -> Result<(), Failure> {
        let told = |why: String, exit| Err(Failure::new(exit, anyhow::Error::msg(why)));
        match self.exit {
            Some(exit) => told(format!("{} of {sources} sources could not be listed to their end", self.sources), exit),
            None if 0 < self.contents => {
                told(format!("{} contents could not be brought", self.contents), Exit::Incomplete)
            }
            None => Ok(()),
        }
    }
}

/// `None`: whoever reads what we write has seen enough, and that is no failure.
///
/// # Errors
/// All others.
pub(super) fn written<T>(outcome: io::Result<T>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(fault) => Err(anyhow::Error::from(fault).context("could not write").into()),
    }
}
