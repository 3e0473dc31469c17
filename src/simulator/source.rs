//! One source: which contents a listing shows, what a content id stands for, and since when it is subscribed.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;

use super::{
    arrivals::{Arrivals, parse_stamp, stamp},
    clock::ns,
    random::{chance, mix, part},
    records::Records,
    scenario::{Disabled, IdModel, SourceScenario},
    webhook::Hook,
};
use crate::domain::Source;

/// The storage shard that content ids end with.
pub(super) const SHARD: &str = "na0036";
const DAY_NS: i64 = 86_400_000_000_000;

/// One content type of one tenant, running.
#[derive(Debug)]
pub(super) struct SimSource {
    pub(super) source: Source,
    pub(super) scenario: SourceScenario,
    pub(super) arrivals: Arrivals,
    pub(super) records: Records,
    subscription: Mutex<Subscription>,
    hook: Mutex<Hook>,
    /// When the arrivals that come late were inserted.
    inserted_ns: AtomicI64,
    lateness_seed: u64,
}

/// What the service knows about the caller's subscription.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscription {
    /// In order of time; the last is open while the subscription runs.
    spans: Vec<Span>,
    pub(super) last_start_ns: Option<i64>,
    /// Started too soon after a stop: it says that it runs, and never does.
    is_broken: bool,
    /// The content type as the caller wrote it.
    pub(super) spelled: String,
    pub(super) disabled: Option<Disabled>,
}

/// Arrivals from `from` to before `to` are the subscriber's, once `visible_from` has come.
#[derive(Clone, Copy, Debug)]
struct Span {
    from_ns: i64,
    to_ns: Option<i64>,
    visible_from_ns: i64,
}

/// Arrivals `first` to `last`, both included, as one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What a content id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Content(Content),
    /// The right form, but no such range.
    Nothing,
    /// Not an id of this source.
    Invalid,
}

impl Subscription {
    pub(super) fn is_enabled(&self) -> bool {
        !self.is_broken && self.disabled.is_none() && self.spans.last().is_some_and(|span| span.to_ns.is_none())
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.disabled.is_some()
    }

    /// Whether it was ever started.
    pub(super) fn is_known(&self) -> bool {
        !self.spans.is_empty()
    }

    fn shows(&self, at_ns: i64, now_ns: i64) -> bool {
        self.spans.iter().any(|span| {
            span.from_ns <= at_ns && span.to_ns.is_none_or(|to| at_ns < to) && span.visible_from_ns <= now_ns
        })
    }
}

impl SimSource {
    pub(super) fn new(seed: u64, start: Timestamp, source: Source, scenario: SourceScenario) -> Self {
        let arrivals_seed = mix(seed, &[9, part(&source.to_string())]);
        let always = Span { from_ns: i64::MIN, to_ns: None, visible_from_ns: i64::MIN };
        let spans = if scenario.subscribed { vec![always] } else { Vec::new() };
        let (spelled, disabled) = (source.content_type.as_str().to_owned(), scenario.disabled);
        Self {
            source,
            arrivals: Arrivals::new(start, scenario.history, scenario.live, arrivals_seed),
            records: Records::new(seed, source, &scenario),
            subscription: Mutex::new(Subscription { spans, last_start_ns: None, is_broken: false, spelled, disabled }),
            hook: Mutex::default(),
            inserted_ns: AtomicI64::new(i64::MAX),
            lateness_seed: mix(arrivals_seed, &[0x1A]),
            scenario,
        }
    }

    pub(super) fn subscription(&self) -> MutexGuard<'_, Subscription> {
        self.subscription.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hook(&self) -> MutexGuard<'_, Hook> {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the subscription. The first start reaches back and may take its time; a later one begins now.
    /// Within `breaks_within` of a stop it is broken for ever, unless that is nothing.
    pub(super) fn start(&self, spelled: &str, now: Timestamp, breaks_within: Duration) {
        let mut subscription = self.subscription();
        let now_ns = ns(now);
        let span_ns = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        let span = if subscription.is_known() {
            Span { from_ns: now_ns, to_ns: None, visible_from_ns: now_ns }
        } else {
            Span {
                from_ns: now_ns.saturating_sub(span_ns(self.scenario.backfill)),
                to_ns: None,
                visible_from_ns: now_ns.saturating_add(span_ns(self.scenario.first_content_after)),
            }
        };
        subscription.disabled = None;
        let stopped = subscription.spans.last().and_then(|span| span.to_ns);
        let breaks = span_ns(breaks_within);
        subscription.is_broken |= stopped.is_some_and(|stopped| 0 < breaks && now_ns - stopped <= breaks);
        subscription.spans.push(span);
        subscription.last_start_ns = Some(now_ns);
        subscription.spelled = spelled.to_owned();
    }

    /// Disables it, as an administrator does: what arrives from now on is lost until it is started again.
    pub(super) fn disable(&self, now: Timestamp) {
        self.stop(now);
        self.subscription().disabled = Some(Disabled::UntilStarted);
    }

    /// Stops it: what arrives from now on is lost to the subscriber.
    pub(super) fn stop(&self, now: Timestamp) {
        if let Some(span) = self.subscription().spans.last_mut() {
            span.to_ns = Some(ns(now));
        }
    }

    /// Inserts the arrivals that come late.
    pub(super) fn insert_late(&self, now: Timestamp) {
        self.inserted_ns.store(ns(now), Ordering::Relaxed);
    }

    fn is_there(&self, i: u64, now_ns: i64) -> bool {
        !chance(mix(self.lateness_seed, &[i]), self.scenario.late) || self.inserted_ns.load(Ordering::Relaxed) <= now_ns
    }

    /// The contents created in `start <= t < end` as seen now, oldest first, those up to the stamp `after` left out.
    ///
    /// At most `limit`; the flag says whether there are more.
    pub(super) fn list(
        &self,
        start_ns: i64,
        end_ns: i64,
        now: Timestamp,
        after_ns: Option<i64>,
        limit: usize,
    ) -> (Vec<Content>, bool) {
        let view = self.view(now);
        // contentCreated has milliseconds, so that is what the window is compared with.
        let window = (ceil_ms(start_ns), ceil_ms(end_ns));
        let past = after_ns.map_or(0, |after| self.arrivals.until(after));
        let mut found = Vec::new();
        let mut next = self.range(self.arrivals.before(window.0).max(past)).0;
        while next < view.until && self.arrivals.at(next) < window.1 {
            let (low, high) = self.range(next);
            next = high;
            let content = self.cut(&view, low, high, window);
            if let Some(content) = content.filter(|content| content.last >= past) {
                if found.len() == limit {
                    return (found, true);
                }
                found.push(content);
            }
        }
        (found, false)
    }

    /// What `id` names at `now`.
    pub(super) fn named(&self, id: &str, now: Timestamp) -> Named {
        let parts: Vec<&str> = id.split('$').collect();
        let [first, last, lower, mixed, shard] = parts[..] else { return Named::Invalid };
        let (Some(first), Some(last)) = (parse_stamp(first), parse_stamp(last)) else { return Named::Invalid };
        if (lower, mixed, shard) != (self.lower().as_str(), self.mixed().as_str(), SHARD) {
            return Named::Invalid;
        }
        let (Some(first), Some(last)) = (self.arrivals.began(first), self.arrivals.ended(last)) else {
            return Named::Nothing;
        };
        let (low, high) = self.range(first);
        if first > last || last >= high || last < low || !self.view(now).shows(last) {
            return Named::Nothing;
        }
        let newest = if self.scenario.old_ids_grow { high - 1 } else { last };
        Named::Content(Content { first, last: newest })
    }

    pub(super) fn id(&self, content: Content) -> String {
        let (first, last) = (self.arrivals.begin(content.first), self.arrivals.at(content.last));
        format!("{}${}${}${}${SHARD}", stamp(first), stamp(last), self.lower(), self.mixed())
    }

    /// `contentExpiration`: counted from the range's first event, so that growth does not move it.
    pub(super) fn expires_ns(&self, content: Content) -> i64 {
        let (low, _) = self.range(content.first);
        self.arrivals.begin(low).saturating_add(i64::from(self.scenario.expiration_days).saturating_mul(DAY_NS))
    }

    /// The arrivals that the range of arrival `i` may come to hold: from the first to before the second.
    pub(super) fn range(&self, i: u64) -> (u64, u64) {
        let (IdModel::Growing { arrivals: size } | IdModel::Partial { arrivals: size }) = self.scenario.id_model else {
            return (i, i + 1);
        };
        let (size, history) = (size.max(1), self.arrivals.history());
        if i < history {
            let low = i / size * size;
            (low, history.min(low + size))
        } else {
            let low = history + (i - history) / size * size;
            (low, low + size)
        }
    }

    /// The content that a listing would have shown at the moment of arrival `i`.
    pub(super) fn announced(&self, i: u64) -> Content {
        Content { first: self.range(i).0, last: i }
    }

    /// Whose arrivals are to be seen now.
    pub(super) fn view(&self, now: Timestamp) -> View<'_> {
        let now_ns = ns(now);
        View { source: self, now_ns, until: self.arrivals.until(now_ns), subscription: self.subscription().clone() }
    }

    fn cut(&self, view: &View<'_>, low: u64, high: u64, window: (i64, i64)) -> Option<Content> {
        let inside = |i: u64| (window.0..window.1).contains(&self.arrivals.at(i));
        let is_partial = matches!(self.scenario.id_model, IdModel::Partial { .. });
        let shown = |&i: &u64| view.shows(i) && (!is_partial || inside(i));
        let first = (low..high).find(shown)?;
        let last = (low..high).rev().find(shown)?;
        inside(last).then_some(Content { first, last })
    }

    fn mixed(&self) -> String {
        self.source.content_type.as_str().replace('.', "_")
    }

    fn lower(&self) -> String {
        self.mixed().to_lowercase()
    }
}

/// A source as its subscriber sees it at one moment.
#[derive(Debug)]
pub(super) struct View<'a> {
    source: &'a SimSource,
    now_ns: i64,
    /// The first arrival that is still to come.
    pub(super) until: u64,
    subscription: Subscription,
}

impl View<'_> {
    pub(super) fn shows(&self, i: u64) -> bool {
        i < self.until
            && self.source.is_there(i, self.now_ns)
            && self.subscription.shows(self.source.arrivals.at(i), self.now_ns)
    }

    /// The arrivals of `content` that are the subscriber's.
    pub(super) fn arrivals(&self, content: Content) -> Vec<u64> {
        (content.first..=content.last).filter(|&i| self.shows(i)).collect()
    }
}

/// The first whole millisecond not before `ns`: a time cut to milliseconds is at or after a bound
/// exactly when the uncut time is at or after this.
fn ceil_ms(ns: i64) -> i64 {
    ns.saturating_add(999_999).div_euclid(1_000_000).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        domain::ContentType,
        simulator::scenario::{History, Live, TenantScenario},
    };

    const START: &str = "2026-08-30T12:00:00Z";

    fn source(id_model: IdModel, arrivals_per_minute: f64) -> SimSource {
        let source = Source { tenant: TenantScenario::default().id, content_type: ContentType::SharePoint };
        let scenario = SourceScenario {
            id_model,
            history: History { arrivals: 37, span: Duration::from_secs(3_600), records: 2 },
            live: Live { arrivals_per_minute, records: 2 },
            ..SourceScenario::default()
        };
        SimSource::new(5, START.parse().unwrap(), source, scenario)
    }

    fn at(seconds: i64) -> Timestamp {
        START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    fn list(source: &SimSource, from: i64, to: i64, now: i64) -> Vec<Content> {
        source.list(ns(at(from)), ns(at(to)), at(now), None, usize::MAX).0
    }

    #[test]
    fn s30_the_start_is_inside_and_the_end_is_not() {
        let source = source(IdModel::Stable, 0.0);
        let created_ns = source.arrivals.at(9) / 1_000_000 * 1_000_000;
        let is_listed = |start, end| !source.list(start, end, at(0), None, 9).0.is_empty();
        assert!(is_listed(created_ns, created_ns + 1));
        assert!(!is_listed(created_ns - 1_000_000, created_ns));
        assert!(!is_listed(created_ns + 1, created_ns + 1_000_000));
    }

    #[test]
    fn s36_a_stable_content_keeps_its_id_for_ever() {
        let source = source(IdModel::Stable, 6.0);
        let (early, late) = (list(&source, -3_700, 60, 60), list(&source, -3_700, 7_200, 7_200));
        assert_eq!(early[..], late[..early.len()]);
        assert_eq!(late.len() as u64, source.arrivals.until(ns(at(7_200))));
    }

    #[test]
    fn s36_the_newest_range_grows_and_its_older_id_still_gives_the_older_part() {
        let source = source(IdModel::Growing { arrivals: 12 }, 6.0);
        let (early, late) = (list(&source, 0, 60, 60)[0], list(&source, 0, 90, 90)[0]);
        assert_eq!(early.first, late.first);
        assert!(early.last < late.last);
        assert_ne!(source.id(early), source.id(late));
        assert_eq!(source.expires_ns(early), source.expires_ns(late));
        assert_eq!(source.named(&source.id(early), at(90)), Named::Content(early));
        assert_eq!(list(&source, 0, 60, 90), [], "it was created after the old window");
    }

    #[test]
    fn s43_an_older_id_gives_what_the_range_has_grown_to_when_the_scenario_says_so() {
        let mut source = source(IdModel::Growing { arrivals: 12 }, 6.0);
        source.scenario.old_ids_grow = true;
        let early = list(&source, 0, 60, 60)[0];
        let Named::Content(content) = source.named(&source.id(early), at(90)) else { panic!("it was listed") };
        let (before, after) = (source.view(at(60)).arrivals(content), source.view(at(90)).arrivals(content));
        assert!(before.len() < after.len() && after.starts_with(&before));
        assert_eq!(source.view(at(60)).arrivals(early), before);
    }

    #[test]
    fn s36_a_window_that_starts_inside_a_range_yields_the_rest_under_another_id() {
        let source = source(IdModel::Partial { arrivals: 12 }, 6.0);
        let whole = list(&source, 0, 600, 600)[0];
        let inside = (source.arrivals.at(whole.first) - ns(at(0))) / 1_000_000_000 + 1;
        let rest = list(&source, inside, 600, 600)[0];
        assert_eq!((rest.first, rest.last), (whole.first + 1, whole.last));
        assert_ne!(source.id(rest), source.id(whole));
        assert_eq!(source.named(&source.id(rest), at(600)), Named::Content(rest));
    }

    #[test]
    fn s36_listings_that_follow_the_clock_miss_no_arrival() {
        for model in [IdModel::Stable, IdModel::Growing { arrivals: 7 }, IdModel::Partial { arrivals: 7 }] {
            let source = source(model, 10.0);
            let windows = (-120..60).map(|step| (step * 60, step * 60 + 60, (step * 60 + 60).max(0)));
            let seen: BTreeSet<u64> = windows
                .flat_map(|(from, to, now)| list(&source, from, to, now))
                .flat_map(|content| content.first..=content.last)
                .collect();
            assert_eq!(seen.len() as u64, source.arrivals.until(ns(at(3_600))), "{model:?}");
        }
    }

    #[test]
    fn s37_late_arrivals_are_listed_and_named_only_when_they_were_inserted() {
        let mut source = source(IdModel::Stable, 0.0);
        source.scenario.late = 0.4;
        let (before, ids) = (list(&source, -3_600, 60, 60), |found: &[Content]| {
            found.iter().map(|&content| source.id(content)).collect::<BTreeSet<_>>()
        });
        source.insert_late(at(90));
        assert_eq!(list(&source, -3_600, 60, 89), before);
        let after = list(&source, -3_600, 60, 90);
        assert!((5..30).contains(&before.len()) && after.len() == 37, "{} {}", before.len(), after.len());
        let late: Vec<String> = ids(&after).difference(&ids(&before)).cloned().collect();
        assert!(late.iter().all(|id| source.named(id, at(89)) == Named::Nothing));
        assert!(late.iter().all(|id| matches!(source.named(id, at(90)), Named::Content(_))));
    }

    #[test]
    fn s33_pages_continue_where_the_last_one_ended() {
        for model in [IdModel::Stable, IdModel::Growing { arrivals: 4 }, IdModel::Partial { arrivals: 4 }] {
            let source = source(model, 10.0);
            let (mut pages, mut after, mut more) = (Vec::new(), None, true);
            while more {
                let page;
                (page, more) = source.list(ns(at(-3_700)), ns(at(300)), at(300), after, 5);
                after = page.last().map(|content| source.arrivals.at(content.last));
                pages.extend(page);
            }
            assert_eq!(pages, list(&source, -3_700, 300, 300), "{model:?}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_id_names_nothing() {
        let source = source(IdModel::Stable, 0.0);
        let content = list(&source, -3_700, 0, 0)[0];
        let id = source.id(content);
        assert_eq!(source.named(&id, at(0)), Named::Content(content));
        assert_eq!(source.named(&id.replace("SharePoint", "Exchange"), at(0)), Named::Invalid);
        assert_eq!(source.named(&id[1..], at(0)), Named::Invalid);
        let other = format!("20200101000000000000000{}", &id[23..]);
        assert_eq!(source.named(&other, at(0)), Named::Nothing);
    }

    #[test]
    fn s22_what_arrives_while_stopped_never_appears() {
        let source = source(IdModel::Stable, 60.0);
        source.stop(at(100));
        source.start("Audit.SharePoint", at(200), Duration::ZERO);
        let listed = list(&source, 0, 300, 300);
        let seconds = |content: &Content| (source.arrivals.at(content.last) - ns(at(0))) / 1_000_000_000;
        assert!(listed.iter().all(|content| !(100..200).contains(&seconds(content))));
        assert!(listed.iter().any(|content| seconds(content) < 100));
        assert!(listed.iter().any(|content| seconds(content) >= 200));
    }
}
