//! The span of time that one listing call asks for.

use jiff::{SignedDuration, Timestamp};

/// Half-open span of UTC time (`start <= t < end`), never empty, never longer than [`Window::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    start: Timestamp,
    end: Timestamp,
}

impl Window {
    /// Longest span we ask for. The reference allows 24 h, but exactly 24 h was refused on the wire (docs/api/contract.md 3.5).
    pub const MAX: SignedDuration = SignedDuration::from_hours(23);

    /// # Errors
    /// [`NotAWindow`] when the span is empty, reversed or longer than [`Window::MAX`].
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, NotAWindow> {
        let span = end.duration_since(start);
        if span <= SignedDuration::ZERO || Self::MAX < span {
            return Err(NotAWindow { start, end });
        }
        Ok(Self { start, end })
    }

    pub fn start(&self) -> Timestamp {
        self.start
    }

    pub fn end(&self) -> Timestamp {
        self.end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{start} to {end} is no listing window: it must be longer than nothing and at most 23 h")]
pub struct NotAWindow {
    start: Timestamp,
    end: Timestamp,
}
