//! What is dropped, routed and redacted: by the letter of the settings, once, and with every id accounted for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use o365feed::{
    domain::{ContentType, RecordId, Source},
    kafka::{Entry, EntryKind},
    simulator::{
        BigArrival, ContentFault, Damage, Duplicates, Faults, IdModel, Operation, Scenario, SourceScenario,
        TruthRecord, half_hash,
    },
};
use serde_json::Value;

use crate::{
    broker::Broker,
    process::Process,
    reader::{Message, read_committed},
    wait,
    world::{PATIENCE, World, history, last_lines, live, metric, published, scenario, stop},
};

/// A third of the users are dropped, but for DLP; whole types are sent elsewhere; the samples hold records that lack a field.
const FILTER: &str = r#"
filter:
  drop: >
    (user ~ Employee?1@* or user ~ "employee?4@*" or user ~ employee?7@contoso.example) and content_type != DLP.All
    or operation in (Hostile5, "DlpRuleUndo", pageviewed) and record_type != 15
  route:
    "{prefix}.mail": workload = exchange and user !~ *@fabrikam.example
    "{prefix}.some": user ~ employee0* or not record_type in (15, 6, 13, 25)
"#;

/// The same in other words. `None` is the topic of the content type.
fn goes(world: &World, kind: ContentType, record: &Value) -> Goes {
    let text = |member: &str| record[member].as_str();
    let user = text("UserId").map(str::to_lowercase);
    let record_type = match &record["RecordType"] {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let is_third = user.as_deref().and_then(|user| user.strip_prefix("employee")).is_some_and(|rest| {
        let rest: Vec<char> = rest.chars().take(3).collect();
        matches!(rest[..], [_, '1' | '4' | '7', '@'])
    });
    let named = text("Operation").map(str::to_lowercase);
    let is_named = named.is_some_and(|name| ["hostile5", "dlpruleundo", "pageviewed"].contains(&name.as_str()));
    if is_third && kind != ContentType::Dlp || is_named && record_type.as_ref().is_some_and(|number| number != "15") {
        return Goes::Nowhere;
    }
    let is_exchange = text("Workload").is_some_and(|workload| workload.eq_ignore_ascii_case("exchange"));
    if is_exchange && user.as_ref().is_some_and(|user| !user.ends_with("@fabrikam.example")) {
        return Goes::To(world.topic("mail"));
    }
    let is_other = record_type.is_some_and(|number| !["15", "6", "13", "25"].contains(&number.as_str()));
    if user.is_some_and(|user| user.starts_with("employee0")) || is_other {
        return Goes::To(world.topic("some"));
    }
    Goes::To(world.output(kind))
}

#[derive(Debug, PartialEq, Eq)]
enum Goes {
    Nowhere,
    To(String),
}

/// What must be where.
struct Expected {
    by_topic: BTreeMap<String, Vec<TruthRecord>>,
    filtered: HashMap<Source, HashSet<RecordId>>,
    published: HashMap<Source, HashSet<RecordId>>,
}

impl Expected {
    fn of(world: &World, goes: impl Fn(ContentType, &Value) -> Goes) -> Self {
        let (mut by_topic, mut filtered, mut published) =
            (BTreeMap::<_, Vec<_>>::new(), HashMap::new(), HashMap::new());
        for truth in world.truth().now() {
            let (dropped, kept): (&mut HashSet<_>, &mut HashSet<_>) =
                (filtered.entry(truth.source).or_default(), published.entry(truth.source).or_default());
            for record in truth.due {
                // Whatever form comes first, the fields are the same; what is no object has none.
                let fields = serde_json::from_slice(&record.variants()[0]).unwrap_or(Value::Null);
                match goes(truth.source.content_type, &fields) {
                    Goes::Nowhere => _ = dropped.insert(record.identity),
                    Goes::To(topic) => {
                        kept.insert(record.identity);
                        by_topic.entry(topic).or_default().push(record);
                    }
                }
            }
        }
        Self { by_topic, filtered, published }
    }

    fn records(&self) -> usize {
        self.by_topic.values().map(Vec::len).sum()
    }

    /// Exactly these, each once, as sent.
    fn is_there(&self, world: &World) {
        assert_eq!(self.repeats(world), 0, "records are twice there");
    }

    /// Exactly these as sent; how many are there more than once.
    fn repeats(&self, world: &World) -> usize {
        let mut repeats = 0;
        let mut topics: HashSet<String> = world.kinds().map(|kind| world.output(kind)).collect();
        topics.extend(self.by_topic.keys().cloned());
        for topic in topics {
            let mut seen: HashMap<[u8; 16], usize> = HashMap::new();
            for message in read_committed(world.bootstrap(), std::slice::from_ref(&topic)) {
                *seen.entry(half_hash(message.value.as_deref().unwrap())).or_default() += 1;
            }
            let mut missing = Vec::new();
            for record in self.by_topic.get(&topic).into_iter().flatten() {
                let found = record.hashes().into_iter().find(|hash| seen.get(hash).is_some_and(|count| 0 < *count));
                match found.and_then(|hash| seen.get_mut(&hash)) {
                    Some(count) => *count -= 1,
                    None => missing.push(format!("{record:?} {:?}", record.key())),
                }
            }
            assert!(missing.is_empty(), "{topic} lacks {}: {:#?}", missing.len(), &missing[..missing.len().min(5)]);
            let known: HashSet<[u8; 16]> =
                self.by_topic.get(&topic).into_iter().flatten().flat_map(TruthRecord::hashes).collect();
            let (twice, wrong): (Vec<_>, Vec<_>) =
                seen.into_iter().filter(|(_, count)| 0 < *count).partition(|(hash, _)| known.contains(hash));
            assert!(wrong.is_empty(), "{topic} has {} records that should not be there", wrong.len());
            repeats += twice.iter().map(|(_, count)| count).sum::<usize>();
        }
        repeats
    }

    /// The ledger says of every id what became of it, and of no other.
    fn is_in_the_ledger(&self, world: &World) {
        let (mut filtered, mut published) = (HashMap::new(), HashMap::new());
        for message in read_committed(world.bootstrap(), &[world.topic("feed.ledger")]) {
            let entry = Entry::decode(message.value.as_deref().unwrap()).unwrap();
            let source = Source { tenant: world.tenant(), content_type: entry.content_type };
            let ids: &mut HashMap<Source, HashSet<RecordId>> =
                if entry.kind == EntryKind::Filtered { &mut filtered } else { &mut published };
            ids.entry(source).or_default().extend(entry.ids.iter());
        }
        for (name, found, expected) in
            [("filtered", &filtered, &self.filtered), ("published", &published, &self.published)]
        {
            for (source, ids) in expected {
                let none = HashSet::new();
                let found = found.get(source).unwrap_or(&none);
                let (fewer, more) = (ids.difference(found).count(), found.difference(ids).count());
                assert_eq!((fewer, more), (0, 0), "{source}: ids that are not, or wrongly, {name} in the ledger");
            }
        }
    }
}

/// Waits until nothing waits any more and as many records as expected are committed.
fn settle(world: &World, process: &mut Process, expected: &Expected) {
    let topics: Vec<String> = expected.by_topic.keys().cloned().collect();
    let there = || read_committed(world.bootstrap(), &topics).len();
    let done = wait::comes_true(PATIENCE, || {
        metric(process, "o365feed_partitions_restored", &[]) >= 3.0
            && metric(process, "o365feed_backlog_contents", &[]) == 0.0
            && expected.records() <= there()
    });
    assert!(done, "{} of {} are there:\n{}", there(), expected.records(), last_lines(&process.stderr()));
}

fn filtered(process: &Process) -> f64 {
    metric(process, "o365feed_records_filtered_total", &[])
}

fn five(source: &SourceScenario) -> Scenario {
    scenario(ContentType::ALL.map(|kind| (kind, source.clone())).into())
}

#[test]
fn what_is_dropped_is_nowhere_and_the_rest_once_in_its_topic_whenever_it_is_killed() {
    let source = SourceScenario {
        samples: true,
        without_id: 0.1,
        shared_ids: 0.3,
        duplicates: Duplicates { share: 0.2, reordered: true },
        id_model: IdModel::Growing { arrivals: 5 },
        ..history(30, 30)
    };
    // Blobs that break off leave contents half published and half filtered.
    let fault = |index| ContentFault {
        content_type: ContentType::ALL[index as usize % 5],
        index,
        damage: Damage::CutMidRecord,
        times: Some(2),
    };
    let faults = Faults { contents: (0..30).step_by(3).map(fault).collect(), ..Faults::default() };
    let mut scenario = Scenario { faults, ..five(&source) };
    scenario.tenants[0].latency = Duration::from_millis(20);
    let mut world = World::new(scenario);
    world.write(FILTER);
    world.set("fetch.concurrency", 3);
    world.set("kafka.commit_interval", "30ms");
    let mut process = world.start("a");
    for _ in 0..4 {
        process.wait_until("it is in the middle", PATIENCE, |process| 0.0 < published(process) + filtered(process));
        process.kill9();
        process.restart();
    }
    let expected = Expected::of(&world, |kind, record| goes(&world, kind, record));
    settle(&world, &mut process, &expected);
    stop(&mut process);
    // Whatever comes again now is a repeat, also what was dropped.
    process.restart();
    let listed = world.simulator().counts().of(Operation::Content);
    process.wait_until("it has listed all again", PATIENCE, |_| {
        world.simulator().counts().of(Operation::Content) > listed + 60
    });
    settle(&world, &mut process, &expected);
    assert_eq!((published(&process), filtered(&process)), (0.0, 0.0), "all was known after a restart");
    stop(&mut process);

    assert!(expected.filtered.values().filter(|ids| !ids.is_empty()).count() >= 5, "each type has something to drop");
    assert!(expected.by_topic.len() > 5, "{:?}", expected.by_topic.keys());
    expected.is_there(&world);
    expected.is_in_the_ledger(&world);
}

#[test]
fn what_a_rebalance_rolls_back_is_filtered_or_published_all_the_same() {
    let repeats = Duplicates { share: 0.5, reordered: false };
    let source = SourceScenario { duplicates: repeats, ..history(160, 20) };
    let mut scenario = five(&source);
    scenario.tenants[0].latency = Duration::from_millis(40);
    let mut world = World::new(scenario);
    world.write(FILTER);
    // Long transactions, so that each rebalance finds one open, with blobs half in it.
    world.set("kafka.commit_interval", "2s");
    world.set("fetch.concurrency", 8);
    let expected = Expected::of(&world, |kind, record| goes(&world, kind, record));
    let mut first = world.start("a");
    first.wait_until("it publishes", PATIENCE, |process| 0.0 < published(process) && 0.0 < filtered(process));
    let aborted = |process: &Process| metric(process, "o365feed_transactions_total", &["aborted"]);
    let mut second = world.start("b");
    let came = wait::comes_true(PATIENCE, || 0.0 < aborted(&first) + aborted(&second));
    assert!(came, "no rebalance met an open transaction:\n{}", last_lines(&first.stderr()));
    let topics: Vec<String> = expected.by_topic.keys().cloned().collect();
    let backlog = |process: &Process| metric(process, "o365feed_backlog_contents", &[]);
    let done = wait::comes_true(PATIENCE, || {
        backlog(&first) + backlog(&second) == 0.0
            && expected.records() <= read_committed(world.bootstrap(), &topics).len()
    });
    assert!(done, "{}\n----\n{}", last_lines(&first.stderr()), last_lines(&second.stderr()));
    // What a process counts is what it committed, so nothing of the rolled back is counted.
    let counted = (filtered(&first) + filtered(&second), published(&first) + published(&second));
    let dropped: usize = expected.filtered.values().map(HashSet::len).sum();
    assert_eq!(counted, (dropped as f64, expected.records() as f64));
    stop(&mut first);
    stop(&mut second);
    expected.is_there(&world);
    expected.is_in_the_ledger(&world);
}

#[test]
fn at_least_once_drops_the_same_and_delivers_all_the_rest() {
    let source = SourceScenario { duplicates: Duplicates { share: 0.2, reordered: true }, ..history(40, 20) };
    let mut scenario = five(&source);
    scenario.tenants[0].latency = Duration::from_millis(30);
    let mut world = World::new(scenario);
    world.write(FILTER);
    world.set("kafka.delivery", "at_least_once");
    world.set("fetch.concurrency", 3);
    let expected = Expected::of(&world, |kind, record| goes(&world, kind, record));
    let mut process = world.start("a");
    for _ in 0..2 {
        process.wait_until("it is in the middle", PATIENCE, |process| 100.0 < published(process) + filtered(process));
        process.kill9();
        process.restart();
    }
    settle(&world, &mut process, &expected);
    stop(&mut process);
    println!("{} repeats", expected.repeats(&world));
    expected.is_in_the_ledger(&world);
}

#[test]
fn a_content_of_which_all_is_dropped_is_published_with_no_record() {
    let mut world =
        World::new(scenario(vec![(ContentType::SharePoint, history(20, 10)), (ContentType::Exchange, history(5, 10))]));
    world.write("filter: {drop: content_type = Audit.SharePoint}\n");
    let expected = Expected::of(&world, |kind, _| match kind {
        ContentType::SharePoint => Goes::Nowhere,
        kind => Goes::To(world.output(kind)),
    });
    let mut process = world.start("a");
    process.wait_until("all is settled", PATIENCE, |process| {
        metric(process, "o365feed_contents_total", &["outcome=\"published\""]) >= 25.0
    });
    settle(&world, &mut process, &expected);
    assert_eq!((filtered(&process), published(&process)), (200.0, 50.0));
    stop(&mut process);
    expected.is_there(&world);
    expected.is_in_the_ledger(&world);
    for message in read_committed(world.bootstrap(), &[world.topic("feed.ledger")]) {
        let entry = Entry::decode(message.value.as_deref().unwrap()).unwrap();
        if let EntryKind::Settled(mark) = entry.kind {
            let records = if entry.content_type == ContentType::SharePoint { 0 } else { 10 };
            assert_eq!(mark.records, records, "{}", entry.content_id);
        }
    }
    // With the filter gone, what it dropped stays known: only new records come.
    world.write("");
    let before = world.simulator().counts().blob_gets;
    let mut process = world.start("a");
    let lists = || world.simulator().counts().of(Operation::Content);
    let listed = lists();
    process.wait_until("it has listed all again", PATIENCE, |_| lists() > listed + 30);
    settle(&world, &mut process, &expected);
    stop(&mut process);
    expected.is_there(&world);
    assert_eq!(world.simulator().counts().blob_gets.len(), before.len());
}

#[test]
fn a_record_too_large_to_be_read_is_a_gap_and_not_silently_dropped() {
    let big = BigArrival { index: 0, records: 3, record_bytes: 300 * 1_024 };
    let source = SourceScenario { big: vec![big], ..history(4, 5) };
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, source)]));
    world.set_max_record_bytes(128 * 1_024);
    world.write("filter: {drop: content_type = Audit.SharePoint}\n");
    let mut process = world.start("a");
    process.wait_until("all is settled", PATIENCE, |process| {
        metric(process, "o365feed_contents_total", &["outcome=\"published\""]) >= 4.0
    });
    assert_eq!((filtered(&process), published(&process)), (15.0, 0.0));
    assert_eq!(metric(&process, "o365feed_gaps_total", &["oversize"]), 3.0);
    stop(&mut process);
}

#[test]
fn detections_go_and_every_other_byte_stays() {
    let source = SourceScenario { samples: true, ..history(10, 10) };
    let kinds = [ContentType::Dlp, ContentType::General];
    let mut world = World::new(scenario(kinds.map(|kind| (kind, source.clone())).into()));
    world.write("redact: {sensitive_information_detections: true}\n");
    let expected = Expected::of(&world, |kind, _| Goes::To(world.output(kind)));
    let mut process = world.start("a");
    settle(&world, &mut process, &expected);
    stop(&mut process);
    // By identity: the bytes of some are others now.
    let mut changed = 0;
    for kind in kinds {
        let messages = read_committed(world.bootstrap(), &[world.output(kind)]);
        let truth = &expected.by_topic[&world.output(kind)];
        assert_eq!(messages.len(), truth.len(), "{kind}");
        let sent: HashMap<Vec<u8>, &TruthRecord> = truth
            .iter()
            .flat_map(|record| record.variants().into_iter().map(move |bytes| (without_detections(&bytes), record)))
            .collect();
        for message in messages {
            let value = message.value.as_deref().unwrap();
            let record = sent.get(value).unwrap_or_else(|| panic!("{kind}: {}", String::from_utf8_lossy(value)));
            let is_changed = !record.accepts(value);
            changed += usize::from(is_changed);
            let header = is_changed.then_some(&b"SensitiveInformationDetections"[..]);
            assert_eq!(header_of(&message, "redacted"), header, "{kind}: {}", String::from_utf8_lossy(value));
        }
    }
    assert!(changed >= 4, "{changed} records had detections");
}

/// What was dropped is to be had by a replay, which redacts as the connector does.
#[test]
fn a_replay_brings_what_was_dropped_and_redacts_it() {
    let source = SourceScenario { samples: true, ..history(10, 10) };
    let mut world = World::new(scenario(vec![(ContentType::Dlp, source)]));
    world.write("redact: {sensitive_information_detections: true}\nfilter: {drop: content_type = DLP.All}\n");
    let expected = Expected::of(&world, |_, _| Goes::Nowhere);
    let all = expected.filtered.values().map(HashSet::len).sum::<usize>();
    let mut process = world.start("a");
    process.wait_until("all is dropped", PATIENCE, |process| filtered(process) == all as f64);
    expected.is_there(&world);
    let topic = world.topic("rebuilt");
    world.runtime().block_on(Broker::shared().create_topic(&topic, 1, &[]));
    world.write("redact: {sensitive_information_detections: true}\n");
    let ran = world.tool(&["replay", "--since", "6h", "--to-topic", &topic]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // It goes on as before, also after a start that reads what the replay wrote into the ledger.
    stop(&mut process);
    process.restart();
    settle(&world, &mut process, &expected);
    assert_eq!((published(&process), filtered(&process)), (0.0, 0.0));
    stop(&mut process);

    let messages = read_committed(world.bootstrap(), &[topic]);
    assert_eq!(messages.len(), all);
    let mut changed = 0;
    for message in messages {
        let value = message.value.as_deref().unwrap();
        assert_eq!(without_detections(value), value);
        changed += usize::from(header_of(&message, "redacted").is_some());
    }
    assert!(changed >= 4, "{changed} records had detections");
    expected.is_there(&world);
}

/// By looking for the name as it is written in the samples, and for the bracket that closes its value.
fn without_detections(record: &[u8]) -> Vec<u8> {
    const NAME: &str = "\"SensitiveInformationDetections\":{";
    let text = String::from_utf8(record.to_vec()).unwrap();
    let mut parts = text.split(NAME);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let whole = format!("{{{part}");
        let mut values = serde_json::Deserializer::from_str(&whole).into_iter::<Value>();
        values.next().unwrap().unwrap();
        out.push_str(&NAME[..NAME.len() - 1]);
        out.push_str("{}");
        out.push_str(&whole[values.byte_offset()..]);
    }
    out.into_bytes()
}

fn header_of<'a>(message: &'a Message, name: &str) -> Option<&'a [u8]> {
    message.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
}

/// Contents keep on coming and hold records of those before them, so that a filter that is changed between two starts
/// meets what another one dropped.
#[test]
fn another_filter_holds_for_what_comes_from_then_on() {
    let source = SourceScenario {
        live: live(120.0, 20),
        id_model: IdModel::Growing { arrivals: 40 },
        duplicates: Duplicates { share: 0.3, reordered: false },
        ..history(20, 20)
    };
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, source)]));
    world.write("filter: {drop: user ~ employee0*}\n");
    let mut process = world.start("a");
    process.wait_until("it filters", PATIENCE, |process| 100.0 < filtered(process));
    stop(&mut process);
    world.write("filter: {drop: user ~ employee1*}\n");
    let mut process = world.start("a");
    process.wait_until("it filters and knows what it filtered", PATIENCE, |process| {
        let repeats = metric(process, "o365feed_records_duplicate_total", &[]);
        [filtered(process), published(process), repeats].into_iter().all(|count| 100.0 < count)
    });
    stop(&mut process);

    // Each id has one fate for good, and what is in the topic is what the ledger calls published.
    let (mut dropped, mut kept) = (HashSet::new(), HashSet::new());
    for message in read_committed(world.bootstrap(), &[world.topic("feed.ledger")]) {
        let entry = Entry::decode(message.value.as_deref().unwrap()).unwrap();
        let ids = if entry.kind == EntryKind::Filtered { &mut dropped } else { &mut kept };
        ids.extend(entry.ids.iter().copied());
    }
    assert!(dropped.is_disjoint(&kept));
    let messages = read_committed(world.bootstrap(), &[world.output(ContentType::SharePoint)]);
    let ids: Vec<RecordId> = messages
        .iter()
        .map(|message| RecordId::of_text(std::str::from_utf8(message.key.as_deref().unwrap()).unwrap()))
        .collect();
    assert_eq!(ids.len(), kept.len(), "none twice");
    assert_eq!(ids.into_iter().collect::<HashSet<_>>(), kept);
}
