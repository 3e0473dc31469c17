//! A tenant's contents into the listings topic: which window is next, its pages, and what of them is wanted.
//! One door: [`follow_tenant`]. It remembers nothing that a successor would miss: a window that was not read to its end,
//! or whose contents Kafka did not acknowledge, is simply listed again.

mod setbacks; // how long an error keeps a source waiting
mod source; // one content type, window by window
#[cfg(test)]
mod tests; // against the simulator
mod troubles; // what a person must know about, in the log and in the health

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::Arc,
};

use futures_util::future::select_all;
use jiff::Timestamp;
use rdkafka::error::KafkaError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    setbacks::{Rests, Setbacks},
    source::SourceLister,
    troubles::{Troubles, told},
};
use super::desk::Desk;
use crate::{
    api::{ApiError, TenantApi},
    config::{Settings, Subscriptions, Tenant},
    domain::{ContentType, Listed, Origin},
    http::Health,
    kafka::ListingsWriter,
    telemetry::Metrics,
};

/// Where listings are appended.
pub trait Append: Send + Sync + 'static {
    /// Gives back success only when every one of `contents` is safe.
    fn append(&self, contents: &[Arc<Listed>], origin: Origin) -> impl Future<Output = Result<(), KafkaError>> + Send;
}

impl Append for ListingsWriter {
    fn append(&self, contents: &[Arc<Listed>], origin: Origin) -> impl Future<Output = Result<(), KafkaError>> + Send {
        Self::append(self, contents, origin)
    }
}

/// Where the listing of a source starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceStart {
    /// Nothing before it is asked for. `None`: all that is in reach.
    pub floor: Option<Timestamp>,
    /// Up to where owners before us had listed it.
    pub listed: Timestamp,
}

/// What it takes to list a tenant.
pub struct TenantLister<D, A> {
    pub tenant: Tenant,
    /// Where each source starts. No entry: with all that is in reach.
    pub started: HashMap<ContentType, SourceStart>,
    pub settings: Arc<Settings>,
    /// Of this tenant. Who gains the tenant calls [`TenantApi::take_over`] first.
    pub api: Arc<TenantApi>,
    pub desk: D,
    pub listings: Arc<A>,
    pub metrics: Metrics,
    /// Conditions `token <name>` and `tenant <name>`; both are forgotten when listing ends.
    pub health: Health,
    /// Told each time the authority says that it gives no token until a person acts.
    pub on_refused: Arc<dyn Fn(&ApiError) + Send + Sync>,
    pub stop: CancellationToken,
}

/// Why a tenant is listed no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingEnds {
    /// [`TenantLister::stop`] was cancelled.
    Stopped,
    /// The desk says that the tenant's partition is not ours.
    LostPartition,
}

/// Lists all content types of the tenant, at the same time, until it is stopped or the partition is lost.
///
/// Errors of the API and of Kafka end nothing: they are waited out, logged, and shown in the health when a person must
/// act. `listings_total` counts the contents appended. No more than one request a source is open, and no more than one
/// page a source is in memory. When stopped it drops what it was doing, at once: claims at the desk go with it.
pub async fn follow_tenant<D: Desk, A: Append>(lister: TenantLister<D, A>) -> ListingEnds {
    follow(lister, Rests::SERVICE).await
}

async fn follow<D: Desk, A: Append>(lister: TenantLister<D, A>, rests: Rests) -> ListingEnds {
    let stop = lister.stop.clone();
    let troubles = Troubles::new(&lister.tenant.name, lister.health.clone(), Arc::clone(&lister.on_refused));
    let following = Following { lister, rests, troubles };
    tokio::select! {
        biased;
        () = stop.cancelled() => ListingEnds::Stopped,
        ended = following.run() => ended,
    }
}

/// What the sources of a tenant share.
struct Following<D, A> {
    lister: TenantLister<D, A>,
    rests: Rests,
    troubles: Troubles,
}

impl<D: Desk, A: Append> Following<D, A> {
    async fn run(&self) -> ListingEnds {
        self.await_token().await;
        let missing = self.not_subscribed().await;
        let sources = self.lister.tenant.content_types.iter().map(|&kind| {
            let source = SourceLister::new(self, kind);
            Box::pin(source.follow(missing.contains(&kind)))
        });
        // All sources of a tenant live in one partition: the first that has lost it speaks for all. There is at least
        // one, because the settings refuse a tenant without content types.
        let (ended, ..) = select_all(sources).await;
        ended
    }

    async fn await_token(&self) {
        let mut setbacks = Setbacks::default();
        while let Err(error) = self.lister.api.check_token().await {
            let setback = setbacks.met(&error, &self.rests, rand::random());
            self.troubles.no_token(&error, setback);
            sleep(setback.rest).await;
        }
        self.troubles.token_held();
    }

    /// Types whose subscription we are to start. If the service does not tell now, the listings will.
    async fn not_subscribed(&self) -> HashSet<ContentType> {
        let TenantLister { tenant, settings, api, .. } = &self.lister;
        if settings.subscriptions == Subscriptions::Leave {
            return HashSet::new();
        }
        let found = match api.subscriptions().await {
            Ok(found) => found,
            Err(error) => {
                warn!(tenant = %tenant.name, code = error.code(), "{}; listing begins all the same", told(&error));
                return HashSet::new();
            }
        };
        let runs = |kind| found.iter().any(|known| known.kind() == Some(kind) && known.is_enabled());
        tenant.content_types.iter().copied().filter(|kind| !runs(*kind)).collect()
    }
}
