//! The reader of the operator's tools sees what a `read_committed` consumer sees, and knows where the topics end.

use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use o365feed::{
    config::{Kafka, Settings},
    kafka::{Next, ReadError, ReadFrom, ReadTo, TopicReader},
};
use rdkafka::{
    Message as _,
    admin::AdminClient,
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord, Producer},
};

use crate::{
    broker::{Broker, Options, client},
    scratch::unique,
    world::PATIENCE,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_are_reached_over_aborted_records_control_records_and_empty_partitions() {
    let (broker, topics) = (Broker::shared(), [unique("ends"), unique("ends")]);
    for topic in &topics {
        broker.create_topic(topic, 4, &[]).await;
    }
    let producer = transactional(broker);
    // 0: committed, then aborted. 1: only aborted. 2: committed, so that a control record is the last. 3: nothing.
    begin(&producer, &topics[0], 0, &["a", "b"]).await;
    write(&producer, &topics[0], 2, &["c"]).await;
    producer.commit_transaction(PATIENCE).unwrap();
    for round in 0..20 {
        begin(&producer, &topics[0], 0, &["dropped"]).await;
        write(&producer, &topics[0], 1, &["dropped too"]).await;
        write(&producer, &topics[1], round % 3, &["dropped as well"]).await;
        producer.abort_transaction(PATIENCE).unwrap();
    }
    let kafka = settings(broker);
    let all = read(TopicReader::open(&kafka, &topics, ReadFrom::Start, ReadTo::EndOfNow).unwrap());
    assert_eq!(all.unwrap(), ["a", "b", "c"]);
    let later = Timestamp::now() + Duration::from_secs(3_600);
    let none = read(TopicReader::open(&kafka, &topics, ReadFrom::Time(later), ReadTo::EndOfNow).unwrap());
    assert_eq!(none.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_is_waited_for_and_what_comes_later_is_left() {
    let (broker, topics) = (Broker::shared(), [unique("open")]);
    broker.create_topic(&topics[0], 2, &[]).await;
    let (open, other) = (transactional(broker), transactional(broker));
    begin(&open, &topics[0], 0, &["undecided"]).await;
    begin(&other, &topics[0], 0, &["behind it"]).await;
    other.commit_transaction(PATIENCE).unwrap();

    let kafka = settings(broker);
    let open_reader = |from, to| TopicReader::open(&kafka, &topics, from, to).unwrap();
    let stalled = open_reader(ReadFrom::Start, ReadTo::EndOfNow).stalled_after(Duration::from_secs(2));
    assert!(matches!(read(stalled), Err(ReadError::Stalled { partitions: 1, .. })));

    let mut waiting = open_reader(ReadFrom::Start, ReadTo::EndOfNow);
    let mut following = open_reader(ReadFrom::End, ReadTo::Never);
    assert!(matches!(waiting.next(), Ok(Next::Quiet)));
    open.commit_transaction(PATIENCE).unwrap();
    begin(&other, &topics[0], 0, &["later"]).await;
    other.commit_transaction(PATIENCE).unwrap();
    assert_eq!(read(waiting).unwrap(), ["behind it", "undecided"]);
    let mut ending = open_reader(ReadFrom::Start, ReadTo::Never);
    ending.end_now().unwrap();
    assert_eq!(read(ending).unwrap(), ["behind it", "later", "undecided"]);
    // Both became visible after the reader was opened, though they were written before.
    assert_eq!(read_some(&mut following, 3), ["behind it", "later", "undecided"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_at_a_time() {
    let (broker, topics) = (Broker::shared(), [unique("time")]);
    broker.create_topic(&topics[0], 2, &[]).await;
    let producer: FutureProducer = client(broker.bootstrap()).create().unwrap();
    let noon: Timestamp = "2026-08-30T12:00:00Z".parse().unwrap();
    for (partition, minute) in [(0, 0), (0, 10), (0, 5), (0, 20), (1, 0), (1, 9)] {
        let (value, at) = (minute.to_string(), noon.as_millisecond() + minute * 60_000);
        let record = FutureRecord::<(), _>::to(&topics[0]).partition(partition).payload(&value).timestamp(at);
        producer.send(record, PATIENCE).await.unwrap();
    }
    let from = |time| {
        let reader = TopicReader::open(&settings(broker), &topics, ReadFrom::Time(time), ReadTo::EndOfNow).unwrap();
        read(reader).unwrap()
    };
    // An older one behind a newer one is read along: nothing that is young enough can lie before the beginning.
    assert_eq!(from(noon + Duration::from_secs(600)), ["10", "20", "5"]);
    assert_eq!(from(noon + Duration::from_secs(540)), ["10", "20", "5", "9"]);
    assert_eq!(from(Timestamp::UNIX_EPOCH).len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_named_and_not_made() {
    let properties = vec![("auto.create.topics.enable", "true".to_owned())];
    let (broker, topic) = (Broker::own(Options { properties, ..Options::default() }), unique("nowhere"));
    let opened = TopicReader::open(&settings(&broker), std::slice::from_ref(&topic), ReadFrom::End, ReadTo::Never);
    assert!(matches!(opened, Err(ReadError::NoTopic(named)) if named == topic));
    let admin: AdminClient<DefaultClientContext> = client(broker.bootstrap()).create().unwrap();
    let all = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
    assert!(all.topics().iter().all(|found| found.name() != topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_were_only_just_made_are_read() {
    let broker = Broker::shared();
    for _ in 0..5 {
        let topics = [unique("new"), unique("new"), unique("new")];
        for topic in &topics {
            broker.create_topic(topic, 12, &[]).await;
        }
        for from in [ReadFrom::Start, ReadFrom::End, ReadFrom::Time(Timestamp::UNIX_EPOCH)] {
            let reader = TopicReader::open(&settings(broker), &topics, from, ReadTo::EndOfNow).unwrap();
            assert_eq!(read(reader).unwrap(), [""; 0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_outlives_a_restart_of_the_broker() {
    let mut broker = Broker::own(Options::default());
    let topics = [unique("restart")];
    broker.create_topic(&topics[0], 1, &[]).await;
    let producer = transactional(&broker);
    let mut following = TopicReader::open(&settings(&broker), &topics, ReadFrom::End, ReadTo::Never).unwrap();
    begin(&producer, &topics[0], 0, &["before"]).await;
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(read_some(&mut following, 1), ["before"]);
    broker.kill();
    assert!(matches!(following.next(), Ok(Next::Quiet)));
    broker.start();
    begin(&producer, &topics[0], 0, &["after"]).await;
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(read_some(&mut following, 1), ["after"]);
}

fn settings(broker: &Broker) -> Kafka {
    let settings = Settings::with_defaults(Vec::new(), "reading");
    Kafka { bootstrap_servers: broker.bootstrap().to_owned(), ..settings.kafka }
}

/// To the end, sorted.
fn read(mut reader: TopicReader) -> Result<Vec<String>, ReadError> {
    let mut values = Vec::new();
    loop {
        match reader.next()? {
            Next::Message(message) => values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap()),
            Next::Quiet => {}
            Next::End => break,
        }
    }
    values.sort_unstable();
    Ok(values)
}

/// The next `count`, sorted.
fn read_some(reader: &mut TopicReader, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let end = std::time::Instant::now() + PATIENCE;
    while values.len() < count {
        assert!(std::time::Instant::now() < end, "waited in vain; there are {values:?}");
        if let Next::Message(message) = reader.next().unwrap() {
            values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
        }
    }
    values.sort_unstable();
    values
}

fn transactional(broker: &Broker) -> FutureProducer {
    let mut config = client(broker.bootstrap());
    let producer: FutureProducer = config.set("transactional.id", unique("writer")).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

/// Opens a transaction and writes `values` in it; returns when the broker has them all.
async fn begin(producer: &FutureProducer, topic: &str, partition: i32, values: &[&str]) {
    producer.begin_transaction().unwrap();
    write(producer, topic, partition, values).await;
}

async fn write(producer: &FutureProducer, topic: &str, partition: i32, values: &[&str]) {
    let record = |value| FutureRecord::<(), str>::to(topic).partition(partition).payload(value);
    try_join_all(values.iter().map(|value| producer.send(record(value), PATIENCE))).await.unwrap();
}
