//! The lister against the simulator, with a desk and a topic that only take notes.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use secrecy::SecretString;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::*;
use crate::{
    api::{Api, NewWebhook},
    config::{Cloud, Credential},
    domain::{Backoff, ContentKey, Source},
    pipeline::desk::{Progress, Wanted},
    simulator::{Failure, Faults, History, Operation, Rule, Scenario, Simulator, SourceScenario, TenantScenario, When},
};

const QUICK: Rests = Rests {
    backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(20)),
    asked_max: Duration::from_millis(20),
    person: Duration::from_millis(20),
    token: Duration::from_millis(20),
    subscribed: Duration::from_millis(1),
    start_again: Duration::from_secs(900),
};
/// Only a broken test waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn every_content_of_every_page_is_appended_once_however_often_it_is_listed() {
    let sources = vec![(ContentType::Exchange, a_source()), (ContentType::SharePoint, a_source())];
    let world = World::start(TenantScenario { sources, ..a_tenant() }, Faults::default()).await;
    let due: usize = world.sim.truth().now().iter().map(|truth| truth.due.len()).sum();
    assert_eq!(due, 20, "one record a content");
    // The overlap lists all of it again.
    world.book.until(|notes| notes.asked.len() == due && notes.asked.values().all(|times| 2 <= *times)).await;
    assert_eq!(world.appended_once(), due);
    let listings = &world.metrics.listings_total;
    assert_eq!(listings.with_label_values(&["contoso", "Audit.Exchange"]).get(), 10);
    assert_eq!(world.health.ready(), Ok(()));
    assert_eq!(world.sim.counts().starts, 0);
}

#[tokio::test]
async fn a_service_that_often_fails_loses_nothing() {
    let rule = Rule { on: Some(Operation::Content), failure: Failure::Status(500), when: When::First(1) };
    let faults = Faults { rules: vec![rule], ..Faults::default() };
    let world = World::start(a_tenant(), faults).await;
    world.book.until(|notes| notes.appended.len() == 10).await;
    assert_eq!(world.appended_once(), 10);
    assert!(0 < world.sim.counts().requests[&(Operation::Content, 500)]);
}

#[tokio::test]
async fn what_passed_while_nobody_listed_is_told_to_the_desk() {
    let listed = Timestamp::now() - SignedDuration::from_hours(8 * 24);
    let world = World::prepared(a_tenant(), Faults::default(), |_, book| book.notes().listed = Some(listed)).await;
    world.book.until(|notes| !notes.progress.is_empty()).await;
    let (_, first) = world.book.notes().progress[0].clone();
    let lost = first.lost.expect("the API lists seven days back");
    assert_eq!(lost.from.as_second(), listed.as_second());
    assert_eq!(first.listed_to, lost.to);
    let hours = lost.to.duration_since(lost.from).as_hours();
    assert!((24..=25).contains(&hours), "{hours} h");
}

#[tokio::test]
async fn what_kafka_did_not_acknowledge_is_wanted_and_listed_again() {
    let world = World::prepared(a_tenant(), Faults::default(), |_, book| book.notes().refuse_appends = 3).await;
    world.book.until(|notes| notes.appended.len() == 10).await;
    assert_eq!(world.appended_once(), 10);
    assert!(0 < world.book.notes().unclaimed);
    assert_eq!(world.book.notes().refuse_appends, 0);
}

#[tokio::test]
async fn a_subscription_that_is_missing_is_started_once() {
    let sources = vec![(ContentType::SharePoint, SourceScenario { subscribed: false, ..a_source() })];
    let world = World::start(TenantScenario { sources, ..a_tenant() }, Faults::default()).await;
    world.book.until(|notes| notes.appended.len() == 10).await;
    assert_eq!(world.sim.counts().starts, 1);
}

#[tokio::test]
async fn a_subscription_that_ends_is_started_again() {
    let world = World::start(a_tenant(), Faults::default()).await;
    world.book.until(|notes| notes.appended.len() == 10).await;
    world.api.stop(ContentType::SharePoint).await.unwrap();
    eventually(|| world.sim.counts().starts == 1).await;
    let before = world.book.notes().asked.values().max().copied().unwrap();
    world.book.until(|notes| notes.asked.values().any(|times| before < *times)).await;
    assert_eq!(world.sim.counts().starts, 1);
}

/// What a start calls before it takes a webhook: anybody who answers 200.
async fn a_receiver() -> (NewWebhook, tokio::task::AbortHandle) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let router = axum::Router::new().fallback(|| async {});
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    (NewWebhook { address, auth_id: Some(SecretString::from("s3cr3t")), expires: None }, serving.abort_handle())
}

#[tokio::test]
async fn a_subscription_that_was_disabled_is_started_again_with_the_webhook_that_it_had() {
    let world = World::start(a_tenant(), Faults::default()).await;
    let (webhook, receiver) = a_receiver().await;
    world.api.start_with(ContentType::SharePoint, &webhook).await.unwrap();
    world.book.until(|notes| notes.appended.len() == 10).await;
    let started = || world.sim.counts().requests.get(&(Operation::Start, 200)).copied();
    let before = started();
    world.sim.control().disable(ContentType::SharePoint);
    // Answered, that is: a webhook is asked before a subscription is there.
    eventually(|| started() > before).await;
    let found = world.api.subscriptions().await.unwrap().remove(0);
    assert!(found.is_enabled() && webhook.is(found.webhook.as_ref().unwrap()));

    // Without a receiver the service refuses the webhook; the subscription is worth more.
    receiver.abort();
    let world = World::start(a_tenant(), Faults::default()).await;
    let (webhook, receiver) = a_receiver().await;
    world.api.start_with(ContentType::SharePoint, &webhook).await.unwrap();
    receiver.abort();
    eventually(|| std::net::TcpStream::connect(("127.0.0.1", webhook.address.port().unwrap())).is_err()).await;
    world.sim.control().disable(ContentType::SharePoint);
    eventually(|| world.sim.counts().requests.contains_key(&(Operation::Start, 400))).await;
    world.book.until(|notes| notes.appended.len() == 10).await;
    let found = world.api.subscriptions().await.unwrap().remove(0);
    assert!(found.is_enabled() && found.webhook.is_none());
}

#[tokio::test]
async fn a_subscription_that_is_not_ours_to_start_is_told_and_waited_for() {
    let sources = vec![(ContentType::SharePoint, SourceScenario { subscribed: false, ..a_source() })];
    let tenant = TenantScenario { sources, ..a_tenant() };
    let leave = |settings: &mut Settings, _: &Book| settings.subscriptions = Subscriptions::Leave;
    let world = World::prepared(tenant, Faults::default(), leave).await;
    eventually(|| world.not_ready().contains("tenant contoso: Audit.SharePoint: ")).await;
    assert!(world.not_ready().contains("subscriptions start"), "{}", world.not_ready());
    assert_eq!(world.sim.counts().starts, 0);
    world.api.start(ContentType::SharePoint).await.unwrap();
    world.book.until(|notes| notes.appended.len() == 10).await;
    assert_eq!(world.health.ready(), Ok(()));
}

#[tokio::test]
async fn a_type_without_permission_is_told_and_the_others_go_on() {
    let sources = vec![(ContentType::SharePoint, a_source()), (ContentType::Dlp, a_source())];
    let roles = vec!["ActivityFeed.Read".to_owned()];
    let world = World::start(TenantScenario { sources, roles, ..a_tenant() }, Faults::default()).await;
    world.book.until(|notes| notes.appended.len() == 10).await;
    eventually(|| world.not_ready().contains("ActivityFeed.ReadDlp")).await;
    assert!(world.not_ready().starts_with("tenant contoso: DLP.All: could not "), "{}", world.not_ready());
    assert_eq!(world.refused.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_wrong_secret_is_told_with_what_to_do() {
    let wrong = |settings: &mut Settings, _: &Book| {
        settings.tenants[0].credential = Credential::Secret(SecretString::from("some-wrong-secret"));
    };
    let world = World::prepared(a_tenant(), Faults::default(), wrong).await;
    eventually(|| 2 <= world.refused.load(Ordering::SeqCst)).await;
    let told = world.not_ready();
    assert!(told.starts_with("token contoso: could not ") && told.contains("the client secret is wrong"), "{told}");
    assert!(!told.contains("some-wrong-secret"));
    assert_eq!(world.sim.counts().of(Operation::Token), 1, "the authority is not asked again and again");
    assert!(world.book.notes().asked.is_empty());
}

#[tokio::test]
async fn stopping_waits_for_nobody() {
    let world = World::start(a_tenant(), Faults::first(Operation::Content, Failure::Silence, 1)).await;
    eventually(|| world.sim.counts().of(Operation::Subscriptions) == 1).await;
    world.stop.cancel();
    assert_eq!(world.ended().await, ListingEnds::Stopped);
}

#[tokio::test]
async fn a_lost_partition_ends_the_listing_of_all_types_and_its_conditions() {
    let world = World::start(a_tenant(), Faults::default()).await;
    world.book.until(|notes| notes.appended.len() == 10).await;
    world.health.not_ok("tenant contoso", "left behind");
    world.book.note(|notes| notes.is_lost = true);
    let health = world.health.clone();
    assert_eq!(world.ended().await, ListingEnds::LostPartition);
    assert_eq!(health.ready(), Ok(()));
}

/// A simulated tenant and its lister at work.
struct World {
    sim: Simulator,
    api: Arc<TenantApi>,
    book: Book,
    metrics: Metrics,
    health: Health,
    refused: Arc<AtomicU32>,
    stop: CancellationToken,
    lister: JoinHandle<ListingEnds>,
}

impl World {
    async fn start(tenant: TenantScenario, faults: Faults) -> Self {
        Self::prepared(tenant, faults, |_, _| {}).await
    }

    async fn prepared(tenant: TenantScenario, faults: Faults, prepare: impl Fn(&mut Settings, &Book)) -> Self {
        let scenario = Scenario { tenants: vec![tenant.clone()], faults, ..Scenario::default() };
        let sim = Simulator::start(scenario).await.unwrap();
        let mut settings = Settings::with_defaults(vec![as_configured(&tenant, &sim)], "pod-0");
        settings.quota.requests_per_minute = 60_000;
        settings.listing.plan.poll_interval = Duration::from_secs(1);
        settings.listing.plan.overlap_interval = Duration::from_secs(1);
        let (metrics, health, book) = (Metrics::new(), Health::new(), Book::default());
        health.begun();
        prepare(&mut settings, &book);
        let (refused, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let api = Api::new(&settings, &metrics).unwrap().tenant(tenant.id).unwrap();
        let floor = Timestamp::now() - SignedDuration::from_hours(3);
        let start = match book.notes().listed {
            Some(listed) => SourceStart { floor: None, listed },
            None => SourceStart { floor: Some(floor), listed: floor },
        };
        let counter = Arc::clone(&refused);
        let lister = TenantLister {
            tenant: settings.tenants[0].clone(),
            started: ContentType::ALL.map(|kind| (kind, start)).into(),
            settings: Arc::new(settings),
            api: Arc::clone(&api),
            desk: book.clone(),
            listings: Arc::new(book.clone()),
            metrics: metrics.clone(),
            health: health.clone(),
            on_refused: Arc::new(move |_| _ = counter.fetch_add(1, Ordering::SeqCst)),
            stop: stop.clone(),
        };
        let lister = tokio::spawn(follow(lister, QUICK));
        Self { sim, api, book, metrics, health, refused, stop, lister }
    }

    fn not_ready(&self) -> String {
        self.health.ready().err().unwrap_or_default()
    }

    /// How many contents were appended; none of them twice.
    fn appended_once(&self) -> usize {
        let appended = self.book.notes().appended.clone();
        let distinct: HashSet<_> = appended.iter().collect();
        assert_eq!(distinct.len(), appended.len());
        appended.len()
    }

    async fn ended(self) -> ListingEnds {
        timeout(DEADLINE, self.lister).await.expect("it ends").unwrap()
    }
}

/// Desk and topic in one.
#[derive(Clone)]
struct Book {
    notes: Arc<Mutex<Notes>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Notes {
    announced: HashSet<(Source, ContentKey)>,
    /// How often each content was asked about.
    asked: HashMap<(Source, ContentKey), u32>,
    appended: Vec<(Source, ContentKey)>,
    unclaimed: usize,
    refuse_appends: u32,
    is_lost: bool,
    /// Up to where owners before had listed; three hours ago otherwise, where all sources start.
    listed: Option<Timestamp>,
    progress: Vec<(Source, Progress)>,
}

impl Default for Book {
    fn default() -> Self {
        Self { notes: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Book {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    fn note<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        let given = change(&mut self.notes());
        self.changed.send_replace(());
        given
    }

    async fn until(&self, condition: impl Fn(&Notes) -> bool) {
        let mut changed = self.changed.subscribe();
        let met = async {
            while !condition(&self.notes()) {
                changed.changed().await.unwrap();
            }
        };
        timeout(DEADLINE, met).await.expect("the condition is met");
    }
}

impl Desk for Book {
    async fn wanted(&self, source: Source, contents: Vec<ContentKey>, _: Origin) -> Option<Wanted> {
        self.note(|notes| {
            let mut ask = |key| {
                *notes.asked.entry((source, key)).or_default() += 1;
                notes.announced.insert((source, key))
            };
            let append = contents.into_iter().map(&mut ask).collect();
            (!notes.is_lost).then_some(Wanted { append, pending: 0 })
        })
    }

    fn unclaim(&self, source: Source, contents: Vec<ContentKey>) {
        self.note(|notes| {
            notes.unclaimed += contents.len();
            contents.into_iter().for_each(|key| assert!(notes.announced.remove(&(source, key))));
        });
    }

    fn progress(&self, source: Source, progress: Progress) {
        self.note(|notes| notes.progress.push((source, progress)));
    }
}

impl Append for Book {
    async fn append(&self, contents: &[Arc<Listed>], _: Origin) -> Result<(), KafkaError> {
        self.note(|notes| {
            if let Some(left) = notes.refuse_appends.checked_sub(1) {
                notes.refuse_appends = left;
                return Err(KafkaError::Canceled);
            }
            notes.appended.extend(contents.iter().map(|content| (content.source, content.key())));
            Ok(())
        })
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, met).await.expect("the condition is met");
}

/// Ten contents of one record in the last hour, on several pages.
fn a_source() -> SourceScenario {
    let history = History { arrivals: 10, span: Duration::from_secs(3_600), records: 1 };
    SourceScenario { history, page_size: 2, ..SourceScenario::default() }
}

fn a_tenant() -> TenantScenario {
    TenantScenario {
        sources: vec![(ContentType::SharePoint, a_source())],
        quota_per_minute: 1_000_000,
        ..TenantScenario::default()
    }
}

fn as_configured(tenant: &TenantScenario, sim: &Simulator) -> Tenant {
    Tenant {
        id: tenant.id,
        name: "contoso".to_owned(),
        cloud: Cloud::Worldwide,
        api_root: sim.api_root(),
        authority: sim.api_root(),
        audience: tenant.audience.clone(),
        client_id: tenant.client_id.clone(),
        credential: Credential::Secret(tenant.client_secret.clone()),
        content_types: tenant.sources.iter().map(|(kind, _)| *kind).collect(),
        publisher_identifier: tenant.id.0,
    }
}
