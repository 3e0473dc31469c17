//! Time that is still to be listed: spans of whole seconds, and which part of them is next.

/// Whole seconds since 1970, half-open (`start <= t < end`), never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Span {
    pub(super) fn new(start: i64, end: i64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    pub(super) fn seconds(self) -> i64 {
        self.end - self.start
    }
}

/// What one pass has yet to list.
#[derive(Debug, Default)]
pub(super) struct Unlisted {
    /// Oldest first. They neither overlap nor touch.
    spans: Vec<Span>,
    /// What lies before was refused a moment ago, so the rest comes first.
    resume_at: Option<i64>,
}

impl Unlisted {
    pub(super) fn of(span: Option<Span>) -> Self {
        Self { spans: span.into_iter().collect(), resume_at: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Everything had a turn: what is left was refused.
    pub(super) fn is_through(&self) -> bool {
        self.spans.last().is_none_or(|last| self.resume_at.is_some_and(|at| last.end <= at))
    }

    /// The oldest second that is not listed.
    pub(super) fn start(&self) -> Option<i64> {
        self.spans.first().map(|span| span.start)
    }

    /// Oldest first; they neither overlap nor touch.
    #[cfg(test)]
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(super) fn add(&mut self, span: Span) {
        let mut joined = span;
        self.spans.retain(|other| {
            let is_apart = other.end < joined.start || joined.end < other.start;
            if !is_apart {
                joined = Span { start: joined.start.min(other.start), end: joined.end.max(other.end) };
            }
            is_apart
        });
        let at = self.spans.partition_point(|other| other.start < joined.start);
        self.spans.insert(at, joined);
    }

    /// `done` was listed. Gives how many seconds of it were still unlisted.
    pub(super) fn remove(&mut self, done: Span) -> i64 {
        let before = self.seconds();
        let left = self.spans.iter().flat_map(|span| {
            [Span::new(span.start, span.end.min(done.start)), Span::new(span.start.max(done.end), span.end)]
        });
        self.spans = left.flatten().collect();
        before - self.seconds()
    }

    /// The parts of `span` that are unlisted, oldest first.
    pub(super) fn within(&self, span: Span) -> impl Iterator<Item = Span> {
        self.spans.iter().filter_map(move |own| Span::new(own.start.max(span.start), own.end.min(span.end)))
    }

    /// The oldest part that fits into a window of `width` seconds; after a refusal, the oldest behind it.
    ///
    /// Windows end on multiples of `width`, so that every pass cuts the same time at the same places: where a
    /// window ends decides how the service cuts its contents (docs/api/contract.md, section 0).
    pub(super) fn next(&self, width: i64) -> Option<Span> {
        let oldest = *self.spans.first()?;
        let span = self
            .resume_at
            .and_then(|at| self.spans.iter().find_map(|span| Span::new(span.start.max(at), span.end)))
            .unwrap_or(oldest);
        let edge = span.start - span.start.rem_euclid(width) + width;
        Some(Span { start: span.start, end: span.end.min(edge) })
    }

    /// `refused` stays, and has its next turn when the rest had one, or when it is resumed.
    pub(super) fn postpone(&mut self, refused: Span) {
        self.resume_at = Some(refused.end);
    }

    /// Back to the oldest: it expires first.
    pub(super) fn resume(&mut self) {
        self.resume_at = None;
    }

    pub(super) fn seconds(&self) -> i64 {
        self.spans.iter().map(|span| span.seconds()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlisted(spans: &[(i64, i64)]) -> Unlisted {
        let mut all = Unlisted::default();
        spans.iter().for_each(|&(start, end)| all.add(Span { start, end }));
        all
    }

    fn spans(all: &Unlisted) -> Vec<(i64, i64)> {
        all.spans.iter().map(|span| (span.start, span.end)).collect()
    }

    #[test]
    fn spans_that_meet_become_one_and_stay_in_order() {
        assert_eq!(spans(&unlisted(&[(20, 30), (0, 10), (40, 50)])), [(0, 10), (20, 30), (40, 50)]);
        assert_eq!(spans(&unlisted(&[(20, 30), (0, 10), (10, 12), (11, 25), (30, 31)])), [(0, 31)]);
        assert_eq!(spans(&unlisted(&[(0, 5), (10, 15), (20, 25), (4, 21)])), [(0, 25)]);
    }

    #[test]
    fn removing_cuts_and_counts_what_was_there() {
        let mut all = unlisted(&[(0, 10), (20, 30)]);
        assert_eq!(all.remove(Span { start: 5, end: 22 }), 7);
        assert_eq!(all.remove(Span { start: 24, end: 26 }), 2);
        assert_eq!(all.remove(Span { start: 24, end: 26 }), 0);
        assert_eq!(spans(&all), [(0, 5), (22, 24), (26, 30)]);
    }

    #[test]
    fn windows_end_on_the_grid() {
        let all = unlisted(&[(-7, 25)]);
        assert_eq!(all.next(10), Span::new(-7, 0));
        assert_eq!(unlisted(&[(10, 25)]).next(10), Span::new(10, 20));
        assert_eq!(unlisted(&[(20, 25)]).next(10), Span::new(20, 25));
        assert_eq!(Unlisted::default().next(10), None);
    }

    #[test]
    fn a_refused_window_lets_the_rest_pass_and_comes_back() {
        let mut all = unlisted(&[(0, 20)]);
        all.postpone(Span { start: 0, end: 10 });
        assert_eq!(all.next(10), Span::new(10, 20));
        assert!(!all.is_through());
        all.postpone(Span { start: 10, end: 20 });
        assert!(all.is_through());
        assert_eq!(all.next(10), Span::new(0, 10));
        all.postpone(Span { start: 0, end: 10 });
        all.resume();
        assert_eq!(all.next(10), Span::new(0, 10));
    }
}
