//! The reports count what the simulator offered, from the topics and from the API alike.

use std::time::Duration;

use o365feed::{
    domain::ContentType,
    simulator::{ContentFault, Damage, Faults, Layout, Scenario, SourceScenario, SourceTruth},
};
use serde_json::Value;

use crate::world::{PATIENCE, Ran, World, history, live, published, scenario, stop};

/// All samples lie in it, and all that is simulated now.
const ALWAYS: [&str; 4] = ["--from", "2020-01-01", "--to", "2100-01-01"];

#[test]
fn clients_operations_and_users_are_counted_alike_from_kafka_and_from_the_api() {
    let source = |share| SourceScenario {
        samples: true,
        without_id: share,
        page_size: 7,
        layout: Layout::Spaced,
        ..history(12, 15)
    };
    let world = World::new(scenario(vec![
        (ContentType::Exchange, source(0.1)),
        (ContentType::General, source(0.0)),
        (ContentType::Dlp, source(0.2)),
    ]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);

    let truth = world.truth().now();
    let records: Vec<Value> = truth.iter().flat_map(read_as_values).collect();
    let with_time = |record: &&Value| record["CreationTime"].as_str().is_some_and(|time| time.starts_with("20"));
    let with = |member: &str| {
        let present = |record: &&Value| with_time(record) && !record[member].is_null();
        records.iter().filter(present).count() as u64
    };
    let due = records.len() as u64;
    assert!(with("ClientInfoString") >= 5 && due - records.iter().filter(with_time).count() as u64 >= 15);
    for (what, member) in [("clients", "ClientInfoString"), ("operations", "Operation"), ("users", "UserId")] {
        let kafka = report(&world, &[what]);
        let api = report(&world, &[what, "--source", "api"]);
        assert_eq!(kafka["rows"], api["rows"], "{what}");
        for page in [&kafka, &api] {
            let told = &page["records"];
            assert_eq!(told["read"], due, "{what}: each record once");
            assert_eq!(told["counted"], with(member), "{what}");
            assert_eq!(sum(page), with(member), "{what}: the groups hold every record with the field");
            assert_eq!(told["without_time"], due - records.iter().filter(with_time).count() as u64);
        }
    }

    let exchange = ["clients", "--type", "Audit.Exchange", "--by", "client", "--where", "operation in (Send, Update)"];
    let owa = records.iter().filter(|record| record["ClientInfoString"] == "Client=OWA;Action=ViaProxy");
    let owa = owa.filter(|record| record["Operation"] == "Send" || record["Operation"] == "Update").count();
    assert_eq!(report(&world, &exchange)["rows"][0]["count"], owa);

    let raw = ran(&world, &["clients", "--raw", "--output", "json"], 0);
    let rows: Vec<Value> = raw.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len() as u64, with("ClientInfoString"));
    let times: Vec<&str> = rows.iter().map(|row| row["CreationTime"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let table = ran(&world, &["users", "--limit", "1"], 0);
    assert_eq!(table.stdout.lines().count(), 2, "{}", table.stdout);
    assert!(table.stdout.contains("amara.okafor@contoso.example"));
    assert!(table.stderr.contains("without a readable CreationTime") && table.stderr.contains("left out by --limit"));
}

#[test]
fn a_span_is_that_of_the_creation_and_a_report_needs_no_kafka() {
    let world =
        World::on(&crate::world::nowhere().to_string(), scenario(vec![(ContentType::SharePoint, history(60, 10))]));
    let now = world.simulator().now();
    let of = |source: &SourceTruth| read_as_values(source);
    let records: Vec<Value> = world.truth().now().iter().flat_map(of).collect();
    let (from, to) = (now - Duration::from_secs(2_400), now - Duration::from_secs(1_200));
    let within = |record: &&Value| {
        let created = format!("{}Z", record["CreationTime"].as_str().unwrap());
        (from..to).contains(&created.parse().unwrap())
    };
    let expected = records.iter().filter(within).count() as u64;
    assert!(expected > 50 && expected < 400, "{expected}");
    let (from, to) = (from.to_string(), to.to_string());
    let args = ["report", "operations", "--source", "api", "--output", "json", "--from", &from, "--to", &to];
    let ran = world.tool(&args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let page: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(page["records"]["counted"], expected);
    assert_eq!(page["rows"][0]["record_type_name"], "SharePointFileOperation");

    let never = ["--from", "9999-12-30T21:00", "--to", "9999-12-30T21:30"];
    let none = world.tool(&[&["report", "users", "--source", "api", "--output", "json"], &never[..]].concat());
    assert_eq!(none.code, 0, "{}", none.stderr);
    assert_eq!(serde_json::from_str::<Value>(&none.stdout).unwrap()["records"]["read"], 0);

    let refused = world.tool(&["report", "operations"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("did not answer"), "{}", refused.stderr);
}

#[test]
fn with_timestamps_of_the_creation_a_span_is_as_whole_as_ever() {
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, history(60, 10))]));
    world.set("kafka.timestamp", "created");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let now = world.simulator().now();
    let (from, to) = (now - Duration::from_secs(2_400), now - Duration::from_secs(1_200));
    let counted = |source: &str| {
        let span = ["--from", &from.to_string(), "--to", &to.to_string(), "--source", source, "--output", "json"];
        let ran = world.tool(&[&["report", "users"], &span[..]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let page: Value = serde_json::from_str(&ran.stdout).unwrap();
        page["records"]["counted"].as_u64().unwrap()
    };
    assert!(counted("kafka") > 50);
    assert_eq!(counted("kafka"), counted("api"));
    let delay = ran(&world, &["delay"], 0);
    assert!(delay.stderr.contains("only `available`"), "{}", delay.stderr);
    assert_eq!(delay.stdout.lines().count(), 2, "{}", delay.stdout);
}

#[test]
fn what_is_routed_is_read_where_it_went() {
    let mut world =
        World::new(scenario(vec![(ContentType::SharePoint, history(6, 10)), (ContentType::Exchange, history(6, 10))]));
    world.write("filter:\n  route:\n    \"{prefix}.mail\": workload = exchange\n");
    let mut process = world.start("a");
    process.wait_until("all is published", PATIENCE, |process| published(process) == 120.0);
    stop(&mut process);
    let page = report(&world, &["operations", "--tenant", "contoso"]);
    assert_eq!((sum(&page), page["rows"].as_array().unwrap().len()), (120, 2), "{page}");
    assert_eq!(report(&world, &["delay"])["records"]["counted"], 120);
    assert_eq!(world.tool(&["tail", "--no-follow", "--where", "workload = exchange"]).stdout.lines().count(), 60);
    // Of the routed ones nobody can tell the content type.
    let typed = ran(&world, &["users", "--type", "Audit.Exchange"], 0);
    assert!(typed.stderr.contains("filter.route") && typed.stderr.contains("0 counted"), "{}", typed.stderr);
}

#[test]
fn a_content_that_cannot_be_had_is_told_and_the_rest_reported() {
    let fault = ContentFault { content_type: ContentType::Exchange, index: 3, damage: Damage::Expired, times: None };
    let faults = Faults { contents: vec![fault], ..Faults::default() };
    let world = World::new(Scenario { faults, ..scenario(vec![(ContentType::Exchange, history(6, 10))]) });
    let ran = ran(&world, &["users", "--source", "api", "--output", "json"], 7);
    let page: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&page["records"]["read"], &page["records"]["unfetched"]), (&50.into(), &1.into()));
    assert!(ran.stderr.contains("lacks 1 content that"), "{}", ran.stderr);
}

#[test]
fn delays_are_those_of_the_simulation() {
    let source = SourceScenario { live: live(60.0, 5), ..history(40, 10) };
    let world = World::new(scenario(vec![(ContentType::SharePoint, source)]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);

    let page = report(&world, &["delay"]);
    let leg = |name: &str| page["rows"].as_array().unwrap().iter().find(|row| row["leg"] == name).unwrap().clone();
    let (available, published, total) = (leg("available"), leg("published"), leg("total"));
    assert_eq!((&available["count"], &total["count"]), (&page["records"]["read"], &page["records"]["read"]));
    let seconds = |row: &Value, name: &str| row[name].as_u64().unwrap();
    // A simulated event lies five minutes before its content, give or take the seconds of a minute.
    for name in ["p50_seconds", "p90_seconds", "p99_seconds", "max_seconds"] {
        assert!((240..=366).contains(&seconds(&available, name)), "{available}");
    }
    // The oldest content of the history was there for fifty minutes before anybody came.
    let oldest = seconds(&published, "max_seconds");
    assert!((2_700..7_200).contains(&oldest), "{published}");
    assert!(seconds(&published, "p50_seconds") <= oldest && seconds(&total, "max_seconds") > oldest + 200, "{total}");

    let api = report(&world, &["delay", "--source", "api"]);
    assert_eq!(api["rows"].as_array().unwrap().len(), 1, "only until it was available: {api}");
    assert_eq!(api["rows"][0]["leg"], "available");
}

/// The report as JSON over all times.
fn report(world: &World, args: &[&str]) -> Value {
    let ran = ran(world, &[args, &["--output", "json"]].concat(), 0);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|fault| panic!("{fault}: {}", ran.stdout))
}

fn ran(world: &World, args: &[&str], code: i32) -> Ran {
    let ran = world.tool(&[&["report"], args, &ALWAYS].concat());
    assert_eq!(ran.code, code, "{}", ran.stderr);
    ran
}

fn sum(page: &Value) -> u64 {
    page["rows"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum()
}

/// What is no JSON for this reader (numbers beyond f64, lone surrogates) is read as far as the reports look at it.
fn read_as_values(source: &SourceTruth) -> Vec<Value> {
    let read = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace("1e400", "1").replace("\\ud83d", "");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    };
    source.due.iter().map(|record| read(&record.variants()[0])).collect()
}
