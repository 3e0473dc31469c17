use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};

use super::*;

/// One request as it came.
#[derive(Clone, Debug)]
struct Came {
    auth_id: String,
    code: Option<String>,
    body: Value,
}

/// A receiver on this machine that answers as it is told.
#[derive(Clone)]
struct Receiver {
    address: String,
    came: Arc<Mutex<Vec<Came>>>,
    status: Arc<Mutex<u16>>,
}

impl Receiver {
    async fn answering(status: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = Self { address, came: Arc::default(), status: Arc::new(Mutex::new(status)) };
        let router = Router::new().route("/hook", post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    fn answers(&self, status: u16) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ids in all requests that were no validation, repeats included.
    fn ids(&self) -> Vec<String> {
        let notified = self.came().into_iter().filter(|came| came.code.is_none());
        let of = |came: Came| came.body.as_array().unwrap().clone();
        notified.flat_map(of).map(|item| item["contentId"].as_str().unwrap().to_owned()).collect()
    }

    fn webhook(&self) -> Value {
        serde_json::json!({"webhook": {"address": self.address, "authId": "s3cr3t", "expiration": ""}})
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let came = Came {
        auth_id: text("webhook-authid").unwrap_or_default(),
        code: text("webhook-validationcode"),
        body: serde_json::from_slice(&body).unwrap(),
    };
    receiver.came.lock().unwrap_or_else(PoisonError::into_inner).push(came);
    StatusCode::from_u16(*receiver.status.lock().unwrap_or_else(PoisonError::into_inner)).unwrap()
}

fn quick() -> Notifier {
    let short = Duration::from_millis(10);
    Notifier { interval: short, first_retry: short, contents: 3, ..Notifier::default() }
}

async fn a_world(notifier: Notifier, source: SourceScenario) -> World {
    let sources = vec![(ContentType::SharePoint, SourceScenario { live: sixty_a_minute(), ..source })];
    let tenants = vec![TenantScenario { sources, ..TenantScenario::default() }];
    World::with(Scenario { tenants, notifier, ..Scenario::default() }).await
}

fn sixty_a_minute() -> Live {
    Live { arrivals_per_minute: 60.0, records: 1 }
}

async fn start(world: &World, body: &Value) -> Response {
    let request = world.call(Method::POST, "subscriptions/start?contentType=Audit.SharePoint");
    request.body(body.to_string()).send().await.unwrap()
}

async fn webhook_in_list(world: &World) -> Value {
    read::<Value>(world.get("subscriptions/list").await).await[0]["webhook"].clone()
}

/// Looks again until it is so. The bound is no measure: it ends a test that would never end.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it never came true");
}

#[tokio::test]
async fn s27_a_webhook_is_validated_before_it_is_registered_and_then_told_of_every_content() {
    let (world, receiver) = (a_world(quick(), a_source()).await, Receiver::answering(200).await);
    assert_eq!(webhook_in_list(&world).await, Value::Null);
    let started: Value = read(start(&world, &receiver.webhook()).await).await;
    assert_eq!((&started["status"], &started["webhook"]["status"]), (&"enabled".into(), &"enabled".into()));
    let asked = receiver.came().remove(0);
    assert_eq!(asked.auth_id, "s3cr3t");
    assert_eq!(asked.body, serde_json::json!({"validationCode": asked.code.unwrap()}));
    assert_eq!(refusal(start(&world, &receiver.webhook()).await).await.1, "AF20024");

    world.sim.control().advance(SignedDuration::from_secs(10));
    let listed = world.listed(0, 11).await;
    until(async || world.sim.counts().announced.len() >= listed.len()).await;
    let ids: Vec<String> = listed.iter().map(|item| item["contentId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(receiver.ids(), ids);
    let told = &receiver.came()[1];
    assert_eq!((told.auth_id.as_str(), told.body.as_array().unwrap().len()), ("s3cr3t", 3));
    for (name, value) in listed[0].as_object().unwrap() {
        assert_eq!(&told.body[0][name], value);
    }
    assert_eq!(told.body[0]["tenantId"], TenantScenario::default().id.to_string());
    assert_eq!(told.body[0]["clientId"], TenantScenario::default().client_id);
    let counts = world.sim.counts();
    assert_eq!((counts.validations.get(&200), counts.announced.len()), (Some(&1), ids.len()));
}

#[tokio::test]
async fn s27_a_webhook_that_does_not_answer_well_is_refused_and_the_subscription_stays_without() {
    let (world, receiver) = (a_world(quick(), a_source()).await, Receiver::answering(200).await);
    assert!(is_ok(&start(&world, &receiver.webhook()).await));
    receiver.answers(403);
    let other = serde_json::json!({"webhook": {"address": receiver.address, "authId": "another"}});
    let (status, code, text) = refusal(start(&world, &other).await).await;
    assert_eq!((status, code.as_str()), (400, "AF20021"));
    assert!(text.contains(&receiver.address) && text.contains("403"), "{text}");
    assert_eq!(webhook_in_list(&world).await, Value::Null);
    let nobody = serde_json::json!({"webhook": {"address": "http://127.0.0.1:1/"}});
    assert_eq!(refusal(start(&world, &nobody).await).await.1, "AF20021");
    let foreign = serde_json::json!({"webhook": {"address": "http://receiver.example/"}});
    assert_eq!(refusal(start(&world, &foreign).await).await.1, "AF20021");
    let past = serde_json::json!({"webhook": {"address": receiver.address, "expiration": "2026-08-30T11:00:00Z"}});
    assert_eq!(refusal(start(&world, &past).await).await.1, "AF20003");
}

#[tokio::test]
async fn s27_a_subscription_whose_webhook_is_refused_at_its_first_start_is_not_created() {
    let (world, receiver) =
        (a_world(quick(), SourceScenario { subscribed: false, ..a_source() }).await, Receiver::answering(500).await);
    assert_eq!(refusal(start(&world, &receiver.webhook()).await).await.1, "AF20021");
    assert_eq!(read::<Value>(world.get("subscriptions/list").await).await, serde_json::json!([]));
}

#[tokio::test]
async fn s27_failures_are_tried_again_and_then_disable_and_a_start_enables_again() {
    let notifier = Notifier { disable_after: 4, ..quick() };
    let (world, receiver) = (a_world(notifier, a_source()).await, Receiver::answering(200).await);
    start(&world, &receiver.webhook()).await;
    receiver.answers(503);
    world.sim.control().advance(SignedDuration::from_secs(3));
    until(async || webhook_in_list(&world).await["status"] == "disabled").await;
    let counts = world.sim.counts();
    assert_eq!((counts.notifications.get(&503), counts.webhooks_disabled), (Some(&4), 1));

    receiver.answers(200);
    let before = receiver.ids().len();
    assert!(is_ok(&start(&world, &receiver.webhook()).await));
    assert_eq!(webhook_in_list(&world).await["status"], "enabled");
    world.sim.control().advance(SignedDuration::from_secs(3));
    until(async || receiver.ids().len() > before).await;
    // A start without one takes it away.
    let bare: Value = read(world.post("subscriptions/start?contentType=Audit.SharePoint").await).await;
    assert_eq!((&bare["webhook"], webhook_in_list(&world).await), (&Value::Null, Value::Null));
}

#[tokio::test]
async fn s27_notifications_come_twice_and_out_of_order_and_some_never_when_the_scenario_says_so() {
    let notifier = Notifier { contents: 1, repeats: 0.5, reversed: true, forgets: 0.3, ..quick() };
    let (world, receiver) = (a_world(notifier, a_source()).await, Receiver::answering(200).await);
    start(&world, &receiver.webhook()).await;
    world.sim.control().advance(SignedDuration::from_secs(60));
    let listed = world.listed(0, 61).await.len();
    let announced = || world.sim.counts().announced.len();
    until(async || announced() > listed / 3 && receiver.ids().len() > announced()).await;
    let ids = receiver.ids();
    assert!(!ids.is_sorted());
    let kept = ids.iter().collect::<HashSet<_>>().len();
    assert!(kept < listed && listed / 3 < kept, "{kept} of {listed}");
}

#[tokio::test]
async fn the_history_of_notifications_has_an_entry_for_each_try_in_pages() {
    let source = SourceScenario { page_size: 2, ..a_source() };
    let (world, receiver) =
        (a_world(Notifier { contents: 1, ..quick() }, source).await, Receiver::answering(200).await);
    start(&world, &receiver.webhook()).await;
    receiver.answers(503);
    world.sim.control().advance(SignedDuration::from_secs(5));
    until(async || world.sim.counts().notifications.contains_key(&503)).await;
    receiver.answers(200);
    let all = world.sim.truth().now()[2].due.iter().filter(|record| record.key().is_some()).count() - 200;
    until(async || world.sim.counts().announced.len() == all).await;

    let window = format!("contentType=Audit.SharePoint&startTime={}&endTime={}", world.at(0), world.at(10));
    let mut answer = world.get(&format!("subscriptions/notifications?{window}")).await;
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let next = header(&answer, "NextPageUri").to_owned();
        let page: Vec<Value> = read(answer).await;
        assert!(page.len() == 2 || next.is_empty());
        entries.extend(page);
        if next.is_empty() {
            break;
        }
        assert!(next.contains("/activity/feed/subscriptions/notifications?contenttype="), "{next}");
        answer = world.follow(&next).await;
    }
    let status = |entry: &Value| entry["notificationStatus"].as_str().unwrap().to_owned();
    assert_eq!(entries.iter().filter(|entry| status(entry) == "success").count(), all);
    assert!(entries.iter().any(|entry| status(entry).contains("503")));
    let contents: HashSet<String> = entries.iter().map(|entry| entry["contentId"].to_string()).collect();
    assert_eq!(contents.len(), all);
    assert!(entries[0]["notificationSent"].as_str().unwrap().parse::<Timestamp>().is_ok());
    for name in ["contentType", "contentUri", "contentCreated", "contentExpiration"] {
        assert!(entries[0][name].is_string(), "{name}");
    }

    let wide = format!("contentType=Audit.SharePoint&startTime={}&endTime={}", world.at(-90_000), world.at(0));
    assert_eq!(refusal(world.get(&format!("subscriptions/notifications?{wide}")).await).await.1, "AF20055");
    let bad = format!("{window}&nextpage=1$2$3");
    assert_eq!(refusal(world.get(&format!("subscriptions/notifications?{bad}")).await).await.1, "AF20031");
    world.post("subscriptions/stop?contentType=Audit.SharePoint").await;
    assert_eq!(refusal(world.get(&format!("subscriptions/notifications?{window}")).await).await.1, "AF20022");
}

#[tokio::test]
async fn s23_a_stop_and_a_start_at_once_leave_the_subscription_broken_for_ever() {
    let tenant = TenantScenario { broken_by_restart_within: seconds(60), ..TenantScenario::default() };
    let world = World::of(tenant).await;
    world.post("subscriptions/stop?contentType=Audit.SharePoint").await;
    for _ in 0..2 {
        let started: Value = read(start(&world, &serde_json::json!({})).await).await;
        assert_eq!(started["status"], "enabled");
        assert_eq!(read::<Value>(world.get("subscriptions/list").await).await, serde_json::json!([]));
        assert_eq!(refusal(world.list(-3_600, 0).await).await.1, "AF20023");
        world.sim.control().advance(SignedDuration::from_secs(120));
    }
}

#[tokio::test]
async fn s24_a_subscription_that_was_disabled_says_so_and_a_start_enables_it() {
    let world = World::of_source(a_source()).await;
    world.sim.control().disable(ContentType::SharePoint);
    assert_eq!(read::<Value>(world.get("subscriptions/list").await).await[0]["status"], "disabled");
    assert_eq!(refusal(world.list(-3_600, 0).await).await.1, "AF20023");
    assert!(is_ok(&start(&world, &serde_json::json!({})).await));
    assert_eq!(read::<Value>(world.get("subscriptions/list").await).await[0]["status"], "enabled");
    assert!(is_ok(&world.list(-3_600, 0).await));
}
