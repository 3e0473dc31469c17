//! `tail` shows what is committed, all of it and nothing else.

use std::{collections::BTreeMap, time::Duration};

use o365feed::{
    domain::ContentType,
    simulator::{Layout, SourceScenario},
};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use serde_json::Value;

use crate::{
    broker::{Broker, client},
    process::Process,
    reader::read_committed,
    scratch::unique,
    world::{PATIENCE, World, history, live, scenario, stop},
};

#[test]
fn everything_that_is_committed_is_shown_and_with_where_what_it_means() {
    let source = SourceScenario { samples: true, layout: Layout::Spaced, without_id: 0.1, ..history(10, 20) };
    let world = World::new(scenario(vec![(ContentType::Exchange, source.clone()), (ContentType::General, source)]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let topics = [ContentType::Exchange, ContentType::General].map(|kind| world.output(kind));
    abort_some(&world, &topics[0]);

    let committed = read_committed(world.bootstrap(), &topics);
    let told = world.tool(&["tail", "--no-follow", "--output", "json"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    // The samples hold numbers and surrogates that this reader refuses: the place is enough to know a record by.
    let place = |line: &str| {
        let field =
            |name: &str| line.split_once(&format!("\"{name}\":")).unwrap().1.split(',').next().unwrap().to_owned();
        (
            field("topic").trim_matches('"').to_owned(),
            field("partition").parse::<i32>().unwrap(),
            field("offset").parse::<i64>().unwrap(),
        )
    };
    let mut places: Vec<_> = told.stdout.lines().map(place).collect();
    places.sort();
    let expected: Vec<_> = committed.iter().map(|m| (m.topic.clone(), m.partition, m.offset)).collect();
    assert_eq!(places, expected);

    let raw = world.tool(&["tail", "--no-follow", "--raw"]);
    let mut lines: Vec<&str> = raw.stdout.lines().collect();
    let mut values: Vec<String> = committed
        .iter()
        .map(|m| String::from_utf8(m.value.clone().unwrap()).unwrap().replace(['\n', '\r'], " "))
        .collect();
    lines.sort_unstable();
    values.sort_unstable();
    assert_eq!(lines, values, "each record is a line, byte for byte");

    let meant = ["tail", "--no-follow", "--raw", "--where", "content_type = Audit.Exchange and operation = Send"];
    let sent = committed.iter().filter(|m| m.topic == topics[0] && header(m, "operation") == Some("Send")).count();
    assert!(sent > 0);
    assert_eq!(world.tool(&meant).stdout.lines().count(), sent);
    let typed = world.tool(&["tail", "--no-follow", "--type", "Audit.General", "-n", "7"]);
    assert_eq!(typed.stdout.lines().count(), 7, "{}", typed.stdout);
    assert!(typed.stdout.contains("General    ") && !typed.stdout.contains('\u{1b}'), "{}", typed.stdout);
    // Somebody who is there: what the records say by themselves, told without the program.
    let told =
        |record: &str| record.split_once("\"UserId\":\"").map(|(_, rest)| rest.split('"').next().unwrap().to_owned());
    let users: Vec<String> =
        raw.stdout.lines().filter_map(told).filter(|user| user.is_ascii() && !user.contains(['\\', '*'])).collect();
    let of_user = |user: &str| {
        world.tool(&["tail", "--no-follow", "--raw", "--tenant", "contoso", "--where", &format!("user = \"{user}\"")])
    };
    let seen = of_user(&users[0]);
    let expected = users.iter().filter(|user| **user == users[0]).count();
    assert_eq!((seen.code, seen.stdout.lines().count()), (0, expected), "{}: {}", users[0], seen.stderr);
    assert_eq!(of_user("nobody").stdout, "", "he is in an aborted transaction only");
}

#[test]
fn a_tail_that_was_there_before_sees_every_record_as_it_comes() {
    let kind = ContentType::SharePoint;
    let source = SourceScenario { live: live(120.0, 5), ..history(4, 10) };
    let world = World::new(scenario(vec![(kind, source)]));
    let missing = world.tool(&["tail"]);
    assert_eq!(missing.code, 4, "{}", missing.stderr);
    assert!(missing.stderr.contains(&format!("`{}`: it does not exist", world.output(kind))), "{}", missing.stderr);
    let size = [("max.message.bytes", "8388608")];
    world.runtime().block_on(Broker::shared().create_topic(&world.output(kind), 3, &size));

    let mut tail = world.command(&["tail", "--output", "json"]);
    // It has begun when it shows what is sent after it has.
    let producer: FutureProducer = client(world.bootstrap()).create().unwrap();
    let topic = world.output(kind);
    tail.wait_until("it shows a record", PATIENCE, |tail| {
        let record = FutureRecord::<(), _>::to(&topic).payload(r#"{"Operation":"Hello"}"#);
        world.runtime().block_on(producer.send(record, PATIENCE)).unwrap();
        tail.stdout().contains("Hello")
    });
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let published = || by_value(&world, kind);
    let shown = |tail: &Process| {
        let lines = tail.stdout();
        let lines = lines.lines().filter(|line| !line.contains("Hello"));
        let values = lines.map(|line| serde_json::from_str::<Value>(line).map(|told| told["record"]["Id"].to_string()));
        counted(values.filter_map(Result::ok))
    };
    let expected = published();
    tail.wait_until("all is shown", PATIENCE, |tail| shown(tail) == expected);
    assert!(expected.values().all(|times| *times == 1));
    tail.sigterm();
    assert_eq!(tail.wait_exit(PATIENCE), 0, "{}", tail.stderr());
}

#[test]
fn it_ends_in_good_order_when_interrupted_and_when_nobody_reads_on() {
    let kind = ContentType::Exchange;
    let world = World::new(scenario(vec![(kind, history(10, 50))]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);

    let mut tail = world.command(&["tail", "--since", "10m"]);
    tail.wait_until("it shows what is there", PATIENCE, |tail| tail.stdout().lines().count() == 500);
    tail.interrupt();
    assert_eq!(tail.wait_exit(PATIENCE), 0, "{}", tail.stderr());

    let piped = world.piped(&["tail", "--no-follow", "--raw"], "head -n 3");
    assert_eq!((piped.code, piped.stdout.lines().count()), (0, 3), "{}", piped.stderr);
}

fn abort_some(world: &World, topic: &str) {
    let mut config = client(world.bootstrap());
    let producer: FutureProducer = config.set("transactional.id", unique("aborter")).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let record = FutureRecord::<(), _>::to(topic).payload(r#"{"Operation":"Send","UserId":"nobody"}"#);
    world.runtime().block_on(producer.send(record, Duration::from_secs(30))).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
}

fn header<'a>(message: &'a crate::reader::Message, name: &str) -> Option<&'a str> {
    let found = message.headers.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(found.1.as_deref()?).ok()
}

/// How often each `Id` is in the topic.
fn by_value(world: &World, kind: ContentType) -> BTreeMap<String, u32> {
    let values = read_committed(world.bootstrap(), &[world.output(kind)]).into_iter();
    let values = values.map(|m| serde_json::from_slice::<Value>(m.value.as_deref().unwrap()).unwrap());
    counted(values.filter(|value| value["Operation"] != "Hello").map(|value| value["Id"].to_string()))
}

fn counted(values: impl Iterator<Item = String>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts
}
