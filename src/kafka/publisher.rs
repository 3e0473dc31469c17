//! The producer that carries records, ledger entries and gaps: in transactions, or at least once.
//! Every call blocks, so it lives on the writer's own thread. Acknowledgements are never awaited one by one.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

use super::client::{Role, client_config, refuses};
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
    /// Counts transactions, so that reports are told apart.
    round: usize,
}

/// How a step of a transaction ended when it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The transaction has to be aborted; the producer goes on.
    #[error("the transaction has to be aborted")]
    Abort(#[source] KafkaError),
    /// Another producer has our transactional id, or the transaction timed out: librdkafka tells both alike.
    #[error("fenced: another instance uses this slot, or the transaction timed out")]
    Fenced(#[source] KafkaError),
    /// The user lacks a right, and only a person can give it.
    #[error("Kafka refuses this user")]
    Unauthorised(#[source] KafkaError),
    /// Nobody knows whether the transaction was committed, or the producer is of no use any more: a new one, and everything restored.
    #[error("the producer is of no use any more")]
    Unknown(#[source] KafkaError),
}

impl Publisher {
    /// # Errors
    /// A configuration that librdkafka refuses.
    pub fn new(settings: &Kafka, metrics: &Metrics) -> Result<Self, KafkaError> {
        let acks = Acks { failures: Arc::default(), metrics: metrics.clone() };
        let producer = client_config(settings, Role::Publisher).create_with_context(acks.clone())?;
        Ok(Self {
            producer,
            acks,
            transactional: settings.delivery == Delivery::ExactlyOnce,
            timeout: settings.transaction_timeout,
            round: 0,
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
    pub fn begin(&mut self) -> Result<(), TransactionError> {
        self.round = self.round.wrapping_add(1);
        // Late failures of an earlier round, which at-least-once cannot take back, do not count for this one.
        *self.acks.failures() = Failures { round: self.round, ..Failures::default() };
        if self.transactional { self.producer.begin_transaction().map_err(classify) } else { Ok(()) }
    }

    /// Queues a message. A full queue is waited for: acknowledgements empty it.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub fn send(&self, mut message: Message<'_>) -> Result<(), TransactionError> {
        let mut record = message.record(self.round);
        let mut deadline = None;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + self.timeout) =>
                {
                    record = back;
                    thread::sleep(Duration::from_millis(2));
                }
                Err((error @ KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    self.acks.failures().oversize = true;
                    return Err(TransactionError::Abort(error));
                }
                // librdkafka has given the transaction up on its own thread already.
                Err((error @ KafkaError::MessageProduction(RDKafkaErrorCode::State), _)) if self.transactional => {
                    return Err(self.given_up(error));
                }
                Err((error, _)) => return Err(classify(error)),
            }
        }
    }

    /// Waits until all that was sent is acknowledged.
    ///
    /// Only failures are reported one by one; what is in the producer's queues, failures that were not reported yet
    /// included, is counted by librdkafka.
    ///
    /// # Errors
    /// [`TransactionError::Abort`] when a message failed or did not arrive in time, [`TransactionError::Unauthorised`].
    pub fn acknowledged(&self) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            // Counted first: a failure leaves the count only after it was reported.
            let in_flight = self.producer.in_flight_count();
            let failed = self.acks.failures().first.take();
            if let Some(error) = failed {
                return Err(self.given_up(error));
            }
            if in_flight == 0 {
                return Ok(());
            }
            if deadline < Instant::now() {
                return Err(TransactionError::Abort(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it means that a message failed: a transaction that the broker refuses is given up by librdkafka, which then
    /// says of all messages that they were purged. The reason it tells to the next call; a begin does nothing else here.
    fn given_up(&self, failure: KafkaError) -> TransactionError {
        let reason = self.transactional.then(|| self.producer.begin_transaction().err()).flatten();
        let refusal = [reason, Some(failure.clone())].into_iter().flatten().find(refuses);
        refusal.map_or(TransactionError::Abort(failure), TransactionError::Unauthorised)
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
    /// [`TransactionError::Unknown`] or [`TransactionError::Fenced`].
    pub fn commit(&self) -> Result<(), TransactionError> {
        if !self.transactional {
            return Ok(());
        }
        match again(self.timeout, || self.producer.commit_transaction(self.timeout)) {
            // Once its end was sent, only the broker knows how it ended (rule 10).
            Err(TransactionError::Abort(error)) => Err(TransactionError::Unknown(error)),
            ended => ended,
        }
    }

    /// Whether a topic refused a message for its size since the last [`Self::begin`]. Complete after [`Self::abort`].
    pub fn met_oversize(&self) -> bool {
        self.acks.failures().oversize
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
    pub value: Cow<'a, [u8]>,
    pub headers: Option<OwnedHeaders>,
    /// Milliseconds since 1970; now when there is none.
    pub timestamp: Option<i64>,
}

impl Message<'_> {
    /// What librdkafka takes, with the headers, which it owns.
    fn record(&mut self, round: usize) -> BaseRecord<'_, [u8], [u8], usize> {
        let mut record = BaseRecord::with_opaque_to(self.topic, round).payload(&*self.value);
        record.partition = self.partition;
        record.timestamp = self.timestamp;
        record.headers = self.headers.take();
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
    match &error {
        _ if matches!(code, Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced)) => {
            TransactionError::Fenced(error)
        }
        _ if refuses(&error) => TransactionError::Unauthorised(error),
        KafkaError::Transaction(inner) if inner.txn_requires_abort() => TransactionError::Abort(error),
        _ => TransactionError::Unknown(error),
    }
}

/// Hears of failures in librdkafka's thread.
#[derive(Clone)]
struct Acks {
    failures: Arc<Mutex<Failures>>,
    metrics: Metrics,
}

/// What failed of a round.
#[derive(Default)]
struct Failures {
    round: usize,
    first: Option<KafkaError>,
    oversize: bool,
}

impl Acks {
    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Acks {
    fn stats(&self, statistics: Statistics) {
        self.metrics.producer_queue_bytes.set(i64::try_from(statistics.msg_size).unwrap_or(i64::MAX));
    }
}

impl ProducerContext for Acks {
    /// The round that a message was sent in.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, round: usize) {
        let Err((error, _)) = result else { return };
        let mut failures = self.failures();
        if failures.round == round {
            // A failed batch purges the others first, so the one that is too large may not be the first.
            failures.oversize |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
            failures.first.get_or_insert_with(|| error.clone());
        }
    }
}
