//! That the pieces do what the other tests trust them to do. A harness that cannot fail proves nothing.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use futures_util::future::try_join_all;
use o365feed::{domain::ContentType, simulator::SourceScenario};
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};

use crate::{
    broker::{Broker, Options, client},
    leash::Leash,
    process::{Launch, Process},
    reader::{Message, Unread, for_each_committed, read_committed, read_uncommitted},
    scratch::{Scratch, unique},
    wait,
    world::{World, history, scenario},
};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_are_hidden_from_read_committed_only() {
    let broker = Broker::shared();
    let topics = [unique("aborted")];
    broker.create_topic(&topics[0], 3, &[]).await;
    let producer = transactional(broker);
    write(&producer, &topics[0], 0, &["a", "b"]).await;
    producer.commit_transaction(PATIENCE).unwrap();
    write(&producer, &topics[0], 0, &["dropped"]).await;
    write_more(&producer, &topics[0], 1, &["dropped too"]).await; // a partition with nothing to see in it
    producer.abort_transaction(PATIENCE).unwrap();

    assert_eq!(values(&read_committed(broker.bootstrap(), &topics)), ["a", "b"]);
    assert_eq!(values(&read_uncommitted(broker.bootstrap(), &topics)), ["a", "b", "dropped", "dropped too"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_waited_for() {
    let broker = Broker::shared();
    let topics = [unique("open")];
    broker.create_topic(&topics[0], 1, &[]).await;
    let producer = transactional(broker);
    write(&producer, &topics[0], 0, &["undecided"]).await;
    assert_eq!(values(&read_uncommitted(broker.bootstrap(), &topics)), ["undecided"]);

    let unread = Unread::ask(broker.bootstrap(), &topics);
    producer.commit_transaction(PATIENCE).unwrap();
    let mut seen = Vec::new();
    unread.read("read_committed", |message| seen.push(message.into()));
    assert_eq!(values(&seen), ["undecided"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_read_as_it_was_written() {
    let broker = Broker::shared();
    let topics = [unique("whole")];
    broker.create_topic(&topics[0], 2, &[]).await;
    let producer: FutureProducer = client(broker.bootstrap()).create().unwrap();
    let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some("v") });
    let record = FutureRecord::to(&topics[0]).partition(1).key("k").payload(b"\xff\0".as_slice());
    producer.send(record.headers(headers).timestamp(1_700_000_000_123), PATIENCE).await.unwrap();

    let expected = Message {
        topic: topics[0].clone(),
        partition: 1,
        offset: 0,
        key: Some(b"k".to_vec()),
        value: Some(b"\xff\0".to_vec()),
        headers: vec![("h".to_owned(), Some(b"v".to_vec()))],
        timestamp_ms: Some(1_700_000_000_123),
    };
    assert_eq!(read_committed(broker.bootstrap(), &topics), [expected]);
    let mut count = 0;
    for_each_committed(broker.bootstrap(), &topics, |_| count += 1);
    assert_eq!(count, 1);
}

#[test]
fn a_verdict_finds_what_is_missing_what_is_there_twice_and_what_is_wrong() {
    let kind = ContentType::SharePoint;
    let source = SourceScenario { samples: true, without_id: 0.3, ..history(4, 10) };
    let world = World::new(scenario(vec![(kind, source)]));
    let topic = world.output(kind);
    let due = world.truth().now().into_iter().find(|truth| truth.source.content_type == kind).unwrap().due;
    let named = due.iter().position(|record| record.key().is_some()).unwrap();
    let producer: FutureProducer = client(world.bootstrap()).create().unwrap();
    let send = async |key: Option<String>, value: &[u8]| {
        let record = FutureRecord::to(&topic).payload(value);
        let record = match &key {
            Some(key) => record.key(key),
            None => record,
        };
        producer.send(record, PATIENCE).await.unwrap();
    };
    let runtime = world.runtime();
    runtime.block_on(async {
        let broker = Broker::shared();
        broker.create_topic(&world.topic("feed.gaps"), 1, &[]).await;
        broker.create_topic(&topic, 3, &[("max.message.bytes", "8388608")]).await;
        for (_, record) in due.iter().enumerate().filter(|(at, _)| *at != named) {
            send(record.key(), &record.variants()[0]).await;
        }
    });
    let faults = || {
        let verdict = world.verdict();
        (verdict.missing.len(), verdict.twice.len(), verdict.wrong.len())
    };
    assert_eq!(faults(), (1, 0, 0));
    runtime.block_on(send(due[named].key(), &due[named].variants()[0]));
    assert_eq!(faults(), (0, 0, 0));
    world.verdict().is_exactly_once();
    runtime.block_on(send(due[named].key(), &due[named].variants()[0]));
    assert_eq!(faults(), (0, 1, 0));
    runtime.block_on(send(due[named].key(), b"{}"));
    assert_eq!(faults(), (0, 2, 1), "known by its key, with other bytes");
    runtime.block_on(send(None, b"{}"));
    assert_eq!(faults(), (0, 2, 2), "one more record without an Id than was offered");
}

#[test]
#[should_panic(expected = "could not ask for the ends of")]
fn reading_a_topic_that_does_not_exist_is_a_failure() {
    read_committed(Broker::shared().bootstrap(), &[unique("nowhere")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_ones_own_keeps_its_data_over_stop_and_kill() {
    let options = Options { properties: vec![("num.partitions", "4".to_owned())], ..Options::default() };
    let mut broker = Broker::own(options);
    let (bootstrap, topics) = (broker.bootstrap().to_owned(), [unique("kept")]);
    broker.create_topic(&topics[0], -1, &[("max.message.bytes", "2000000")]).await;
    let producer = transactional(&broker);
    write(&producer, &topics[0], 3, &["before the stop"]).await; // the fourth partition: the option was obeyed
    producer.commit_transaction(PATIENCE).unwrap();

    broker.stop();
    broker.start();
    assert_eq!(bootstrap, broker.bootstrap());
    write(&producer, &topics[0], 3, &["before the kill"]).await;
    producer.commit_transaction(PATIENCE).unwrap();
    broker.kill();
    broker.start();
    broker.pause();
    broker.resume();
    assert_eq!(values(&read_committed(&bootstrap, &topics)), ["before the stop", "before the kill"]);
}

#[test]
fn a_child_and_its_files_are_gone_when_the_leash_is() {
    let files = Scratch::new("leash");
    let log = files.path().join("log");
    let leash = Leash::tie(Leash::command("sleep", files.path(), &log, &log).arg("600"));
    let proc = format!("/proc/{}", leash.pid());
    assert!(Path::new(&proc).exists());
    drop(leash);
    assert!(!Path::new(&proc).exists());
    assert!(!files.path().exists());
}

#[test]
fn a_child_dies_with_a_test_process_that_is_killed() {
    // This test stands in for the killed one: it runs a shell that holds the keeper's pipe, and kills that shell.
    let files = Scratch::new("orphan");
    let log = files.path().join("log");
    let keeper = Leash::command("sleep", files.path(), &log, &log);
    let mut holder = Command::new("sh");
    holder.args(["-c", r#"mkfifo "$0"; "$@" <"$0" & exec 9>"$0"; wait"#]).arg(files.path().join("line"));
    holder.arg(keeper.get_program()).args(keeper.get_args()).arg("600").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut holder = holder.spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let proc = Path::new("/proc").join(pid.trim());
    assert!(proc.exists());
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait::until("the orphan is gone", PATIENCE, || !proc.exists());
    wait::until("its files are gone", PATIENCE, || !files.path().exists());
}

#[test]
fn the_binary_runs_and_its_exit_code_is_told() {
    let mut process = Process::start(Launch::o365feed(["--help"]), "");
    assert_eq!(process.wait_exit(PATIENCE), 0, "{}", process.stderr());
}

#[test]
fn a_process_is_signalled_measured_and_started_again() {
    let script = r#"cat o365feed.yaml; echo "$GREETING" >&2; trap 'exit 7' TERM; while :; do sleep 0.01; done"#;
    let mut process = Process::start(shell(script).env("GREETING", "hello"), "tenants: []\n");
    process.wait_until("it greets", PATIENCE, |process| process.stderr() == "hello\n");
    assert_eq!(process.stdout(), "tenants: []\n");
    assert!(process.rss_peak_bytes() > 100_000);
    process.wait_until("it has used the processor", PATIENCE, |process| process.cpu_seconds() > 0.0);
    process.sigstop();
    process.wait_until("it has stopped", PATIENCE, Process::is_stopped);
    process.sigcont();
    process.wait_until("it goes on", PATIENCE, |process| !process.is_stopped());
    process.sigterm();
    assert_eq!(process.wait_exit(PATIENCE), 7);
    process.restart();
    process.wait_until("it greets again", PATIENCE, |process| process.stderr() == "hello\nhello\n");
    process.kill9();
    assert_eq!(process.wait_exit(PATIENCE), 137);
}

#[test]
#[should_panic(expected = "until pigs fly: it ended with 3\nno wings\n")]
fn waiting_for_a_process_that_ended_says_how_it_ended() {
    let mut process = Process::start(shell("echo no wings >&2; exit 3"), "");
    process.wait_until("pigs fly", PATIENCE, |_| false);
}

#[test]
fn a_page_of_the_process_is_had_with_its_status() {
    let process = Process::start(shell("exec sleep 600"), "");
    let listener = TcpListener::bind(process.listen()).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut lines = BufReader::new(&stream);
        while lines.read_line(&mut request).unwrap() > 2 {} // the empty line is two bytes
        stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\nx: y\r\n\r\nnot yet").unwrap();
        request
    });
    assert_eq!(process.get("/readyz").unwrap(), (503, "not yet".to_owned()));
    assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.0\r\n"));
    assert!(process.get("/readyz").is_err(), "nobody listens any more");
}

fn shell(script: &str) -> Launch {
    Launch { program: "sh".into(), args: vec!["-c".into(), script.into()], env: Vec::new() }
}

fn transactional(broker: &Broker) -> FutureProducer {
    let mut config = client(broker.bootstrap());
    let producer: FutureProducer = config.set("transactional.id", unique("writer")).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

/// Opens a transaction and writes `values` in it; returns when the broker has them all.
async fn write(producer: &FutureProducer, topic: &str, partition: i32, values: &[&str]) {
    producer.begin_transaction().unwrap();
    write_more(producer, topic, partition, values).await;
}

async fn write_more(producer: &FutureProducer, topic: &str, partition: i32, values: &[&str]) {
    let record = |value| FutureRecord::<(), str>::to(topic).partition(partition).payload(value);
    // Waited for one and all: an abort drops what has not been sent, and there would be nothing to hide.
    try_join_all(values.iter().map(|value| producer.send(record(value), PATIENCE))).await.unwrap();
}

fn values(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap()).collect()
}
