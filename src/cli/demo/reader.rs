//! Reads the topics from their first offset on, as any consumer would, and counts each record.
//! It reads along all the time, because the mock broker keeps only the newest few megabytes of a partition.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::anyhow;
use rdkafka::{Message as _, message::OwnedMessage};

use super::{
    glimpse::glimpse,
    verdict::{Counts, Found},
};
use crate::{
    config::Settings,
    domain::{ContentType, RecordId},
    kafka::{Next, ReadError, ReadFrom, ReadTo, TopicReader},
    simulator::half_hash,
};

/// The newest records are shown; so many of them.
pub const SHOWN: usize = 5;

/// A reader at work on a thread of its own. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

struct Shared {
    seen: Mutex<Seen>,
    /// Nobody writes any more: read to the ends, then stop.
    finish: AtomicBool,
    /// How it ended.
    thread: Mutex<Option<thread::JoinHandle<anyhow::Result<()>>>>,
}

#[derive(Default)]
struct Seen {
    records: Counts,
    open_gaps: HashSet<(Vec<u8>, Option<String>)>,
    newest: VecDeque<String>,
    /// Of [`Self::newest`], how many came since the view last asked.
    fresh: usize,
}

impl Reader {
    /// Starts to read the output topics and the gaps.
    ///
    /// # Errors
    /// When the topics cannot be read.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        let outputs = outputs(settings);
        let topics: Vec<String> = outputs.keys().cloned().chain([settings.kafka.gaps_topic()]).collect();
        let topics = TopicReader::open(&settings.kafka, &topics, ReadFrom::Start, ReadTo::Never)?;
        let shared =
            Arc::new(Shared { seen: Mutex::default(), finish: AtomicBool::new(false), thread: Mutex::default() });
        let reader = Self(Arc::clone(&shared));
        let reading = move || Ok(reader.read(topics, &outputs)?);
        let thread = thread::Builder::new().name("demo-reader".to_owned()).spawn(reading)?;
        *lock(&shared.thread) = Some(thread);
        Ok(Self(shared))
    }

    /// The newest records in a line each, oldest first, and how many of them are new since the last call.
    pub fn newest(&self) -> (Vec<String>, usize) {
        let mut seen = lock(&self.0.seen);
        let fresh = std::mem::take(&mut seen.fresh);
        (seen.newest.iter().cloned().collect(), fresh)
    }

    /// Whether all of `due` was read.
    pub fn has_seen(&self, due: &Counts) -> bool {
        let seen = lock(&self.0.seen);
        due.iter().all(|(record, times)| seen.records.get(record).is_some_and(|found| times <= found))
    }

    /// Reads to the ends and gives what was found. Call it when nobody writes any more; it blocks.
    ///
    /// # Errors
    /// When the ends are not reached: the broker is gone, or a transaction stayed open.
    pub fn finish(&self) -> anyhow::Result<Found> {
        self.0.finish.store(true, Ordering::Release);
        let thread = lock(&self.0.thread).take();
        if let Some(thread) = thread {
            thread.join().map_err(|_| anyhow!("could not read the topics: the reader ended by a panic"))??;
        }
        let mut seen = lock(&self.0.seen);
        Ok(Found { records: std::mem::take(&mut seen.records), gaps: seen.open_gaps.len() as u64 })
    }

    fn read(&self, mut topics: TopicReader, outputs: &HashMap<String, ContentType>) -> Result<(), ReadError> {
        let mut is_ending = false;
        loop {
            if !is_ending && self.0.finish.load(Ordering::Acquire) {
                topics.end_now()?;
                is_ending = true;
            }
            match topics.next()? {
                Next::Message(message) => match outputs.get(message.topic()) {
                    Some(kind) => lock(&self.0.seen).record(*kind, &message),
                    None => lock(&self.0.seen).gap(&message),
                },
                Next::Quiet => {}
                Next::End => return Ok(()),
            }
        }
    }
}

impl Seen {
    fn record(&mut self, kind: ContentType, message: &OwnedMessage) {
        let value = message.payload().unwrap_or_default();
        let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.is_empty());
        let identity = key.map_or_else(|| RecordId(half_hash(value)), RecordId::of_text);
        *self.records.entry((kind, identity)).or_default() += 1;
        if self.newest.len() == SHOWN {
            self.newest.pop_front();
        }
        self.newest.push_back(glimpse(value));
        self.fresh = (self.fresh + 1).min(self.newest.len());
    }

    /// A gap that closes is told a second time.
    fn gap(&mut self, message: &OwnedMessage) {
        let told: serde_json::Value = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
        let content = message.key().unwrap_or_default().to_vec();
        if told["closed"] == true {
            self.open_gaps.retain(|(other, _)| *other != content);
        } else {
            self.open_gaps.insert((content, told["record_id"].as_str().map(str::to_owned)));
        }
    }
}

/// The topics of records.
fn outputs(settings: &Settings) -> HashMap<String, ContentType> {
    let of_tenant = |tenant: &crate::config::Tenant| {
        let kinds = tenant.content_types.iter();
        kinds.map(|kind| (settings.kafka.output_topic(tenant.id, *kind), *kind)).collect::<Vec<_>>()
    };
    settings.tenants.iter().flat_map(of_tenant).collect()
}

/// Counts are changed in single steps, so a panic elsewhere leaves them whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
