//! Notifications: what the service tells is published like what polling finds, once, whoever receives it.

use std::{collections::HashSet, fs, time::Duration};

use jiff::{SignedDuration, Timestamp};
use o365feed::{
    domain::ContentType,
    simulator::{Notifier, Operation, Scenario, SourceScenario},
};
use serde_json::{Value, json};

use crate::{
    broker::{Broker, Options},
    process::Process,
    reader::read_committed,
    scratch::{Scratch, free_port},
    wait,
    world::{PATIENCE, World, history, live, metric, published, scenario, stop},
};

const KIND: ContentType = ContentType::SharePoint;
const SECRET: &str = "an-auth-id-of-the-tests";

/// A world whose connector polls once an hour and receives notifications in between.
struct Hooked {
    world: World,
    port: u16,
    _secret: Scratch,
}

impl Hooked {
    fn new(notifier: Notifier, source: SourceScenario) -> Self {
        Self::on(Broker::shared().bootstrap(), notifier, source)
    }

    fn on(bootstrap: &str, notifier: Notifier, source: SourceScenario) -> Self {
        let mut world = World::on(bootstrap, Scenario { notifier, ..scenario(vec![(KIND, source)]) });
        let (secret, port) = (Scratch::new("webhook"), free_port());
        let file = secret.path().join("auth-id");
        fs::write(&file, format!("{SECRET}\n")).unwrap();
        world.set("listing.poll_interval", "1h");
        world.set("webhook.auth_id_file", file.display());
        world.set("webhook.public_url", format!("http://127.0.0.1:{port}/webhook"));
        Self { world, port, _secret: secret }
    }

    /// A process that receives, and has published the history: from here on there is only what it is told.
    fn start(&self, slot: &str) -> Process {
        let mut process = self.world.start_with(slot, &self.receiver());
        process.wait_until("it is ready and has published the history", PATIENCE, |process| {
            let log = process.stderr();
            log.contains("notifications are received") && log.contains("caught up") && published(process) >= HISTORY
        });
        process
    }

    fn receiver(&self) -> [(&'static str, String); 2] {
        [("webhook.enabled", "true".to_owned()), ("webhook.listen", format!("127.0.0.1:{}", self.port))]
    }

    /// `subscriptions start --webhook`, which must go well.
    fn register(&self) {
        let ran = self.world.tool(&["subscriptions", "start", "--webhook"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    }

    /// The webhook as `subscriptions list` tells it.
    fn webhook(&self) -> Value {
        let ran = self.world.tool(&["subscriptions", "list", "--output", "json"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        serde_json::from_str::<Value>(&ran.stdout).unwrap()[0]["webhook"].clone()
    }

    fn lists(&self) -> u64 {
        self.world.simulator().counts().of(Operation::Content)
    }

    /// Status of a request to the receiver.
    fn post(&self, auth_id: &str, body: impl Into<String>) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("http://127.0.0.1:{}/x", self.port)).header("webhook-authid", auth_id);
        let send = request.body(body.into()).send();
        self.world.runtime().block_on(send).unwrap().status().as_u16()
    }
}

fn quick() -> Notifier {
    let short = Duration::from_millis(100);
    Notifier { interval: short, first_retry: short, ..Notifier::default() }
}

/// Records of it.
const HISTORY: f64 = 50.0;

fn quiet() -> SourceScenario {
    history(10, 5)
}

fn busy() -> SourceScenario {
    SourceScenario { live: live(120.0, 5), ..quiet() }
}

fn requests(process: &Process, outcome: &str) -> f64 {
    metric(process, "o365feed_webhook_requests_total", &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn contents_that_only_the_webhook_tells_of_arrive_exactly_once() {
    let hooked = Hooked::new(quick(), busy());
    let mut process = hooked.start("a");
    hooked.register();
    assert_eq!(requests(&process, "validated"), 2.0, "by the command, then by the service");
    let (listed, before) = (hooked.lists(), published(&process));
    process.wait_until("notifications are published", PATIENCE, |process| published(process) > before + 100.0);
    assert_eq!(hooked.lists(), listed, "nothing was listed meanwhile");
    stop(&mut process);
    // What came before the webhook was there, and what was on its way at the end, polling finds.
    process.restart();
    hooked.world.complete(&mut [&mut process]);
    let webhook = hooked.webhook();
    assert_eq!((&webhook["status"], &webhook["is_ours"]), (&json!("enabled"), &json!(true)), "a start leaves it alone");
    stop(&mut process);
    hooked.world.verdict().is_exactly_once();
    assert!(hooked.world.simulator().counts().announced.len() >= 20);
    assert!(!process.stderr().contains(SECRET), "the secret is in the log");
}

#[test]
fn whoever_does_not_know_the_secret_is_refused_and_rubbish_changes_nothing() {
    let hooked = Hooked::new(quick(), quiet());
    let mut process = hooked.start("a");
    hooked.world.complete(&mut [&mut process]);
    let tenant = hooked.world.tenant();
    let entry = |tenant: &str, kind: &str, uri: &str| {
        let now = Timestamp::now();
        let (created, expires) = (now.to_string(), (now + SignedDuration::from_hours(168)).to_string());
        json!([{"tenantId": tenant, "clientId": "x", "contentType": kind, "contentId": "1$2", "contentUri": uri,
            "contentCreated": created, "contentExpiration": expires}])
        .to_string()
    };
    let root = hooked.world.simulator().api_root();
    let good = format!("{root}api/v1.0/{tenant}/activity/feed/audit/1$2");
    let evil = "http://127.0.0.1:1/api/v1.0/x/activity/feed/audit/1$2";
    let id = tenant.to_string();

    assert_eq!(hooked.post("another-secret-of-16", entry(&id, KIND.as_str(), &good)), 403);
    assert_eq!(hooked.post("", entry(&id, KIND.as_str(), &good)), 403);
    assert_eq!(hooked.post(SECRET, entry(&id, KIND.as_str(), evil)), 200);
    assert_eq!(hooked.post(SECRET, entry(&id, "DLP.All", &good)), 200);
    assert_eq!(hooked.post(SECRET, entry("00000000-5a0b-4d5e-9c7a-0c0a17e5ffff", KIND.as_str(), &good)), 200);
    assert_eq!(hooked.post(SECRET, "[{}, 7]"), 200);
    assert_eq!(hooked.post(SECRET, "<html>"), 400);

    let of =
        |outcome: &str| metric(&process, "o365feed_webhook_notifications_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!(["taken", "elsewhere", "foreign", "unreadable"].map(of), [0.0, 1.0, 2.0, 2.0]);
    assert_eq!(["unauthorised", "unreadable"].map(|outcome| requests(&process, outcome)), [2.0, 1.0]);
    stop(&mut process);
    hooked.world.verdict().is_exactly_once();
    assert_eq!(hooked.world.simulator().counts().blob_gets.len(), 10, "nothing else was fetched");
}

#[test]
fn what_a_notification_invents_becomes_no_gap() {
    let hooked = Hooked::new(quick(), quiet());
    let mut process = hooked.start("a");
    process.wait_until("what is there is published", PATIENCE, |process| published(process) >= HISTORY);
    let (tenant, now) = (hooked.world.tenant(), Timestamp::now());
    let invented = json!([{
        "tenantId": tenant.to_string(), "clientId": "x", "contentType": KIND.as_str(), "contentId": "invented",
        "contentUri": format!("{}api/v1.0/{tenant}/activity/feed/audit/invented", hooked.world.simulator().api_root()),
        "contentCreated": now.to_string(), "contentExpiration": (now + SignedDuration::from_hours(168)).to_string(),
    }]);
    assert_eq!(hooked.post(SECRET, invented.to_string()), 200);
    let given_up = |process: &Process| metric(process, "o365feed_contents_total", &["outcome=\"moved\""]) >= 1.0;
    process.wait_until("it is given up", PATIENCE, given_up);
    hooked.world.complete(&mut [&mut process]);
    stop(&mut process);
    // Without a gap.
    hooked.world.verdict().is_exactly_once();
}

#[test]
fn notifications_that_repeat_and_come_out_of_order_change_nothing() {
    let notifier = Notifier { contents: 1, repeats: 0.6, reversed: true, ..quick() };
    let mut hooked = Hooked::new(notifier, busy());
    hooked.world.set("fetch.recheck", "off");
    let mut process = hooked.start("a");
    hooked.register();
    let before = published(&process);
    process.wait_until("notifications are published", PATIENCE, |process| published(process) > before + 100.0);
    stop(&mut process);
    process.restart();
    hooked.world.complete(&mut [&mut process]);
    stop(&mut process);
    hooked.world.verdict().is_exactly_once();
    let counts = hooked.world.simulator().counts();
    assert!(counts.notifications[&200] > counts.announced.len() as u64, "some were told twice");
    assert!(counts.blob_gets.values().all(|gets| *gets == 1), "and none was fetched twice");
}

#[test]
fn a_receiver_that_is_down_loses_its_webhook_until_it_is_up_and_registered_again() {
    let hooked = Hooked::new(Notifier { disable_after: 3, ..quick() }, busy());
    let mut process = hooked.start("a");
    hooked.register();
    stop(&mut process);
    let disabled = wait::comes_true(PATIENCE, || hooked.world.simulator().counts().webhooks_disabled == 1);
    assert!(disabled, "the service gave it up");
    let ran = hooked.world.tool(&["subscriptions", "start", "--webhook"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let address = format!("http://127.0.0.1:{}/webhook", hooked.port);
    assert!(ran.stderr.contains(&address) && ran.stderr.contains("is not registered"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(SECRET), "{}", ran.stderr);
    assert_eq!(hooked.webhook()["status"], "disabled", "nothing was changed");
    let starts = hooked.world.simulator().counts().starts;

    process.restart();
    process.wait_until("it receives", PATIENCE, |process| {
        process.stderr().matches("notifications are received").count() == 2
            && process.stderr().matches("caught up").count() == 2
    });
    assert_eq!(hooked.world.simulator().counts().starts, starts, "the connector leaves it alone");
    hooked.register();
    assert_eq!(hooked.webhook()["status"], "enabled");
    let before = published(&process);
    process.wait_until("notifications are published", PATIENCE, |process| published(process) > before + 50.0);
    let ran = hooked.world.tool(&["subscriptions", "start", "--webhook", "--expires", "2099-01-31"]);
    assert!(ran.stdout.contains("webhook set") && ran.stdout.contains("until 2099-01-31T00:00:00Z"), "{}", ran.stdout);
    let ran = hooked.world.tool(&["subscriptions", "start", "--no-webhook"]);
    assert!(ran.code == 0 && ran.stdout.contains("webhook removed"), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(hooked.webhook(), Value::Null);
    stop(&mut process);
    process.restart();
    hooked.world.complete(&mut [&mut process]);
    stop(&mut process);
    hooked.world.verdict().is_exactly_once();
}

#[test]
fn what_was_answered_with_200_is_in_the_listings_although_the_process_is_killed() {
    let hooked = Hooked::new(Notifier { contents: 1, ..quick() }, busy());
    let mut process = hooked.start("a");
    hooked.register();
    let announced = || hooked.world.simulator().counts().announced;
    process.wait_until("notifications come in", PATIENCE, |_| announced().len() >= 10);
    process.kill9();
    let announced = announced();
    let listings = read_committed(hooked.world.bootstrap(), &[hooked.world.topic("feed.listings")]);
    let listed: HashSet<String> = listings
        .iter()
        .map(|message| serde_json::from_slice::<Value>(message.value.as_deref().unwrap()).unwrap())
        .map(|item| item["contentId"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<_> = announced.iter().filter(|id| !listed.contains(*id)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    process.restart();
    hooked.world.complete(&mut [&mut process]);
    stop(&mut process);
    hooked.world.verdict().is_exactly_once();
}

#[test]
fn while_kafka_takes_nothing_the_service_is_told_to_send_again() {
    let mut broker = Broker::own(Options::default());
    // It waits for longer than the receiver does for Kafka, and never gives up.
    let notifier = Notifier { timeout: PATIENCE, disable_after: u32::MAX, ..quick() };
    let hooked = Hooked::on(broker.bootstrap(), notifier, busy());
    let mut process = hooked.start("a");
    hooked.register();
    let notified = |status| hooked.world.simulator().counts().notifications.get(&status).copied().unwrap_or_default();
    process.wait_until("notifications come in", PATIENCE, |_| notified(200) >= 5);
    broker.pause();
    process.wait_until("one is refused", PATIENCE, |_| notified(503) >= 1);
    broker.resume();
    let before = notified(200);
    process.wait_until("they are taken again", PATIENCE, |_| notified(200) > before + 5);
    stop(&mut process);
    process.restart();
    hooked.world.complete(&mut [&mut process]);
    stop(&mut process);
    hooked.world.verdict().is_exactly_once();
}

#[test]
fn what_the_webhook_should_have_told_and_did_not_is_counted() {
    let mut hooked = Hooked::new(Notifier { forgets: 0.5, ..quick() }, busy());
    hooked.world.set("listing.poll_interval", "1s");
    hooked.world.set("webhook.missed_after", "3s");
    let mut process = hooked.start("a");
    hooked.register();
    let missed = |process: &Process| metric(process, "o365feed_webhook_missed_total", &[KIND.as_str()]);
    process.wait_until("some were missed", PATIENCE, |process| missed(process) >= 5.0);
    let taken = metric(&process, "o365feed_webhook_notifications_total", &["outcome=\"taken\""]);
    assert!(taken >= 1.0, "and some were told");
    hooked.world.complete(&mut [&mut process]);
    let (missed, counts) = (missed(&process), hooked.world.simulator().counts());
    assert!(missed < counts.blob_gets.len() as f64, "not all of them");
    stop(&mut process);
    hooked.world.verdict().is_exactly_once();
}

#[test]
fn a_process_that_does_not_own_the_tenant_receives_for_the_one_that_does() {
    let mut hooked = Hooked::new(quick(), busy());
    let ports = [free_port(), free_port()];
    hooked.world.set("webhook.enabled", "true");
    let start = |slot, port| hooked.world.start_with(slot, &[("webhook.listen", format!("127.0.0.1:{port}"))]);
    let mut processes = [start("a", ports[0]), start("b", ports[1])];
    for process in &mut processes {
        process.wait_until("it is ready", PATIENCE, |process| {
            process.get("/readyz").is_ok_and(|(status, _)| status == 200)
                && metric(process, "o365feed_partitions_owned", &[]) > 0.0
        });
    }
    // Whoever lists the tenant owns it.
    let owns = |process: &Process| metric(process, "o365feed_watermark_age_seconds", &[]) > 0.0;
    let one_owns = wait::comes_true(PATIENCE, || processes.iter().filter(|process| owns(process)).count() == 1);
    assert!(one_owns, "the tenant has one owner");
    let other = usize::from(owns(&processes[0]));
    let address = format!("http://127.0.0.1:{}/", ports[other]);
    let ran = hooked.world.tool(&["subscriptions", "start", "--webhook", &address]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let idle = published(&processes[other]);
    // With an hour between two listings, whatever was announced from here on is fetched for that reason alone.
    let all_fetched = || {
        let counts = hooked.world.simulator().counts();
        counts.announced.len() >= 10 && counts.announced.iter().all(|id| counts.blob_gets.contains_key(id))
    };
    processes[1 - other].wait_until("it fetches what the other was told", PATIENCE, |_| all_fetched());
    assert!(requests(&processes[other], "taken") > 0.0);
    assert_eq!(requests(&processes[1 - other], "taken"), 0.0);
    assert_eq!(published(&processes[other]), idle);
    for process in &mut processes {
        stop(process);
    }
    let [first, _] = &mut processes;
    first.restart();
    hooked.world.complete(&mut [first]);
    stop(first);
    hooked.world.verdict().is_exactly_once();
}
