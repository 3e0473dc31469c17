//! A replay publishes everything once more, on purpose, and disturbs nobody.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

use o365feed::{
    domain::ContentType,
    kafka::{Entry, EntryKind, ReplayStep, partition_of},
    simulator::{BigArrival, ContentFault, Damage, Duplicates, Faults, IdModel, Scenario, SourceScenario},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use serde_json::Value;

use crate::{
    broker::{Broker, Options, client},
    process::Process,
    reader::{Message, read_committed},
    world::{PATIENCE, World, history, metric, published, scenario, stop},
};

#[test]
fn a_replay_beside_the_connector_publishes_each_record_once_more() {
    let growing = SourceScenario {
        id_model: IdModel::Growing { arrivals: 8 },
        duplicates: Duplicates { share: 0.2, reordered: false },
        without_id: 0.2,
        page_size: 7,
        ..history(30, 20)
    };
    let world = World::new(scenario(vec![
        (ContentType::SharePoint, growing),
        (ContentType::Exchange, SourceScenario { samples: true, ..history(20, 20) }),
    ]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    let before = records(&world);
    let ran = world.tool(&["replay", "--since", "6h", "--yes", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let replay = serde_json::from_str::<Value>(&ran.stdout).unwrap()["replay"].as_str().unwrap().to_owned();
    // Whoever takes over restores a ledger with the replay's entries in it.
    stop(&mut process);
    process.restart();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let (own, again) = split(&world, &replay);
    assert_eq!(own.values().sum::<usize>(), before.len(), "the connector published something again");
    assert!(own == again, "what was replayed is not what was published");
    world.ledger_tells(&replay, before.len());
}

/// What the settings drop, send elsewhere or redact is dropped, sent there or redacted in a replay as well.
#[test]
fn a_replay_drops_routes_and_redacts_as_the_connector_does() {
    let source = SourceScenario { samples: true, ..history(20, 20) };
    let mut world = World::new(scenario(vec![(ContentType::Dlp, source.clone()), (ContentType::General, source)]));
    world.write(
        "filter:\n  drop: user ~ employee?1@*\n  route: { \"{prefix}.some\": user ~ employee0* }\nredact:\n  sensitive_information_detections: true\n",
    );
    let mut process = world.start("a");
    let due: usize = world.truth().now().iter().map(|truth| truth.due.len()).sum();
    process.wait_until("every record is published or dropped", PATIENCE, |process| {
        due as f64 <= published(process) + metric(process, "o365feed_records_filtered_total", &[])
    });
    let dropped = metric(&process, "o365feed_records_filtered_total", &[]) as usize;
    stop(&mut process);
    let ran = world.tool(&["replay", "--since", "6h", "--yes", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&summary["filtered"], &summary["published"]), (&dropped.into(), &(due - dropped).into()));
    assert!(0 < dropped && dropped < due);
    let (mut own, mut again) = (Counts::new(), Counts::new());
    let topics = world.kinds().map(|kind| world.output(kind)).chain([world.topic("some")]).collect::<Vec<_>>();
    let mut redacted = 0;
    for topic in &topics {
        let before = own.len();
        for message in read_committed(world.bootstrap(), std::slice::from_ref(topic)) {
            redacted += usize::from(message.headers.iter().any(|(name, _)| name == "redacted"));
            let counts = if header(&message).is_some() { &mut again } else { &mut own };
            *counts.entry((message.topic, message.value.unwrap())).or_default() += 1;
        }
        assert!(before < own.len(), "{topic} is empty");
    }
    assert!(own == again, "what was replayed is not what was published");
    assert!(0 < redacted && redacted % 2 == 0, "{redacted} are redacted");

    // To a topic of its own goes everything, and redacted all the same.
    let topic = world.topic("rebuilt");
    create(&world, &topic);
    let ran = world.tool(&["replay", "--since", "6h", "--to-topic", &topic]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let rebuilt = read_committed(world.bootstrap(), std::slice::from_ref(&topic));
    assert_eq!(rebuilt.len(), due);
    let is_redacted = |message: &&Message| message.headers.iter().any(|(name, _)| name == "redacted");
    assert!(redacted / 2 <= rebuilt.iter().filter(is_redacted).count());
    let rebuilt: HashSet<Vec<u8>> = values(rebuilt).into_iter().collect();
    assert!(own.keys().all(|(_, value)| rebuilt.contains(value)));
}

/// The part of a day's work that was committed before the end is not done again after it.
#[test]
fn a_replay_stopped_and_killed_in_the_middle_goes_on_and_publishes_each_record_once() {
    let source = SourceScenario { without_id: 0.2, ..history(60, 40) };
    let mut scenario = scenario(vec![(ContentType::Exchange, source)]);
    scenario.tenants[0].latency = Duration::from_millis(150);
    let mut world = World::new(scenario);
    world.set("kafka.commit_interval", "100ms");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    let before = records(&world).len();
    let topic = world.topic("rebuilt");
    // A topic that is not there is no reason to make one.
    let refused = world.tool(&["replay", "--since", "6h", "--to-topic", &topic]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("kafka-topics") && refused.stderr.contains(&topic), "{}", refused.stderr);
    create(&world, &topic);

    let mut replay = world.command(&["replay", "--since", "6h", "--to-topic", &topic, "--concurrency", "2"]);
    let there = || read_committed(world.bootstrap(), std::slice::from_ref(&topic)).len();
    replay.wait_until("it is in the middle", PATIENCE, |_| before / 8 < there());
    replay.sigterm();
    assert_eq!(replay.wait_exit(PATIENCE), 7, "{}", replay.stderr());
    assert!(replay.stderr().contains("interrupted"), "{}", replay.stderr());
    let id = id_of(&replay.stderr());
    let stopped = there();

    let mut replay = world.command(&["replay", "--resume", &id, "--concurrency", "2"]);
    replay.wait_until("it goes on", PATIENCE, |_| stopped + before / 8 < there());
    replay.kill9();
    let committed = there();
    assert!(committed < before, "it was killed too late: {committed} of {before}");

    let ran = world.tool(&["replay", "--resume", &id, "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(summary["published_before"], committed);
    assert_eq!(summary["published"], before - committed);
    assert_eq!(summary["topic"], topic.as_str());
    // Once more has nothing left to do.
    let ran = world.tool(&["replay", "--resume", &id]);
    assert_eq!((ran.code, ran.stdout.contains(": 0 records of 0 contents")), (0, true), "{}", ran.stdout);

    stop(&mut process);
    let mut rebuilt = values(read_committed(world.bootstrap(), std::slice::from_ref(&topic)));
    let mut usual = values(records(&world));
    assert_eq!((rebuilt.len(), usual.len()), (before, before));
    rebuilt.sort_unstable();
    usual.sort_unstable();
    assert!(rebuilt == usual, "the topic holds something else than was published");
    world.ledger_tells(&id, before);
    world.verdict().is_exactly_once();
}

/// Whichever of the two fences the other, and however often.
#[test]
fn two_processes_at_one_replay_publish_each_record_once_all_the_same() {
    let mut scenario = scenario(vec![(ContentType::Exchange, history(60, 20))]);
    scenario.tenants[0].latency = Duration::from_millis(150);
    let mut world = World::new(scenario);
    world.set("kafka.commit_interval", "100ms");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let topic = world.topic("rebuilt");
    create(&world, &topic);
    let mut first = world.command(&["replay", "--since", "6h", "--to-topic", &topic, "--concurrency", "2"]);
    let there = || read_committed(world.bootstrap(), std::slice::from_ref(&topic)).len();
    let mut before = 0;
    first.wait_until("it is in the middle", PATIENCE, |_| {
        before = there();
        100 < before
    });
    let id = id_of(&first.stderr());
    // Held until the other is at work, so that neither can come to its end alone.
    first.sigstop();
    first.wait_until("it has stopped", PATIENCE, Process::is_stopped);
    let mut second = world.command(&["replay", "--resume", &id, "--concurrency", "2"]);
    second.wait_until("it publishes", PATIENCE, |_| before + 200 < there());
    first.sigcont();
    let mut codes = [first.wait_exit(PATIENCE), second.wait_exit(PATIENCE)];
    codes.sort_unstable();
    assert!(matches!(codes, [0, 0 | 5]), "{codes:?}\n{}\n----\n{}", first.stderr(), second.stderr());
    let told = format!("{}\n----\n{}", first.stderr(), second.stderr());
    // Fenced in the middle of sending, what it learns of first is that its queue was purged.
    assert!(told.contains("enced") || told.contains("beginning again"), "neither noticed the other: {codes:?}\n{told}");
    assert_eq!(there(), 1_200);
    world.ledger_tells(&id, 1_200);
}

/// A transaction that timed out is none that its producer knows of.
#[test]
fn a_replay_over_a_broker_that_froze_publishes_each_record_once() {
    let mut broker = Broker::own(Options::default());
    let mut scenario = scenario(vec![(ContentType::Exchange, history(60, 20))]);
    scenario.tenants[0].latency = Duration::from_millis(150);
    let mut world = World::on(broker.bootstrap(), scenario);
    world.set("kafka.transaction_timeout", "5s");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let topic = world.topic("rebuilt");
    create(&world, &topic);
    let mut replay = world.command(&["replay", "--since", "6h", "--to-topic", &topic, "--concurrency", "2"]);
    let there = || read_committed(world.bootstrap(), std::slice::from_ref(&topic)).len();
    replay.wait_until("it is in the middle", PATIENCE, |_| 100 < there());
    broker.pause();
    thread::sleep(Duration::from_secs(8));
    broker.resume();
    assert_eq!(replay.wait_exit(PATIENCE), 0, "{}", replay.stderr());
    assert!(replay.stderr().contains("beginning again after what is committed"), "{}", replay.stderr());
    let id = id_of(&replay.stderr());
    let mut rebuilt = values(read_committed(world.bootstrap(), std::slice::from_ref(&topic)));
    let mut usual = values(records(&world));
    rebuilt.sort_unstable();
    usual.sort_unstable();
    assert_eq!((rebuilt.len(), usual.len()), (1_200, 1_200));
    assert!(rebuilt == usual);
    world.ledger_tells(&id, 1_200);
}

#[test]
fn what_a_replay_cannot_have_is_told_and_is_no_gap_of_the_connector() {
    let faults = [(0, Damage::Expired), (3, Damage::InvalidId)];
    let faults =
        faults.map(|(index, damage)| ContentFault { content_type: ContentType::Dlp, index, damage, times: None });
    let faults = Faults { contents: faults.into(), ..Faults::default() };
    let mut world = World::new(Scenario { faults, ..scenario(vec![(ContentType::Dlp, history(10, 10))]) });
    let mut process = world.start("a");
    process.wait_until("all is published", PATIENCE, |process| 80.0 <= published(process));
    stop(&mut process);
    let gaps = |world: &World| read_committed(world.bootstrap(), &[world.topic("feed.gaps")]).len();
    let before = gaps(&world);
    // Where the connector has no transactions, a replay has none either.
    for delivery in ["exactly_once", "at_least_once"] {
        world.set("kafka.delivery", delivery);
        let ran = world.tool(&["replay", "--since", "6h", "--yes"]);
        assert_eq!(ran.code, 7, "{}", ran.stderr);
        assert!(
            ran.stdout.contains("80 records of 8 contents published, 0 repeats left out, 2 gaps"),
            "{}",
            ran.stdout
        );
        assert!(ran.stdout.contains("AF20051") && ran.stdout.contains("AF20052"), "{delivery}: {}", ran.stdout);
        assert!(ran.stderr.contains("2 gaps") && ran.stderr.contains("--resume"), "{}", ran.stderr);
    }
    assert_eq!(gaps(&world), before);
    assert_eq!(records(&world).len(), 3 * 80);
}

#[test]
fn a_record_too_large_for_a_replay_comes_when_it_is_resumed_with_a_larger_limit() {
    const LIMIT: usize = 128 * 1_024;
    let big = vec![BigArrival { index: 8, records: 2, record_bytes: 2 * LIMIT }];
    let source = SourceScenario { big, ..history(10, 10) };
    let mut world = World::new(scenario(vec![(ContentType::Exchange, source)]));
    world.set_max_record_bytes(LIMIT);
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let topic = world.topic("rebuilt");
    create(&world, &topic);
    let there = || read_committed(world.bootstrap(), std::slice::from_ref(&topic)).len();
    let ran = world.tool(&["replay", "--since", "6h", "--to-topic", &topic]);
    assert_eq!((ran.code, there()), (7, 90), "{}", ran.stderr);
    let resume = ["replay", "--resume", &id_of(&ran.stderr)];
    assert_eq!((world.tool(&resume).code, there()), (7, 90), "what is missing is missing still");
    world.set_max_record_bytes(8 * LIMIT);
    let ran = world.tool(&resume);
    assert_eq!(
        (ran.code, read_committed(world.bootstrap(), std::slice::from_ref(&topic)).len()),
        (0, 92),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_replay_before_the_connector_keeps_nothing_from_being_published() {
    let mut scenario = scenario(vec![(ContentType::General, history(40, 10))]);
    scenario.tenants[0].latency = Duration::from_millis(200);
    let mut world = World::new(scenario);
    world.set("fetch.concurrency", 1);
    let mut process = world.start("a");
    process.wait_until("the topics are there", PATIENCE, |process| published(process) > 0.0);
    process.kill9();
    let before = records(&world).len();
    assert!(before < 400, "it was killed too late");
    let refused = world.tool(&["replay", "--since", "6h"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("twice") && refused.stderr.contains("--yes"), "{}", refused.stderr);
    let ran = world.tool(&["replay", "--since", "6h", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    process.restart();
    // To look for the records says nothing: the replay has published them.
    let left = (400 - before) as f64;
    process.wait_until("it has published the rest", PATIENCE, |process| left <= published(process));
    stop(&mut process);
    let (own, again): (Vec<_>, Vec<_>) = records(&world).into_iter().partition(|message| header(message).is_none());
    assert!(before <= own.len());
    let (mut own, mut again) = (values(own), values(again));
    own.sort_unstable();
    again.sort_unstable();
    assert_eq!(own.len(), 400);
    assert!(own == again, "each record is there once from the connector and once from the replay");
}

impl World {
    /// The ledger holds the beginning of the replay and as many ids as it published, each once.
    fn ledger_tells(&self, replay: &str, published: usize) {
        let (mut began, mut ids) = (0, HashSet::new());
        let mut count = 0;
        for message in read_committed(self.bootstrap(), &[self.topic("feed.ledger")]) {
            let entry = Entry::decode(message.value.as_deref().unwrap()).unwrap();
            let EntryKind::Replayed { replay: of, step } = entry.kind else { continue };
            assert_eq!(of.to_string(), replay);
            assert_eq!(message.partition, partition_of(self.tenant(), 3));
            began += u32::from(matches!(step, ReplayStep::Began { .. }));
            count += entry.ids.len();
            ids.extend(entry.ids.iter().map(|id| (entry.content_type, *id)));
        }
        assert_eq!((began as usize, count, ids.len()), (self.kinds().count(), published, published));
    }
}

/// The id that a replay tells at its beginning.
fn id_of(told: &str) -> String {
    told.split("--resume ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().to_owned()
}

fn create(world: &World, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(world.bootstrap()).create().unwrap();
    let new = NewTopic::new(topic, 3, TopicReplication::Fixed(1)).set("max.message.bytes", "8388608");
    let made = world.runtime().block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
}

fn values(messages: Vec<Message>) -> Vec<Vec<u8>> {
    messages.into_iter().map(|message| message.value.unwrap()).collect()
}

fn header(message: &Message) -> Option<String> {
    let found = message.headers.iter().find(|(name, _)| name == "replay")?;
    found.1.as_ref().map(|value| String::from_utf8(value.clone()).unwrap())
}

fn records(world: &World) -> Vec<Message> {
    let topics: Vec<String> = world.kinds().map(|kind| world.output(kind)).collect();
    read_committed(world.bootstrap(), &topics)
}

type Counts = HashMap<(String, Vec<u8>), usize>;

/// How often each record is there: without the header of the replay, and with it.
fn split(world: &World, replay: &str) -> (Counts, Counts) {
    let (mut own, mut again) = (Counts::new(), Counts::new());
    for message in records(world) {
        let counts = match header(&message) {
            Some(id) => {
                assert_eq!(id, replay);
                &mut again
            }
            None => &mut own,
        };
        *counts.entry((message.topic, message.value.unwrap())).or_default() += 1;
    }
    (own, again)
}
