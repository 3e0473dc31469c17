//! What went wrong on the way, told as it happens, and the exit code that follows from it.

use std::io;

use super::sink::Brought;
use crate::cli::{
    Exit, Failure,
    config::counted,
    feed::Unlisted,
    output::{harmless, tell},
};

/// What could not be had.
#[derive(Default)]
pub(in crate::cli) struct Troubles {
    /// Sources that were not listed to the end.
    sources: usize,
    /// Microsoft wants a person to act.
    refused: bool,
    contents: usize,
    /// Those of the contents for which it wants that.
    refused_contents: usize,
}

impl Troubles {
    pub(in crate::cli) fn unlisted(&mut self, unlisted: Unlisted) {
        let failure = unlisted.failure();
        tell(&failure.to_string());
        self.sources += 1;
        self.refused |= failure.exit == Exit::Microsoft;
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
        tell(&format!("tenant {tenant}: {why}"));
        self.contents += 1;
        self.refused_contents += usize::from(matches!(lost, Brought::Missing(unfetched) if unfetched.is_refused()));
    }

    /// # Errors
    /// When there was any trouble; `sources` were asked for.
    pub(in crate::cli) fn ending(&self, sources: usize) -> Result<(), Failure> {
        let only_refused = self.sources == 0 && self.refused_contents == self.contents;
        let exit = if self.refused || only_refused { Exit::Microsoft } else { Exit::Incomplete };
        let why = match (self.sources, self.contents) {
            (0, 0) => return Ok(()),
            (0, contents) => format!("{} could not be brought", counted(contents, "content")),
            (unlisted, _) => format!("{unlisted} of {} could not be listed to the end", counted(sources, "source")),
        };
        Err(Failure::new(exit, anyhow::Error::msg(why)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_asked_for_when_all_contents_are_refused_or_a_source_is() {
        let exit = |sources, refused, contents, refused_contents| {
            let troubles = Troubles { sources, refused, contents, refused_contents };
            troubles.ending(2).map_err(|failure| failure.exit)
        };
        assert_eq!(exit(0, false, 0, 0), Ok(()));
        assert_eq!(exit(0, false, 2, 2), Err(Exit::Microsoft));
        assert_eq!(exit(0, false, 2, 1), Err(Exit::Incomplete));
        assert_eq!(exit(1, false, 2, 2), Err(Exit::Incomplete));
        assert_eq!(exit(1, true, 2, 0), Err(Exit::Microsoft));
    }
}
