//! The tenant's request budget: no sliding minute ever holds more requests than it allows, whatever we are told to do.
//! The pace and the pauses that the service asks for only ever make it slower.

mod spend; // the budget, the pace and the pauses

use std::{
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::spend::{Budget, Spend};
use super::meter::Meter;

/// Who asks: a listing makes blobs known, so it goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Listings and subscription calls.
    Listing,
    Blob,
}

/// The right to send one request now. It says when it was given, so that refusals of one burst are told apart.
#[derive(Debug)]
pub struct Permit {
    taken_at: Instant,
}

/// One tenant's budget. There is one for each pair of publisher and tenant, because that pair is what the service counts.
pub struct Limiter {
    spend: Mutex<Spend>,
    listings: Queue,
    blobs: Queue,
    /// Listings that went since a blob did.
    streak: AtomicUsize,
    /// Somebody went, came or gave up.
    changed: Notify,
    meter: Meter,
}

/// Of each class one caller at a time looks at the budget and the rest queue here, first come, first served.
#[derive(Default)]
struct Queue {
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
}

/// Listings go first, but after so many of them a blob that waits goes: a week of catch-up lists hundreds of windows, and
/// what the first of them found must not wait for the last.
const LISTINGS_A_BLOB: usize = 4;

impl Limiter {
    /// A budget of `requests_per_minute`, with nothing saved up yet.
    pub fn new(requests_per_minute: u32, meter: Meter) -> Self {
        Self {
            spend: Mutex::new(Spend::new(Budget::of(requests_per_minute))),
            listings: Queue::default(),
            blobs: Queue::default(),
            streak: AtomicUsize::new(0),
            changed: Notify::new(),
            meter,
        }
    }

    /// Waits until one request may be sent. Nothing is spent when the caller gives up waiting.
    pub async fn permit(&self, class: Class) -> Permit {
        let queue = self.queue(class);
        let _waiting = Waiting::announce(self, class);
        let _turn = queue.turn.lock().await;
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if !self.is_turn_of(class) {
                changed.await;
                continue;
            }
            match self.take() {
                Ok(permit) => {
                    match class {
                        Class::Listing => _ = self.streak.fetch_add(1, Ordering::SeqCst),
                        Class::Blob => self.streak.store(0, Ordering::SeqCst),
                    }
                    return permit;
                }
                Err(not_before) => sleep_until(not_before).await,
            }
        }
    }

    fn is_turn_of(&self, class: Class) -> bool {
        let waits = |class| 0 < self.queue(class).waiting.load(Ordering::SeqCst);
        let blobs_are_due = LISTINGS_A_BLOB <= self.streak.load(Ordering::SeqCst);
        match class {
            Class::Listing => !blobs_are_due || !waits(Class::Blob),
            Class::Blob => blobs_are_due || !waits(Class::Listing),
        }
    }

    fn queue(&self, class: Class) -> &Queue {
        match class {
            Class::Listing => &self.listings,
            Class::Blob => &self.blobs,
        }
    }

    fn take(&self) -> Result<Permit, Instant> {
        let now = Instant::now();
        let mut spend = self.spend();
        spend.take(now)?;
        self.meter.spent(spend.used.in_the_last_minute(now), spend.budget.per_minute, spend.pace);
        Ok(Permit { taken_at: now })
    }

    /// The service refused the request sent with `permit`. The tenant waits for `after`, or for a backoff that `draw`
    /// (0..1) decides. Returns how long it waits from now.
    pub fn refused(&self, permit: &Permit, after: Option<Duration>, draw: f64) -> Duration {
        let now = Instant::now();
        let mut spend = self.spend();
        let was_paused_until = spend.paused_until.max(now);
        spend.refuse(permit, now, after, draw);
        let pause = spend.paused_until.saturating_duration_since(was_paused_until);
        self.meter.throttled(pause, spend.pace);
        spend.paused_until.saturating_duration_since(now)
    }

    /// The service answered the request sent with `permit`.
    pub fn answered(&self, permit: &Permit) {
        self.spend().reward(permit, Instant::now());
    }

    /// Forgets what was saved up: the owner before us may have spent it all a moment ago.
    pub fn start_empty(&self) {
        self.spend().start_empty();
    }

    fn spend(&self) -> MutexGuard<'_, Spend> {
        // No panic can leave it half changed: every field is a plain value.
        self.spend.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller that waits, until it is dropped: by success or because the caller gave up.
struct Waiting<'a> {
    limiter: &'a Limiter,
    class: Class,
}

impl<'a> Waiting<'a> {
    fn announce(limiter: &'a Limiter, class: Class) -> Self {
        limiter.queue(class).waiting.fetch_add(1, Ordering::SeqCst);
        limiter.changed.notify_waiters();
        Self { limiter, class }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.limiter.queue(self.class).waiting.fetch_sub(1, Ordering::SeqCst);
        self.limiter.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limiter(per_minute: u32) -> Limiter {
        Limiter::new(per_minute, Meter::for_tests("contoso"))
    }

    /// The most permits that any 60 s hold, both ends included.
    fn most_in_a_minute(taken: &[Instant]) -> usize {
        (0..taken.len())
            .map(|first| taken[first..].iter().take_while(|at| **at - taken[first] <= MINUTE).count())
            .max()
            .unwrap_or(0)
    }

    async fn take_many(limiter: &Limiter, count: usize) -> Vec<Instant> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(limiter.permit(Class::Blob).await.taken_at);
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_minute_uses_most_of_the_budget_and_never_more() {
        let limiter = limiter(2000);
        advance(MINUTE).await; // the burst is saved up
        let most = most_in_a_minute(&take_many(&limiter, 5000).await);
        assert!((1900..=2000).contains(&most), "{most}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_process_has_nothing_saved_up() {
        let began = Instant::now();
        let first = limiter(60).permit(Class::Listing).await;
        assert!(Duration::from_secs(1) <= first.taken_at - began);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_taken_over_has_nothing_saved_up_either() {
        let limiter = limiter(600);
        advance(MINUTE).await;
        limiter.start_empty();
        let taken_over_at = Instant::now();
        let distance = limiter.spend().budget.distance;
        for (earlier, at) in (1..).zip(take_many(&limiter, 10).await) {
            assert!(distance * earlier <= at - taken_over_at);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn listings_go_before_blobs_that_waited_longer() {
        let order = order_of([Class::Blob, Class::Blob, Class::Listing, Class::Listing]).await;
        assert_eq!(order, [Class::Listing, Class::Listing, Class::Blob, Class::Blob]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_goes_after_a_few_listings_however_many_wait() {
        let asked = std::iter::once(Class::Blob).chain([Class::Listing; 3 * LISTINGS_A_BLOB]);
        let order = order_of(asked).await;
        assert_eq!(order.iter().position(|class| *class == Class::Blob), Some(LISTINGS_A_BLOB));
    }

    /// In which order those who ask at the same time get their permits.
    async fn order_of(asked: impl IntoIterator<Item = Class>) -> Vec<Class> {
        let limiter = Arc::new(limiter(60));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for class in asked {
            let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
            tasks.spawn(async move {
                limiter.permit(class).await;
                order.lock().unwrap().push(class);
            });
        }
        tasks.join_all().await;
        Arc::into_inner(order).expect("all tasks have ended").into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_gives_up_leaves_the_way_free() {
        let limiter = limiter(60);
        let permit = limiter.permit(Class::Blob).await;
        limiter.refused(&permit, Some(MINUTE), 1.0);
        let blob = limiter.permit(Class::Blob);
        let gives_up = timeout(Duration::from_secs(1), limiter.permit(Class::Listing));
        // The listing is first, so the blob already stands back for it.
        let (listing, blob) = tokio::join!(gives_up, timeout(2 * MINUTE, blob));
        assert!(listing.is_err());
        assert!(blob.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_every_call_of_the_tenant_that_is_not_sent_yet() {
        let limiter = limiter(2000);
        let permit = limiter.permit(Class::Blob).await;
        let refused_at = Instant::now();
        // Both already wait when the refusal comes.
        let later = async {
            let (blob, listing) = tokio::join!(limiter.permit(Class::Blob), limiter.permit(Class::Listing));
            (blob.taken_at, listing.taken_at)
        };
        let refuse = async { limiter.refused(&permit, Some(Duration::from_secs(30)), 0.0) };
        let (waits, (blob, listing)) = tokio::join!(refuse, later);
        assert_eq!(waits, Duration::from_secs(30));
        assert!(Duration::from_secs(30) <= listing - refused_at);
        assert!(listing <= blob);
    }

    #[tokio::test(start_paused = true)]
    async fn one_burst_of_refusals_halves_the_pace_once_and_the_next_one_again() {
        let limiter = limiter(2000);
        let mut burst = Vec::new();
        for _ in 0..5 {
            burst.push(limiter.permit(Class::Blob).await);
        }
        sleep(Duration::from_millis(10)).await;
        for permit in &burst {
            limiter.refused(permit, None, 1.0);
        }
        assert_eq!(limiter.spend().pace.ratio(), 0.5);
        assert_eq!((limiter.meter.pace_ratio(), limiter.meter.refusals()), (0.5, 5));
        let next = limiter.permit(Class::Blob).await;
        limiter.refused(&next, None, 1.0);
        assert_eq!(limiter.spend().pace.ratio(), 0.25);
        // The second burst in a row waits twice as long as the first at most.
        assert_eq!(limiter.spend().paused_until, Instant::now() + Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_halved_pace_doubles_the_distance_and_answers_bring_it_back() {
        let limiter = limiter(600);
        let permit = limiter.permit(Class::Blob).await;
        limiter.refused(&permit, Some(Duration::ZERO), 0.0);
        advance(MINUTE).await;
        let least = limiter.spend().budget.distance * 2;
        let taken = take_many(&limiter, 20).await;
        assert!(taken.windows(2).all(|pair| least <= pair[1] - pair[0]));
        for _ in 0..11 {
            advance(MINUTE).await;
            let permit = limiter.permit(Class::Blob).await;
            limiter.answered(&permit);
        }
        assert!(limiter.spend().pace.is_full());
    }

    /// What happens between two permits.
    #[derive(Clone, Debug)]
    enum Event {
        Burst(u8),
        Rest(u64),
        Refused(Option<u64>),
        Answered,
        TakenOver,
        /// The process dies and another one starts.
        Crash,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (1_u8..60).prop_map(Event::Burst),
            3 => (0_u64..90_000).prop_map(Event::Rest),
            1 => proptest::option::of(0_u64..120_000).prop_map(Event::Refused),
            1 => Just(Event::Answered),
            1 => Just(Event::TakenOver),
            1 => Just(Event::Crash),
        ];
        proptest::collection::vec(event, 1..30)
    }

    async fn play(per_minute: u32, events: Vec<Event>) -> Vec<Instant> {
        let (mut limiter, mut taken) = (limiter(per_minute), Vec::new());
        for event in events {
            match event {
                Event::Burst(count) => taken.extend(take_many(&limiter, count.into()).await),
                Event::Rest(millis) => sleep(Duration::from_millis(millis)).await,
                Event::Refused(after) => {
                    let permit = limiter.permit(Class::Listing).await;
                    taken.push(permit.taken_at);
                    limiter.refused(&permit, after.map(Duration::from_millis), 0.5);
                }
                Event::Answered => {
                    let permit = limiter.permit(Class::Listing).await;
                    taken.push(permit.taken_at);
                    limiter.answered(&permit);
                }
                Event::TakenOver => limiter.start_empty(),
                Event::Crash => limiter = self::limiter(per_minute),
            }
        }
        taken
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_sliding_minute_ever_holds_more_than_the_budget(per_minute in 60_u32..400, events in events()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let taken = runtime.block_on(play(per_minute, events));
            prop_assert!(most_in_a_minute(&taken) <= per_minute as usize);
        }
    }
}
