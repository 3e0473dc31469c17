//! The producer that carries records, ledger entries and gaps: in transactions, or at least once.
//! Every call blocks, so it lives on the writer's own thread. Acknowledgements are counted, never awaited one by one.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, RDKafkaErrorCode},
    message::{OwnedHeaders, ToBytes},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use super::client::{Role, client_config};
use crate::{
    config::{Delivery, Kafka},
    telemetry::Metrics,
};

/// A producer and the state of its transaction.
pub struct Publisher {
    producer: ThreadedProducer<Acks>,
    acks: Acks,
    transactional: bool,
    timeout: Duration,
}

/// How a step of a transaction ended when it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The transaction has to be aborted; the producer goes on.
    #[error("the transaction has to be aborted")]
    Abort(#[source] KafkaError),
    /// A message is larger than its topic takes: aborted, and the message must not be sent again.
    #[error("a message is larger than its topic takes")]
    Oversize,
    /// Another producer has our transactional id.
    #[error("another instance uses this slot")]
    Fenced(#[source] KafkaError),
    /// Nobody knows whether the transaction was committed, or the producer is of no use any more: a new one, and everything restored.
    #[error("the producer is of no use any more")]
    Unknown(#[source] KafkaError),
}

impl Publisher {
    /// # Errors
    /// A configuration that librdkafka refuses.
    pub fn new(settings: &Kafka, metrics: &Metrics) -> Result<Self, KafkaError> {
        let acks = Acks { counts: Arc::default(), metrics: metrics.clone() };
        let producer = client_config(settings, Role::Publisher).create_with_context(acks.clone())?;
        Ok(Self {
            producer,
            acks,
            transactional: settings.delivery == Delivery::ExactlyOnce,
            timeout: settings.transaction_timeout,
        })
    }

    /// Fences predecessors of our slot and settles what they left open. Waits for as long as `patience`.
    ///
    /// # Errors
    /// See [`TransactionError`]; out of patience is [`TransactionError::Unknown`].
    pub fn init(&self, patience: Duration) -> Result<(), TransactionError> {
        if !self.transactional {
            return Ok(());
        }
        again(patience, || self.producer.init_transactions(Duration::from_secs(5)))
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub fn begin(&self) -> Result<(), TransactionError> {
        *self.acks.counts() = Counts::default();
        if self.transactional { self.producer.begin_transaction().map_err(classify) } else { Ok(()) }
    }

    /// Queues a message. A full queue is waited for: acknowledgements empty it.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub fn send(&self, message: Message<'_>) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.timeout;
        let mut record = message.record();
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    thread::sleep(Duration::from_millis(2));
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    return Err(TransactionError::Oversize);
                }
                Err((error, _)) => return Err(classify(error)),
            }
        }
        self.acks.counts().sent += 1;
        Ok(())
    }

    /// Waits until all that was sent is acknowledged.
    ///
    /// # Errors
    /// [`TransactionError::Abort`] when a message failed or did not arrive in time.
    pub fn acknowledged(&self) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.timeout;
        let mut counts = self.acks.counts();
        while counts.done < counts.sent && counts.failure.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TransactionError::Abort(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)));
            }
            counts = self.acks.counts.1.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match counts.failure.take() {
            None => Ok(()),
            Some(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                Err(TransactionError::Oversize)
            }
            Some(error) => Err(TransactionError::Abort(error)),
        }
    }

    /// Adds the group's offsets; the broker checks the member's generation with it (docs/exactly-once.md, rules 2 to 5).
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub fn offsets(
        &self,
        offsets: &TopicPartitionList,
        member: &ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        again(self.timeout / 2, || self.producer.send_offsets_to_transaction(offsets, member, self.timeout / 2))
    }

    /// Commits what was sent and acknowledged.
    ///
    /// # Errors
    /// [`TransactionError::Abort`] only when the broker says so; everything unclear is [`TransactionError::Unknown`] (rule 10).
    pub fn commit(&self) -> Result<(), TransactionError> {
        again(self.timeout, || self.producer.commit_transaction(self.timeout))
    }

    /// Takes back what was sent since [`Self::begin`]. At-least-once has nothing to take back with.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub fn abort(&self) -> Result<(), TransactionError> {
        if !self.transactional {
            return Ok(());
        }
        match again(self.timeout, || self.producer.abort_transaction(self.timeout)) {
            // An abort that would have to be aborted is no abort.
            Err(TransactionError::Abort(error)) => Err(TransactionError::Unknown(error)),
            ended => ended,
        }
    }
}

/// A message for a topic.
#[derive(Debug)]
pub struct Message<'a> {
    pub topic: &'a str,
    /// By the key's hash when there is none.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: Option<OwnedHeaders>,
    /// Milliseconds since 1970; now when there is none.
    pub timestamp: Option<i64>,
}

impl<'a> Message<'a> {
    fn record(self) -> BaseRecord<'a, [u8], [u8]> {
        let mut record = BaseRecord::to(self.topic).payload(self.value);
        record.partition = self.partition;
        record.timestamp = self.timestamp;
        record.headers = self.headers;
        record.key = self.key.map(ToBytes::to_bytes);
        record
    }
}

/// Calls again while librdkafka says that the same call may succeed.
fn again(patience: Duration, mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), TransactionError> {
    let deadline = Instant::now() + patience;
    loop {
        match call() {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && !error.txn_requires_abort() && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(classify(error)),
        }
    }
}

fn classify(error: KafkaError) -> TransactionError {
    let code = error.rdkafka_error_code();
    if matches!(code, Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced)) {
        return TransactionError::Fenced(error);
    }
    match &error {
        KafkaError::Transaction(inner) if inner.txn_requires_abort() => TransactionError::Abort(error),
        _ => TransactionError::Unknown(error),
    }
}

/// Counts acknowledgements in librdkafka's thread.
#[derive(Clone)]
struct Acks {
    counts: Arc<(Mutex<Counts>, Condvar)>,
    metrics: Metrics,
}

impl std::ops::Deref for Acks {
    type Target = (Mutex<Counts>, Condvar);

    fn deref(&self) -> &Self::Target {
        &self.counts
    }
}

#[derive(Default)]
struct Counts {
    sent: u64,
    done: u64,
    failure: Option<KafkaError>,
}

impl Acks {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Acks {
    fn stats(&self, statistics: Statistics) {
        self.metrics.producer_queue_bytes.set(i64::try_from(statistics.msg_size).unwrap_or(i64::MAX));
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut counts = self.counts();
        counts.done += 1;
        if let Err((error, _)) = result {
            counts.failure.get_or_insert_with(|| error.clone());
        }
        // The waiter looks at the numbers itself; waking it for each message would cost more than the message.
        if counts.sent <= counts.done || counts.failure.is_some() {
            drop(counts);
            self.counts.1.notify_all();
        }
    }
}
