//! What the webhook was told, into the listings topic: there it waits for whoever owns its tenant, as what a lister found does.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::list::Append;
use crate::{
    api::{Api, Notified},
    config::{self, Settings},
    domain::{Listed, Origin, Source},
    http::{Serving, Take, Taken, WebhookError, receive},
    pipeline::spans,
    telemetry::Metrics,
};

/// How long Kafka may take. The service waits for our answer, and sends again what it does not get.
const APPEND: Duration = Duration::from_secs(20);

/// How long what is being received may take to end when the process stops.
const DRAIN: Duration = Duration::from_secs(3);

/// Takes notifications for any tenant of the settings, whichever process owns it.
pub struct Notices<A> {
    api: Api,
    listings: Arc<A>,
    sources: HashSet<Source>,
    metrics: Metrics,
}

impl<A: Append> Notices<A> {
    fn new(settings: &Settings, api: Api, listings: Arc<A>, metrics: Metrics) -> Self {
        let of = |tenant: &config::Tenant| {
            let id = tenant.id;
            tenant.content_types.iter().map(move |kind| Source { tenant: id, content_type: *kind }).collect::<Vec<_>>()
        };
        Self { api, listings, sources: settings.tenants.iter().flat_map(of).collect(), metrics }
    }

    /// What of the entries is ours; the rest is counted and passed over, because sending it again would change nothing.
    fn ours(&self, entries: Vec<Notified>) -> Vec<Arc<Listed>> {
        let mut ours = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry {
                Notified::Content(listed) if self.sources.contains(&listed.source) => ours.push(Arc::new(listed)),
                Notified::Content(_) | Notified::Foreign => self.count("foreign", 1),
                Notified::Elsewhere => self.count("elsewhere", 1),
                Notified::Unreadable => self.count("unreadable", 1),
            }
        }
        ours
    }

    fn count(&self, outcome: &str, contents: usize) {
        self.metrics.webhook_notifications_total.with_label_values(&[outcome]).inc_by(contents as u64);
    }
}

impl<A: Append> Take for Notices<A> {
    async fn take(&self, body: Bytes) -> Taken {
        let entries = match self.api.notified(&body) {
            Ok(entries) => entries,
            Err(why) => {
                warn!("the webhook got what is no notification: {why}");
                return Taken::Unreadable;
            }
        };
        let ours = self.ours(entries);
        let span = spans::notification(ours.len());
        let appended = match ours.is_empty() {
            true => Ok(Ok(())),
            false => timeout(APPEND, self.listings.append(&ours, Origin::Webhook)).await,
        };
        let _within = span.entered();
        let why = match appended {
            Ok(Ok(())) => {
                ours.iter().for_each(|content| debug!(content_id = content.content_id, "announced"));
                self.count("taken", ours.len());
                return Taken::Safe;
            }
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => "Kafka did not answer in time".to_owned(),
        };
        warn!(
            contents = ours.len(),
            "could not append what the webhook was told: {why}; the service will send it again"
        );
        self.count("not_now", ours.len());
        Taken::NotNow
    }
}

/// The receiver, where the settings have one.
pub struct Receiving {
    serving: Option<Serving>,
    stop: CancellationToken,
}

impl Receiving {
    /// Receives until `stop`.
    ///
    /// # Errors
    /// When the address, the certificate or the secret cannot be had.
    pub async fn begin<A: Append>(
        settings: &Settings,
        api: Api,
        listings: Arc<A>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Result<Self, WebhookError> {
        let Some(auth_id) = settings.webhook.auth_id.as_ref().filter(|_| settings.webhook.enabled) else {
            return Ok(Self { serving: None, stop });
        };
        let auth_id = auth_id.read().map_err(WebhookError::AuthId)?;
        let notices = Notices::new(settings, api, listings, metrics.clone());
        let serving = receive(&settings.webhook, &auth_id, metrics, notices, stop.clone()).await?;
        let tls = settings.webhook.tls.is_some();
        info!(address = %serving.address, tls, "notifications are received");
        Ok(Self { serving: Some(serving), stop })
    }

    /// Takes nothing new, and waits until what was being received is answered.
    pub async fn end(self) {
        self.stop.cancel();
        let Some(mut serving) = self.serving else { return };
        if timeout(DRAIN, &mut serving.ended).await.is_err() {
            // Whoever waits for an answer will send again.
            serving.ended.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::{SignedDuration, Timestamp};
    use rdkafka::error::KafkaError;
    use secrecy::SecretString;

    use super::*;
    use crate::{
        config::{Cloud, Credential, Tenant},
        domain::{ContentType, TenantId},
    };

    const TENANT: &str = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";

    /// A topic that takes everything or nothing.
    #[derive(Default)]
    struct Topic {
        is_down: bool,
        has: Mutex<Vec<(String, Origin)>>,
    }

    impl Append for Topic {
        async fn append(&self, contents: &[Arc<Listed>], origin: Origin) -> Result<(), KafkaError> {
            if self.is_down {
                return Err(KafkaError::Canceled);
            }
            self.has.lock().unwrap().extend(contents.iter().map(|content| (content.content_id.clone(), origin)));
            Ok(())
        }
    }

    fn notices(topic: Topic) -> Notices<Topic> {
        let tenant = Tenant {
            id: TenantId(TENANT.parse().unwrap()),
            name: "contoso".to_owned(),
            cloud: Cloud::Worldwide,
            api_root: "https://manage.office.com".parse().unwrap(),
            authority: "https://login.microsoftonline.com".parse().unwrap(),
            audience: String::new(),
            client_id: String::new(),
            credential: Credential::Secret(SecretString::from("x")),
            content_types: vec![ContentType::General],
            publisher_identifier: TENANT.parse().unwrap(),
        };
        let (settings, metrics) = (Settings::with_defaults(vec![tenant], "host"), Metrics::new());
        let api = Api::new(&settings, &metrics).unwrap();
        Notices::new(&settings, api, Arc::new(topic), metrics)
    }

    fn entry(kind: &str, id: &str) -> serde_json::Value {
        serde_json::json!({
            "tenantId": TENANT, "clientId": "x", "contentType": kind, "contentId": id,
            "contentUri": format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/audit/{id}"),
            "contentCreated": Timestamp::now().to_string(),
            "contentExpiration": (Timestamp::now() + SignedDuration::from_hours(168)).to_string(),
        })
    }

    async fn take(notices: &Notices<Topic>, body: &serde_json::Value) -> Taken {
        notices.take(Bytes::from(body.to_string())).await
    }

    fn counted(notices: &Notices<Topic>) -> [u64; 5] {
        let counters = &notices.metrics.webhook_notifications_total;
        Metrics::NOTIFICATION_OUTCOMES.map(|outcome| counters.with_label_values(&[outcome]).get())
    }

    #[tokio::test]
    async fn what_is_ours_is_appended_and_the_rest_counted() {
        let notices = notices(Topic::default());
        let body = serde_json::json!([
            entry("Audit.General", "1$2"),
            entry("DLP.All", "3$4"),
            7,
            entry("audit.general", "5$6")
        ]);
        assert_eq!(take(&notices, &body).await, Taken::Safe);
        let appended = [("1$2".to_owned(), Origin::Webhook), ("5$6".to_owned(), Origin::Webhook)];
        assert_eq!(*notices.listings.has.lock().unwrap(), appended);
        assert_eq!(counted(&notices), [2, 0, 1, 0, 1]);
        assert_eq!(take(&notices, &serde_json::json!({})).await, Taken::Unreadable);
        assert_eq!(take(&notices, &serde_json::json!([])).await, Taken::Safe);
    }

    #[tokio::test]
    async fn what_kafka_did_not_take_is_to_come_again_and_what_is_not_ours_needs_no_kafka() {
        let notices = notices(Topic { is_down: true, ..Topic::default() });
        assert_eq!(take(&notices, &serde_json::json!([entry("Audit.General", "1$2")])).await, Taken::NotNow);
        assert_eq!(counted(&notices), [0, 1, 0, 0, 0]);
        assert_eq!(take(&notices, &serde_json::json!([entry("DLP.All", "1$2")])).await, Taken::Safe);
    }
}
