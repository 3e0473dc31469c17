//! Every query of every panel of the dashboards shows something, of a connector that runs, in a Prometheus that runs.

use std::{collections::BTreeSet, fs, path::Path, thread, time::Duration};

use o365feed::{
    domain::ContentType,
    simulator::{ContentFault, Damage, Failure, Faults, Operation, Rule, SourceScenario, ThrottleShape, When},
};
use serde_json::{Value, json};

use crate::{
    process::Process,
    prometheus::{Prometheus, Sample},
    scratch::{Scratch, free_port},
    tls::self_signed,
    wait,
    world::{PATIENCE, World, history, live, metric, scenario, stop},
};

/// How often Prometheus looks: asking it more often tells nothing new.
const SCRAPE: Duration = Duration::from_secs(1);

/// Panels that show nothing as long as all is well; and the metric that is not there then.
const EMPTY_WHEN_HEALTHY: [&str; 4] = [
    "o365feed_oldest_backlog_expires_in_seconds",      // while nothing waits
    "o365feed_api_errors_total",                       // before the first
    "o365feed_ledger_restore_seconds_bucket",          // while no partition comes
    "o365feed_webhook_certificate_expires_in_seconds", // where the receiver does not end TLS itself
];

#[test]
fn every_query_of_every_panel_shows_something() {
    let queries = queries();
    assert!(queries.len() > 60, "{} queries", queries.len());
    let (sometimes, always): (Vec<_>, Vec<_>) =
        queries.iter().partition(|query| EMPTY_WHEN_HEALTHY.iter().any(|metric| query.expression.contains(metric)));
    for metric in EMPTY_WHEN_HEALTHY {
        assert!(sometimes.iter().any(|query| query.expression.contains(metric)), "{metric} is on no dashboard");
    }

    let source = SourceScenario { live: live(120.0, 5), without_id: 0.1, ..history(20, 10) };
    let world = World::new(scenario(vec![(ContentType::SharePoint, source.clone()), (ContentType::Exchange, source)]));
    let mut prometheus = Prometheus::start("groups: []");
    let mut process = world.start("a");
    prometheus.watch(&[&process]);
    all_show(&prometheus, &always, Sample::is_number);
    // Contents come and go; there is a moment at which none waits.
    for query in &sometimes {
        let is_empty = || !prometheus.query(&query.substituted()).iter().any(Sample::is_number);
        assert!(wait::comes_true(PATIENCE, is_empty), "not empty when healthy: {query:?}");
    }
    stop(&mut process);

    // Throttled, refused and given nothing for some contents; by a process that receives notifications over TLS.
    let files = Scratch::new("dashboards");
    let receiver = receiver(&files);
    let rule = |failure, rate| Rule { on: Some(Operation::Blob), failure, when: When::Rate(rate) };
    let gone =
        |index| ContentFault { content_type: ContentType::Exchange, index, damage: Damage::Expired, times: None };
    world.simulator().control().set_faults(Faults {
        rules: vec![rule(Failure::Throttled(ThrottleShape::TooManySeconds(1)), 0.1), rule(Failure::Status(503), 0.8)],
        contents: (0..1_000).map(gone).collect(),
        ..Faults::default()
    });
    let mut process = world.start_with("a", &receiver);
    prometheus.watch(&[&process]);
    // Another one comes and goes, and the first gets its partitions.
    process.wait_until("it has them all", PATIENCE, |process| restored(process) == 3.0);
    let mut other = world.start("b");
    other.wait_until("it has some", PATIENCE, |other| 0.0 < restored(other));
    stop(&mut other);
    all_show(&prometheus, &queries.iter().collect::<Vec<_>>(), Sample::is_number);
    // What only counts is there in quiet hours too; under its fault it moves.
    for metric in ["o365feed_throttled_total", "o365feed_throttle_wait_seconds_total", "o365feed_gaps_total"] {
        let of: Vec<_> = queries.iter().filter(|query| query.expression.contains(metric)).collect();
        assert!(!of.is_empty(), "{metric} is on no dashboard");
        all_show(&prometheus, &of, |sample| sample.value > 0.0);
    }
    stop(&mut process);
}

fn restored(process: &Process) -> f64 {
    metric(process, "o365feed_partitions_restored", &[])
}

/// Waits until each of them has given a series that is `good`, with all labels that its legend names.
fn all_show(prometheus: &Prometheus, queries: &[&Query], good: impl Fn(&Sample) -> bool) {
    let mut waiting = queries.to_vec();
    let came = wait::comes_true(PATIENCE, || {
        thread::sleep(SCRAPE);
        waiting.retain(|query| {
            let samples = prometheus.query(&query.substituted());
            for (sample, label) in samples.iter().flat_map(|sample| query.labels().map(move |label| (sample, label))) {
                assert!(sample.labels.contains_key(label), "no label {label}: {query:?}");
            }
            !samples.iter().any(&good)
        });
        waiting.is_empty()
    });
    assert!(came, "these show nothing: {waiting:#?}");
}

impl Sample {
    fn is_number(&self) -> bool {
        self.value.is_finite()
    }
}

/// One of a panel.
#[derive(Debug)]
struct Query {
    #[allow(dead_code, reason = "what a failure names")]
    place: String,
    expression: String,
    legend: String,
}

impl Query {
    /// As Grafana asks it for the tenant and the job of the tests.
    fn substituted(&self) -> String {
        let mut expression = self.expression.clone();
        let values = [
            ("$__rate_interval", "1m"),
            ("$__range_s", "300"),
            ("$__range", "5m"),
            ("$job", "o365feed"),
            ("$tenant", "contoso"),
            ("$instance", "127.0.0.1:.*"),
        ];
        for (variable, value) in values {
            expression = expression.replace(variable, value);
        }
        assert!(!expression.contains('$'), "a variable that the tests do not know: {self:?}");
        expression
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        self.legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next())
    }
}

/// All of them; and what every panel must have.
fn queries() -> Vec<Query> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let boards: Vec<Value> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
        .map(|file| serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap())
        .collect();
    let uids: BTreeSet<&str> = boards.iter().map(|board| board["uid"].as_str().unwrap()).collect();
    assert_eq!(uids, ["o365feed-kafka", "o365feed-overview", "o365feed-tenant", "o365feed-throttling"].into());
    let mut queries = Vec::new();
    for board in &boards {
        assert_eq!(board["editable"], false);
        for panel in board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let place = format!("{}: {}", text(&board["uid"]), text(&panel["title"]));
            assert!(!text(&panel["description"]).is_empty(), "{place}: no description");
            assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{place}: no unit");
            let base = &panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0];
            assert_eq!(*base, json!({"color": "text", "value": null}), "{place}: no value is neither good nor bad");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{place}: no query");
            queries.extend(targets.iter().map(|target| {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
                let (expression, legend) = (text(&target["expr"]), text(&target["legendFormat"]));
                Query { place: place.clone(), expression, legend }
            }));
        }
    }
    queries
}

/// Settings of a process that receives notifications, with a certificate that ends in a day.
pub fn receiver(files: &Scratch) -> Vec<(&'static str, String)> {
    let (certificate, key) = self_signed("feed.example.com");
    let write = |name: &str, bytes: &[u8]| {
        let file = files.path().join(name);
        fs::write(&file, bytes).unwrap();
        file.display().to_string()
    };
    vec![
        ("webhook.enabled", "true".to_owned()),
        ("webhook.listen", format!("127.0.0.1:{}", free_port())),
        ("webhook.missed_after", "3s".to_owned()),
        ("webhook.auth_id_file", write("auth-id", b"an-auth-id-of-the-tests")),
        ("webhook.certificate_file", write("tls.crt", &certificate)),
        ("webhook.key_file", write("tls.key", &key)),
    ]
}
