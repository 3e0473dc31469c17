//! What the service does to its callers, and what it must not see of them.

use std::{fs, time::Duration};

use jiff::{SignedDuration, Timestamp};
use o365feed::{
    domain::ContentType,
    simulator::{
        BigArrival, ContentFault, Damage, Failure, Faults, Federation, Operation, Rule, Scenario, SourceScenario,
        ThrottleShape, When,
    },
};
use openssl::{pkey::PKey, symm::Cipher};
use serde_json::Value;

use crate::{
    scratch::Scratch,
    tls::self_signed,
    world::{PATIENCE, World, history, live, metric, published, scenario, stop},
};

#[test]
fn a_fifth_of_all_requests_failing_loses_nothing_and_stays_within_the_budget() {
    // Throttling comes seldom: each time halves the pace, and these have nothing to do with how fast it is.
    let failures = [
        (Failure::Status(500), 0.045),
        (Failure::Status(503), 0.045),
        (Failure::Reset, 0.045),
        (Failure::Denied, 0.045),
        (Failure::Throttled(ThrottleShape::Forbidden), 0.01),
        (Failure::Throttled(ThrottleShape::TooManySeconds(1)), 0.01),
    ];
    // The first rule that applies decides, so the later ones see what is left.
    let mut left = 1.0;
    let rules = failures.map(|(failure, share)| {
        let rate = share / left;
        left -= share;
        Rule { on: None, failure, when: When::Rate(rate) }
    });
    let faults = Faults { rules: rules.into(), ..Faults::default() };
    let source = SourceScenario { without_id: 0.1, page_size: 10, ..history(30, 30) };
    let sources = [ContentType::SharePoint, ContentType::Exchange, ContentType::Dlp];
    let mut scenario = scenario(sources.map(|kind| (kind, source.clone())).into());
    const QUOTA: u32 = 2_000;
    scenario.tenants[0].quota_per_minute = QUOTA;
    let mut world = World::new(Scenario { faults, ..scenario });
    world.set("listing.poll_interval", "5s");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();

    let counts = world.simulator().counts();
    let total: u64 = counts.requests.values().sum();
    let good: u64 = counts.requests.iter().filter(|((_, status), _)| *status < 300).map(|(_, count)| count).sum();
    println!("{total} requests, {good} answered well");
    assert!(total - good > total / 20, "there was something to get over");
    for ((publisher, tenant), max) in &counts.sliding_minute_max {
        assert!(*max <= QUOTA as usize, "{max} requests in a minute");
        assert_eq!((*publisher, *tenant), (world.tenant().0, world.tenant()));
    }
    assert_eq!(counts.missing_publisher, 0);
    assert_eq!(counts.tokens_on_unknown_paths, 0);
    assert_eq!(counts.of(Operation::Unknown), 0);
    assert_eq!(counts.impatient, 0, "requests before the time that Retry-After named");
}

#[test]
fn the_budget_holds_in_every_minute_over_a_crash_too() {
    const QUOTA: u32 = 240;
    let mut scenario = scenario(vec![(ContentType::SharePoint, history(300, 2))]);
    scenario.tenants[0].quota_per_minute = QUOTA;
    let mut world = World::new(scenario);
    world.set("listing.poll_interval", "10s");
    let mut process = world.start("a");
    process.wait_until("a part is done", PATIENCE, |process| published(process) >= 200.0);
    process.kill9();
    process.restart();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
    let counts = world.simulator().counts();
    let total: u64 = counts.requests.values().sum();
    assert!(total > u64::from(QUOTA), "there was more to ask for than a minute allows");
    let max = counts.sliding_minute_max.values().max().copied().unwrap();
    println!("{total} requests, {max} in the fullest minute of {QUOTA}");
    assert!(max <= QUOTA as usize, "{max} requests in a minute");
}

#[test]
fn an_internal_error_that_asks_for_an_hour_does_not_cost_an_hour() {
    // The second answer in a row says "retry in an hour"; it is about one request, and the next one goes well.
    let faults = Faults::first(Operation::Blob, Failure::Status(500), 2);
    let world = World::new(Scenario { faults, ..scenario(vec![(ContentType::SharePoint, history(10, 10))]) });
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn a_listing_that_gets_no_answer_is_seen_to_age() {
    let world = World::new(scenario(vec![(ContentType::SharePoint, history(10, 10))]));
    let mut process = world.start("a");
    let age = |process: &_| metric(process, "o365feed_watermark_age_seconds", &[]);
    process.wait_until("it has caught up", PATIENCE, |process| 0.0 < age(process) && age(process) < 5.0);
    let rule = Rule { on: Some(Operation::Content), failure: Failure::Silence, when: When::Always };
    world.simulator().control().set_faults(Faults { rules: vec![rule], ..Faults::default() });
    // One window is asked for all the while.
    process.wait_until("the watermark is older", PATIENCE, |process| 10.0 < age(process));
    stop(&mut process);
}

#[test]
fn expired_and_oversize_and_unreadable_contents_are_named_gaps() {
    const LIMIT: usize = 128 * 1_024;
    let kind = ContentType::SharePoint;
    let fault = |index, damage| ContentFault { content_type: kind, index, damage, times: None };
    let contents = vec![fault(3, Damage::Expired), fault(5, Damage::NotJson), fault(6, Damage::InvalidId)];
    let faults = Faults { contents, ..Faults::default() };
    let big = vec![BigArrival { index: 8, records: 2, record_bytes: 2 * LIMIT }];
    let source = SourceScenario { big, ..history(20, 20) };
    let mut world =
        World::new(Scenario { faults, ..scenario(vec![(kind, source), (ContentType::Exchange, history(10, 10))]) });
    world.set_max_record_bytes(LIMIT);
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    let reasons = [("expired", 1.0), ("unreadable", 1.0), ("invalid_id", 1.0), ("oversize", 2.0)];
    let told = |process: &_, reason: &str| {
        let labels = [&format!("reason=\"{reason}\"")[..], "content_type=\"Audit.SharePoint\""];
        metric(process, "o365feed_gaps_total", &labels)
    };
    // Bytes that are no records are fetched a few times, over a while, before they are given up.
    process.wait_until("all gaps are counted", 3 * PATIENCE, |process| {
        reasons.iter().all(|(reason, count)| told(process, reason) >= *count)
    });
    for (reason, count) in reasons {
        assert_eq!(told(&process, reason), count, "{reason}");
    }
    let gap_contents =
        metric(&process, "o365feed_contents_total", &["outcome=\"gap\"", "content_type=\"Audit.SharePoint\""]);
    assert_eq!(gap_contents, 3.0, "a content with a record too long is published but for that record");
    stop(&mut process);

    let verdict = world.verdict();
    verdict.is_exactly_once_but_for_gaps();
    assert_eq!(verdict.gaps.len(), 5, "{:#?}", verdict.gaps);
    let of = |reason: &str| -> Vec<&Value> { verdict.gaps.iter().filter(|gap| gap["reason"] == reason).collect() };
    for reason in ["expired", "unreadable", "invalid_id"] {
        let [gap] = of(reason)[..] else { panic!("{reason}: {:#?}", verdict.gaps) };
        let id = gap["content_id"].as_str().unwrap();
        assert!(world.simulator().counts().blob_gets.contains_key(id), "{id} is none that was fetched");
        assert_eq!(gap["tenant"], world.tenant().to_string());
        assert_eq!(gap["content_type"], kind.as_str());
        assert_eq!(gap["closed"], false);
    }
    let mut oversize: Vec<&str> = of("oversize").iter().map(|gap| gap["record_id"].as_str().unwrap()).collect();
    let mut owed: Vec<&str> = verdict.oversize.iter().map(String::as_str).collect();
    oversize.sort_unstable();
    owed.sort_unstable();
    assert_eq!(oversize, owed);
    assert!(of("oversize").iter().all(|gap| gap["size"].as_u64().is_some_and(|size| size > LIMIT as u64)));
}

#[test]
fn without_the_api_it_says_so() {
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, history(10, 10))]));
    let dead = format!("http://{}", crate::world::nowhere());
    world.set("tenants[0].api_root", &dead);
    let mut process = world.start("a");
    let mut said = String::new();
    process.wait_until("/readyz says that the API is away", PATIENCE, |process| {
        let Ok((503, page)) = process.get("/readyz") else { return false };
        said = page.to_lowercase();
        said.contains("contoso") || said.contains("api")
    });
    println!("{said}");
    assert!(process.get("/livez").is_ok_and(|(status, _)| status == 200), "a restart would not help");
    stop(&mut process);
}

#[test]
fn a_wrong_secret_is_said_and_the_right_one_is_taken_at_once() {
    const WRONG: &str = "not+the~secret";
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, history(10, 10))]));
    // The variable is not set at all: that is a matter of the settings.
    let mut process = world.start_with("a", &[("tenants[0].credential.secret_env", "OTHER_SECRET".to_owned())]);
    assert_eq!(process.wait_exit(PATIENCE), 2, "{}", process.stderr());

    let place = Scratch::new("secret");
    let file = place.path().join("client_secret");
    fs::write(&file, WRONG).unwrap();
    world.set_credential("secret_file", &file);
    let mut process = world.start("a");
    process.wait_until("/readyz says what to do", PATIENCE, |process| {
        let page = process.get("/readyz");
        page.is_ok_and(|(status, page)| status == 503 && page.contains("the client secret is wrong"))
    });
    assert!(process.stderr().contains("the client secret is wrong"), "{}", process.stderr());
    assert!(process.get("/livez").is_ok_and(|(status, _)| status == 200), "a restart would not help");

    let [_, _, (_, right), _] = world.login();
    fs::write(&file, right).unwrap();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    assert!(!(process.stderr() + &process.stdout()).contains(WRONG), "the secret is in the log");
    world.verdict().is_exactly_once();
}

/// As on Kubernetes, where the token of the service account lapses and is renewed in its file.
#[test]
fn a_federated_token_is_enough_and_a_renewed_one_is_found() {
    let federation = Federation {
        issuer: "https://oidc.example/cluster".to_owned(),
        subject: "system:serviceaccount:audit:o365feed".to_owned(),
    };
    let mut scenario =
        scenario(vec![(ContentType::SharePoint, SourceScenario { live: live(60.0, 10), ..history(10, 10) })]);
    scenario.tenants[0].federation = Some(federation.clone());
    scenario.tenants[0].token_lifetime = Duration::from_secs(10);
    let place = Scratch::new("federated");
    let file = place.path().join("azure-identity-token");
    let renew = |until: SignedDuration| fs::write(&file, federation.token(Timestamp::now() + until)).unwrap();
    // It has lapsed already.
    renew(SignedDuration::from_secs(-1));
    let mut world = World::new(scenario);
    world.set_credential("federated_token_file", &file);
    let mut process = world.start("a");
    process.wait_until("/readyz says why", PATIENCE, |process| {
        let page = process.get("/readyz");
        page.is_ok_and(|(status, page)| status == 503 && page.contains("AADSTS700024"))
    });
    renew(SignedDuration::from_hours(1));
    let tokens = || world.simulator().counts().tokens;
    process.wait_until("it goes on from token to token", PATIENCE, |_| tokens() > 2);
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let assertion = fs::read_to_string(&file).unwrap();
    assert!(!(process.stderr() + &process.stdout()).contains(&assertion), "the federated token is in the log");
    world.verdict().is_exactly_once();
}

#[test]
fn a_certificate_is_enough_and_its_password_may_come_later() {
    let (certificate, key) = self_signed("o365feed");
    let key = PKey::private_key_from_pem(&key).unwrap();
    let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"open sesame").unwrap();
    let mut scenario = scenario(vec![(ContentType::SharePoint, history(10, 10))]);
    scenario.tenants[0].certificate = Some(String::from_utf8(certificate.clone()).unwrap());
    let place = Scratch::new("certificate");
    let (file, password) = (place.path().join("client.pem"), place.path().join("client.password"));
    fs::write(&file, [certificate, locked].concat()).unwrap();
    fs::write(&password, "wrong\n").unwrap();
    let mut world = World::new(scenario);
    world.set_credential("certificate_file", &file);
    world.set("tenants[0].credential.password_file", password.display());
    let mut process = world.start("a");
    process.wait_until("/readyz says why", PATIENCE, |process| {
        let page = process.get("/readyz");
        page.is_ok_and(|(status, page)| status == 503 && page.contains("password_file does not open it"))
    });
    fs::write(&password, "open sesame\n").unwrap();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    assert!(!(process.stderr() + &process.stdout()).contains("sesame"), "the password is in the log");
    world.verdict().is_exactly_once();
}
