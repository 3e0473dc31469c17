//! What producing alone costs: librdkafka with the connector's own properties, in transactions, in a process of its own.
//! That process is this program once more; a variable of the environment tells it its part.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use o365feed::{
    config::{self, Settings},
    kafka::{Role, client_config},
};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::{
    broker::Broker,
    meter::{self, Usage},
    scratch::Scratch,
};

const PART: &str = "BENCH_PRODUCER_RECORDS";
const TOPICS: usize = 5;
/// Records that follow each other into one topic, as those of a content do.
const RUN: usize = 100;
const TRANSACTION: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);
const SETTINGS: &str = "o365feed.yaml";
const SAMPLE: &str = "sample";

/// Keys and values as the connector published them.
#[derive(Default)]
pub struct Sample(Vec<(Vec<u8>, Vec<u8>)>);

impl Sample {
    /// Of each content type. Together far more bytes than compression looks back on, so that repeating them saves none.
    pub const RECORDS: u32 = 4_000;

    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0.push((key.to_vec(), value.to_vec()));
    }

    /// A tab between key and value, a line each: neither is in a record without being escaped.
    fn write(&self, path: &Path) {
        let parts = self.0.iter().flat_map(|(key, value)| [key.as_slice(), b"\t", value, b"\n"]);
        fs::write(path, parts.collect::<Vec<_>>().concat()).expect("the directory is ours");
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("the parent wrote it");
        let records = text.lines().map(|line| line.split_once('\t').expect("a tab parts key and value"));
        Self(records.map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// Produces `records` records like those of the sample, in a child process, and gives what that used.
/// `settings` is the connector's file and lies in `files`.
pub async fn run(broker: &Broker, settings: &Path, files: &Scratch, sample: &Sample, records: u64) -> Usage {
    assert!(settings.starts_with(files.path()), "the child looks for its files in one place");
    for topic in 0..TOPICS {
        broker.create_topic(&name(topic), 6, &[("max.message.bytes", "8388608")]).await;
    }
    sample.write(&files.path().join(SAMPLE));
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.env(PART, records.to_string()).current_dir(files.path()).stdout(Stdio::null());
    meter::run(&mut command, b"")
}

/// Whether this process is that child.
pub fn is_asked_for() -> bool {
    env::var_os(PART).is_some()
}

/// The child's part.
pub fn produce() {
    let records: usize = env::var(PART).ok().and_then(|text| text.parse().ok()).expect("a number of records");
    let sample = Sample::read(Path::new(SAMPLE));
    let mut config = client_config(&settings().kafka, Role::Publisher);
    config.set("transactional.id", "bench-producer").set("statistics.interval.ms", "0");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("the connector's own properties");
    producer.init_transactions(PATIENCE).expect("the broker answers");
    let topics: Vec<String> = (0..TOPICS).map(name).collect();
    for first in (0..records).step_by(TRANSACTION) {
        producer.begin_transaction().expect("none is open");
        for at in first..records.min(first + TRANSACTION) {
            let (key, value) = &sample.0[at % sample.0.len()];
            send(&producer, BaseRecord::to(&topics[at / RUN % TOPICS]).key(key).payload(value));
        }
        producer.flush(PATIENCE).expect("the broker takes them");
        producer.commit_transaction(PATIENCE).expect("the broker commits");
    }
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, mut record: BaseRecord<'_, Vec<u8>, Vec<u8>>) {
    while let Err((error, back)) = producer.send(record) {
        let is_full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        assert!(is_full, "could not produce: {error}");
        record = back;
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn settings() -> Settings {
    let secret = ("BENCH_CLIENT_SECRET".to_owned(), "not needed here".to_owned());
    config::load(Some(Path::new(SETTINGS)), [secret], "bench").unwrap_or_else(|faults| panic!("{faults}"))
}

fn name(topic: usize) -> String {
    format!("bench.floor.{topic}")
}
