//! List, fetch, subscribe: the operations of the API, for each tenant of the settings.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use tracing::warn;
use url::{Host, Url};

use super::{
    auth::{Auth, TokenState},
    blob::Blob,
    call::{self, Caller, Timeouts},
    claims::{self, Claims},
    error::{ApiError, ApiSetupError, Operation},
    limiter::Limiter,
    meter::Meter,
    origin::Origin,
    pages::Pages,
    webhook::{NewWebhook, Webhook},
    wire::{self, Notification, Subscription},
};
use crate::{
    config::{Settings, Tenant},
    domain::{ContentType, Listed, Source, TenantId, Window},
    telemetry::Metrics,
};

/// The API for all tenants of the settings. One per process; cheap to clone.
#[derive(Clone)]
pub struct Api {
    tenants: Arc<HashMap<TenantId, Arc<TenantApi>>>,
}

impl Api {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// When TLS cannot be set up, or a tenant's `api_root` or `authority` is no http(s) address.
    pub fn new(settings: &Settings, metrics: &Metrics) -> Result<Self, ApiSetupError> {
        Self::with_timeouts(settings, metrics, Timeouts::default())
    }

    /// [`Api::new`] with other times, for tests that must not wait a minute.
    ///
    /// # Errors
    /// As [`Api::new`].
    pub fn with_timeouts(settings: &Settings, metrics: &Metrics, timeouts: Timeouts) -> Result<Self, ApiSetupError> {
        let ways = Ways::new(timeouts)?;
        let per_minute = settings.quota.requests_per_minute;
        let tenant = |tenant: &Tenant| {
            let meter = Meter::new(metrics, &tenant.name);
            Ok((tenant.id, Arc::new(TenantApi::new(tenant, per_minute, &ways, timeouts, meter)?)))
        };
        let tenants = settings.tenants.iter().map(tenant).collect::<Result<_, ApiSetupError>>()?;
        Ok(Self { tenants: Arc::new(tenants) })
    }

    /// `None` when the settings do not name the tenant.
    pub fn tenant(&self, id: TenantId) -> Option<Arc<TenantApi>> {
        self.tenants.get(&id).cloned()
    }
}

/// The connections: through the proxy of the environment, or, to this very machine, past it.
pub(super) struct Ways {
    out: reqwest::Client,
    local: reqwest::Client,
}

impl Ways {
    pub(super) fn new(timeouts: Timeouts) -> Result<Self, ApiSetupError> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("o365feed/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(timeouts.connect)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                // A request repeated behind our back would not be counted in the budget.
                .retry(reqwest::retry::never())
                .gzip(true)
        };
        Ok(Self {
            out: builder().build().map_err(ApiSetupError::Client)?,
            local: builder().no_proxy().build().map_err(ApiSetupError::Client)?,
        })
    }

    pub(super) fn to(&self, url: &Url) -> reqwest::Client {
        if is_local(url) { self.local.clone() } else { self.out.clone() }
    }
}

/// Whether the address is one of this very machine, which no proxy leads to.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// One tenant's feed, with its token, its budget and its pauses. All callers share them.
pub struct TenantApi {
    id: TenantId,
    pub(super) origin: Origin,
    pub(super) caller: Caller,
}

impl TenantApi {
    pub(super) fn new(
        tenant: &Tenant,
        per_minute: u32,
        ways: &Ways,
        timeouts: Timeouts,
        meter: Meter,
    ) -> Result<Self, ApiSetupError> {
        let fault =
            |key| ApiSetupError::Root { tenant: tenant.name.clone(), key, why: "it is no http or https address" };
        let origin = Origin::new(&tenant.api_root, tenant.id, tenant.publisher_identifier);
        let auth = Auth::new(ways.to(&tenant.authority), tenant, timeouts, meter.clone());
        Ok(Self {
            id: tenant.id,
            origin: origin.ok_or_else(|| fault("api_root"))?,
            caller: Caller {
                http: ways.to(&tenant.api_root),
                auth: auth.ok_or_else(|| fault("authority"))?,
                limiter: Limiter::new(per_minute, meter.clone()),
                meter,
                timeouts,
                skew: Mutex::new(None),
            },
        })
    }

    pub fn id(&self) -> TenantId {
        self.id
    }

    /// To be called when this process becomes the tenant's owner: the budget starts with nothing saved up, because the
    /// owner before may have spent this minute's.
    pub fn take_over(&self) {
        self.caller.limiter.start_empty();
    }

    /// Lists what became available in `window`, page by page.
    ///
    /// Shape: a page is 0..n [`Listed`], in order of arrival; the last one has no link to a next.
    /// Units: UTC; `window` is half-open and widened to whole seconds.
    ///
    /// Source: Activity API reference, "List available content" (docs/api/contract.md 3.5).
    pub fn pages(self: &Arc<Self>, kind: ContentType, window: Window) -> Pages {
        let source = Source { tenant: self.id, content_type: kind };
        Pages::new(Arc::clone(self), source, Operation::List, self.origin.contents(kind, window), wire::page)
    }

    /// Lists the attempts to notify the subscription's webhook in `window`, page by page: several for a content when
    /// some failed, none when nobody set a webhook. It is no list of contents.
    ///
    /// Shape and units: as [`TenantApi::pages`].
    ///
    /// Source: Activity API reference, "List notifications" (docs/api/contract.md 3.8).
    pub fn notifications(self: &Arc<Self>, kind: ContentType, window: Window) -> Pages<Notification> {
        let source = Source { tenant: self.id, content_type: kind };
        let first = self.origin.notifications(kind, window);
        Pages::new(Arc::clone(self), source, Operation::Notifications, first, wire::notifications)
    }

    /// The id of the content that `link` leads to; `None` when it leads to none, or not to this tenant's API host.
    pub fn content_id(&self, link: &str) -> Option<String> {
        self.origin.content_id(link)
    }

    /// Fetches a content; its bytes come through [`Blob::chunk`].
    ///
    /// # Errors
    /// [`ApiError::NotFound`], [`ApiError::Expired`] and [`ApiError::InvalidId`] are about this content, all others
    /// about the call.
    ///
    /// Source: Activity API reference, "Retrieving content" (docs/api/contract.md 3.6).
    pub async fn fetch(&self, content: &Listed) -> Result<Blob, ApiError> {
        let response = self.caller.call(Operation::Blob, &self.origin.content(content)).await?;
        Ok(Blob::new(response, self.caller.timeouts.idle))
    }

    /// The subscriptions of this application in this tenant, foreign and disabled ones included.
    ///
    /// # Errors
    /// [`ApiError::Unreadable`] when the answer is no list of subscriptions.
    ///
    /// Source: Activity API reference, "List current subscriptions" (docs/api/contract.md 3.4).
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, ApiError> {
        let operation = Operation::Subscriptions;
        let body = self.body(operation, &self.origin.subscriptions()).await?;
        wire::subscriptions(&body)
            .map_err(|why| ApiError::Unreadable { operation, why })
            .inspect_err(|error| self.caller.meter.error(error))
    }

    /// Starts a subscription without a webhook. At most once in 15 minutes for each type: the caller counts.
    ///
    /// # Errors
    /// [`ApiError::AlreadySo`], whose fate is `Done`, when it runs already.
    ///
    /// Source: Activity API reference, "Start a subscription" (docs/api/contract.md 3.1).
    pub async fn start(&self, kind: ContentType) -> Result<Subscription, ApiError> {
        let body = self.body(Operation::Start, &self.origin.start(kind)).await?;
        Ok(wire::started(&body, kind))
    }

    /// Starts a subscription with a webhook, or gives a running one another. The service calls the address while it answers.
    ///
    /// # Errors
    /// As [`Self::start`]; [`ApiError::WebhookRefused`] when the address did not answer as a webhook does, or expires too
    /// soon: a subscription that ran then runs on without a webhook, and no other is made.
    ///
    /// Source: Activity API reference, "Start a subscription" and "Webhook validation" (docs/api/contract.md 3.1 and 3.2).
    pub async fn start_with(&self, kind: ContentType, webhook: &NewWebhook) -> Result<Subscription, ApiError> {
        let (operation, url) = (Operation::Start, self.origin.start(kind));
        let response = self.caller.call_with(operation, &url, webhook.body()).await?;
        let body = self.read(operation, response).await?;
        Ok(wire::started(&body, kind))
    }

    /// [`Self::start`] for a subscription that had this webhook: a start without one would take it away, so it is named
    /// again. Without it when it is over by `now`, or refused.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_again(
        &self,
        kind: ContentType,
        webhook: Option<&Webhook>,
        now: Timestamp,
    ) -> Result<Subscription, ApiError> {
        let Some(webhook) = webhook.and_then(|webhook| webhook.again(now)) else { return self.start(kind).await };
        match self.start_with(kind, &webhook).await {
            Err(refusal @ ApiError::WebhookRefused(_)) => {
                warn!(tenant = %self.id, content_type = kind.as_str(), "could not {refusal}; starting without the webhook");
                self.start(kind).await
            }
            other => other,
        }
    }

    /// Stops a subscription. What becomes available until it is started again is lost for good.
    ///
    /// # Errors
    /// [`ApiError::AlreadySo`], whose fate is `Done`, when there is none.
    ///
    /// Source: Activity API reference, "Stop a subscription" (docs/api/contract.md 3.3).
    pub async fn stop(&self, kind: ContentType) -> Result<(), ApiError> {
        self.caller.call(Operation::Stop, &self.origin.stop(kind)).await.map(drop)
    }

    /// Makes sure that there is a token. That the API takes it is not proven: one is issued without any role too.
    ///
    /// # Errors
    /// Those of the token: [`ApiError::Secret`], `TokenRefused`, `TokenThrottled`, `TokenUnavailable`, or no connection.
    pub async fn check_token(&self) -> Result<(), ApiError> {
        self.caller.auth.token().await.map(drop)
    }

    /// What the token says about itself, decoded and not verified; the token stays in this room.
    ///
    /// # Errors
    /// Those of [`Self::check_token`]; [`ApiError::Unreadable`] when there is a token but it is no JWT.
    pub async fn claims(&self) -> Result<Claims, ApiError> {
        let token = self.caller.auth.token().await?;
        let unreadable = || ApiError::Unreadable { operation: Operation::Token, why: "the token is no JWT".to_owned() };
        claims::decode(token.text().expose_secret()).ok_or_else(unreadable)
    }

    /// Whether there is a token now. Asks nobody.
    pub fn token_state(&self) -> TokenState {
        self.caller.auth.state()
    }

    /// How far the service's clock is ahead of ours (negative: behind), to about a second; from the latest answer.
    pub fn server_clock_skew(&self) -> Option<SignedDuration> {
        *self.caller.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn body(&self, operation: Operation, url: &Url) -> Result<bytes::Bytes, ApiError> {
        let response = self.caller.call(operation, url).await?;
        self.read(operation, response).await
    }

    async fn read(&self, operation: Operation, response: reqwest::Response) -> Result<bytes::Bytes, ApiError> {
        /// Far more than five subscriptions take.
        const MAX: usize = 1 << 20;
        call::whole_body(operation, response, self.caller.timeouts.idle, MAX)
            .await
            .inspect_err(|error| self.caller.meter.error(error))
    }
}
