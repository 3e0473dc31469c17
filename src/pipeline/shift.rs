//! Member, producer and writer, from start to end, with the listers and the fetch pool that belong to them.

use std::{collections::HashMap, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Sender, unbounded};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    desk::WriterDesk,
    fetch::pool,
    list::{SourceStart, TenantLister, follow_tenant},
    writer::{Committing, Notice, Parts, Request, Writer, WriterError},
};
use crate::{
    api::{Api, ApiError},
    config::{Settings, Tenant},
    domain::ContentType,
    http::Health,
    kafka::{ListingsWriter, Member, Publisher, TransactionError},
    telemetry::Metrics,
};

/// What all shifts of a process share.
#[derive(Clone)]
pub struct Common {
    pub settings: Arc<Settings>,
    pub metrics: Metrics,
    pub health: Health,
    pub api: Api,
    pub listings: Arc<ListingsWriter>,
    pub on_refused: Arc<dyn Fn(&ApiError) + Send + Sync>,
    pub committing: Committing,
}

/// How long fetches that are going on may take to end when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(6);

/// How long the last commit may take after that.
const LAST_COMMIT: Duration = Duration::from_secs(3);

/// How long clients may take to close when another shift is to follow.
const CLOSE: Duration = Duration::from_secs(10);

/// How long a broker may take to let us begin.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs until `stop`, then drains.
///
/// # Errors
/// See [`WriterError`].
pub async fn run(common: Common, stop: CancellationToken) -> Result<(), WriterError> {
    let (events, events_in) = unbounded();
    let (requests, requests_in) = unbounded();
    let (results, results_in) = unbounded();
    let (jobs, jobs_in) = mpsc::unbounded_channel();
    let (notices, notices_in) = mpsc::unbounded_channel();
    let (ended, mut ending) = oneshot::channel();
    let (closed, closing) = oneshot::channel();
    let (settings, metrics, health) = (Arc::clone(&common.settings), common.metrics.clone(), common.health.clone());
    let (committing, to_requests) = (common.committing.clone(), requests.clone());
    let build = move || {
        let publisher = Publisher::new(&settings.kafka, &metrics).map_err(broken)?;
        // The producer first: it fences whoever had our slot before anything is read.
        publisher.init(PATIENCE).map_err(|fault| not_begun(&fault))?;
        let member = Arc::new(Member::join(&settings.kafka, events).map_err(broken)?);
        let parts = Parts {
            settings,
            metrics,
            health,
            member,
            publisher,
            events: events_in,
            requests: requests_in,
            to_requests,
            work: results_in,
            jobs,
            notices,
            committing,
        };
        Ok(Writer::new(parts))
    };
    common.health.expect_beats("writer", 2 * common.settings.kafka.transaction_timeout + PATIENCE);
    thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || match build() {
            Ok(mut writer) => {
                // Told before the clients are closed: that may take long, and who stops need not wait for it.
                let _ = ended.send(writer.run());
                drop(writer);
                let _ = closed.send(());
            }
            Err(fault) => _ = ended.send(Err(fault)),
        })
        .map_err(|fault| WriterError::Broken(fault.to_string()))?;
    let fetching = tokio::spawn(pool(Arc::clone(&common.settings), common.api.clone(), jobs_in, results));
    let listing = CancellationToken::new();
    let outcome = tokio::select! {
        outcome = &mut ending => Some(outcome),
        () = stop.cancelled() => None,
        () = list_what_is_ours(&common, notices_in, &requests, &listing) => None,
    };
    listing.cancel();
    let outcome = match outcome {
        Some(outcome) => {
            // The next shift's member is not to meet this one's: the broker would take them for two on one slot.
            let _ = tokio::time::timeout(CLOSE, closing).await;
            outcome
        }
        None => {
            info!("stopping: what is being fetched is finished");
            // A writer that has ended needs no telling.
            let _ = requests.send(Request::Drain(DRAIN));
            let Ok(outcome) = tokio::time::timeout(DRAIN + LAST_COMMIT, ending).await else {
                warn!("the last commit takes too long; ending without it, so its records come with the next start");
                return Ok(());
            };
            outcome
        }
    };
    common.health.forget("writer");
    fetching.abort();
    outcome.unwrap_or_else(|_| Err(WriterError::Broken("the writer's thread ended by a panic".to_owned())))
}

fn broken(fault: rdkafka::error::KafkaError) -> WriterError {
    WriterError::Broken(fault.to_string())
}

fn not_begun(fault: &TransactionError) -> WriterError {
    let cause = std::error::Error::source(fault).map_or_else(|| fault.to_string(), ToString::to_string);
    match fault {
        TransactionError::Fenced(_) => WriterError::Fenced(cause),
        TransactionError::Unauthorised(_) => WriterError::Unauthorised(cause),
        _ => WriterError::Broken(format!("could not begin transactions: {cause}")),
    }
}

/// Keeps a lister for each tenant whose partition is ours.
async fn list_what_is_ours(
    common: &Common,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    requests: &Sender<Request>,
    listing: &CancellationToken,
) {
    let mut listers = JoinSet::new();
    let mut partitions: HashMap<i32, CancellationToken> = HashMap::new();
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Taken { partition, sources } => {
                let stop = listing.child_token();
                if let Some(before) = partitions.insert(partition, stop.clone()) {
                    before.cancel();
                }
                for tenant in &common.settings.tenants {
                    let started: HashMap<ContentType, _> = sources
                        .iter()
                        .filter(|(source, _)| source.tenant == tenant.id)
                        .map(|(source, start)| (source.content_type, *start))
                        .collect();
                    if let Some(lister) = lister(common, tenant, started, requests, &stop) {
                        listers.spawn(follow_tenant(lister));
                    }
                }
            }
            Notice::Lost { partition } => {
                if let Some(stop) = partitions.remove(&partition) {
                    stop.cancel();
                }
                common.forget_state(partition);
            }
        }
        while listers.try_join_next().is_some() {}
    }
    // The writer has ended, and says itself how.
    std::future::pending().await
}

fn lister(
    common: &Common,
    tenant: &Tenant,
    started: HashMap<ContentType, SourceStart>,
    requests: &Sender<Request>,
    stop: &CancellationToken,
) -> Option<TenantLister<WriterDesk, ListingsWriter>> {
    if started.is_empty() {
        return None;
    }
    let api = common.api.tenant(tenant.id)?;
    // Another process may have spent this minute's budget.
    api.take_over();
    Some(TenantLister {
        tenant: tenant.clone(),
        started,
        settings: Arc::clone(&common.settings),
        api,
        desk: WriterDesk(requests.clone()),
        listings: Arc::clone(&common.listings),
        metrics: common.metrics.clone(),
        health: common.health.clone(),
        on_refused: Arc::clone(&common.on_refused),
        stop: stop.clone(),
    })
}

impl Common {
    /// Two processes that both show a tenant's state would make sums and maxima lie.
    fn forget_state(&self, partition: i32) {
        let count = self.settings.kafka.partitions;
        let gone =
            self.settings.tenants.iter().filter(|tenant| crate::kafka::partition_of(tenant.id, count) == partition);
        gone.for_each(|tenant| self.metrics.forget_state(&tenant.name));
    }
}
