//! What a `read_committed` reader sees, held against what the simulator ever offered.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use o365feed::{
    domain::{ContentType, RecordId, Source},
    simulator::{SourceTruth, TruthRecord},
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
};
use serde_json::Value;

use crate::{
    broker::client,
    reader::{for_each_committed, read_committed},
    world::World,
};

/// After so long without a record it is worth while to look again from the start.
const RESTLESS: Duration = Duration::from_secs(10);

/// How many of each kind a failure names.
const NAMED: usize = 10;

/// What is wrong, in words; nothing when all is well.
pub struct Verdict {
    /// Due, and not there.
    pub missing: Vec<String>,
    /// There more than once.
    pub twice: Vec<String>,
    /// Other bytes, another key, or a record that was never offered.
    pub wrong: Vec<String>,
    /// Records that are there.
    pub published: usize,
    /// The gaps topic, in order.
    pub gaps: Vec<Value>,
    /// Ids of records that are due and too long for the topic: missing, and to be named among the gaps.
    pub oversize: Vec<String>,
}

impl Verdict {
    /// Panics unless everything due is there exactly once, as sent, and nothing is a gap.
    pub fn is_exactly_once(&self) {
        self.is_exactly_once_but_for_gaps();
        assert!(self.gaps.is_empty(), "there are gaps: {:?}", named(&self.gaps));
        assert!(self.oversize.is_empty(), "the test wanted no record this long: {:?}", named(&self.oversize));
    }

    /// The same, for a test that looks at the gaps itself.
    pub fn is_exactly_once_but_for_gaps(&self) {
        assert!(self.twice.is_empty(), "{} records are there twice: {:#?}", self.twice.len(), named(&self.twice));
        self.is_at_least_once();
    }

    /// The same, but for repeats.
    pub fn is_at_least_once(&self) {
        assert!(self.missing.is_empty(), "{} records are missing: {:#?}", self.missing.len(), named(&self.missing));
        assert!(self.wrong.is_empty(), "{} records are wrong: {:#?}", self.wrong.len(), named(&self.wrong));
        assert!(self.published > 0, "a test of nothing proves nothing");
    }
}

fn named<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(NAMED)]
}

/// See [`World::verdict`].
pub fn reach(world: &World, due_at: Timestamp) -> Verdict {
    let due: HashMap<Source, Vec<TruthRecord>> =
        world.truth().records(due_at).into_iter().map(|truth| (truth.source, truth.due)).collect();
    let seen: Vec<(ContentType, Vec<Seen>)> = world.kinds().map(|kind| (kind, read(world, kind))).collect();
    // Asked last: what is there must have been offered before.
    let offered: HashMap<Source, SourceTruth> =
        world.truth().now().into_iter().map(|truth| (truth.source, truth)).collect();

    let mut verdict = Verdict {
        missing: Vec::new(),
        twice: Vec::new(),
        wrong: Vec::new(),
        published: 0,
        gaps: gaps(world),
        oversize: Vec::new(),
    };
    for (kind, seen) in seen {
        let source = Source { tenant: world.tenant(), content_type: kind };
        let offered = &offered[&source];
        let excused = offered.excused.iter().map(|(_, record)| record);
        let known = offered.due.iter().chain(excused).map(|record| (record.identity, record)).collect();
        let there = verdict.judge(kind, &seen, &known);
        for record in due[&source].iter().filter(|record| !there.contains(&record.identity)) {
            if world.is_oversize(record) {
                verdict.oversize.push(record.key().unwrap_or_default());
            } else {
                verdict.missing.push(format!("{record:?}, id {:?}", record.key()));
            }
        }
    }
    verdict
}

impl Verdict {
    fn judge(
        &mut self,
        kind: ContentType,
        seen: &[Seen],
        known: &HashMap<RecordId, &TruthRecord>,
    ) -> HashSet<RecordId> {
        let mut there = HashSet::with_capacity(seen.len());
        for record in seen {
            self.published += 1;
            let place = || format!("{kind} {record}");
            let Some(truth) = known.get(&record.identity) else {
                self.wrong.push(format!("{}: never offered", place()));
                continue;
            };
            if !there.insert(record.identity) {
                self.twice.push(format!("{}: {truth:?}", place()));
            }
            if !truth.hashes().contains(&record.hash) {
                self.wrong.push(format!("{}: other bytes than {truth:?}", place()));
            }
            // The same GUID may come in another letter case; which of the two forms was first is not ours to say.
            let same = |(ours, theirs): (&String, &String)| ours.eq_ignore_ascii_case(theirs);
            if record.key.is_some() != truth.key().is_some()
                || record.key.as_ref().zip(truth.key().as_ref()).is_some_and(|both| !same(both))
            {
                self.wrong.push(format!("{}: the key is not the Id {:?} of {truth:?}", place(), truth.key()));
            }
        }
        there
    }
}

/// A record of an output topic, without its bytes: a test may publish more than memory should hold.
struct Seen {
    partition: i32,
    offset: i64,
    identity: RecordId,
    key: Option<String>,
    hash: [u8; 16],
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} offset {} key {:?}", self.partition, self.offset, self.key)
    }
}

fn read(world: &World, kind: ContentType) -> Vec<Seen> {
    let (mut seen, mut identities) = (Vec::new(), Identities::default());
    for_each_committed(world.bootstrap(), &[world.output(kind)], |message| {
        seen.push(Seen {
            partition: message.partition(),
            offset: message.offset(),
            identity: identities.of(message),
            key: key(message),
            hash: o365feed::simulator::half_hash(message.payload().unwrap_or_default()),
        });
    });
    seen
}

fn key(message: &BorrowedMessage<'_>) -> Option<String> {
    message.key().filter(|key| !key.is_empty()).map(|key| String::from_utf8_lossy(key).into_owned())
}

/// Tells records apart as docs/exactly-once.md, rule 11, has it, from what a reader sees.
#[derive(Default)]
struct Identities {
    /// How often these bytes came without a key.
    nameless: HashMap<[u8; 16], u64>,
}

impl Identities {
    fn of(&mut self, message: &BorrowedMessage<'_>) -> RecordId {
        match key(message) {
            Some(key) => RecordId::of_text(&key),
            None => {
                let bytes = message.payload().unwrap_or_default();
                let count = self.nameless.entry(o365feed::simulator::half_hash(bytes)).or_default();
                *count += 1;
                RecordId::of_bytes(bytes, *count - 1)
            }
        }
    }
}

fn gaps(world: &World) -> Vec<Value> {
    let messages = read_committed(world.bootstrap(), &[world.topic("feed.gaps")]);
    messages.iter().map(|gap| serde_json::from_slice(gap.value.as_deref().unwrap()).unwrap()).collect()
}

/// What of the truth of one moment is still to come. Reads each record once, however often it is asked.
pub struct Progress {
    awaited: HashMap<String, HashMap<RecordId, TruthRecord>>,
    identities: HashMap<String, Identities>,
    bootstrap: String,
    consumer: BaseConsumer,
    is_assigned: bool,
    moved: Instant,
}

impl Progress {
    pub fn new(world: &World, moment: Timestamp) -> Self {
        let sources = world.truth().records(moment);
        let sources = sources.into_iter().filter(|truth| world.kinds().any(|kind| kind == truth.source.content_type));
        let wanted = |truth: SourceTruth| {
            let due = truth.due.into_iter().filter(|record| !world.is_oversize(record));
            (world.output(truth.source.content_type), due.map(|record| (record.identity, record)).collect())
        };
        Self {
            awaited: sources.map(wanted).collect(),
            identities: HashMap::new(),
            bootstrap: world.bootstrap().to_owned(),
            consumer: progress_consumer(world.bootstrap()),
            is_assigned: false,
            moved: Instant::now(),
        }
    }

    pub fn is_complete(&self) -> bool {
        self.awaited.values().all(HashMap::is_empty)
    }

    /// Takes in what comes in this time.
    pub fn read(&mut self, time: Duration) {
        if RESTLESS < self.moved.elapsed() {
            self.begin_again();
        }
        self.is_assigned = self.is_assigned || self.assign();
        let end = Instant::now() + time;
        while !self.is_complete() && Instant::now() < end {
            // A fault here is one of the broker's, which the test broke or librdkafka mends.
            if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(100)) {
                self.moved = Instant::now();
                let identity = self.identities.entry(message.topic().to_owned()).or_default().of(&message);
                if let Some(awaited) = self.awaited.get_mut(message.topic()) {
                    awaited.remove(&identity);
                }
            }
        }
    }

    /// A consumer that asked a broker while that was waking may wait for ever for where the log begins.
    fn begin_again(&mut self) {
        self.consumer = progress_consumer(&self.bootstrap);
        self.identities.clear();
        self.is_assigned = false;
        self.moved = Instant::now();
    }

    /// Partitions whose last stable offset lies below their end: with both.
    fn undecided(&self) -> Vec<(String, i32, i64, i64)> {
        let mut config = client(&self.bootstrap);
        let all: BaseConsumer =
            config.set("isolation.level", "read_uncommitted").create().expect("the settings are sound");
        let patience = Duration::from_secs(5);
        let mut undecided = Vec::new();
        for topic in self.awaited.keys() {
            for partition in 0.. {
                let ends = [&self.consumer, &all].map(|reader| reader.fetch_watermarks(topic, partition, patience));
                let [Ok((_, stable)), Ok((_, high))] = ends else { break };
                if stable < high {
                    undecided.push((topic.clone(), partition, stable, high));
                }
            }
        }
        undecided
    }

    /// Whether all topics were there to be read.
    fn assign(&self) -> bool {
        let mut list = TopicPartitionList::new();
        for topic in self.awaited.keys() {
            let Ok(metadata) = self.consumer.fetch_metadata(Some(topic), Duration::from_secs(5)) else { return false };
            let described = &metadata.topics()[0];
            if described.error().is_some() || described.partitions().is_empty() {
                return false;
            }
            for partition in described.partitions() {
                list.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("beginning is an offset");
            }
        }
        self.consumer.assign(&list).is_ok()
    }
}

fn progress_consumer(bootstrap: &str) -> BaseConsumer {
    let mut config = client(bootstrap);
    config.set("isolation.level", "read_committed").set("group.id", "o365it-progress");
    config.set("enable.auto.commit", "false").set("fetch.wait.max.ms", "100");
    // A broker that has just woken may deny offsets that it has; the default would pass over all there is.
    config.set("auto.offset.reset", "earliest");
    config.create().expect("the settings are sound")
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (topic, partition, stable, high) in self.undecided() {
            write!(f, "an open transaction in {topic}/{partition} at {stable} of {high}; ")?;
        }
        for (topic, awaited) in self.awaited.iter().filter(|(_, awaited)| !awaited.is_empty()) {
            let some: Vec<_> = awaited.values().take(NAMED).map(|record| (record, record.key())).collect();
            write!(f, "{} records of {topic}, among them {some:#?}; ", awaited.len())?;
        }
        Ok(())
    }
}
