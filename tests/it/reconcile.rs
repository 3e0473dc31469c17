//! What is missing is found, by name, and brought back; what is there is never called missing.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use o365feed::{
    domain::{ContentType, Mark, RecheckState, RecordId},
    kafka::{Entry, EntryKind},
    simulator::{
        BigArrival, ContentFault, Damage, Duplicates, Failure, Faults, History, IdModel, Operation, Rule, Scenario,
        SourceScenario, ThrottleShape, When,
    },
};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::Value;

use crate::{
    broker::{Broker, client},
    process::Process,
    reader::read_committed,
    scratch::unique,
    world::{PATIENCE, Ran, World, history, last_lines, live, metric, nowhere, scenario, stop},
};

#[test]
fn a_growing_repeating_tenant_is_complete_beside_its_running_connector() {
    let source = |id_model| SourceScenario {
        id_model,
        live: live(60.0, 10),
        duplicates: Duplicates { share: 0.2, reordered: true },
        shared_ids: 0.3,
        without_id: 0.1,
        ..history(36, 20)
    };
    let world = World::new(scenario(vec![
        (ContentType::SharePoint, source(IdModel::Growing { arrivals: 12 })),
        (ContentType::Exchange, source(IdModel::Partial { arrivals: 12 })),
    ]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    let rebalances = metric(&process, "o365feed_rebalances_total", &[]);
    for depth in [&[][..], &["--deep"]] {
        // The grace is shorter than most contents are old, so few are excused by their youth.
        let args = [&["reconcile", "--since", "2h", "--grace", "20s", "--output", "json"], depth].concat();
        let (ran, report) = reported(&world, &args, &[]);
        assert_eq!(ran.code, 0, "{}{}\n{}", ran.stdout, ran.stderr, last_lines(&process.stderr()));
        assert_eq!(report["complete"], true);
        let all = |what: &str, verdict: &str| -> u64 {
            report["sources"].as_array().unwrap().iter().map(|source| source[what][verdict].as_u64().unwrap()).sum()
        };
        println!("{depth:?}: {}", report["verdict"]);
        assert!(all("contents", "delivered") > 4, "{}", ran.stdout);
        if !depth.is_empty() {
            assert!(all("records", "delivered") > 36 * 20, "{}", ran.stdout);
        }
        for verdict in ["missing", "gap", "unknown"] {
            assert_eq!(all("contents", verdict) + all("records", verdict), 0, "{verdict}: {}", ran.stdout);
        }
    }
    let table = world.tool(&["reconcile", "--since", "2h", "--grace", "20s", "--deep"]);
    println!("{}", table.stdout);
    assert_eq!(table.code, 0);
    assert!(table.stdout.contains("\ncomplete: "), "{}", table.stdout);
    assert_eq!(metric(&process, "o365feed_rebalances_total", &[]), rebalances, "the group did not notice");
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn what_the_ledger_lost_is_named_to_the_record_and_a_repair_publishes_exactly_that() {
    // Some are older than an hour: those are due for no second look.
    let history = History { arrivals: 20, span: Duration::from_secs(7_000), records: 30 };
    let source = |without_id| SourceScenario { without_id, history, ..SourceScenario::default() };
    let mut scenario = scenario(vec![(ContentType::SharePoint, source(0.1)), (ContentType::Exchange, source(0.0))]);
    // Transactions are committed while contents that were put back still wait for their turn.
    scenario.tenants[0].latency = Duration::from_millis(50);
    let mut world = World::new(scenario);
    world.set("fetch.concurrency", 1);
    world.set("fetch.recheck", "off");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);

    // Every eleventh record is forgotten, and the contents still count as published.
    let mut count = 0;
    let other = Copied::of(&world, |_, ids| {
        ids.retain(|_| {
            count += 1;
            count % 11 != 0
        });
        true
    });
    assert!(other.lost.len() > 50, "{}", other.lost.len());
    let settings = [("kafka.topic_prefix", other.prefix.clone())];
    let shallow = ["reconcile", "--since", "3h", "--grace", "1s", "--output", "json"];
    let deep = [&shallow[..], &["--deep"]].concat();

    let (ran, report) = reported(&world, &shallow, &settings);
    assert_eq!((ran.code, missing(&report).len()), (0, 0), "the marks are believed: {}", ran.stdout);
    let (ran, report) = reported(&world, &deep, &settings);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert_eq!(missing(&report), other.lost);
    let named = |row: &Value| row.get("record_id").is_some();
    let rows = report["missing"].as_array().unwrap();
    assert!(rows.iter().any(named) && !rows.iter().all(named), "with and without an Id");
    let table = world.tool_with(&["reconcile", "--since", "3h", "--grace", "1s", "--deep", "--limit", "3"], &settings);
    println!("{}", table.stdout);
    assert!(table.stdout.contains(&format!("and {} more", other.lost.len() - 3)), "{}", table.stdout);
    assert!(table.stdout.contains(&format!("{} records missing", other.lost.len())), "{}", table.stdout);

    // Half of it is put back while nobody runs: it waits.
    let half = ["--repair", "--type", "Audit.Exchange"];
    let (ran, report) = reported(&world, &[&deep[..], &half].concat(), &settings);
    assert_eq!((ran.code, report["put_back"].as_u64()), (7, Some(20)), "what is put back is missing still");
    let (ran, report) = reported(&world, &[&deep[..], &half].concat(), &settings);
    assert_eq!((ran.code, report["put_back"].as_u64()), (0, Some(0)), "{}", ran.stdout);
    assert_eq!(report["sources"][0]["contents"]["waiting"], 20, "{}", ran.stdout);

    // The other half beside the connector, which has no reason of its own to fetch it.
    let mut process = world.start_with("a", &settings);
    process.wait_until("it has listed", PATIENCE, |process| process.stderr().contains("caught up with the present"));
    let (ran, report) = reported(&world, &[&deep[..], &["--repair"]].concat(), &settings);
    assert_eq!((ran.code, report["put_back"].as_u64()), (7, Some(20)), "{}", ran.stdout);
    process.wait_until("all that was lost is published", PATIENCE, |process| {
        metric(process, "o365feed_records_published_total", &[]) >= other.lost.len() as f64
    });
    let (ran, _) = reported(&world, &deep, &settings);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    // A second repair finds nothing to do, and nothing comes twice.
    let (ran, report) = reported(&world, &[&deep[..], &["--repair"]].concat(), &settings);
    assert_eq!((ran.code, &report["put_back"]), (0, &Value::from(0)), "{}", ran.stdout);
    stop(&mut process);
    let topics: Vec<String> =
        world.kinds().map(|kind| format!("{}.{}", other.prefix, kind.as_str().to_lowercase())).collect();
    assert_eq!(read_committed(world.bootstrap(), &topics).len(), other.lost.len());
    // Each was looked at a second time: that the first fetch was the first is not forgotten.
    let ledger = read_committed(world.bootstrap(), &[format!("{}.feed.ledger", other.prefix)]);
    let marks = ledger.iter().filter_map(|message| {
        let entry = Entry::decode(message.value.as_deref().unwrap()).unwrap();
        let EntryKind::Settled(mark) = entry.kind else { return None };
        Some((entry.content_id.to_owned(), mark))
    });
    let last: BTreeMap<String, Mark> = marks.collect();
    assert_eq!(last.len(), 40);
    assert!(last.values().all(|mark| mark.recheck == RecheckState::Grown && mark.records > 30), "{last:?}");
}

/// Nothing was tampered with: the service gave half of each content at first, and nobody asked again.
#[test]
fn records_that_came_into_a_content_after_its_last_fetch_are_found_and_published() {
    let kind = ContentType::SharePoint;
    let fault = |index| ContentFault { content_type: kind, index, damage: Damage::Shorter, times: Some(1) };
    let faults = Faults { contents: (0..20).map(fault).collect(), ..Faults::default() };
    let mut world = World::new(Scenario { faults, ..scenario(vec![(kind, history(20, 20))]) });
    world.set("fetch.recheck", "off");
    let mut process = world.start("a");
    let published = |process: &Process| metric(process, "o365feed_records_published_total", &[]);
    process.wait_until("the first halves are published", PATIENCE, |process| published(process) >= 200.0);
    let args = ["reconcile", "--since", "2h", "--grace", "1s", "--output", "json"];
    let (ran, _) = reported(&world, &args, &[]);
    assert_eq!(ran.code, 0, "the marks are believed: {}", ran.stdout);
    let (ran, report) = reported(&world, &[&args[..], &["--deep", "--repair"]].concat(), &[]);
    assert_eq!((ran.code, missing(&report).len(), &report["put_back"]), (7, 200, &Value::from(20)), "{}", ran.stdout);
    world.complete(&mut [&mut process]);
    let (ran, _) = reported(&world, &[&args[..], &["--deep"]].concat(), &[]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn what_a_killed_connector_left_behind_is_told_apart_to_the_record() {
    let mut scenario =
        scenario(vec![(ContentType::SharePoint, history(60, 20)), (ContentType::Exchange, history(60, 20))]);
    scenario.tenants[0].latency = Duration::from_millis(30);
    let mut world = World::new(scenario);
    world.set("fetch.concurrency", 1);
    let mut process = world.start("a");
    process.wait_until("a part is published", PATIENCE, |process| {
        metric(process, "o365feed_records_published_total", &[]) >= 200.0
    });
    process.kill9();
    let args = ["reconcile", "--since", "2h", "--grace", "1s", "--deep", "--output", "json"];
    let (ran, report) = reported(&world, &args, &[]);
    let count = |verdict: &str| -> u64 {
        report["sources"].as_array().unwrap().iter().map(|source| source["records"][verdict].as_u64().unwrap()).sum()
    };
    println!("{}", report["verdict"]);
    let outputs: Vec<String> = world.kinds().map(|kind| world.output(kind)).collect();
    let published = read_committed(world.bootstrap(), &outputs).len() as u64;
    assert!((200..2_400).contains(&published), "killed in the midst of it: {published}");
    assert_eq!(count("delivered"), published, "{}", ran.stdout);
    assert_eq!(count("waiting") + count("missing"), 2_400 - published, "{}", ran.stdout);
    assert_eq!(count("unknown") + count("gap"), 0, "{}", ran.stdout);

    process.restart();
    world.complete(&mut [&mut process]);
    let (ran, _) = reported(&world, &args, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn what_came_before_the_beginning_is_not_missing() {
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, history(20, 10))]));
    world.set("listing.start_from", world.simulator().now() - Duration::from_secs(1_500));
    let mut process = world.start("a");
    process.wait_until("the later half is published", PATIENCE, |process| {
        metric(process, "o365feed_records_published_total", &[]) >= 100.0
            && process.stderr().contains("caught up with the present")
    });
    let args = ["reconcile", "--since", "2h", "--grace", "1s", "--deep", "--output", "json"];
    let (ran, report) = reported(&world, &args, &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(
        report["notes"][0].as_str().unwrap().contains("10 contents are from before the beginning"),
        "{}",
        ran.stdout
    );
    // The beginning that counts is the first one, as it does for the connector.
    let later = [("listing.start_from", "now".to_owned())];
    let (_, again) = reported(&world, &args, &later);
    assert_eq!(again["sources"], report["sources"]);
    let (ran, report) = reported(&world, &args, &[("listing.start_from", "earliest".to_owned())]);
    assert_eq!((ran.code, missing(&report).len()), (7, 100), "{}", ran.stdout);
    stop(&mut process);
}

#[test]
fn contents_that_nobody_knows_are_found_without_fetching_the_others() {
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, history(20, 30))]));
    world.set("fetch.recheck", "off");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let before: u64 = world.simulator().counts().blob_gets.values().sum();

    let mut contents = BTreeMap::new();
    let other = Copied::of(&world, |entry, ids| {
        let next = contents.len();
        let number = *contents.entry(entry.content_id.to_owned()).or_insert(next);
        let is_lost = !entry.content_id.is_empty() && number % 4 == 0;
        if is_lost {
            ids.clear();
        }
        !is_lost
    });
    let lost: BTreeSet<&String> =
        contents.iter().filter(|(id, number)| !id.is_empty() && **number % 4 == 0).map(|(id, _)| id).collect();
    let settings = [("kafka.topic_prefix", other.prefix.clone())];
    let args = ["reconcile", "--since", "2h", "--grace", "1s", "--output", "json"];
    let (ran, report) = reported(&world, &args, &settings);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert_eq!(missing(&report), other.lost);
    let rows = report["missing"].as_array().unwrap();
    let named: BTreeSet<String> = rows.iter().map(|row| row["content_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named.iter().collect::<BTreeSet<_>>(), lost);
    let after: u64 = world.simulator().counts().blob_gets.values().sum();
    assert_eq!(after - before, lost.len() as u64, "only what nobody knows is fetched");

    // A ledger that was cut cannot say that anything from before is missing.
    cut(&world, &format!("{}.feed.ledger", other.prefix));
    let (ran, report) = reported(&world, &[&args[..], &["--deep"]].concat(), &settings);
    assert_eq!((ran.code, missing(&report).len()), (7, 0), "{}", ran.stdout);
    assert!(report["notes"][0].as_str().unwrap().contains("the ledger begins later than the span"), "{}", ran.stdout);
    assert!(report["verdict"].as_str().unwrap().contains("nobody can tell of"), "{}", ran.stdout);
}

#[test]
fn gaps_are_told_by_name_and_one_that_can_be_had_again_is_closed_by_a_repair() {
    const LIMIT: usize = 128 * 1_024;
    let kind = ContentType::SharePoint;
    let expired = ContentFault { content_type: kind, index: 3, damage: Damage::Expired, times: None };
    let faults = Faults { contents: vec![expired], ..Faults::default() };
    let big = vec![BigArrival { index: 8, records: 2, record_bytes: 2 * LIMIT }];
    let source = SourceScenario { big, ..history(20, 20) };
    let mut world = World::new(Scenario { faults, ..scenario(vec![(kind, source)]) });
    world.set_max_record_bytes(LIMIT);
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    process.wait_until("all gaps are told", PATIENCE, |process| {
        metric(process, "o365feed_gaps_total", &["reason=\"expired\""]) >= 1.0
            && metric(process, "o365feed_gaps_total", &["reason=\"oversize\""]) >= 2.0
    });
    let oversize: BTreeSet<String> = world.verdict().oversize.into_iter().collect();

    let args = ["reconcile", "--since", "2h", "--grace", "1s", "--output", "json"];
    for depth in [&[][..], &["--deep"]] {
        let (ran, report) = reported(&world, &[&args[..], depth].concat(), &[]);
        assert_eq!(ran.code, 7, "{}{}", ran.stdout, ran.stderr);
        assert_eq!(missing(&report).len(), 0, "{}", ran.stdout);
        assert_eq!(reasons(&report), ["expired", "oversize", "oversize"]);
        let rows = report["open_gaps"].as_array().unwrap();
        let records = rows.iter().filter_map(|row| row["record_id"].as_str().map(str::to_owned)).collect();
        assert_eq!(oversize, records);
        let (ran, _) = reported(&world, &[&args[..], depth, &["--allow-gaps"]].concat(), &[]);
        assert_eq!(ran.code, 0, "{}", ran.stdout);
    }
    println!("{}", world.tool(&["reconcile", "--since", "2h", "--grace", "1s"]).stdout);

    // The service has it again: the connector would never ask, because what is expired stays so.
    world.simulator().control().set_faults(Faults::default());
    let (ran, report) = reported(&world, &[&args[..], &["--repair", "--allow-gaps"]].concat(), &[]);
    assert_eq!((ran.code, &report["put_back"]), (0, &Value::from(1)), "{}", ran.stdout);
    world.complete(&mut [&mut process]);
    process.wait_until("the gap is closed", PATIENCE, |_| {
        let (_, report) = reported(&world, &args, &[]);
        reasons(&report) == ["oversize", "oversize"] && report["closed_gaps"] == 1
    });
    stop(&mut process);
    let verdict = world.verdict();
    verdict.is_exactly_once_but_for_gaps();
    let closing: Vec<&Value> = verdict.gaps.iter().filter(|gap| gap["closed"] == true).collect();
    assert_eq!(closing.len(), 1);
    assert_eq!(closing[0]["reason"], "expired");
}

#[test]
fn what_cannot_be_read_is_never_called_delivered() {
    let kind = ContentType::SharePoint;
    let world = World::new(scenario(vec![(kind, history(10, 10))]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let expired = ContentFault { content_type: kind, index: 3, damage: Damage::Expired, times: None };
    let broken = ContentFault { content_type: kind, index: 5, damage: Damage::CutMidRecord, times: None };
    world.simulator().control().set_faults(Faults { contents: vec![expired, broken], ..Faults::default() });
    let args = ["reconcile", "--since", "2h", "--grace", "1s", "--output", "json"];
    let (ran, _) = reported(&world, &args, &[]);
    assert_eq!(ran.code, 0, "nobody asked for the contents: {}", ran.stdout);
    let (ran, report) = reported(&world, &[&args[..], &["--deep"]].concat(), &[]);
    assert_eq!((ran.code, missing(&report).len()), (7, 0), "{}", ran.stdout);
    assert_eq!(report["sources"][0]["contents"]["unknown"], 2, "{}", ran.stdout);
    let why: Vec<&str> =
        report["unreadable"].as_array().unwrap().iter().map(|row| row["why"].as_str().unwrap()).collect();
    assert!(
        why.iter().any(|why| why.contains("AF20051")) && why.iter().any(|why| why.contains("JSON array")),
        "{why:?}"
    );
}

#[test]
fn what_keeps_it_from_comparing_is_said_with_a_code() {
    let world = World::new(scenario(vec![(ContentType::SharePoint, history(10, 10))]));
    let ends = |args: &[&str], settings: &[(&'static str, String)], code: i32, word: &str| {
        let ran = world.tool_with(&[&["reconcile"], args].concat(), settings);
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(word), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    };
    ends(&[], &[], 4, "does not exist");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    ends(&[], &[("kafka.group", format!("{}-other", world.group()))], 4, world.group());
    ends(&[], &[("kafka.partitions", "4".to_owned())], 4, "partitions");
    ends(&[], &[("kafka.bootstrap_servers", nowhere().to_string())], 4, "could not learn from Kafka");
    ends(&["--tenant", "fabrikam"], &[], 2, "no tenant `fabrikam`");
    ends(&["--type", "DLP.All"], &[], 2, "content_types");
    ends(&["--from", "2020-01-01", "--to", "2020-01-02"], &[], 2, "nothing can be listed");
    ends(&["--grace", "0s"], &[], 2, "longer than nothing");
    stop(&mut process);

    let denied = Rule { on: Some(Operation::Content), failure: Failure::Denied, when: When::Always };
    world.simulator().control().set_faults(Faults { rules: vec![denied], ..Faults::default() });
    ends(&[], &[], 3, "could not list contents");
    world.simulator().control().set_faults(Faults::default());

    // What is in a topic and cannot be read is not passed over.
    write_rubbish(&world, &world.topic("feed.listings"));
    assert_eq!(world.tool(&["reconcile"]).code, 0, "the connector passes over it as well");
    write_rubbish(&world, &world.topic("feed.gaps"));
    ends(&[], &[], 4, "read the gap at");
    write_rubbish(&world, &world.topic("feed.ledger"));
    ends(&[], &[], 4, "could not read the ledger entry at");
}

#[test]
fn a_service_that_fails_now_and_then_is_asked_again() {
    let source = SourceScenario { page_size: 5, ..history(20, 10) };
    let world = World::new(scenario(vec![(ContentType::SharePoint, source)]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let rules = [
        (Operation::Content, Failure::Throttled(ThrottleShape::TooManySeconds(1))),
        (Operation::Blob, Failure::Status(503)),
    ];
    let rules = rules.map(|(on, failure)| Rule { on: Some(on), failure, when: When::First(1) });
    world.simulator().control().set_faults(Faults { rules: rules.into(), ..Faults::default() });
    let (ran, report) = reported(&world, &["reconcile", "--since", "2h", "--deep", "--output", "json"], &[]);
    assert_eq!((ran.code, &report["sources"][0]["records"]["delivered"]), (0, &Value::from(200)), "{}", ran.stdout);
    let counts = world.simulator().counts();
    assert_eq!(counts.requests.get(&(Operation::Blob, 503)), Some(&20), "each content failed once");
    assert!(counts.requests.get(&(Operation::Content, 429)).is_some_and(|count| *count >= 4), "and so did each page");
    assert_eq!(counts.impatient, 0);
}

/// Runs the command and reads the JSON it printed.
fn reported(world: &World, args: &[&str], settings: &[(&'static str, String)]) -> (Ran, Value) {
    let ran = world.tool_with(args, settings);
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{args:?}: {}{}", ran.stdout, ran.stderr));
    (ran, report)
}

/// The identities of the records that a report names.
fn missing(report: &Value) -> BTreeSet<String> {
    let rows = report["missing"].as_array().unwrap();
    let named: BTreeSet<String> = rows.iter().map(|row| row["identity"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named.len(), rows.len(), "each is named once");
    named
}

fn reasons(report: &Value) -> Vec<&str> {
    let mut reasons: Vec<&str> =
        report["open_gaps"].as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    reasons
}

/// A world's ledger under another prefix, with something left out; listings and gaps are empty there.
struct Copied {
    prefix: String,
    /// Identities that the copy does not know, in hexadecimal.
    lost: BTreeSet<String>,
}

impl Copied {
    /// `keep` may take ids out of an entry, and says whether there is anything left of it.
    fn of(world: &World, mut keep: impl FnMut(&Entry<'_>, &mut Vec<RecordId>) -> bool) -> Self {
        let prefix = unique("copy");
        let topic = |name: &str| format!("{prefix}.feed.{name}");
        let log = [("message.timestamp.type", "LogAppendTime"), ("segment.ms", "86400000"), ("retention.bytes", "-1")];
        let with = |days: &'static str| [&log[..], &[("retention.ms", days)]].concat();
        let producer: FutureProducer = client(world.bootstrap()).create().unwrap();
        let (mut all, mut kept) = (HashSet::new(), HashSet::new());
        world.runtime().block_on(async {
            let broker = Broker::shared();
            broker.create_topic(&topic("ledger"), 3, &with("1987200000")).await;
            broker.create_topic(&topic("listings"), 3, &with("1814400000")).await;
            broker.create_topic(&topic("gaps"), 1, &[]).await;
        });
        for message in read_committed(world.bootstrap(), &[world.topic("feed.ledger")]) {
            let bytes = message.value.unwrap();
            let entry = Entry::decode(&bytes).unwrap();
            let mut ids = entry.ids.to_vec();
            all.extend(ids.iter().copied());
            if !keep(&entry, &mut ids) {
                continue;
            }
            kept.extend(ids.iter().copied());
            // Where a source began stays as it is.
            assert!(!matches!(entry.kind, EntryKind::Began { .. }) || ids.is_empty());
            let value = Entry { ids: Cow::Owned(ids), ..entry }.encode();
            let (key, ledger) = (message.key.unwrap(), topic("ledger"));
            let record = FutureRecord::to(&ledger).partition(message.partition).key(&key).payload(&value);
            world.runtime().block_on(producer.send(record, Duration::from_secs(30))).unwrap();
        }
        let lost = all.difference(&kept).map(|id| id.0.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        Self { prefix, lost }
    }
}

fn write_rubbish(world: &World, topic: &str) {
    let producer: FutureProducer = client(world.bootstrap()).create().unwrap();
    let record = FutureRecord::to(topic).partition(0).key("rubbish").payload(&[1_u8, 9, 9, 0, b'{']);
    world.runtime().block_on(producer.send(record, Duration::from_secs(30))).unwrap();
}

/// Deletes all that a topic holds.
fn cut(world: &World, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(world.bootstrap()).create().unwrap();
    let mut ends = TopicPartitionList::new();
    for partition in 0..3 {
        ends.add_partition_offset(topic, partition, Offset::End).unwrap();
    }
    world.runtime().block_on(admin.delete_records(&ends, &AdminOptions::new())).unwrap();
}
