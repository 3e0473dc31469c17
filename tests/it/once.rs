//! Exactly once per content type, as sent, whatever shape the contents come in.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use o365feed::{
    domain::ContentType,
    simulator::{
        ContentFault, Damage, Duplicates, Faults, History, IdModel, Layout, Operation, Scenario, SourceScenario,
    },
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::Value;

use crate::{
    broker::client,
    process::Process,
    reader::{Message, read_committed},
    world::{PATIENCE, World, history, live, metric, published, scenario, stop},
};

#[test]
fn a_clean_tenant_is_published_once_with_equal_bytes() {
    let source = SourceScenario { samples: true, without_id: 0.1, page_size: 7, ..history(30, 25) };
    let world = World::new(scenario(ContentType::ALL.map(|kind| (kind, source.clone())).into()));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();

    let fetched = world.simulator().counts().blob_gets;
    for kind in ContentType::ALL {
        for message in read_committed(world.bootstrap(), &[world.output(kind)]) {
            headers_tell_of_the_record(&world, kind, &message, &fetched);
        }
    }
    topics_are_as_documented(&world);
    let log = process.stderr() + &process.stdout();
    assert!(!log.contains("simulated~secret"), "the secret is in the log");
    assert!(!log.contains("eyJ"), "a token is in the log");
}

#[test]
fn contents_that_are_inserted_hours_and_days_late_are_published_once() {
    let over = |hours: u64| SourceScenario {
        history: History { arrivals: 40, span: Duration::from_secs(hours * 3_600), records: 10 },
        late: 0.4,
        shuffled: true,
        page_size: 7,
        ..SourceScenario::default()
    };
    let (hours, days) = (ContentType::Exchange, ContentType::SharePoint);
    let mut world = World::new(scenario(vec![(hours, over(2)), (days, over(5 * 24))]));
    world.set("listing.overlap_interval", "1m");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    let due = |kind| {
        let truth = world.truth().now().into_iter().find(|truth| truth.source.content_type == kind);
        truth.unwrap().due.len() as f64
    };
    let published = |process: &Process, kind: ContentType| {
        let label = format!("content_type=\"{}\"", kind.as_str());
        metric(process, "o365feed_records_published_total", &[&label])
    };
    assert!(due(hours) < 400.0 && due(days) < 400.0, "nothing is late");
    world.simulator().control().insert_late();
    assert_eq!((due(hours), due(days)), (400.0, 400.0));

    process.wait_until("the overlap finds what is hours late", PATIENCE, |process| published(process, hours) >= 400.0);
    assert!(published(&process, days) < 400.0, "the overlap reaches three hours back");
    stop(&mut process);
    // What is days late waits for a sweep: once a day, and at each start.
    process.restart();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn growing_contents_repeats_and_shared_ids_are_published_once_per_content_type() {
    let source = |id_model, reordered, layout| SourceScenario {
        id_model,
        layout,
        live: live(60.0, 10),
        duplicates: Duplicates { share: 0.2, reordered },
        shared_ids: 0.3,
        ..history(36, 20)
    };
    let mut world = World::new(scenario(vec![
        (ContentType::SharePoint, source(IdModel::Growing { arrivals: 12 }, true, Layout::Compact)),
        (ContentType::Exchange, source(IdModel::Partial { arrivals: 12 }, false, Layout::Spaced)),
        (ContentType::General, source(IdModel::Growing { arrivals: 5 }, false, Layout::Compact)),
    ]));
    world.set("listing.overlap_interval", "1m");
    world.set("listing.overlap", "10m");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    // Two minutes of the same window, once a second, is what follow lists: ranges come again as they grow.
    let lists = |world: &World| world.simulator().counts().of(Operation::Content);
    let before = lists(&world);
    process.wait_until("it has listed on and on", PATIENCE, |_| lists(&world) > before + 60);
    stop(&mut process);
    // The next start lists everything once more.
    process.restart();
    process.wait_until("it publishes", PATIENCE, |process| published(process) > 0.0);
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn records_without_an_id_in_a_blob_cut_half_way_are_published_once() {
    let source = SourceScenario { without_id: 0.6, ..history(20, 60) };
    let damages = [Damage::Reset, Damage::Truncated, Damage::CutMidRecord, Damage::Reset];
    let fault = |index: u64| ContentFault {
        content_type: ContentType::General,
        index,
        damage: damages[index as usize % damages.len()],
        times: Some(1 + index as u32 % 2),
    };
    let faults = Faults { contents: (0..12).map(fault).collect(), ..Faults::default() };
    let mut world = World::new(Scenario { faults, ..scenario(vec![(ContentType::General, source)]) });
    // So that the first half is committed long before the second comes.
    world.set("kafka.commit_interval", "10ms");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
    let again = world.simulator().counts().blob_gets.values().filter(|gets| **gets > 1).count();
    assert_eq!(again, 12, "every damaged content was fetched again");
}

#[test]
fn a_grown_content_under_the_same_id_is_fetched_again() {
    // Half of the records at first; the same content id gives all of them from the second GET on.
    let fault =
        |index| ContentFault { content_type: ContentType::SharePoint, index, damage: Damage::Shorter, times: Some(1) };
    let faults = Faults { contents: (0..20).map(fault).collect(), ..Faults::default() };
    let mut world = World::new(Scenario { faults, ..scenario(vec![(ContentType::SharePoint, history(20, 20))]) });
    world.set("fetch.recheck", "all");
    // With a start of its own, the source is swept once it has caught up; and again at the next start.
    world.set("listing.start_from", world.simulator().now() - Duration::from_secs(7_200));
    let mut process = world.start("a");
    let fetched = |world: &World| world.simulator().counts().blob_gets.len();
    process.wait_until("each was fetched", PATIENCE, |process| fetched(&world) == 20 && published(process) >= 200.0);
    stop(&mut process);
    process.restart();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

fn headers_tell_of_the_record(world: &World, kind: ContentType, message: &Message, fetched: &BTreeMap<String, u64>) {
    let header = |name: &str| {
        let found = message.headers.iter().find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.as_deref()).map(String::from_utf8_lossy)
    };
    let place = format!("{kind} partition {} offset {}", message.partition, message.offset);
    assert_eq!(header("tenant_id").as_deref(), Some(world.tenant().to_string().as_str()), "{place}");
    let content = header("content_id").unwrap_or_else(|| panic!("{place}: no content_id"));
    assert!(fetched.contains_key(content.as_ref()), "{place}: {content} was never fetched");
    assert_eq!(header("redacted"), None, "{place}: nobody asked for that");
    // Hostile records may lack a member, repeat it, or have it in another type; those are not looked at here.
    let Ok(record) = serde_json::from_slice::<Value>(message.value.as_deref().unwrap()) else { return };
    let text = String::from_utf8_lossy(message.value.as_deref().unwrap());
    let once = |member: &str| text.matches(&format!("\"{member}\":")).count() == 1;
    for (name, member) in [("workload", "Workload"), ("operation", "Operation")] {
        if let Some(value) = record[member].as_str().filter(|value| once(member) && !value.is_empty()) {
            assert_eq!(header(name).as_deref(), Some(value), "{place}: {name}");
        }
    }
    if let Some(value) = record["RecordType"].as_u64().filter(|_| once("RecordType")) {
        assert_eq!(header("record_type").as_deref(), Some(value.to_string().as_str()), "{place}");
    }
}

/// The table of docs/design: names, partitions and settings.
fn topics_are_as_documented(world: &World) {
    const DAY: u64 = 86_400_000;
    let log = [("message.timestamp.type", "LogAppendTime".to_owned()), ("segment.ms", DAY.to_string())];
    let with = |retention: u64| [log.to_vec(), vec![("retention.ms", (retention * DAY).to_string())]].concat();
    let mut expected = vec![
        (world.topic("feed.listings"), 3, with(21)),
        (world.topic("feed.ledger"), 3, with(23)),
        (world.topic("feed.gaps"), 1, vec![("retention.ms", (90 * DAY).to_string())]),
    ];
    for kind in ContentType::ALL {
        expected.push((world.output(kind), 3, vec![("max.message.bytes", (8 << 20).to_string())]));
    }
    let consumer: BaseConsumer = client(world.bootstrap()).create().unwrap();
    for (topic, partitions, settings) in expected {
        let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(30)).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), partitions, "{topic}");
        let found = described(world, &topic);
        for (key, value) in settings.into_iter().chain([("cleanup.policy", "delete".to_owned())]) {
            assert_eq!(found.get(key), Some(&value), "{topic}: {key}");
        }
    }
}

fn described(world: &World, topic: &str) -> HashMap<String, String> {
    let admin: AdminClient<DefaultClientContext> = client(world.bootstrap()).create().unwrap();
    let asked = [ResourceSpecifier::Topic(topic)];
    let answer = world.runtime().block_on(admin.describe_configs(&asked, &AdminOptions::new())).unwrap();
    let resource = answer.into_iter().next().unwrap().unwrap();
    resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}
