//! The pool that fetches contents: bounded in number and in bytes, each blob cut into records while it arrives.

use std::{panic::AssertUnwindSafe, sync::Arc};

use crossbeam_channel::Sender;
use futures_util::FutureExt;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug};

use super::writer::Ticket;
use crate::{
    api::{Api, ApiError, Blob, TenantApi},
    config::{Kafka, Settings},
    domain::{Batch, Fate, Listed, NotAnArray, Splitter},
    kafka::Unreadable,
};

/// A content to fetch.
#[derive(Debug)]
pub struct Job {
    pub ticket: Ticket,
    pub content: Arc<Listed>,
    pub cancel: CancellationToken,
    /// What is done for it is logged within.
    pub span: Span,
}

/// What comes of it, in order.
#[derive(Debug)]
pub enum Work {
    /// Some records; the permit is memory that is free again once they are handed to the producer.
    Records {
        ticket: Ticket,
        batch: Batch,
        memory: OwnedSemaphorePermit,
        large: Option<OwnedSemaphorePermit>,
    },
    Ended {
        ticket: Ticket,
        ended: Ended,
    },
}

/// How a fetch ended.
#[derive(Debug)]
pub enum Ended {
    /// All records were handed over.
    Whole,
    Failed(Broken),
    Cancelled,
}

/// Why a fetch failed.
#[derive(Debug)]
pub struct Broken {
    pub fate: Fate,
    /// In a few words, for the gaps topic and the log; never a body.
    pub answer: String,
    pub unreadable: Option<Unreadable>,
}

/// Runs the jobs it is given until there are no more to come.
pub async fn pool(settings: Arc<Settings>, api: Api, mut jobs: mpsc::UnboundedReceiver<Job>, results: Sender<Work>) {
    let share = Share::of(&settings);
    let slots = Arc::new(Semaphore::new(settings.fetch.concurrency));
    let mut running = JoinSet::new();
    while let Some(job) = jobs.recv().await {
        while running.try_join_next().is_some() {}
        let (slots, share, results) = (Arc::clone(&slots), share.clone(), results.clone());
        let tenant = api.tenant(job.content.source.tenant);
        let span = job.span.clone();
        let fetching = async move {
            let ticket = job.ticket;
            let fetched = AssertUnwindSafe(async {
                tokio::select! {
                    () = job.cancel.cancelled() => Ended::Cancelled,
                    ended = run(&job, tenant, &slots, &share, &results) => ended,
                }
            });
            // A content that we fail on must not be in flight for ever.
            let ended = fetched.catch_unwind().await.unwrap_or_else(|_| {
                let answer = "the connector failed on it; please report this".to_owned();
                Ended::Failed(Broken { fate: Fate::Unreadable, answer, unreadable: None })
            });
            // The writer ends before the pool does; then nobody wants it.
            let _ = results.send(Work::Ended { ticket, ended });
        };
        running.spawn(fetching.instrument(span));
    }
    running.shutdown().await;
}

async fn run(
    job: &Job,
    tenant: Option<Arc<TenantApi>>,
    slots: &Semaphore,
    share: &Share,
    results: &Sender<Work>,
) -> Ended {
    let Ok(_slot) = slots.acquire().await else { return Ended::Cancelled };
    let Some(tenant) = tenant else { return Ended::Cancelled };
    let blob = match tenant.fetch(&job.content).await {
        Ok(blob) => blob,
        Err(error) => return Ended::Failed(Broken::from(&error)),
    };
    match cut(job.ticket, blob, share, results).await {
        Ok(bytes) => {
            debug!(bytes, "fetched");
            Ended::Whole
        }
        Err(broken) => Ended::Failed(broken),
    }
}

/// Cuts a blob into records while it arrives; its length in bytes.
async fn cut(ticket: Ticket, mut blob: Blob, share: &Share, results: &Sender<Work>) -> Result<usize, Broken> {
    let mut length = 0;
    let mut splitter = Splitter::new(share.largest_record);
    let mut head = Head::default();
    let memory = Arc::new(Semaphore::new(share.kib));
    let mut batch = Batch::new();
    // A record that does not fit into the share of one fetch: one at a time has leave to hold it.
    let mut large = None;
    while let Some(chunk) = blob.chunk().await.map_err(|error| Broken::from(&error))? {
        length += chunk.len();
        head.add(&chunk);
        let outcome = splitter.push(&chunk, &mut batch);
        if BATCH_BYTES <= batch.bytes() || (!batch.is_empty() && outcome.is_err()) {
            hand_over(ticket, &mut batch, &memory, large.take(), share, results).await;
        }
        outcome.map_err(|fault| head.unreadable(fault))?;
        if large.is_none() && share.kib * 512 < splitter.held_bytes() {
            // Given back with the batch that brings the record.
            large = Arc::clone(&share.large).acquire_owned().await.ok();
        }
    }
    let finished = splitter.finish();
    hand_over(ticket, &mut batch, &memory, large, share, results).await;
    finished.map_err(|fault| head.unreadable(fault))?;
    Ok(length)
}

/// Gives the records away as soon as there is memory for them to wait in.
async fn hand_over(
    ticket: Ticket,
    batch: &mut Batch,
    memory: &Arc<Semaphore>,
    large: Option<OwnedSemaphorePermit>,
    share: &Share,
    results: &Sender<Work>,
) {
    if batch.is_empty() {
        return;
    }
    let kib = (batch.bytes() / 1_024 + 1).min(share.kib);
    let wanted = u32::try_from(kib).unwrap_or(u32::MAX);
    // The semaphore is ours and never closed.
    let Ok(memory) = Arc::clone(memory).acquire_many_owned(wanted).await else { return };
    let _ = results.send(Work::Records { ticket, batch: std::mem::take(batch), memory, large });
}

/// Records are handed over in portions of this.
const BATCH_BYTES: usize = 256 * 1_024;

/// What a record may take beside its bytes: key, headers, framing.
const FRAMING: usize = 1_024;

/// The largest record that is cut from a blob whole. Whoever splits by another limit may know large records by other ids.
pub fn largest_record(kafka: &Kafka) -> usize {
    kafka.max_record_bytes.saturating_sub(FRAMING)
}

/// What one fetch may hold.
#[derive(Clone)]
struct Share {
    kib: usize,
    largest_record: usize,
    large: Arc<Semaphore>,
}

impl Share {
    fn of(settings: &Settings) -> Self {
        let fetch = &settings.fetch;
        Self {
            kib: (fetch.memory_bytes / fetch.concurrency.max(1) / 1_024).max(2 * BATCH_BYTES / 1_024),
            largest_record: largest_record(&settings.kafka),
            large: Arc::new(Semaphore::new(1)),
        }
    }
}

/// The first KiB of a blob: enough to recognise one that cannot be read, and nothing of what it says.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
}

impl Head {
    const LENGTH: usize = 1_024;

    fn add(&mut self, chunk: &[u8]) {
        let room = Self::LENGTH - self.bytes.len();
        self.bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }

    fn unreadable(&self, fault: NotAnArray) -> Broken {
        let digest = Sha256::digest(&self.bytes);
        let head_sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let head_length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let unreadable = Some(Unreadable { head_sha256, head_length });
        Broken { fate: Fate::Unreadable, answer: fault.to_string(), unreadable }
    }
}

impl From<&ApiError> for Broken {
    fn from(error: &ApiError) -> Self {
        Self { fate: error.fate(), answer: format!("{}: {error}", error.code()), unreadable: None }
    }
}
