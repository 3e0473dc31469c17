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

    /// Cuts a span into windows that touch, oldest first, none longer than `width` or [`Window::MAX`]. None for an empty span.
    pub fn tiles(start: Timestamp, end: Timestamp, width: SignedDuration) -> impl Iterator<Item = Self> {
        let width = width.clamp(SignedDuration::from_secs(1), Self::MAX);
        let mut reached = start;
        std::iter::from_fn(move || {
            // Past the last time there is, only the span ends the window.
            let full = reached.checked_add(width).unwrap_or(Timestamp::MAX);
            let window = Self::new(reached, end.min(full)).ok()?;
            reached = window.end;
            Some(window)
        })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tiles_end_where_time_does() {
        let hours = |hours| SignedDuration::from_hours(hours);
        let (late, width) = (Timestamp::MAX - hours(30), hours(23));
        let tiles: Vec<Window> = Window::tiles(late, Timestamp::MAX, width).collect();
        assert_eq!((tiles.len(), tiles[1].end()), (2, Timestamp::MAX));
        assert_eq!(Window::tiles(Timestamp::MAX, Timestamp::UNIX_EPOCH, width).count(), 0);
    }

    proptest! {
        #[test]
        fn tiles_cover_a_span_without_a_gap_and_overlap_nowhere(seconds in 0_i64..=8 * 86_400, width in 600_i64..=90_000) {
            let (mut reached, end) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
            for window in Window::tiles(reached, end, SignedDuration::from_secs(width)) {
                prop_assert_eq!(window.start(), reached);
                prop_assert!(window.end().duration_since(reached) <= SignedDuration::from_secs(width).min(Window::MAX));
                reached = window.end();
            }
            prop_assert_eq!(reached, end);
        }
    }
}
