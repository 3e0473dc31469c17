//! One content type of a tenant, window by window. It carries out what the planner decides.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rdkafka::error::KafkaError;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, info, warn};

use super::{Append, Following, ListingEnds, TenantLister, setbacks::Setbacks};
use crate::{
    api::ApiError,
    config::Subscriptions,
    domain::{ContentKey, ContentType, Fate, Listed, Origin, Pass, Planner, Source, Step, Window},
    kafka::UnlistedSpan,
    pipeline::{
        desk::{Desk, Progress},
        spans,
    },
};

/// The longest rest without a look at the clock and the backlog, so that what is shown is not old.
const REST_MAX: Duration = Duration::from_secs(60);

/// A page that fails is asked for so often before its window is given up for now. A window begun anew reads all its
/// pages again, and a long one might never come to its end.
const PAGE_TRIES: u32 = 5;

/// A subscription that is refused so often although it runs, or was started, is shown to a person (docs/api/contract.md 5).
const STUBBORN: u32 = 5;

/// The lister of one source.
pub struct SourceLister<'a, D, A> {
    shared: &'a Following<D, A>,
    source: Source,
    planner: Planner,
    setbacks: Setbacks,
    /// The service minds a start before this.
    start_not_before: Option<Instant>,
    has_listed: bool,
    was_caught_up: bool,
}

/// Why a window was not listed to its end.
enum Halt {
    LostPartition,
    Api(ApiError),
    Kafka(KafkaError),
}

impl<'a, D: Desk, A: Append> SourceLister<'a, D, A> {
    pub fn new(shared: &'a Following<D, A>, kind: ContentType) -> Self {
        let TenantLister { tenant, started, settings, .. } = &shared.lister;
        let start = started.get(&kind).copied();
        Self {
            shared,
            source: Source { tenant: tenant.id, content_type: kind },
            planner: Planner::new(
                &settings.listing.plan,
                Timestamp::now(),
                start.and_then(|start| start.floor),
                start.map(|start| start.listed),
            ),
            setbacks: Setbacks::default(),
            start_not_before: None,
            has_listed: false,
            was_caught_up: false,
        }
    }

    /// Lists until the partition is lost.
    pub async fn follow(mut self, is_subscription_missing: bool) -> ListingEnds {
        if is_subscription_missing {
            self.subscribe(None).await;
        }
        loop {
            let waiting = self.shared.lister.desk.wanted(self.source, Vec::new(), Origin::Follow).await;
            let Some(waiting) = waiting else { return ListingEnds::LostPartition };
            let now = Timestamp::now();
            let step = self.planner.next_step(now, waiting.pending);
            self.tell_desk();
            match step {
                Step::RestUntil(until) => sleep(until_then(now, until)).await,
                Step::List { pass, window } => {
                    let span = spans::window(self.labels().0, self.source.content_type, pass, window);
                    if self.list(pass, window).instrument(span).await.is_break() {
                        return ListingEnds::LostPartition;
                    }
                }
            }
        }
    }

    /// Lists a window and tells the planner how it went. Breaks when the partition is lost.
    async fn list(&mut self, pass: Pass, window: Window) -> ControlFlow<()> {
        match self.pages(pass, window).await {
            Ok(found) => {
                self.planner.listed(pass, window, found);
                self.tell_progress();
            }
            Err(Halt::LostPartition) => return ControlFlow::Break(()),
            Err(Halt::Kafka(error)) => {
                self.planner.failed(pass, window);
                let rest = self.setbacks.failed(&self.shared.rests, rand::random());
                let (tenant, kind) = self.labels();
                warn!(tenant, content_type = kind, "could not append listings: {error}; the window is listed again");
                sleep(rest).await;
            }
            Err(Halt::Api(error)) => {
                if error.fate() == Fate::ClampWindow {
                    self.planner.clamp();
                }
                self.planner.failed(pass, window);
                match error.fate() {
                    Fate::Subscribe => self.subscription_is_missing(&error).await,
                    _ => self.wait_out(&error).await,
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Reads the window to its last page. The contents of each page are safe before the next is asked for.
    async fn pages(&mut self, pass: Pass, window: Window) -> Result<usize, Halt> {
        let mut pages = self.shared.lister.api.pages(self.source.content_type, window);
        let (mut found, mut appended, mut tries) = (0, 0, 0);
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    self.went_well();
                    tries = 0;
                    found += page.len();
                    appended += self.take(page, origin(pass)).await?;
                }
                Ok(None) => break,
                Err(error) if is_passing(&error) && tries < PAGE_TRIES => {
                    tries += 1;
                    self.wait_out(&error).await;
                }
                Err(error) => return Err(Halt::Api(error)),
            }
        }
        debug!(found, appended, "window listed");
        Ok(found)
    }

    /// Appends what of a page is wanted, and gives back how much that was.
    async fn take(&self, page: Vec<Listed>, origin: Origin) -> Result<usize, Halt> {
        let TenantLister { desk, listings, metrics, .. } = &self.shared.lister;
        let mut seen = HashSet::with_capacity(page.len());
        let contents: Vec<(ContentKey, Arc<Listed>)> = page
            .into_iter()
            .map(|content| (content.key(), Arc::new(content)))
            .filter(|(key, _)| seen.insert(*key))
            .collect();
        if contents.is_empty() {
            return Ok(0);
        }
        let asked = contents.iter().map(|(key, _)| *key).collect();
        let answer = desk.wanted(self.source, asked, origin).await.ok_or(Halt::LostPartition)?.append;
        // An answer that is too short would lose what it leaves out; a repeat only costs a look.
        let is_wanted = |at: usize| answer.get(at).copied().unwrap_or(true);
        let wanted = contents.into_iter().enumerate().filter(|(at, _)| is_wanted(*at));
        let (keys, wanted): (Vec<_>, Vec<_>) = wanted.map(|(_, content)| content).unzip();
        if wanted.is_empty() {
            return Ok(0);
        }
        let claim = Claim { desk, source: self.source, keys };
        listings.append(&wanted, origin).await.map_err(Halt::Kafka)?;
        claim.fulfilled();
        wanted.iter().for_each(|content| debug!(content_id = content.content_id, "announced"));
        let (tenant, kind) = self.labels();
        metrics.listings_total.with_label_values(&[tenant, kind]).inc_by(wanted.len() as u64);
        Ok(wanted.len())
    }

    /// AF20022 or AF20023: starts the subscription, or waits for the person who does.
    async fn subscription_is_missing(&mut self, error: &ApiError) {
        match self.shared.lister.settings.subscriptions {
            Subscriptions::Manage => self.subscribe(Some(error)).await,
            Subscriptions::Leave => {
                self.shared.troubles.stands(self.source.content_type, error);
                sleep(self.shared.rests.person).await;
            }
        }
    }

    /// One try to have the subscription running, and the rest that is due after it. `refusal`: the listing's.
    async fn subscribe(&mut self, refusal: Option<&ApiError>) {
        let rests = &self.shared.rests;
        match self.start_subscription().await {
            Ok(true) => {
                let (tenant, kind) = self.labels();
                info!(tenant, content_type = kind, "subscription started; first contents may take 12 hours");
                sleep(rests.subscribed).await;
            }
            // It runs, or was started a moment ago, and the listing does not know it yet.
            Ok(false) => {
                if let Some(refusal) = refusal.filter(|_| STUBBORN <= self.setbacks.failures()) {
                    self.shared.troubles.stands(self.source.content_type, refusal);
                }
                let rest = self.setbacks.failed(rests, rand::random());
                sleep(rest.max(rests.subscribed)).await;
            }
            Err(error) => self.wait_out(&error).await,
        }
    }

    /// Starts the subscription if it does not run and the last start is long enough ago; whether it did.
    async fn start_subscription(&mut self) -> Result<bool, ApiError> {
        let (api, kind) = (&self.shared.lister.api, self.source.content_type);
        let found = api.subscriptions().await?;
        let runs = found.iter().any(|known| known.kind() == Some(kind) && known.is_enabled());
        if runs || self.start_not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return Ok(false);
        }
        let theirs = found.iter().find(|known| known.kind() == Some(kind)).and_then(|known| known.webhook.as_ref());
        let (has_started, start_again) = match api.start_again(kind, theirs, Timestamp::now()).await {
            Ok(_) | Err(ApiError::AlreadySo(_)) => (true, self.shared.rests.start_again),
            // Started by whoever had the tenant before us: it may be listed long before it may be started again.
            Err(ApiError::StartedTooOften { after, .. }) => (false, after),
            Err(error) => return Err(error),
        };
        self.start_not_before = Some(Instant::now() + start_again);
        Ok(has_started)
    }

    async fn wait_out(&mut self, error: &ApiError) {
        let setback = self.setbacks.met(error, &self.shared.rests, rand::random());
        self.shared.troubles.met(self.source.content_type, error, setback, self.setbacks.failures());
        sleep(setback.rest).await;
    }

    fn went_well(&mut self) {
        self.shared.troubles.works(self.source.content_type);
        let (tenant, kind) = self.labels();
        if 0 < self.setbacks.failures() {
            debug!(tenant, content_type = kind, failures = self.setbacks.failures(), "the service answers again");
            self.setbacks.over();
        }
        if !self.has_listed {
            self.has_listed = true;
            info!(tenant, content_type = kind, "listing has begun");
        }
    }

    fn tell_progress(&mut self) {
        if self.planner.caught_up() && !self.was_caught_up {
            self.was_caught_up = true;
            let ((tenant, kind), listed_to) = (self.labels(), self.planner.listed_to());
            info!(tenant, content_type = kind, %listed_to, "caught up with the present");
        }
    }

    /// How far the listing has come, and whether time was lost for good.
    fn tell_desk(&mut self) {
        let lost = self.planner.take_lost().map(|(from, to)| UnlistedSpan { from, to });
        let progress = Progress { listed_to: self.planner.accounted_to(), lost };
        self.shared.lister.desk.progress(self.source, progress);
    }

    /// Of metrics and logs: the tenant's name and the content type.
    fn labels(&self) -> (&'a str, &'static str) {
        (&self.shared.lister.tenant.name, self.source.content_type.as_str())
    }
}

/// Contents that the desk takes for announced. Dropped before they are, in whatever way, they are wanted again.
struct Claim<'a, D: Desk> {
    desk: &'a D,
    source: Source,
    keys: Vec<ContentKey>,
}

impl<D: Desk> Claim<'_, D> {
    fn fulfilled(mut self) {
        self.keys.clear();
    }
}

impl<D: Desk> Drop for Claim<'_, D> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.desk.unclaim(self.source, std::mem::take(&mut self.keys));
        }
    }
}

/// Whether the same page is worth another try.
fn is_passing(error: &ApiError) -> bool {
    matches!(error.fate(), Fate::Retry { .. } | Fate::Throttled { .. })
}

fn origin(pass: Pass) -> Origin {
    match pass {
        Pass::Follow => Origin::Follow,
        Pass::CatchUp => Origin::CatchUp,
        Pass::Overlap => Origin::Overlap,
        Pass::Sweep => Origin::Sweep,
    }
}

fn until_then(now: Timestamp, then: Timestamp) -> Duration {
    then.duration_since(now).max(SignedDuration::ZERO).unsigned_abs().min(REST_MAX)
}
