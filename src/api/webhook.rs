//! Where the service is to send notifications: as it tells it, and as it is told. Also the question that it asks a new
//! address, so that we can ask it first.

use std::{fmt, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::{call::Timeouts, client::Ways, wire};

/// The webhook of a subscription as the service tells it.
#[derive(Clone, Default, Deserialize)]
pub struct Webhook {
    /// `enabled`, `disabled` or `expired`.
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default, rename = "authId", deserialize_with = "auth_id")]
    pub auth_id: Option<SecretString>,
    /// None: never. What cannot be read counts as never, because the status says what matters.
    #[serde(default, deserialize_with = "expiration")]
    pub expiration: Option<Timestamp>,
}

fn expiration<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(reader)?.and_then(|text| wire::time(&text)))
}

/// An empty text is none.
fn auth_id<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(reader)?.filter(|text| !text.is_empty()).map(SecretString::from))
}

impl Webhook {
    /// Without a status it counts as enabled.
    pub fn is_enabled(&self) -> bool {
        self.status.as_deref().is_none_or(|status| status.eq_ignore_ascii_case("enabled"))
    }

    /// Whether notifications go to this address. Addresses are compared as addresses: `https://A/` is `https://a`.
    pub fn leads_to(&self, address: &Url) -> bool {
        self.address.as_deref().and_then(|text| Url::parse(text).ok()).is_some_and(|known| known == *address)
    }

    /// The same, to be registered again; none when its address is none or it is over.
    pub fn again(&self, now: Timestamp) -> Option<NewWebhook> {
        let address = Url::parse(self.address.as_deref()?).ok()?;
        let expires = self.expiration.filter(|at| now < *at);
        (expires == self.expiration).then(|| NewWebhook { address, auth_id: self.auth_id.clone(), expires })
    }

    fn secret(&self) -> Option<&str> {
        self.auth_id.as_ref().map(ExposeSecret::expose_secret)
    }
}

impl PartialEq for Webhook {
    fn eq(&self, other: &Self) -> bool {
        (&self.status, &self.address, self.expiration) == (&other.status, &other.address, other.expiration)
            && self.secret() == other.secret()
    }
}

impl Eq for Webhook {}

/// Without the secret.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, address, auth_id: _, expiration } = self;
        f.debug_struct("Webhook")
            .field("status", status)
            .field("address", address)
            .field("expiration", expiration)
            .finish()
    }
}

/// A webhook that is to be registered.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    pub address: Url,
    /// What the service is to show with everything it sends.
    pub auth_id: Option<SecretString>,
    /// After which nothing is sent any more.
    pub expires: Option<Timestamp>,
}

/// Why an address is no webhook of ours: what was tried, and what came back.
#[derive(Debug, thiserror::Error)]
pub enum NotAWebhook {
    #[error(
        "POST {address} with Webhook-AuthID and Webhook-ValidationCode: it answered {status}, and 200 is what counts"
    )]
    Answered { address: Url, status: u16 },
    #[error("POST {address} with Webhook-AuthID and Webhook-ValidationCode: no answer")]
    NoAnswer {
        address: Url,
        #[source]
        source: reqwest::Error,
    },
    #[error("POST {address}: no client for it")]
    NoClient {
        address: Url,
        #[source]
        source: super::error::ApiSetupError,
    },
}

/// How long the answer may take. The service's own limit is not known (docs/api/contract.md 3.2).
const PATIENCE: Duration = Duration::from_secs(5);

impl NewWebhook {
    /// Whether it is the one that the service has, and works.
    pub fn is(&self, known: &Webhook) -> bool {
        let secret = self.auth_id.as_ref().map(ExposeSecret::expose_secret);
        known.is_enabled()
            && known.leads_to(&self.address)
            && known.secret() == secret
            && known.expiration == self.expires
    }

    /// Asks the address what the service would ask it.
    ///
    /// # Errors
    /// When the answer is anything but 200, or none comes within five seconds.
    ///
    /// Source: Activity API reference, "Webhook validation" (docs/api/contract.md 3.2).
    pub async fn try_out(&self) -> Result<(), NotAWebhook> {
        let address = self.address.clone();
        let ways = match Ways::new(Timeouts { connect: PATIENCE, ..Timeouts::default() }) {
            Ok(ways) => ways,
            Err(source) => return Err(NotAWebhook::NoClient { address, source }),
        };
        let code = Uuid::from_u128(rand::random()).to_string();
        let mut request = ways.to(&address).post(address.clone()).timeout(PATIENCE);
        if let Some(mut shown) =
            self.auth_id.as_ref().and_then(|secret| HeaderValue::try_from(secret.expose_secret()).ok())
        {
            shown.set_sensitive(true);
            request = request.header("Webhook-AuthID", shown);
        }
        let request = request
            .header("Webhook-ValidationCode", &code)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(json!({"validationCode": code}).to_string());
        match request.send().await {
            Ok(answer) if answer.status().as_u16() == 200 => Ok(()),
            Ok(answer) => Err(NotAWebhook::Answered { address, status: answer.status().as_u16() }),
            Err(source) => Err(NotAWebhook::NoAnswer { address, source: source.without_url() }),
        }
    }

    /// Of a start call.
    pub(super) fn body(&self) -> Bytes {
        let webhook = json!({
            "address": self.address.as_str(),
            "authId": self.auth_id.as_ref().map_or("", |secret| secret.expose_secret()),
            "expiration": self.expires.map_or_else(String::new, |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        });
        json!({ "webhook": webhook }).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            ApiError,
            stage::{Stage, af, ok, reply},
        },
        domain::ContentType,
    };

    const SECRET: &str = "0123456789abcdef";

    fn new(address: &str) -> NewWebhook {
        let auth_id = Some(SecretString::from(SECRET));
        NewWebhook {
            address: address.parse().unwrap(),
            auth_id,
            expires: Some("2099-01-01T00:00:00Z".parse().unwrap()),
        }
    }

    #[test]
    fn a_webhook_is_read_leniently_and_known_again_and_never_shows_its_secret() {
        let read = |text: &str| serde_json::from_str::<Webhook>(text).unwrap();
        let known = read(
            r#"{"status":"Enabled","address":"https://Feed.example.com/x","authId":"0123456789abcdef","expiration":"2099-01-01T00:00:00","x":1}"#,
        );
        let ours = new("https://feed.example.com/x");
        assert!(ours.is(&known));
        assert!(!new("https://feed.example.com/y").is(&known));
        assert!(!NewWebhook { auth_id: None, ..ours.clone() }.is(&known));
        assert!(!NewWebhook { expires: None, ..ours.clone() }.is(&known));
        assert!(!ours.is(&Webhook { status: Some("disabled".to_owned()), ..known.clone() }));
        assert!(!format!("{known:?} {ours:?}").contains(SECRET));
        let again = known.again(Timestamp::now()).unwrap();
        assert!(again.is(&known));
        assert!(known.again("2099-01-02T00:00:00Z".parse().unwrap()).is_none(), "it is over");
        for bare in ["{}", r#"{"status":null,"address":null,"authId":null,"expiration":""}"#] {
            let bare = read(bare);
            assert!(bare.is_enabled() && bare.again(Timestamp::now()).is_none());
        }
    }

    #[tokio::test]
    async fn a_start_carries_the_webhook_and_a_refusal_is_told_as_one() {
        let started = r#"{"contentType":"DLP.All","status":"enabled","webhook":{"status":"enabled","address":"https://a.example/"}}"#;
        let stage = Stage::with_tokens(move |_, _| ok(started)).await;
        let told = stage.api.start_with(ContentType::Dlp, &new("https://a.example/")).await.unwrap();
        assert!(told.webhook.unwrap().leads_to(&"https://a.example".parse().unwrap()));
        let asked = stage.asked().remove(0);
        assert_eq!(asked.header("content-type"), "application/json; charset=utf-8");
        let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(
            body,
            json!({"webhook": {"address": "https://a.example/", "authId": SECRET, "expiration": "2099-01-01T00:00:00Z"}})
        );
        for code in ["AF20021", "AF20003"] {
            let stage = Stage::with_tokens(move |_, _| af(400, code)).await;
            let refused = stage.api.start_with(ContentType::Dlp, &new("https://a.example/")).await.unwrap_err();
            assert!(matches!(refused, ApiError::WebhookRefused(_)), "{refused}");
            assert!(refused.advice().is_some());
        }
    }

    #[tokio::test]
    async fn an_address_is_asked_what_the_service_would_ask_and_only_200_will_do() {
        let stage = Stage::new(|asked, _| match asked.path.as_str() {
            "/good" => ok(""),
            "/moved" => reply(302, &[("location", "/good")], ""),
            _ => reply(403, &[], ""),
        })
        .await;
        let at = |path: &str| new(&format!("{}{path}", stage.root));
        at("/good").try_out().await.unwrap();
        let asked = stage.asked().remove(0);
        assert_eq!((asked.method.as_str(), asked.header("webhook-authid")), ("POST", SECRET));
        let code = asked.header("webhook-validationcode").to_owned();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&asked.body).unwrap(), json!({"validationCode": code}));
        for (path, status) in [("/moved", "302"), ("/bad", "403")] {
            let why = at(path).try_out().await.unwrap_err().to_string();
            assert!(why.contains(path) && why.contains(status) && !why.contains(SECRET), "{why}");
        }
        let why = new("http://127.0.0.1:1/").try_out().await.unwrap_err();
        assert!(matches!(why, NotAWebhook::NoAnswer { .. }), "{why}");
    }
}
