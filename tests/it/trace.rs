//! One content from its listing to its commit: in the spans that a collector gets, and in the lines of the log.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use o365feed::domain::ContentType;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{Span, span::Event},
};
use prost::Message;
use serde_json::Value;

use crate::world::{World, history, live, nowhere, scenario, stop};

const KIND: ContentType = ContentType::SharePoint;

/// Part of every simulated record that has a user.
const IN_A_RECORD: &str = "@contoso.example";

#[test]
fn a_content_is_followed_from_its_listing_to_its_commit_in_spans_and_in_lines() {
    let mut world = World::new(scenario(vec![(KIND, history(12, 5))]));
    let collector = Collector::start(&world);
    world.set("traces.otlp_endpoint", &collector.address);
    world.export("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=audit");
    world.set("log.format", "json");
    world.set("log.level", "trace");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();

    let contents: BTreeSet<String> = world.simulator().counts().blob_gets.into_keys().collect();
    assert_eq!(contents.len(), 12);
    for (place, text) in [("the log", process.stderr()), ("a span", format!("{:?}", collector.requests()))] {
        assert!(contents.iter().all(|content| text.contains(content)), "what is in {place} is found");
        let [_, _, (_, secret), _] = &world.login();
        assert!(!text.contains(secret), "the secret is in {place}");
        assert!(!text.contains("eyJ"), "a token is in {place}");
        assert!(!text.contains(IN_A_RECORD), "a record is in {place}");
    }
    let records = world.truth().now();
    let mut records = records.iter().flat_map(|source| &source.due).flat_map(|record| record.variants());
    let is_told = |record: Vec<u8>| record.windows(IN_A_RECORD.len()).any(|part| part == IN_A_RECORD.as_bytes());
    assert!(records.any(is_told), "that part is in records");

    let spans = collector.spans();
    let lines: Vec<Value> = process.stderr().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for content in &contents {
        spans_tell_of(content, &spans);
        lines_tell_of(content, &lines);
    }
}

#[test]
fn a_collector_that_is_away_or_never_answers_costs_no_record() {
    let source = o365feed::simulator::SourceScenario { live: live(60.0, 5), ..history(10, 5) };
    let mut world = World::new(scenario(vec![(KIND, source)]));
    world.set("log.level", "info");
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let never = ["spans do not reach the collector", "the last spans did not reach the collector"];
    for (address, told) in [nowhere(), deaf.local_addr().unwrap()].into_iter().zip(never) {
        let endpoint = ("traces.otlp_endpoint", format!("http://{address}"));
        let mut process = world.start_with("a", &[endpoint]);
        world.complete(&mut [&mut process]);
        stop(&mut process);
        let log = process.stderr();
        assert_eq!(log.matches(told).count(), 1, "{log}");
    }
    world.verdict().is_exactly_once();
}

/// The span of the window that listed it, of its fetch and of its transaction, tied to each other.
fn spans_tell_of(content: &str, spans: &[Span]) {
    let named = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let windows: Vec<&Span> = named("window").filter(|span| event(span, "announced", content).is_some()).collect();
    let [window] = windows[..] else { panic!("{} windows announce {content}", windows.len()) };
    assert_eq!(text(&window.attributes, "tenant"), Some("contoso"));
    assert_eq!(text(&window.attributes, "content_type"), Some(KIND.as_str()));
    assert!(text(&window.attributes, "start") < text(&window.attributes, "end"));

    let fetches: Vec<&Span> =
        named("fetch").filter(|span| text(&span.attributes, "content_id") == Some(content)).collect();
    let [fetch] = fetches[..] else { panic!("{} fetches of {content}", fetches.len()) };
    assert!(fetch.events.iter().any(|event| event.name == "fetched"));
    assert!(fetch.attributes.iter().any(|pair| pair.key == "attempt" && number(pair) == Some(1)));

    let commits: Vec<&Span> = named("transaction").filter(|span| event(span, "settled", content).is_some()).collect();
    let [commit] = commits[..] else { panic!("{} transactions settle {content}", commits.len()) };
    let settled = event(commit, "settled", content).unwrap();
    assert_eq!(text(&settled.attributes, "outcome"), Some("published"));
    assert!(commit.events.iter().any(|event| event.name == "committed"));
    assert!(commit.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&fetch.trace_id, &fetch.span_id)));
}

/// The same in the log, by nothing but the content's id and the number of the transaction.
fn lines_tell_of(content: &str, lines: &[Value]) {
    // What the libraries say within a span carries its fields too.
    let ours = lines.iter().filter(|line| line["target"].as_str().is_some_and(|target| target.starts_with("o365feed")));
    let about: Vec<&Value> =
        ours.filter(|line| line["content_id"] == content || line["span"]["content_id"] == content).collect();
    let messages: Vec<&str> = about.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["announced", "fetched", "settled"], "{about:#?}");
    let [window, fetch, commit] = [0, 1, 2].map(|at| &about[at]["span"]);
    assert_eq!((&window["name"], &window["tenant"]), (&"window".into(), &"contoso".into()));
    assert_eq!((&fetch["name"], &fetch["attempt"]), (&"fetch".into(), &1.into()));
    assert_eq!(commit["name"], "transaction");
    let is_end = |line: &&Value| line["span"] == *commit && line["message"] == "committed";
    assert_eq!(lines.iter().filter(is_end).count(), 1);
}

fn event<'a>(span: &'a Span, name: &str, content: &str) -> Option<&'a Event> {
    span.events.iter().find(|event| event.name == name && text(&event.attributes, "content_id") == Some(content))
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let pair = attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.as_ref()? {
        AnyValue { value: Some(any_value::Value::StringValue(text)) } => Some(text),
        _ => None,
    }
}

fn number(pair: &KeyValue) -> Option<i64> {
    match pair.value.as_ref()?.value.as_ref()? {
        any_value::Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

/// What takes spans on this machine.
struct Collector {
    address: String,
    requests: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    fn start(world: &World) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        let take = async move |headers: HeaderMap, body: Bytes| {
            let is_one = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
            if !is_one("content-type", "application/x-protobuf") || !is_one("x-scope", "audit") {
                return StatusCode::BAD_REQUEST;
            }
            kept.lock().unwrap().push(body);
            StatusCode::OK
        };
        let listener = world.runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take));
        world.runtime().spawn(async move { axum::serve(listener, router).await });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources: Vec<_> = self.requests().into_iter().flat_map(|request| request.resource_spans).collect();
        for resource in &resources {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            assert_eq!(text(attributes, "service.name"), Some("o365feed"));
            assert_eq!(text(attributes, "service.instance.id"), Some("a"));
        }
        resources.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}
