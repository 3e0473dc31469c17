//! What `content list` and `content get` give is what the service offers, all of it and nothing else.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    time::Duration,
};

use o365feed::{
    domain::{ContentType, RecordId},
    simulator::{
        ContentFault, Damage, Duplicates, Failure, Faults, History, IdModel, Layout, Operation, Rule, Scenario,
        SourceScenario, ThrottleShape, When,
    },
};
use serde_json::Value;

use crate::{
    scratch::Scratch,
    world::{PATIENCE, Ran, World, history, nowhere, scenario},
};

/// Contents of a day, on several pages an hour.
fn a_day() -> SourceScenario {
    let history = History { arrivals: 150, span: Duration::from_secs(20 * 3_600), records: 4 };
    SourceScenario { history, page_size: 3, ..SourceScenario::default() }
}

/// A world without Kafka: these commands need none.
fn world(scenario: Scenario) -> World {
    World::on(&nowhere().to_string(), scenario)
}

fn json(ran: &Ran) -> Vec<Value> {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|fault| panic!("{fault}: {}\n{}", ran.stdout, ran.stderr))
}

fn text<'a>(item: &'a Value, member: &str) -> &'a str {
    item[member].as_str().unwrap()
}

#[test]
fn a_span_is_listed_in_windows_and_pages_and_each_content_once() {
    let growing = SourceScenario { id_model: IdModel::Growing { arrivals: 8 }, ..a_day() };
    let world = world(scenario(vec![(ContentType::SharePoint, a_day()), (ContentType::Exchange, growing)]));
    let ran = world.tool(&["content", "list", "--since", "24h", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let items = json(&ran);
    let of = |kind: &str| items.iter().filter(|item| item["content_type"] == kind).count();
    assert_eq!(of("Audit.SharePoint"), 150);
    // Of 150 arrivals eight make a content.
    assert_eq!(of("Audit.Exchange"), 19);
    let ids: HashSet<&str> = items.iter().map(|item| text(item, "content_id")).collect();
    assert_eq!(ids.len(), items.len(), "a content is there twice");
    let counts = world.simulator().counts();
    assert!(counts.of(Operation::Content) > 2 * 24 + 25, "no windows, or no pages");
    assert!(ran.stderr.contains(&format!("{} contents of 2 sources", items.len())), "{}", ran.stderr);

    let table = world.tool(&["content", "list", "--since", "24h", "--type", "audit.sharepoint", "--tenant", "contoso"]);
    assert_eq!(table.code, 0, "{}", table.stderr);
    let rows: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(rows.len(), 151);
    let columns: Vec<&str> = rows[1].split_whitespace().collect();
    assert_eq!(
        (rows[0].split_whitespace().next(), columns[..2].to_vec()),
        (Some("TENANT"), vec!["contoso", "Audit.SharePoint"])
    );
    assert!(ids.contains(columns[4]), "{}", rows[1]);
    // A part of the span has a part of the contents.
    let half =
        json(&world.tool(&["content", "list", "--since", "10h", "--type", "Audit.SharePoint", "--output", "json"]));
    assert!((50..100).contains(&half.len()), "{}", half.len());
}

#[test]
fn what_cannot_be_listed_is_refused_with_what_can() {
    let mut world = world(scenario(vec![(ContentType::SharePoint, history(3, 1))]));
    for (args, said) in [
        (&["--since", "8d"][..], "the last 7 days"),
        (&["--from", "2020-01-01", "--to", "2020-01-02"], "the last 7 days"),
        (&["--from", "2200-01-01", "--to", "2200-01-02"], "until now"),
        (&["--from", "9999-12-30T21:00", "--to", "9999-12-30T21:30"], "until now"),
        (&["--since", "7304484d"], "the last 7 days"),
        (&["--since", "1h", "--tenant", "fabrikam"], "they have contoso"),
        (&["--since", "1h", "--into", "x"], "--blobs"),
    ] {
        let ran = world.tool(&[&["content", "list"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(world.simulator().counts().of(Operation::Content), 0);
    // Seven days are what one asks for; the last hour of them cannot be had.
    let week = world.tool(&["content", "list", "--since", "7d", "--output", "json"]);
    assert_eq!((week.code, json(&week).len()), (0, 3), "{}", week.stderr);
    assert!(week.stderr.contains("relied on"), "{}", week.stderr);

    world.set("tenants[0].content_types", "Audit.SharePoint,DLP.All");
    let part = world.tool(&["content", "list", "--since", "6h", "--output", "json"]);
    assert_eq!(json(&part).len(), 3, "the other type is listed all the same");
    assert_eq!(part.code, 7);
    assert!(
        part.stderr.contains("contoso, DLP.All: could not list contents") && part.stderr.contains("1 of 2 sources"),
        "{}",
        part.stderr
    );
}

#[test]
fn records_are_brought_as_lines_equal_to_what_was_offered() {
    let source = SourceScenario {
        id_model: IdModel::Growing { arrivals: 8 },
        duplicates: Duplicates { share: 0.2, reordered: true },
        without_id: 0.2,
        ..a_day()
    };
    let spread = SourceScenario { layout: Layout::Spaced, ..history(20, 5) };
    // Some break off, in the middle of what is printed already.
    let damages = [Damage::Reset, Damage::Truncated, Damage::CutMidRecord];
    let fault = |index: u64| ContentFault {
        content_type: ContentType::General,
        index,
        damage: damages[index as usize % 3],
        times: Some(1),
    };
    let faults = Faults { contents: (0..6).map(fault).collect(), ..Faults::default() };
    let world =
        world(Scenario { faults, ..scenario(vec![(ContentType::Exchange, source), (ContentType::General, spread)]) });
    let ran = world.tool(&["content", "list", "--since", "24h", "--blobs", "--concurrency", "4"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (mut due, mut hashes) = (0, HashSet::new());
    for record in world.truth().now().iter().flat_map(|truth| &truth.due) {
        (due, _) = (due + 1, hashes.extend(record.hashes()));
    }
    let hash = |line: &str| o365feed::simulator::half_hash(line.as_bytes());
    let unknown = ran.stdout.lines().find(|line| !hashes.contains(&hash(line)));
    assert_eq!(unknown, None, "a line is no record");
    let there: HashSet<RecordId> = ran.stdout.lines().filter_map(id).collect();
    let due_ids: HashSet<RecordId> = world
        .truth()
        .now()
        .iter()
        .flat_map(|truth| &truth.due)
        .filter_map(|record| Some(RecordId::of_text(&record.key()?)))
        .collect();
    assert!(due_ids == there, "{} of {} ids are there", there.len(), due_ids.len());
    assert!(due <= ran.stdout.lines().count());
    // Of the contents that broke off, which repeat nothing themselves, no line came twice.
    let general =
        world.truth().now().into_iter().find(|truth| truth.source.content_type == ContentType::General).unwrap();
    let general: HashSet<RecordId> = general.due.iter().map(|record| record.identity).collect();
    let lines = ran.stdout.lines().filter(|line| id(line).is_some_and(|id| general.contains(&id))).count();
    assert_eq!((general.len(), lines), (100, 100));
}

fn id(line: &str) -> Option<RecordId> {
    serde_json::from_str::<Value>(line).ok()?["Id"].as_str().map(RecordId::of_text)
}

/// The files of a folder and what is in them.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries =
        fs::read_dir(folder).map(|entries| entries.map(Result::unwrap).collect::<Vec<_>>()).unwrap_or_default();
    entries
        .iter()
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap_or_default()))
        .collect()
}

#[test]
fn a_folder_is_filled_file_by_file_and_a_second_run_goes_on() {
    let mut scenario = scenario(vec![(ContentType::SharePoint, SourceScenario { samples: true, ..history(60, 20) })]);
    scenario.tenants[0].latency = Duration::from_millis(100);
    let world = world(scenario);
    let scratch = Scratch::new("blobs");
    let folder = scratch.path().join("deep").join("er");
    let args =
        ["content", "list", "--since", "6h", "--blobs", "--concurrency", "2", "--into", folder.to_str().unwrap()];
    let complete =
        |folder: &Path| files(folder).into_keys().filter(|name| name.ends_with(".ndjson")).collect::<Vec<_>>();
    let mut first = world.command(&args);
    first.wait_until("some are there", PATIENCE, |_| complete(&folder).len() > 10);
    first.kill9();
    let before = files(&folder);
    let done = complete(&folder).len();
    assert!(done < 60, "it was killed too late");
    let gets = world.simulator().counts().blob_gets;

    let ran = world.tool(&args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("; {done} were there already")), "{}", ran.stderr);
    let after = files(&folder);
    assert_eq!(after.len(), 60, "{:?}", after.keys());
    for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with(".ndjson")) {
        assert!(after[name] == *bytes, "{name} was complete and has changed");
    }
    let again = world.simulator().counts().blob_gets.iter().filter(|(id, count)| gets.get(*id) < Some(count)).count();
    assert!(again <= 60 - done, "{again} fetched after {done} were complete");
    // Every record is there, with its bytes, and every line is one.
    let mut lines: HashSet<Vec<u8>> = HashSet::new();
    for bytes in after.values() {
        assert_eq!(bytes.last(), Some(&b'\n'));
        lines.extend(bytes[..bytes.len() - 1].split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    let truth = world.truth().now();
    let mut known: HashSet<Vec<u8>> = HashSet::new();
    for record in truth.iter().flat_map(|truth| &truth.due) {
        let variants = record.variants();
        assert!(variants.iter().any(|bytes| lines.contains(bytes)), "{record:?} is missing");
        known.extend(variants);
    }
    assert!(lines.is_subset(&known), "a line is no record");
}

#[test]
fn no_more_contents_than_asked_for_are_brought_at_once_and_a_pipe_sees_no_bar() {
    let mut scenario = scenario(vec![(ContentType::Exchange, history(20, 5))]);
    scenario.tenants[0].latency = Duration::from_millis(50);
    let world = world(scenario);
    let scratch = Scratch::new("two-at-once");
    let into = scratch.path().to_str().unwrap();
    let args = ["content", "list", "--since", "6h", "--blobs", "--concurrency", "2", "--into", into];
    let ran = world.tool(&args);
    assert_eq!((ran.code, ran.stderr.trim()), (0, "100 records of 20 contents"));
    assert!(!ran.stderr.contains(['\u{1b}', '\r', '█']), "{}", ran.stderr);
    // The one listing is over before the first content is asked for.
    assert_eq!(world.simulator().counts().concurrent_max, 2);
}

#[test]
fn a_service_that_fails_and_throttles_costs_patience_only() {
    let rule = |failure, rate| Rule { on: None, failure, when: When::Rate(rate) };
    let rules = vec![
        rule(Failure::Status(503), 0.1),
        rule(Failure::Reset, 0.1),
        rule(Failure::Throttled(ThrottleShape::TooManySeconds(1)), 0.03),
    ];
    let faults = Faults { rules, ..Faults::default() };
    let world = world(Scenario { faults, ..scenario(vec![(ContentType::Exchange, history(60, 10))]) });
    let ran = world.tool(&["content", "list", "--since", "2h", "--blobs"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ids: Vec<RecordId> = ran.stdout.lines().filter_map(id).collect();
    let different: HashSet<&RecordId> = ids.iter().collect();
    assert_eq!((ids.len(), different.len()), (600, 600));
    let counts = world.simulator().counts();
    assert_eq!((counts.impatient, counts.missing_publisher), (0, 0));
    let failed: u64 = counts.requests.iter().filter(|((_, status), _)| 400 <= *status).map(|(_, count)| count).sum();
    assert!(0 < failed);
}

#[test]
fn contents_that_are_all_refused_are_for_a_person() {
    let world = world(scenario(vec![(ContentType::General, history(3, 7))]));
    let items = json(&world.tool(&["content", "list", "--since", "6h", "--output", "json"]));
    let ids: Vec<&str> = items.iter().map(|item| text(item, "content_id")).collect();
    let refused = Rule { on: Some(Operation::Blob), failure: Failure::Code(10001), when: When::Always };
    world.simulator().control().set_faults(Faults { rules: vec![refused], ..Faults::default() });
    for args in [&[&["content", "get"], &ids[..]].concat()[..], &["content", "list", "--since", "6h", "--blobs"]] {
        let ran = world.tool(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("AF10001") && ran.stderr.contains("3 contents"), "{}", ran.stderr);
    }
}

#[test]
fn contents_are_brought_by_id_or_uri_and_never_from_elsewhere() {
    let faults = Faults {
        contents: [(0, Damage::Missing), (1, Damage::Expired), (2, Damage::InvalidId)]
            .map(|(index, damage)| ContentFault { content_type: ContentType::General, index, damage, times: None })
            .into(),
        ..Faults::default()
    };
    let world = world(Scenario { faults, ..scenario(vec![(ContentType::General, history(6, 7))]) });
    let mut items = json(&world.tool(&["content", "list", "--since", "6h", "--output", "json"]));
    items.sort_by_key(|item| text(item, "created").to_owned());
    let (id, uri) = (text(&items[3], "content_id"), text(&items[4], "content_uri"));
    // An id that is named again, or by its uri, is the same content.
    let ran = world.tool(&["content", "get", id, uri, id, text(&items[3], "content_uri")]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 14), "{}", ran.stderr);
    assert!(ran.stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));

    let asked = world.simulator().counts().blob_gets.len();
    let tokens = world.simulator().counts().tokens;
    let root = world.simulator().api_root();
    let elsewhere = nowhere();
    for wrong in [
        format!("http://{elsewhere}/api/v1.0/t/activity/feed/audit/{id}"),
        format!("https://manage.office.com/api/v1.0/t/activity/feed/audit/{id}"),
        format!("{root}elsewhere/{id}"),
        "not/an/id".to_owned(),
    ] {
        // A good one beside it is not fetched either.
        let ran = world.tool(&["content", "get", id, &wrong]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{wrong}: {}", ran.stderr);
    }
    let counts = world.simulator().counts();
    assert_eq!((counts.blob_gets.len(), counts.tokens, counts.tokens_on_unknown_paths), (asked, tokens, 0));

    let ids: Vec<&str> = items.iter().map(|item| text(item, "content_id")).collect();
    let ran = world.tool(&[&["content", "get"], &ids[..]].concat());
    assert_eq!((ran.code, ran.stdout.lines().count()), (7, 21), "{}", ran.stderr);
    for (id, said) in ids.iter().zip(["AF20050", "AF20051", "AF20052"]) {
        let line = ran.stderr.lines().find(|line| line.contains(id)).unwrap();
        assert!(line.contains(said), "{line}");
    }
    assert!(ran.stderr.contains("3 contents could not be brought") && ran.stderr.contains("expired"), "{}", ran.stderr);
}
