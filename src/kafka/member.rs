//! Our membership of the consumer group: which partitions of the listings are ours, and what is in them.
//! A thread polls; rebalances and listings come out of one channel in the order they happened.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use rdkafka::{
    ClientContext, Message, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tracing::{debug, info, warn};

use super::{
    client::{Role, client_config, refuses},
    listings,
    stuck::{self, Reading},
};
use crate::{config::Kafka, domain::Listing};

/// What happened to our membership.
#[derive(Debug)]
pub enum MemberEvent {
    /// These partitions are ours now. They are paused: nothing is read from one before [`Member::resume`].
    Assigned(Vec<i32>),
    /// These are not ours any more. Sent before the group learns that we let go.
    Revoked(Vec<i32>),
    /// A message of the listings topic; `None` when it is no listing.
    Listing { partition: i32, offset: i64, listing: Option<Listing> },
    /// The group is reachable and we are in it.
    Joined,
    /// Trouble that passes, told for `/readyz`.
    Trouble(String),
    /// This partition is read no more, though there is more in it: another member would read on.
    Stuck(i32),
    /// Another process has our instance id, or the group refuses us for good.
    Fatal(KafkaError),
}

/// A static member of the group. Dropping it stops the polling; the broker keeps our place for the session time-out.
pub struct Member {
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    reading: Reading,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Member {
    /// Joins the group.
    ///
    /// # Errors
    /// A configuration that librdkafka refuses.
    pub fn join(settings: &Kafka, events: Sender<MemberEvent>) -> Result<Self, KafkaError> {
        let topic = settings.listings_topic();
        let reading = Reading::default();
        let context = Context { events: events.clone(), topic: topic.clone(), reading: reading.clone() };
        let consumer: BaseConsumer<Context> =
            client_config(settings, Role::GroupConsumer).create_with_context(context)?;
        consumer.subscribe(&[&topic])?;
        let (consumer, stop) = (Arc::new(consumer), Arc::new(AtomicBool::new(false)));
        let told = events.clone();
        let tell = move |partition| _ = told.send(MemberEvent::Stuck(partition));
        stuck::watch(settings, reading.clone(), Arc::clone(&stop), tell)?;
        let poller = Poller { consumer: Arc::clone(&consumer), events, stop: Arc::clone(&stop) };
        let thread = thread::Builder::new()
            .name("kafka-member".to_owned())
            .spawn(move || poller.run())
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { consumer, topic, reading, stop, thread: Some(thread) })
    }

    /// Who we are in the group, as the commit protocol pins it when a transaction opens (docs/exactly-once.md, rule 4).
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    /// The group's committed offset of a partition, once pending transactions are decided; `None` when there is none.
    ///
    /// # Errors
    /// Kafka's, after a minute.
    pub fn committed(&self, partition: i32) -> Result<Option<i64>, KafkaError> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, partition);
        let found = self.consumer.committed_offsets(asked, Duration::from_secs(60))?;
        Ok(found.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    /// Commits offsets without a transaction: at-least-once only.
    ///
    /// # Errors
    /// Kafka's.
    pub fn commit(&self, offsets: &TopicPartitionList) -> Result<(), KafkaError> {
        self.consumer.commit(offsets, rdkafka::consumer::CommitMode::Sync)
    }

    /// Stops reading a partition: enough listings wait.
    pub fn pause(&self, partition: i32) {
        self.reading.wants_not(partition);
        self.switch(partition, "pause", |consumer, which| consumer.pause(which));
    }

    pub fn resume(&self, partition: i32) {
        self.reading.wants(partition);
        self.switch(partition, "resume", |consumer, which| consumer.resume(which));
    }

    fn switch(
        &self,
        partition: i32,
        what: &str,
        act: impl Fn(&BaseConsumer<Context>, &TopicPartitionList) -> Result<(), KafkaError>,
    ) {
        let mut which = TopicPartitionList::new();
        which.add_partition(&self.topic, partition);
        // Fails only for a partition that is not ours any more, and then its Revoked is on its way.
        if let Err(error) = act(&self.consumer, &which) {
            debug!(partition, "could not {what} the partition: {error}");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It polls for a tenth of a second at most; a panic of it was told already.
            let _ = thread.join();
        }
    }
}

/// Events that wait for the writer; polling rests beyond, far shorter than `max.poll.interval.ms`.
const MOST_EVENTS: usize = 10_000;

struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    events: Sender<MemberEvent>,
    stop: Arc<AtomicBool>,
}

impl Poller {
    fn run(self) {
        let mut told = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            // The writer is in a commit: it pauses partitions that have enough as soon as it looks.
            if MOST_EVENTS < self.events.len() {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            let event = match self.consumer.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Ok(message)) => read(&message),
                Some(Err(error)) if is_final(&error) || self.consumer.client().fatal_error().is_some() => {
                    let _ = self.events.send(MemberEvent::Fatal(error));
                    return;
                }
                Some(Err(error)) => {
                    if told.elapsed() > Duration::from_secs(10) {
                        warn!("trouble with Kafka: {error}");
                        told = Instant::now();
                    }
                    MemberEvent::Trouble(error.to_string())
                }
            };
            if self.events.send(event).is_err() {
                return; // nobody listens any more
            }
        }
    }
}

/// Errors that polling again will not cure.
fn is_final(error: &KafkaError) -> bool {
    let is_fatal =
        matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId));
    is_fatal || refuses(error)
}

fn read(message: &BorrowedMessage<'_>) -> MemberEvent {
    let (partition, offset) = (message.partition(), message.offset());
    let decoded =
        listings::decode(message.key(), message.payload(), message.headers(), message.timestamp().to_millis());
    let listing =
        decoded.inspect_err(|why| warn!(partition, offset, "passed over a message that is no listing: {why}"));
    MemberEvent::Listing { partition, offset, listing: listing.ok() }
}

/// Passes rebalances on. It never waits: the pinned metadata makes what is in flight harmless.
struct Context {
    events: Sender<MemberEvent>,
    topic: String,
    reading: Reading,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        self.reading.tell(&self.topic, &statistics);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(which) => {
                let partitions = numbers(which);
                info!(?partitions, "partitions go");
                partitions.iter().for_each(|partition| self.reading.wants_not(*partition));
                let _ = self.events.send(MemberEvent::Revoked(partitions));
            }
            Rebalance::Error(error) => _ = self.events.send(MemberEvent::Trouble(error.to_string())),
            Rebalance::Assign(_) => {}
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(which) = rebalance {
            // Nothing is read before the ledger is restored.
            if let Err(error) = consumer.pause(which) {
                warn!("could not pause the new partitions: {error}");
            }
            let partitions = numbers(which);
            info!(?partitions, "partitions come");
            let _ = self.events.send(MemberEvent::Assigned(partitions));
            let _ = self.events.send(MemberEvent::Joined);
        }
    }
}

fn numbers(which: &TopicPartitionList) -> Vec<i32> {
    which.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
}
