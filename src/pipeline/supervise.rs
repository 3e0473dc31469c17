//! One shift after the other, until told to stop or until a restart would not help.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    notice::Receiving,
    shift::{self, Common},
    writer::{Committing, WriterError},
};
use crate::{
    api::{Api, ApiError, ApiSetupError, TokenState},
    config::{Delivery, Settings},
    http::{Health, WebhookError},
    kafka::{ListingsWriter, RestoreError, TopicError, ensure},
    telemetry::Metrics,
};

/// Why the connector ended when nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Api(#[from] ApiSetupError),
    /// Every tenant is refused for good.
    #[error("{0}")]
    Microsoft(String),
    #[error(transparent)]
    Topics(TopicError),
    #[error(transparent)]
    Ledger(RestoreError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error("{0}")]
    Kafka(String),
    #[error("{0}")]
    SlotTaken(String),
}

/// Between two tries to reach Kafka, and between two shifts.
const PAUSE: Duration = Duration::from_secs(2);

/// A member after a broker's freeze is told like one whose slot another instance took. Twice within this, it is the latter.
const PING_PONG: Duration = Duration::from_secs(120);

/// Topics of a broker that answers nobody's admin calls (the mock) are made by whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topics {
    Ensure,
    Trust,
}

/// Runs the connector until `stop`.
///
/// # Errors
/// See [`PipelineError`]; everything that may pass is waited out and told by `health`.
pub async fn run(
    settings: Settings,
    topics: Topics,
    metrics: Metrics,
    health: Health,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    let settings = Arc::new(settings);
    for tenant in &settings.tenants {
        tenant.content_types.iter().for_each(|kind| metrics.init_source(&tenant.name, *kind));
    }
    health.not_ok("kafka", format!("not reached yet: {}", settings.kafka.bootstrap_servers));
    health.not_ok("partitions", "the group has not given us any yet");
    health.begun();
    let api = Api::new(&settings, &metrics)?;
    if topics == Topics::Ensure && !topics_are_there(&settings, &health, &stop).await? {
        return Ok(());
    }
    health.ok("kafka");
    let listings = ListingsWriter::new(&settings.kafka).map_err(|fault| PipelineError::Kafka(fault.to_string()))?;
    let listings = Arc::new(listings);
    let receiving =
        Receiving::begin(&settings, api.clone(), Arc::clone(&listings), metrics.clone(), stop.child_token()).await?;
    let committing = Committing::default();
    watch(committing.clone(), settings.kafka.transaction_timeout);
    let refusals = Refusals::new(&settings, api.clone());
    let refused = Arc::clone(&refusals.for_good);
    let common = Common {
        settings,
        metrics,
        health,
        api,
        listings,
        on_refused: Arc::new(move |error| refusals.tell(error)),
        committing,
    };
    let ended = shifts(common, &refused, &stop).await;
    receiving.end().await;
    ended
}

async fn shifts(common: Common, refused: &SetOnce<String>, stop: &CancellationToken) -> Result<(), PipelineError> {
    let settings = Arc::clone(&common.settings);
    if settings.kafka.delivery == Delivery::AtLeastOnce {
        info!("delivery is at_least_once: a crash may repeat records");
    }
    let mut fenced: Option<Instant> = None;
    loop {
        let ended = tokio::select! {
            ended = shift::run(common.clone(), stop.clone()) => ended,
            why = refused.wait() => return Err(PipelineError::Microsoft(why.clone())),
            error = common.listings.refused() => {
                Err(WriterError::Unauthorised(format!("{}: {error}", settings.kafka.listings_topic())))
            }
        };
        let is_fenced = matches!(ended, Err(WriterError::Fenced(_)));
        match ended {
            Ok(()) => return Ok(()),
            Err(WriterError::Refused(why)) => return Err(PipelineError::Ledger(why)),
            Err(refusal @ WriterError::Unauthorised(_)) => return Err(PipelineError::Kafka(refusal.to_string())),
            Err(WriterError::Fenced(why)) if fenced.is_some_and(|before| before.elapsed() < PING_PONG) => {
                return Err(PipelineError::SlotTaken(format!(
                    "another instance uses kafka.slot `{}` of group `{}`; give each process a slot of its own: {why}",
                    settings.kafka.slot, settings.kafka.group
                )));
            }
            Err(WriterError::Broken(why) | WriterError::Fenced(why)) => {
                if is_fenced {
                    fenced = Some(Instant::now());
                }
                warn!("begins anew, with everything restored: {why}");
                common.metrics.producer_recreated_total.inc();
                common.health.not_ok("kafka", format!("{}: {why}", settings.kafka.bootstrap_servers));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return Ok(()),
        }
        // After the pause, when the last of the shift's tasks is gone.
        forget_state(&settings, &common.metrics);
    }
}

/// Until the next shift owns something there is nothing to show, however long Kafka is away.
fn forget_state(settings: &Settings, metrics: &Metrics) {
    settings.tenants.iter().for_each(|tenant| metrics.forget_state(&tenant.name));
    metrics.partitions_owned.set(0);
    metrics.partitions_restored.set(0);
}

/// Waits for Kafka and makes or checks the topics; false when told to stop meanwhile.
async fn topics_are_there(
    settings: &Settings,
    health: &Health,
    stop: &CancellationToken,
) -> Result<bool, PipelineError> {
    let mut told = false;
    loop {
        let outcome = tokio::select! {
            outcome = ensure(settings) => outcome,
            () = stop.cancelled() => return Ok(false),
        };
        match outcome {
            Ok(()) => return Ok(true),
            Err(unreachable @ TopicError::Unreachable { .. }) => {
                health.not_ok("kafka", unreachable.to_string());
                if !told {
                    error!("{unreachable}; trying again until it answers");
                }
                told = true;
            }
            Err(refused) => return Err(PipelineError::Topics(refused)),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

/// Ends the process when a step of a commit makes no progress: librdkafka may hang in one for ever when the group's
/// coordinator is gone, and a restart is what helps (docs/exactly-once.md, rule 10).
fn watch(committing: Committing, transaction_timeout: Duration) {
    let looking = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            if let Some(age) = committing.age().filter(|age| 2 * transaction_timeout < *age) {
                error!("a commit made no progress for {} s; ending, so that a restart can help", age.as_secs());
                std::process::exit(i32::from(crate::cli::Exit::Watchdog.code()));
            }
        }
    });
    if let Err(fault) = looking {
        error!("could not start the watchdog: {fault}");
    }
}

/// Decides when Microsoft's refusals end the process: when every tenant was refused, and for a reason that no waiting,
/// no new secret and no consent cures, but only other settings.
struct Refusals {
    api: Api,
    tenants: Vec<crate::domain::TenantId>,
    refused: Mutex<HashSet<String>>,
    /// Why, once it is decided.
    for_good: Arc<SetOnce<String>>,
}

/// Tenant, application or cloud are not what the settings say: AADSTS90002, 900023, 700016, 70001, 700011, 900382,
/// 900432, 90038 (docs/api/contract.md 2.5).
const WRONG_SETTINGS: [&str; 8] = [
    "AADSTS90002",
    "AADSTS900023",
    "AADSTS700016",
    "AADSTS70001",
    "AADSTS700011",
    "AADSTS900382",
    "AADSTS900432",
    "AADSTS90038",
];

impl Refusals {
    fn new(settings: &Settings, api: Api) -> Self {
        Self {
            api,
            tenants: settings.tenants.iter().map(|tenant| tenant.id).collect(),
            refused: Mutex::default(),
            for_good: Arc::default(),
        }
    }

    fn tell(&self, error: &ApiError) {
        if !WRONG_SETTINGS.contains(&error.code()) {
            return;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert(error.to_string());
        let lacking = |id: &crate::domain::TenantId| {
            self.api.tenant(*id).is_some_and(|tenant| matches!(tenant.token_state(), TokenState::Lacking { .. }))
        };
        if self.tenants.iter().all(lacking) {
            let advice = error.advice().map(|advice| format!("\n  {advice}")).unwrap_or_default();
            // The first one is enough to know.
            let _ = self.for_good.set(format!("{error}{advice}"));
        }
    }
}
