//! Every alert fires once, by the fault that it is for; promtool has more cases, and those in which none fires.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use o365feed::{
    domain::ContentType,
    simulator::{ContentFault, Damage, Failure, Faults, History, Operation, Rule, SourceScenario, ThrottleShape, When},
};
use serde_json::Value;

use crate::{
    dashboards::receiver,
    prometheus::{Prometheus, folder, shipped},
    proxy::{PRODUCE, Proxied},
    scratch::Scratch,
    wait,
    world::{PATIENCE, World, live, metric, nowhere, scenario},
};

/// Name and severity.
type Alert = (String, String);

const KIND: ContentType = ContentType::SharePoint;

/// A variable with a secret that is not the tenant's.
const WRONG: &str = "WRONG_CLIENT_SECRET";

#[test]
fn every_alert_fires_under_its_fault() {
    let mut prometheus = Prometheus::start(&shortened(&fs::read_to_string(shipped().join("alerts.yaml")).unwrap()));
    let mut left = all(&prometheus);
    assert!(left.len() > 12, "{left:?}");
    let proxied = Proxied::new();
    let history = History { arrivals: 10, span: Duration::from_secs(23 * 3_600), records: 3 };
    let source = SourceScenario { history, expiration_days: 1, live: live(60.0, 2), ..SourceScenario::default() };
    let mut world = World::on(&proxied.bootstrap, scenario(vec![(KIND, source)]));
    world.set("kafka.partitions", 1);
    world.set("kafka.transaction_timeout", "5s");
    world.set("listing.start_from", "now");
    world.export(WRONG, "a-wrong-secret-of-the-tests");

    // One that never reached Kafka, and one with a wrong secret.
    let mut process = world.start_with("a", &[("kafka.bootstrap_servers", nowhere().to_string())]);
    prometheus.watch(&[&process]);
    fires(&prometheus, &mut left, "NotServed critical contoso");
    process.kill9();
    let mut process = world.start_with("a", &[("tenants[0].credential.secret_env", WRONG.to_owned())]);
    prometheus.watch(&[&process]);
    fires(&prometheus, &mut left, "TokenExpiring critical");
    process.kill9();

    // Two processes, one partition; a certificate of a day; and nobody tells us of the contents. But all is in time.
    let files = [Scratch::new("alerts"), Scratch::new("alerts")];
    let receivers = files.each_ref().map(receiver);
    let mut a = world.start_with("a", &receivers[0]);
    a.wait_until("it keeps up", PATIENCE, |process| {
        let age = metric(process, "o365feed_delivered_age_seconds", &[]);
        0.0 < age && age < 5.0
    });
    let mut b = world.start_with("b", &receivers[1]);
    prometheus.watch(&[&a, &b]);
    fires(&prometheus, &mut left, "NoPartitions info");
    fires(&prometheus, &mut left, "CertificateExpiring warning");
    fires(&prometheus, &mut left, "WebhookMissed info");
    rest(&prometheus, &left);

    // Listing is throttled.
    let throttled = Failure::Throttled(ThrottleShape::TooManySeconds(1));
    world.simulator().control().set_faults(always(Operation::Content, throttled));
    fires(&prometheus, &mut left, "FallingBehind critical");
    fires(&prometheus, &mut left, "FallingBehind warning");
    fires(&prometheus, &mut left, "Throttled warning");
    fires(&prometheus, &mut left, "Stale critical");
    rest(&prometheus, &left);

    // Contents of the last 23 hours are listed, and not to be fetched: they have 24.
    world.simulator().control().set_faults(always(Operation::Blob, Failure::Status(503)));
    a.kill9();
    let earlier = [&receivers[0][..], &[("listing.start_from", "earliest".to_owned())][..]].concat();
    let a = world.start_with("a", &earlier);
    prometheus.watch(&[&a, &b]);
    for severity in ["info", "warning", "critical"] {
        fires(&prometheus, &mut left, &format!("NearExpiry {severity}"));
    }
    fires(&prometheus, &mut left, "NotCommitting warning");
    rest(&prometheus, &left);

    // Nobody will ever have them.
    let gone = |index| ContentFault { content_type: KIND, index, damage: Damage::Expired, times: None };
    let contents = (0..10_000).map(gone).collect();
    world.simulator().control().set_faults(Faults { contents, ..Faults::default() });
    fires(&prometheus, &mut left, "Gap warning");
    rest(&prometheus, &left);

    // The brokers hear what is produced, and never answer. Who cannot go on shows no tenant, instead of ages that stand still.
    world.simulator().control().set_faults(Faults::default());
    proxied.seen.silence(PRODUCE);
    fires(&prometheus, &mut left, "NotServed critical contoso");
    fires(&prometheus, &mut left, "TransactionsFailing warning");
    proxied.seen.answer_again();

    let starts = |prometheus: &Prometheus| prometheus.query("sum(changes(process_start_time_seconds[10m]))")[0].value;
    for so_far in 0..4 {
        let before = starts(&prometheus);
        b.kill9();
        if so_far == 0 {
            fires(&prometheus, &mut left, "ProcessDown warning");
        }
        b.restart();
        assert!(wait::comes_true(PATIENCE, || starts(&prometheus) > before), "start {so_far} was not seen");
    }
    fires(&prometheus, &mut left, "RestartedOften warning");
    assert_eq!(left, BTreeSet::new(), "these were given no fault");
}

#[test]
fn the_rules_are_sound_and_fire_and_rest_in_the_cases_written_beside_them() {
    for args in [
        &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"][..],
        &["check", "config", "prometheus.yml"],
        &["test", "rules", "alerts_test.yaml"],
    ] {
        let (well, said) = promtool(args);
        assert!(well, "{args:?}\n{said}");
    }
    let cases = fs::read_to_string(shipped().join("alerts_test.yaml")).unwrap();
    let rules = fs::read_to_string(shipped().join("alerts.yaml")).unwrap();
    let names: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    for name in names {
        let of: Vec<&str> = cases.split("alertname: ").skip(1).filter(|case| case.starts_with(name)).collect();
        let rests = of.iter().filter(|case| case.lines().nth(1).is_some_and(|line| line.contains("exp_alerts: []")));
        let rests = rests.count();
        assert!(0 < rests && rests < of.len(), "{name} rests in {rests} of {} cases", of.len());
    }
}

/// What promtool says to `args`, run in `deploy/prometheus`; whether it was content.
fn promtool(args: &[&str]) -> (bool, String) {
    let ran = Command::new(folder().join("promtool")).args(args).current_dir(shipped()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    (ran.status.success(), said.into_owned())
}

/// Waits until it fires, and takes it from `left`. A third word is the tenant that it has to name.
fn fires(prometheus: &Prometheus, left: &mut BTreeSet<Alert>, alert: &str) {
    let mut words = alert.split(' ');
    let (name, severity, tenant) = (words.next().unwrap(), words.next().unwrap(), words.next());
    let is_it = |found: &Value| {
        let labels = &found["labels"];
        let is_meant = tenant.is_none_or(|tenant| labels["tenant"] == tenant);
        labels["alertname"] == name && labels["severity"] == severity && is_meant && found["state"] == "firing"
    };
    let mut found = Value::Null;
    let fires = wait::comes_true(PATIENCE, || {
        let alerts = prometheus.api("/api/v1/alerts")["alerts"].take();
        found = alerts.as_array().unwrap().iter().find(|alert| is_it(alert)).cloned().unwrap_or_default();
        !found.is_null()
    });
    assert!(fires, "{alert} does not fire; still to fire: {left:?}");
    let annotations = &found["annotations"];
    for key in ["summary", "description", "runbook_url"] {
        let text = annotations[key].as_str().unwrap_or_default();
        assert!(!text.is_empty() && !text.contains("<no value>") && !text.contains("error"), "{alert}: {annotations}");
    }
    left.remove(&(name.to_owned(), severity.to_owned()));
}

/// That none of these fires, but for a moment that `for` would pass over: their faults are still to come.
fn rest(prometheus: &Prometheus, left: &BTreeSet<Alert>) {
    let of = |alert: &Value, label: &str| alert["labels"][label].as_str().unwrap().to_owned();
    let mut early: Vec<Alert> = Vec::new();
    let rest = wait::comes_true(PATIENCE, || {
        let alerts = prometheus.api("/api/v1/alerts")["alerts"].take();
        let firing = alerts.as_array().unwrap().iter().map(|alert| (of(alert, "alertname"), of(alert, "severity")));
        early = firing.filter(|alert| left.contains(alert)).collect();
        early.is_empty()
    });
    assert!(rest, "without their faults: {early:?}");
}

/// All alerts of the rules that Prometheus has.
fn all(prometheus: &Prometheus) -> BTreeSet<Alert> {
    let rules = prometheus.api("/api/v1/rules?type=alert");
    let groups = rules["groups"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| (text(&rule["name"]), text(&rule["labels"]["severity"])))
        .collect()
}

/// What is late, what is stale, and for how long a content can be fetched, in the life of the tests.
const AGES: [(&str, &str); 3] = [("> bool 600", "> bool 15"), ("> 3600", "> 30"), ("604800", "86400")];

/// The same rules for a life a hundred times as fast; hours a tenth only, in which more can happen. Nothing waits for `for`.
fn shortened(rules: &str) -> String {
    let lines = rules.lines().filter(|line| !line.trim_start().starts_with("for: "));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    for (real, short) in AGES {
        assert!(text.contains(real), "no rule has {real}");
        text = text.replace(real, short);
    }
    // A mean by steps soon forgets what was before the fault.
    let by_steps = text.replace("[1h:1m]", "[36s:1s]");
    assert_ne!(by_steps, text);
    let text = by_steps;
    let mut pieces = text.split('[');
    let mut out = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (range, rest) = piece.split_once(']').unwrap();
        if range.contains(':') {
            out.push_str(&format!("[{piece}"));
            continue;
        }
        let (number, unit) = range.split_at(range.len() - 1);
        let number: u64 = number.parse().unwrap_or_else(|_| panic!("[{range}] is no range that the tests know"));
        let seconds = match unit {
            "m" => (number * 60 / 100).max(5),
            "h" => number * 360,
            "d" => number * 8_640,
            _ => panic!("[{range}] is no range that the tests know"),
        };
        out.push_str(&format!("[{seconds}s]{rest}"));
    }
    assert_ne!(out, rules);
    out
}

fn always(on: Operation, failure: Failure) -> Faults {
    Faults { rules: vec![Rule { on: Some(on), failure, when: When::Always }], ..Faults::default() }
}
