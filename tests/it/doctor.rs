//! `doctor` comes to the verdict that fits, of each probe and for each ailment.

mod rights; // tokens, claims, roles; and the command `token`
mod road; // settings, network, TLS, proxies

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, routing::any};
use jiff::{SignedDuration, Timestamp};
use o365feed::{
    domain::ContentType,
    simulator::{
        ContentFault, Damage, Disabled, Failure, Faults, History, Operation, RepeatedStart, Rule, Scenario,
        SourceScenario, ThrottleShape, When,
    },
};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::broker::{Broker, Options};
use crate::world::{PATIENCE, Ran, World, history, live, nowhere, published, scenario, stop};

const DAY: u64 = 86_400;

/// Verdicts by number; of several tenants, those of the first.
type Verdicts = BTreeMap<u8, String>;

/// A tenant where all is well, and a Kafka on which nothing has run yet.
fn healthy() -> Scenario {
    let kinds = [ContentType::Exchange, ContentType::SharePoint, ContentType::Dlp];
    let mut scenario = scenario(kinds.map(|kind| (kind, history(10, 30))).into());
    scenario.tenants[0].quota_per_minute = 2_000;
    scenario
}

/// What doctor says of [`healthy`]: notes are plain http and the single broker whose topics do not exist yet.
fn well() -> Verdicts {
    let mut verdicts: Verdicts = (1..=25).map(|number| (number, "ok".to_owned())).collect();
    set(
        &mut verdicts,
        &[(2, "note"), (11, "skipped"), (12, "skipped"), (23, "skipped"), (24, "skipped"), (25, "note")],
    );
    verdicts
}

fn set(verdicts: &mut Verdicts, changes: &[(u8, &str)]) {
    for (number, verdict) in changes {
        verdicts.insert(*number, (*verdict).to_owned());
    }
}

/// `well` but for these changes, and with all of `skipped` not looked at.
fn but(changes: &[(u8, &str)], skipped: impl IntoIterator<Item = u8>) -> Verdicts {
    let mut verdicts = well();
    let skipped: Vec<(u8, &str)> = skipped.into_iter().map(|number| (number, "skipped")).collect();
    set(&mut verdicts, &skipped);
    set(&mut verdicts, changes);
    verdicts
}

fn world(scenario: Scenario) -> World {
    World::new(scenario)
}

fn source(scenario: &mut Scenario, kind: ContentType) -> &mut SourceScenario {
    let sources = &mut scenario.tenants[0].sources;
    &mut sources.iter_mut().find(|(found, _)| *found == kind).unwrap().1
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no JSON: {}\n{}", ran.stdout, ran.stderr))
}

fn verdicts(report: &Value) -> Verdicts {
    let mut found = Verdicts::new();
    for probe in report["probes"].as_array().unwrap() {
        let number = u8::try_from(probe["number"].as_u64().unwrap()).unwrap();
        found.entry(number).or_insert_with(|| probe["verdict"].as_str().unwrap().to_owned());
    }
    found
}

/// Runs doctor and compares every verdict; the exit code follows from the worst.
fn expect(what: &str, world: &World, args: &[&str], expected: &Verdicts) -> Value {
    let args: Vec<&str> = ["doctor", "--json"].iter().chain(args).copied().collect();
    let ran = world.tool(&args);
    let report = json_of(&ran);
    assert_eq!(&verdicts(&report), expected, "{what}: {report:#}\n{}", ran.stderr);
    let has = |verdict: &str| expected.values().any(|found| found == verdict);
    let code = if has("failure") { 9 } else { i32::from(has("warning")) * 8 };
    assert_eq!(ran.code, code, "{what}: {}", ran.stderr);
    discreet(&ran);
    report
}

/// Neither the secret nor a token is told.
fn discreet(ran: &Ran) {
    let secret = o365feed::simulator::TenantScenario::default().client_secret;
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains(secret.expose_secret()), "the secret is told: {text}");
        // Every token begins with a JSON object in base64.
        assert!(!text.contains("eyJ"), "a token is told: {text}");
    }
}

fn probe(report: &Value, number: u8) -> &Value {
    report["probes"].as_array().unwrap().iter().find(|probe| probe["number"] == number).unwrap()
}

/// Evidence and advice of a probe as one text.
fn told(report: &Value, number: u8) -> String {
    let probe = probe(report, number);
    format!("{} {}", probe["evidence"], probe["advice"])
}

fn always(on: Operation, failure: Failure) -> Faults {
    Faults { rules: vec![Rule { on: Some(on), failure, when: When::Always }], ..Faults::default() }
}

fn failing(world: &World, on: Operation, failure: Failure) {
    world.simulator().control().set_faults(always(on, failure));
}

#[test]
fn a_healthy_tenant_beside_a_running_connector_is_well_and_is_not_disturbed() {
    let mut scenario = healthy();
    for (_, source) in &mut scenario.tenants[0].sources {
        source.live = live(60.0, 5);
    }
    let mut world = world(scenario);
    world.set("listing.poll_interval", "1s");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    // On the connector's own slot: even so it is not fenced.
    let mut well = well();
    set(&mut well, &[(23, "ok"), (24, "ok")]);
    let report = expect("beside a connector", &world, &[], &well);
    assert!(told(&report, 25).contains("Stable, 1 member,"), "{}", told(&report, 25));
    assert!(told(&report, 25).contains("an empty transaction was opened and aborted"), "{}", told(&report, 25));
    assert!(report["requests"].as_u64().unwrap() < 20, "{}", report["requests"]);
    let ran = world.tool(&["doctor", "--verbose"]);
    discreet(&ran);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    insta::assert_snapshot!("doctor_verbose", masked(&world, &ran.stdout));
    let before = published(&process);
    process.wait_until("it goes on publishing", PATIENCE, |process| published(process) > before);
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

/// Without what differs from run to run: names, numbers with a unit, times, ports.
fn masked(world: &World, page: &str) -> String {
    let page = page.replace(world.group(), "[group]").replace(world.bootstrap(), "[kafka]");
    let root = world.simulator().api_root();
    let page = page.replace(&format!("127.0.0.1:{}", root.port().unwrap()), "[api]");
    // The numbers of the probes are part of the page.
    let is_evidence = |line: &str| line.starts_with("    ") || !line.starts_with(' ');
    page.lines().map(|line| if is_evidence(line) { figures(line) } else { line.to_owned() } + "\n").collect()
}

/// The line with `#` for its numbers and times, whatever their unit.
fn figures(line: &str) -> String {
    let is_number = |word: &str| word.trim_start_matches(['(', '-']).starts_with(|c: char| c.is_ascii_digit());
    let mut words: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        let unit = word.trim_end_matches(',');
        match words.last() {
            Some(&"#") if ["s", "min", "h", "d"].contains(&unit) => {}
            Some(&"#") if unit == "behind" || unit == "ahead" => words.push("off"),
            Some(&"off") if unit == "of" => {}
            _ if is_number(word) => words.push("#"),
            _ => words.push(word),
        }
    }
    words.join(" ")
}

#[test]
fn the_audit_log_and_the_licence() {
    let world = world(healthy());
    failing(&world, Operation::Subscriptions, Failure::AuditOff);
    let report = expect("audit off", &world, &[], &but(&[(8, "failure")], 9..=24));
    assert!(told(&report, 8).contains("Set-AdminAuditLogConfig"), "{}", told(&report, 8));
    failing(&world, Operation::Subscriptions, Failure::Code(20_012));
    let report = expect("no licence", &world, &[], &but(&[(9, "failure")], 10..=24));
    assert!(told(&report, 9).contains("licence"), "{}", told(&report, 9));
    failing(&world, Operation::Subscriptions, Failure::Status(503));
    expect("the service is down", &world, &[], &but(&[(8, "failure")], 9..=24));
    failing(&world, Operation::Subscriptions, Failure::Throttled(ThrottleShape::Forbidden));
    expect("throttled", &world, &[], &but(&[(19, "warning")], (8..=17).chain(20..=24)));

    let mut scenario = healthy();
    source(&mut scenario, ContentType::Dlp).subscribed = false;
    drop(world);
    let world = self::world(scenario);
    failing(&world, Operation::Start, Failure::AuditOff);
    let off = but(&[(8, "failure"), (10, "failure"), (11, "ok"), (12, "ok")], []);
    expect("audit off at the start", &world, &["--fix"], &fixed_topics(off));
}

/// --fix has created the topics, so that they can be read: nothing is in them.
fn fixed_topics(mut verdicts: Verdicts) -> Verdicts {
    // Contents of the last hour are due after a quarter of it, and nobody has published any.
    set(&mut verdicts, &[(23, "warning"), (24, "ok")]);
    verdicts
}

#[test]
fn subscriptions_that_do_not_run_are_told_and_fix_starts_them_once() {
    let mut scenario = healthy();
    source(&mut scenario, ContentType::Dlp).subscribed = false;
    source(&mut scenario, ContentType::Exchange).disabled = Some(Disabled::UntilStarted);
    scenario.tenants[0].start = RepeatedStart::Cooldown;
    let mut world = world(scenario);
    let report = expect("missing and disabled", &world, &[], &but(&[(10, "warning")], [21]));
    assert!(told(&report, 10).contains("DLP.All: missing") && told(&report, 10).contains("Audit.Exchange: disabled"));
    assert_eq!(world.simulator().counts().starts, 0, "it changes nothing unless asked to");
    world.set("subscriptions", "leave");
    expect("left alone", &world, &[], &but(&[(10, "failure")], [21]));

    let started = but(&[(10, "note"), (11, "ok"), (12, "ok")], [21]);
    let report = expect("fixed", &world, &["--fix"], &fixed_topics(started));
    assert_eq!(world.simulator().counts().starts, 2);
    let fixed = report["fixed"].to_string();
    assert!(fixed.contains("started DLP.All of contoso") && fixed.contains("created the topic"), "{fixed}");
    let now = well();
    expect("running", &world, &[], &fixed_topics(now.clone()));
    expect("nothing left to fix", &world, &["--fix"], &fixed_topics(now));
    assert_eq!(world.simulator().counts().starts, 2);

    // Stopped by somebody, and started within 15 minutes of the last start.
    api(&world, "stop?contentType=DLP.All", None);
    let soon = but(&[(10, "warning"), (11, "ok"), (12, "warning")], []);
    let report = expect("too soon", &world, &["--fix"], &fixed_topics(soon));
    assert!(told(&report, 12).contains("wait 15 min"), "{}", told(&report, 12));
    failing(&world, Operation::Start, Failure::Code(20_024));
    let already = but(&[(10, "note"), (11, "note"), (12, "ok")], []);
    expect("already on", &world, &["--fix"], &fixed_topics(already));

    let mut scenario = healthy();
    for (_, source) in &mut scenario.tenants[0].sources {
        source.disabled = Some(Disabled::ForGood);
    }
    drop(world);
    let world = self::world(scenario);
    let none = (15..=17).chain(20..=22);
    expect("disabled", &world, &[], &but(&[(10, "warning")], none.clone()));
    let mut stubborn = but(&[(10, "failure"), (11, "ok"), (12, "ok")], none);
    set(&mut stubborn, &[(24, "ok")]);
    let report = expect("disabled for good", &world, &["--fix"], &stubborn);
    assert!(told(&report, 10).contains("AF20023"), "{}", told(&report, 10));
}

/// A call of the API's operations on subscriptions, as another program would make it.
fn api(world: &World, call: &str, body: Option<Value>) {
    let tenant = healthy().tenants.remove(0);
    let (root, id) = (world.simulator().api_root(), tenant.id);
    world.runtime().block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &tenant.client_id),
            ("scope", "https://manage.office.com/.default"),
            ("client_secret", tenant.client_secret.expose_secret()),
        ];
        let token = http.post(format!("{root}{id}/oauth2/v2.0/token")).form(&form).send().await.unwrap();
        let token: Value = serde_json::from_slice(&token.bytes().await.unwrap()).unwrap();
        let url = format!("{root}api/v1.0/{id}/activity/feed/subscriptions/{call}&PublisherIdentifier={id}");
        let request = http.post(url).bearer_auth(token["access_token"].as_str().unwrap());
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = request.header("content-length", body.len()).body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{call}: {}", answer.text().await.unwrap());
    });
}

#[test]
fn a_webhook_of_somebody_else_is_a_warning_and_its_end_a_note() {
    let world = world(healthy());
    let receiver = world.runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(async || "fine"))).await });
        address
    });
    let webhook = json!({"webhook": {"address": format!("http://{receiver}/hook?key=hidden")}});
    api(&world, "start?contentType=DLP.All", Some(webhook));
    let report = expect("a webhook", &world, &[], &but(&[(13, "warning")], []));
    assert!(told(&report, 13).contains("127.0.0.1") && !told(&report, 13).contains("hidden"));
    let ends = Timestamp::now() + SignedDuration::from_secs(2);
    let webhook = json!({"webhook": {"address": format!("http://{receiver}/hook"), "expiration": ends.to_string()}});
    api(&world, "start?contentType=DLP.All", Some(webhook));
    world.simulator().control().advance(SignedDuration::from_secs(5));
    expect("an expired webhook", &world, &[], &but(&[(13, "warning"), (14, "note")], []));
}

#[test]
fn contents_pages_and_windows() {
    let mut scenario = healthy();
    source(&mut scenario, ContentType::Dlp).history.arrivals = 0;
    source(&mut scenario, ContentType::SharePoint).page_size = 4;
    let world = world(scenario);
    let report = expect("a quiet type", &world, &[], &but(&[(15, "note")], []));
    assert!(told(&report, 15).contains("DLP.All: nothing in the last 24 hours"), "{}", told(&report, 15));
    assert!(told(&report, 16).contains("Audit.SharePoint: 3 pages, to the last"), "{}", told(&report, 16));
    failing(&world, Operation::Content, Failure::StrayLink);
    let report = expect("a stray link", &world, &[], &but(&[(15, "ok"), (16, "failure")], [20, 21, 22]));
    assert!(told(&report, 16).contains("leads to another host"), "{}", told(&report, 16));
    for failure in [Failure::Code(20_022), Failure::Status(503), Failure::Reset] {
        failing(&world, Operation::Content, failure);
        expect("no listing", &world, &[], &but(&[(15, "failure")], [20, 21, 22]));
    }

    let mut scenario = healthy();
    for (_, source) in &mut scenario.tenants[0].sources {
        source.history.arrivals = 0;
    }
    drop(world);
    let report = expect("a quiet tenant", &self::world(scenario), &[], &but(&[(15, "warning")], [20, 21, 22]));
    assert!(report["requests"].as_u64().unwrap() <= 4 + 3 * 24, "{}", report["requests"]);

    let world = self::world(healthy());
    world.simulator().control().advance(SignedDuration::from_hours(9 * 24));
    let report =
        expect("far behind", &world, &[], &but(&[(3, "failure"), (5, "warning"), (17, "failure")], [20, 21, 22]));
    assert!(told(&report, 17).contains("AF20030") || told(&report, 17).contains("AF20055"), "{}", told(&report, 17));
}

#[test]
fn throttling_is_put_down_to_whom_it_belongs() {
    let mut world = world(healthy());
    failing(&world, Operation::Content, Failure::Throttled(ThrottleShape::TooManySeconds(600)));
    expect("throttled", &world, &[], &but(&[(19, "warning")], [20, 21, 22]));
    failing(&world, Operation::Blob, Failure::Throttled(ThrottleShape::Forbidden));
    expect("throttled at a blob", &world, &[], &but(&[(19, "warning")], [21]));
    world.set("publisher_identifier", "00000000-0000-0000-0000-000000000000");
    failing(&world, Operation::Content, Failure::Throttled(ThrottleShape::Forbidden));
    let report = expect("anonymous", &world, &[], &but(&[(18, "failure")], [20, 21, 22]));
    assert!(told(&report, 18).contains("publisher_identifier"), "{}", told(&report, 18));

    drop(world);
    let mut world = self::world(healthy());
    world.set("quota.requests_per_minute", "20000");
    expect("a generous budget", &world, &[], &but(&[(19, "note")], []));
}

#[test]
fn blobs_that_cannot_be_had_are_a_failure_when_fresh_and_a_warning_when_old() {
    let mut scenario = healthy();
    for (_, source) in &mut scenario.tenants[0].sources {
        source.history = History { arrivals: 200, span: Duration::from_secs(7 * DAY - 1_800), records: 5 };
    }
    let world = world(scenario);
    let report = expect("a week", &world, &[], &well());
    assert!(told(&report, 20).contains("old, listed 6 d ago"), "{}", told(&report, 20));
    let damaged = |indices: std::ops::Range<u64>, damage| {
        let of =
            |content_type| indices.clone().map(move |index| ContentFault { content_type, index, damage, times: None });
        let kinds = [ContentType::Exchange, ContentType::SharePoint, ContentType::Dlp];
        Faults { contents: kinds.into_iter().flat_map(of).collect(), ..Faults::default() }
    };
    let control = world.simulator().control();
    for damage in [Damage::Expired, Damage::NotFound, Damage::InvalidId, Damage::NotJson] {
        control.set_faults(damaged(0..100, damage));
        expect("old", &world, &[], &but(&[(20, "warning")], []));
    }
    for damage in [Damage::Missing, Damage::Html, Damage::Reset, Damage::Status(503)] {
        control.set_faults(damaged(150..200, damage));
        let report = expect("fresh", &world, &[], &but(&[(20, "failure")], [21]));
        assert!(told(&report, 22).contains("newest content"), "{}", told(&report, 22));
    }
}

#[test]
fn what_was_listed_and_is_not_published_is_found_before_it_expires() {
    let waiting = |days: f64| {
        let mut scenario = healthy();
        scenario.tenants[0].sources.truncate(1);
        let span = Duration::from_secs_f64(days * DAY as f64);
        scenario.tenants[0].sources[0].1.history = History { arrivals: 100, span, records: 5 };
        let world = world(Scenario { faults: always(Operation::Blob, Failure::Status(503)), ..scenario });
        let mut process = world.start("a");
        let pending = |process: &_| crate::world::metric(process, "o365feed_backlog_contents", &[]);
        process.wait_until("all is listed", PATIENCE, |process| pending(process) >= 100.0);
        (world, process)
    };
    let unpublished = |deadline| but(&[(20, "failure"), (23, "warning"), (24, deadline)], [7, 21]);
    for (days, verdict) in [(0.1, "ok"), (4.5, "warning"), (6.7, "failure")] {
        let (world, mut process) = waiting(days);
        let report = expect(&format!("{days} days"), &world, &[], &unpublished(verdict));
        assert!(told(&report, 24).contains("100 contents wait"), "{}", told(&report, 24));
        process.kill9();
    }
}

#[test]
fn a_ledger_of_another_group_and_topics_that_do_not_fit_are_failures() {
    let world = world(healthy());
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let mut well = well();
    set(&mut well, &[(23, "ok"), (24, "ok")]);
    expect("stopped", &world, &[], &well);
    let mut world = world;
    world.set("kafka.partitions", "4");
    set(&mut well, &[(25, "failure")]);
    let report = expect("other partitions", &world, &[], &well);
    assert!(told(&report, 25).contains("kafka.partitions"), "{}", told(&report, 25));
    world.set("kafka.partitions", "3");
    world.set("kafka.group", "another-group");
    set(&mut well, &[(23, "failure"), (25, "note")]);
    let report = expect("another group", &world, &[], &well);
    assert!(told(&report, 23).contains(world.group()), "{}", told(&report, 23));
}

#[test]
fn without_kafka_the_tenants_are_looked_at_all_the_same() {
    let mut world = world(healthy());
    world.set("kafka.bootstrap_servers", nowhere());
    let report = expect("no Kafka", &world, &[], &but(&[(25, "failure")], []));
    assert!(told(&report, 23).contains("o365feed reconcile"), "{}", told(&report, 23));
    assert!(told(&report, 25).contains("no broker of 127.0.0.1"), "{}", told(&report, 25));
}

#[test]
fn a_frozen_kafka_is_told_and_not_waited_for() {
    let mut broker = Broker::own(Options::default());
    let world = World::on(broker.bootstrap(), healthy());
    broker.pause();
    let report = expect("frozen", &world, &[], &but(&[(25, "failure")], []));
    broker.resume();
    assert!(told(&report, 25).contains("answers: "), "{}", told(&report, 25));
    expect("thawed", &world, &[], &well());
}

#[test]
fn at_least_once_needs_no_transactions() {
    let mut world = world(healthy());
    world.set("kafka.delivery", "at_least_once");
    let report = expect("at least once", &world, &[], &well());
    assert!(told(&report, 25).contains("no transactions"), "{}", told(&report, 25));
}

#[test]
fn doctors_side_by_side_do_no_harm_to_each_other() {
    let world = world(healthy());
    let mut doctors: Vec<_> = (0..3).map(|_| world.command(&["doctor", "--json"])).collect();
    for doctor in &mut doctors {
        let code = doctor.wait_exit(PATIENCE);
        let report = json_of(&Ran { code, stdout: doctor.stdout(), stderr: doctor.stderr() });
        assert_eq!(verdicts(&report), well(), "{}", told(&report, 25));
    }
}

#[test]
fn one_tenants_failure_does_not_hide_another() {
    let mut world = world(healthy());
    world.set("tenants[1].id", "00000000-5a0b-4d5e-9c7a-0c0a17e5ffff");
    world.set("tenants[1].name", "fabrikam");
    world.set("tenants[1].client_id", "00000000-5a0b-4d5e-9c7a-0c0a17e5ffff");
    world.set("tenants[1].credential.secret_env", crate::world::SECRET);
    let root = world.simulator().api_root().to_string();
    for key in ["tenants[1].api_root", "tenants[1].authority"] {
        world.set(key, root.trim_end_matches('/'));
    }
    let ran = world.tool(&["doctor", "--json"]);
    let report = json_of(&ran);
    assert_eq!(verdicts(&report), well());
    let of = |tenant: &str| -> Map<String, Value> {
        let probes = report["probes"].as_array().unwrap().iter().filter(|probe| probe["tenant"] == tenant);
        probes.map(|probe| (probe["number"].to_string(), probe["verdict"].clone())).collect()
    };
    assert_eq!((of("contoso").len(), of("fabrikam").len()), (23, 23));
    assert_eq!((&of("contoso")["15"], &of("fabrikam")["4"]), (&json!("ok"), &json!("failure")));
    assert_eq!(ran.code, 9);
    let ran = world.tool(&["doctor", "--json", "--tenant", "contoso"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}
