//! Which window of a source is listed next. It does nothing itself and knows no clock: time comes in, a step goes out.
//! Four passes share the work; a window counts as listed only when the caller says so.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    Window,
    schedule::{Span, Unlisted},
};

/// How a source is listed. Fractions of a second are dropped: the service takes whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSettings {
    /// The widest window; kept between a second and [`Window::MAX`].
    pub window: Duration,
    pub poll_interval: Duration,
    pub overlap: Duration,
    pub overlap_interval: Duration,
    pub sweep_interval: Duration,
    /// Contents that may wait before catch-up, overlap and sweep hold.
    pub max_pending: usize,
}

/// Why a window is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The newest part, every `poll_interval`. Its contents are taken however many wait.
    Follow,
    /// What has never been listed: from the start to the moment the planner began, and every hole since. Oldest first.
    CatchUp,
    /// The last `overlap` again, because contents grow and may come late.
    Overlap,
    /// All that is in reach again, and so the count of what the other passes missed.
    Sweep,
}

/// What the planner wants done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    List {
        pass: Pass,
        window: Window,
    },
    /// Nothing to do before; always later than the `now` that was asked with. Asking earlier does no harm.
    RestUntil(Timestamp),
}

/// The listing of one source. Only one step is outstanding at a time.
#[derive(Debug)]
pub struct Planner {
    settings: Seconds,
    /// Nothing before it is ever asked for.
    floor: Option<i64>,
    /// The latest `now`.
    clock: i64,
    /// No window begins before it.
    horizon: i64,
    /// When follow was last listed to the end, by the clock.
    followed_at: Option<i64>,
    /// Up to where follow has listed. What lies before is listed too, or in `holes`.
    followed_to: i64,
    holes: Unlisted,
    overlap: Unlisted,
    overlap_due: i64,
    sweep: Unlisted,
    sweep_due: i64,
    /// Before it, time that leaves our reach is not lost: it was listed by who was here before us, or see [`START_GRACE`].
    counted_from: i64,
    /// What left our reach before it was listed, as far as nobody was told yet.
    lost: Unlisted,
    unreachable_secs: i64,
    /// How much nearer than [`REACH`] the horizon is.
    tightened: i64,
    /// The end of the newest window in which something was found.
    found_to: i64,
    last_asked: Option<Span>,
    /// The passes that wait for each other; who had the last turn stands at the end.
    turns: [Pass; 3],
    followed_last: bool,
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// How old the start of a window may be. The service drops a start of seven days by the time it lands
/// (docs/api/contract.md 3.5), so we stay an hour inside.
const REACH: i64 = 7 * DAY - HOUR;

/// Follow begins so far before its mark: the service's clock may be behind ours, and a content is not visible at once.
const LAP: i64 = 120;

/// A source without a content for a day is followed only so often.
const IDLE_POLL: i64 = 300;

/// While too many contents wait, we look so often whether they still do.
const HOLD: i64 = 5;

/// From the earliest start, minutes pass out of reach while the first answers are awaited. Counting them would raise
/// an alarm at every start about contents that nobody could have been sure to get.
const START_GRACE: i64 = 300;

/// Time that is lost second by second is told of in portions of this length.
const TELL: i64 = 600;

/// A refusal for age brings the horizon so much nearer, and all refusals together no more than [`TIGHTENED_MAX`].
const TIGHTEN: i64 = 600;
const TIGHTENED_MAX: i64 = 6 * HOUR;

/// [`PlanSettings`] in whole seconds, each within what makes sense.
#[derive(Clone, Copy, Debug)]
struct Seconds {
    window: i64,
    poll_interval: i64,
    overlap: i64,
    overlap_interval: i64,
    sweep_interval: i64,
    max_pending: usize,
}

impl Planner {
    /// How far back windows reach: seven days, less an hour.
    pub const REACH: SignedDuration = SignedDuration::from_secs(REACH);

    /// A planner that knows nothing yet. `floor`: where the source starts, or `None` for all that is in reach.
    /// A floor out of reach is cut off, and counted as unreachable. `listed`: up to where owners before us had listed
    /// everything. That is listed again, but what of it leaves the reach meanwhile is not lost; what came after it and
    /// is out of reach by now is.
    pub fn new(settings: &PlanSettings, now: Timestamp, floor: Option<Timestamp>, listed: Option<Timestamp>) -> Self {
        let floor = floor.map(ceiling);
        let expired = floor.map_or(0, |floor| (ceiling(now) - REACH - floor).max(0));
        let mut planner = Self::starting(Seconds::of(settings), now, floor, expired);
        if let Some(listed) = listed.map(|listed| listed.as_second().max(floor.unwrap_or(i64::MIN))) {
            planner.counted_from = planner.counted_from.max(listed);
            if let Some(lost) = Span::new(listed, planner.horizon).filter(|lost| START_GRACE < lost.seconds()) {
                planner.lost.add(lost);
                // What leaves the reach from now on goes on where that ends.
                planner.counted_from = lost.end;
            }
        }
        planner
    }

    fn starting(settings: Seconds, now: Timestamp, floor: Option<i64>, unreachable_secs: i64) -> Self {
        let clock = now.as_second();
        let horizon = ceiling(now) - REACH;
        let start = floor.map_or(horizon, |floor| floor.max(horizon));
        // A catch-up over the whole reach is the sweep that every start owes.
        let sweep_due = if start == horizon { clock + settings.sweep_interval } else { clock };
        Self {
            settings,
            floor,
            clock,
            horizon,
            followed_at: None,
            followed_to: clock.max(start),
            holes: Unlisted::of(Span::new(start, clock)),
            overlap: Unlisted::default(),
            overlap_due: clock + settings.overlap_interval,
            sweep: Unlisted::default(),
            sweep_due,
            counted_from: horizon + START_GRACE,
            lost: Unlisted::default(),
            unreachable_secs,
            tightened: 0,
            found_to: start,
            last_asked: None,
            turns: [Pass::CatchUp, Pass::Overlap, Pass::Sweep],
            followed_last: false,
        }
    }

    /// What to do at `now` with `pending` contents of this source waiting to be published.
    ///
    /// Units: windows are whole seconds, end at `now` at the latest, and begin at most six days and 23 hours before.
    /// Asked again without an answer in between, it gives the same step, as far as time allows.
    pub fn next_step(&mut self, now: Timestamp, pending: usize) -> Step {
        self.set_clock(now);
        self.forget_the_unreachable();
        self.begin_what_is_due();
        let is_held = self.settings.max_pending <= pending;
        let waiting = if is_held { None } else { self.next_in_turn() };
        let follow = self.follow_span().filter(|_| self.follow_due() <= self.clock);
        // Nobody starves: a follow that takes longer than its interval lets another pass go in between.
        let step = match (follow, waiting) {
            (Some(span), None) => Some((Pass::Follow, span)),
            (Some(span), Some(_)) if !self.followed_last => Some((Pass::Follow, span)),
            (_, waiting) => waiting,
        };
        self.last_asked = step.map(|(_, span)| span);
        match step.and_then(|(pass, span)| Some(Step::List { pass, window: window(span)? })) {
            Some(list) => list,
            None => {
                self.followed_last = false; // that turn is long over when something is due again
                Step::RestUntil(at(self.rest_until(is_held)))
            }
        }
    }

    /// `window` was listed to its last page, and its `found` contents are safe (appended, or known already).
    pub fn listed(&mut self, pass: Pass, window: Window, found: usize) {
        self.had_its_turn(pass);
        let Some(span) = span(window) else { return };
        if pass == Pass::Follow {
            // After a long sleep follow took the newest part only; catch-up has the hole.
            if let Some(hole) = Span::new(self.followed_to, span.start) {
                self.holes.add(hole);
            }
            self.followed_to = self.followed_to.max(span.end);
            self.followed_at = Some(self.clock);
        }
        // Whoever listed it, nobody who was waiting to list it needs to.
        for unlisted in [&mut self.holes, &mut self.overlap, &mut self.sweep, &mut self.lost] {
            unlisted.remove(span);
        }
        if pass == Pass::CatchUp {
            self.holes.resume();
        }
        if 0 < found {
            self.found_to = self.found_to.max(span.end);
        }
    }

    /// `window` was not listed to its end, for whatever reason. It is asked for again, after others had a turn;
    /// when to ask is the caller's backoff to decide.
    pub fn failed(&mut self, pass: Pass, window: Window) {
        self.had_its_turn(pass);
        if let (Some(span), Some(unlisted)) = (span(window), self.unlisted_of(pass)) {
            unlisted.postpone(span);
        }
    }

    /// The service refused the last window for its age or width (AF20030, AF20055): if it began near the horizon, the
    /// horizon comes nearer until the planner is made anew. [`Planner::failed`] is called as well.
    pub fn clamp(&mut self) {
        if self.last_asked.is_some_and(|span| span.start < self.horizon + TIGHTENED_MAX) {
            self.tightened = (self.tightened + TIGHTEN).min(TIGHTENED_MAX);
        }
    }

    /// Nothing from before the present is left to be listed for the first time.
    pub fn caught_up(&self) -> bool {
        self.holes.is_empty()
    }

    /// Everything created before it, and in reach, was listed.
    pub fn listed_to(&self) -> Timestamp {
        at(self.holes.start().map_or(self.followed_to, |hole| hole.min(self.followed_to)))
    }

    /// Everything created before it was listed, or told of by [`Self::take_lost`]. What an owner after us must know.
    pub fn accounted_to(&self) -> Timestamp {
        let listed_to = self.listed_to();
        self.lost.start().map_or(listed_to, |lost| at(lost).min(listed_to))
    }

    /// How much time passed out of reach before it could be listed. Never shrinks.
    pub fn unreachable(&self) -> SignedDuration {
        SignedDuration::from_secs(self.unreachable_secs)
    }

    /// A span that left the reach before it was listed, once: when it has come to an end, or in portions while it grows.
    pub fn take_lost(&mut self) -> Option<(Timestamp, Timestamp)> {
        let oldest = Span::new(self.lost.start()?, self.horizon)?;
        let span = self.lost.within(oldest).next()?;
        if self.horizon <= span.end && span.seconds() < TELL {
            return None;
        }
        self.lost.remove(span);
        Some((at(span.start), at(span.end)))
    }

    fn set_clock(&mut self, now: Timestamp) {
        let second = now.as_second();
        if second < self.clock - LAP {
            // Every mark was set by a clock that was wrong, so none says what was listed. Begin again: repeats do no harm.
            let lost = std::mem::take(&mut self.lost);
            *self = Self { lost, ..Self::starting(self.settings, now, self.floor, self.unreachable_secs) };
        }
        // A clock that is put back a little stands still: the lap covers it.
        self.clock = self.clock.max(second);
        self.horizon = self.clock.max(ceiling(now)) - REACH + self.tightened;
    }

    fn forget_the_unreachable(&mut self) {
        let before = |end| Span { start: i64::MIN / 2, end };
        self.holes.remove(before(self.horizon.min(self.counted_from)));
        self.holes.within(before(self.horizon)).for_each(|span| self.lost.add(span));
        self.unreachable_secs += self.holes.remove(before(self.horizon));
        // Asleep for longer than the reach: follow's own mark is behind the horizon.
        if let Some(slept) = Span::new(self.followed_to, self.horizon) {
            self.lost.add(slept);
            self.unreachable_secs += slept.seconds();
            self.followed_to = slept.end;
        }
        self.overlap.remove(before(self.horizon));
        self.sweep.remove(before(self.horizon));
    }

    fn begin_what_is_due(&mut self) {
        let again_from = |start: i64, planner: &Self| Span::new(planner.lowest(start), planner.followed_to);
        if self.overlap_due <= self.clock && self.overlap.is_through() {
            self.overlap = Unlisted::of(again_from(self.clock - self.settings.overlap, self));
            self.overlap_due = self.clock + self.settings.overlap_interval;
        }
        // What catch-up is about to list needs no sweep; but one window that never succeeds must not keep it away.
        let may_sweep = self.holes.is_empty() || self.sweep_due + self.settings.sweep_interval <= self.clock;
        if self.sweep_due <= self.clock && self.sweep.is_through() && may_sweep {
            self.sweep = Unlisted::of(again_from(self.horizon, self));
            self.sweep_due = self.clock + self.settings.sweep_interval;
        }
    }

    fn next_in_turn(&self) -> Option<(Pass, Span)> {
        self.turns.iter().find_map(|&pass| {
            let unlisted = match pass {
                Pass::Follow => return None,
                Pass::CatchUp => &self.holes,
                Pass::Overlap => &self.overlap,
                Pass::Sweep => &self.sweep,
            };
            Some((pass, unlisted.next(self.settings.window)?))
        })
    }

    /// From a little before the mark to now, or the newest part of that.
    fn follow_span(&self) -> Option<Span> {
        Span::new(self.lowest(self.followed_to - LAP).max(self.clock - self.settings.window), self.clock)
    }

    fn follow_due(&self) -> i64 {
        let is_idle = self.holes.is_empty() && DAY <= self.clock - self.found_to;
        let interval = if is_idle { self.settings.poll_interval.max(IDLE_POLL) } else { self.settings.poll_interval };
        self.followed_at.map_or(self.clock, |last| last + interval)
    }

    fn rest_until(&self, is_held: bool) -> i64 {
        let follow = match self.follow_span() {
            Some(_) => self.follow_due(),
            None => self.floor.unwrap_or(self.clock).max(self.clock) + 1, // the source starts in the future
        };
        let others = if is_held { self.clock + HOLD } else { self.overlap_due.min(self.sweep_due) };
        follow.min(others).max(self.clock + 1)
    }

    fn had_its_turn(&mut self, pass: Pass) {
        self.followed_last = pass == Pass::Follow;
        if let Some(place) = self.turns.iter().position(|waiting| *waiting == pass) {
            self.turns[place..].rotate_left(1);
        }
    }

    fn unlisted_of(&mut self, pass: Pass) -> Option<&mut Unlisted> {
        match pass {
            Pass::Follow => None,
            Pass::CatchUp => Some(&mut self.holes),
            Pass::Overlap => Some(&mut self.overlap),
            Pass::Sweep => Some(&mut self.sweep),
        }
    }

    /// `second`, or the first one that may be asked for.
    fn lowest(&self, second: i64) -> i64 {
        second.max(self.horizon).max(self.floor.unwrap_or(i64::MIN))
    }
}

impl Seconds {
    fn of(settings: &PlanSettings) -> Self {
        // A year is as good as never, and far from the end of the numbers.
        let seconds = |span: Duration, least, most| i64::try_from(span.as_secs()).unwrap_or(most).clamp(least, most);
        Self {
            window: seconds(settings.window, 1, Window::MAX.as_secs()),
            poll_interval: seconds(settings.poll_interval, 1, 365 * DAY),
            overlap: seconds(settings.overlap, 0, 365 * DAY),
            overlap_interval: seconds(settings.overlap_interval, 1, 365 * DAY),
            sweep_interval: seconds(settings.sweep_interval, 1, 365 * DAY),
            max_pending: settings.max_pending.max(1),
        }
    }
}

fn ceiling(time: Timestamp) -> i64 {
    time.as_second() + i64::from(0 < time.subsec_nanosecond())
}

fn at(second: i64) -> Timestamp {
    let second = second.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(second).expect("between the first and the last second of Timestamp")
}

fn window(span: Span) -> Option<Window> {
    Window::new(at(span.start), at(span.end)).ok()
}

fn span(window: Window) -> Option<Span> {
    Span::new(window.start().as_second(), window.end().as_second())
}

#[cfg(test)]
mod tests;
