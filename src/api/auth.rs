//! Tokens of the authority: held until shortly before they lapse, renewed by one caller at a time, and not asked for
//! again and again when the authority says no. Source: docs/api/contract.md 2.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use url::Url;

use super::{
    call::{self, Timeouts},
    classify,
    error::{ApiError, Operation},
    meter::Meter,
    proof::Proof,
    wire,
};
use crate::{
    config::{Credential, Tenant},
    domain::Backoff,
};

/// Whether there is a token, for the readiness probe.
#[derive(Clone, Debug)]
pub enum TokenState {
    NoneYet,
    Held {
        until: Timestamp,
    },
    /// There is none, and this is why. Tried again by itself.
    Lacking {
        why: ApiError,
    },
}

/// A token that was good when it was handed out.
pub struct Token {
    text: SecretString,
    born: Instant,
    renew_at: Instant,
    expires_at: Instant,
    expires_at_wall: Timestamp,
    /// It was fetched because the one before was refused.
    replaces_a_refused_one: bool,
}

impl Token {
    pub fn text(&self) -> &SecretString {
        &self.text
    }

    pub fn is_usable(&self) -> bool {
        Instant::now() < self.expires_at
    }

    fn left(&self) -> Duration {
        self.expires_at.saturating_duration_since(Instant::now())
    }
}

/// The tokens of one tenant.
pub struct Auth {
    http: reqwest::Client,
    endpoint: Url,
    client_id: String,
    scope: String,
    credential: Credential,
    timeout: Duration,
    meter: Meter,
    /// Held by the one caller that asks the authority.
    renewal: tokio::sync::Mutex<()>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Arc<Token>>,
    /// The API refused the token that was here last.
    was_refused: bool,
    failures: u32,
    trouble: Option<Trouble>,
}

/// The last answer that brought no token, handed to everybody who asks before `not_before`.
struct Trouble {
    error: ApiError,
    not_before: Instant,
    /// Set when only a person can mend it: then another secret is reason enough to ask at once.
    refused: Option<Proof>,
}

/// Renewed when this much of its life remains, or a tenth of it if that is less.
const RENEW_BEFORE_MAX: Duration = Duration::from_secs(300);
/// A permanent error is tried no more often: the person may have acted, and a new secret takes minutes to spread.
const REFUSED_REST: Duration = Duration::from_secs(300);
/// A token that replaced a refused one is not thrown away sooner than this, or every refused call would fetch one.
const REPLACED_MIN: Duration = Duration::from_secs(60);

impl Auth {
    /// `None` when `tenant.authority` cannot carry a path.
    pub fn new(http: reqwest::Client, tenant: &Tenant, timeouts: Timeouts, meter: Meter) -> Option<Self> {
        let mut endpoint = tenant.authority.clone();
        let id = tenant.id.to_string();
        endpoint.path_segments_mut().ok()?.pop_if_empty().extend([id.as_str(), "oauth2", "v2.0", "token"]);
        Some(Self {
            http,
            endpoint,
            client_id: tenant.client_id.clone(),
            scope: format!("{}/.default", tenant.audience),
            credential: tenant.credential.clone(),
            timeout: timeouts.first_byte,
            meter,
            renewal: tokio::sync::Mutex::new(()),
            held: Mutex::new(Held::default()),
        })
    }

    /// A token that is good now: the held one, or a new one when that is due.
    ///
    /// # Errors
    /// Those of the authority, remembered until it may be asked again; none while the held token still lasts.
    pub async fn token(&self) -> Result<Arc<Token>, ApiError> {
        let held = self.usable();
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            self.meter.token_expires_in(token.left());
            return Ok(Arc::clone(token));
        }
        let _turn = match held {
            None => self.renewal.lock().await,
            Some(token) => match self.renewal.try_lock() {
                Ok(turn) => turn,
                // Somebody is renewing already, and this one lasts for the meantime.
                Err(_) => return Ok(token),
            },
        };
        let held = self.usable();
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(Arc::clone(token));
        }
        let renewed = self.renew().await;
        let in_hand = renewed.as_ref().ok().or(held.as_ref());
        self.meter.token_expires_in(in_hand.map_or(Duration::ZERO, |token| token.left()));
        renewed.or_else(|error| held.filter(|token| token.is_usable()).ok_or(error))
    }

    /// The API answered 401 to `token`. Forgets it, so that the next call fetches another, unless somebody did that
    /// already or it has only just replaced one that was refused.
    pub fn refused(&self, token: &Arc<Token>) {
        let mut held = self.held();
        let is_current = held.token.as_ref().is_some_and(|current| Arc::ptr_eq(current, token));
        let is_replacement = token.replaces_a_refused_one && token.born.elapsed() < REPLACED_MIN;
        if is_current && !is_replacement {
            held.token = None;
            held.was_refused = true;
        }
    }

    pub fn state(&self) -> TokenState {
        let held = self.held();
        match (&held.token, &held.trouble) {
            (Some(token), _) if token.is_usable() => TokenState::Held { until: token.expires_at_wall },
            (_, Some(trouble)) => TokenState::Lacking { why: trouble.error.clone() },
            _ => TokenState::NoneYet,
        }
    }

    fn usable(&self) -> Option<Arc<Token>> {
        self.held().token.clone().filter(|token| token.is_usable())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // No panic can leave it half changed: every field is a plain value.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(&self) -> Result<Arc<Token>, ApiError> {
        let proof = match Proof::read(&self.credential).await {
            Ok(proof) => proof,
            Err(error) => {
                self.meter.error(&error);
                // Reading costs nothing, so the next caller may try again at once.
                self.held().trouble = Some(Trouble { error: error.clone(), not_before: Instant::now(), refused: None });
                return Err(error);
            }
        };
        if let Some(error) = self.held().remembered(&proof) {
            return Err(error);
        }
        let asked = self.ask(&proof).await;
        let mut held = self.held();
        match asked {
            Ok(token) => Ok(held.keep(token)),
            Err(error) => {
                self.meter.error(&error);
                held.remember(&error, proof, rand::random());
                Err(error)
            }
        }
    }

    async fn ask(&self, proof: &Proof) -> Result<Token, ApiError> {
        // Counted from before the request, so that a slow answer never makes a token look younger than it is.
        let (asked_at, asked_at_wall) = (Instant::now(), Timestamp::now());
        let field = proof.field(self.endpoint.as_str(), &self.client_id, asked_at_wall)?;
        let secret = field.value.expose_secret();
        let mut form =
            vec![("grant_type", "client_credentials"), ("client_id", &self.client_id), ("scope", &self.scope)];
        form.extend(field.beside);
        form.push((field.name, secret));
        let request = self.http.post(self.endpoint.clone()).header("accept", "application/json").form(&form);
        let sent = tokio::time::timeout(self.timeout, request.send()).await;
        let status = sent.as_ref().ok().and_then(|sent| sent.as_ref().ok()).map(|answer| answer.status().as_u16());
        self.meter.request(Operation::Token, status, asked_at.elapsed());
        let mut answer = call::came(Operation::Token, self.timeout, sent)?;
        let (status, retry_after) = (answer.status(), wire::retry_after(answer.headers(), Timestamp::now()));
        let body = call::small_body(&mut answer, self.timeout).await;
        let reply = if status.is_success() { wire::token(&body) } else { None };
        let reply = reply.ok_or_else(|| classify::of_token(status.as_u16(), &body, retry_after, secret))?;
        let life = reply.expires_in;
        Ok(Token {
            text: SecretString::from(reply.access_token),
            born: asked_at,
            renew_at: asked_at + (life - RENEW_BEFORE_MAX.min(life / 10)),
            expires_at: asked_at + life,
            expires_at_wall: asked_at_wall.saturating_add(life).unwrap_or(Timestamp::MAX),
            replaces_a_refused_one: false,
        })
    }
}

impl Held {
    fn keep(&mut self, token: Token) -> Arc<Token> {
        let replaces_a_refused_one = std::mem::take(&mut self.was_refused);
        let token = Arc::new(Token { replaces_a_refused_one, ..token });
        *self = Self { token: Some(Arc::clone(&token)), ..Self::default() };
        token
    }

    fn remember(&mut self, error: &ApiError, proof: Proof, draw: f64) {
        self.failures = self.failures.saturating_add(1);
        let backoff = Backoff::SERVICE.delay(self.failures, draw);
        let (rest, refused) = match error {
            ApiError::TokenRefused(_) => (REFUSED_REST, Some(proof)),
            // Nobody was asked.
            ApiError::Secret { .. } => (Duration::ZERO, None),
            ApiError::TokenThrottled { after, .. } => (*after, None),
            ApiError::TokenUnavailable { after, .. } => (after.unwrap_or(backoff), None),
            _ => (backoff, None),
        };
        let not_before = Instant::now() + rest;
        self.trouble = Some(Trouble { error: error.clone(), not_before, refused });
    }

    /// The error to hand out instead of asking the authority again, with what is left of its wait.
    fn remembered(&self, proof: &Proof) -> Option<ApiError> {
        let trouble = self.trouble.as_ref()?;
        let left = trouble.not_before.saturating_duration_since(Instant::now());
        if left.is_zero() || trouble.refused.as_ref().is_some_and(|refused| !refused.is(proof)) {
            return None;
        }
        Some(match trouble.error.clone() {
            ApiError::TokenThrottled { answer, .. } => ApiError::TokenThrottled { answer, after: left },
            ApiError::TokenUnavailable { answer, .. } => ApiError::TokenUnavailable { answer, after: Some(left) },
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use tokio::time::{advance, pause, resume};

    use super::*;
    use crate::{
        api::stage::{SECRET, SecretFile, Stage, aadsts, reply, token},
        domain::Fate,
    };

    /// Lets `seconds` go by at once. Sockets need the clock to run, so it does so before and after.
    async fn later(seconds: u64) {
        pause();
        advance(Duration::from_secs(seconds)).await;
        resume();
    }

    #[tokio::test]
    async fn the_request_is_a_form_with_the_secret_encoded() {
        let stage = Stage::new(|_, _| token("t", 3600)).await;
        stage.api.check_token().await.unwrap();
        let asked = &stage.token_requests()[0];
        assert_eq!(asked.path, "/00000000-0000-0000-0000-000000000007/oauth2/v2.0/token");
        assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
        let form: Vec<_> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            form,
            [
                pair("grant_type", "client_credentials"),
                pair("client_id", "client-1"),
                pair("scope", "https://manage.office.com/.default"),
                pair("client_secret", SECRET),
            ]
        );
    }

    #[tokio::test]
    async fn a_federated_token_is_sent_as_it_is_and_read_for_every_request() {
        let file = SecretFile::holding("first.external.token\n");
        let credential = Credential::FederatedTokenFile(file.path().to_owned());
        let stage = Stage::with_credential(credential, |_, _| token("t", 3600)).await;
        stage.api.check_token().await.unwrap();
        file.write("second.external.token");
        later(3_700).await;
        stage.api.check_token().await.unwrap();
        for (asked, assertion) in stage.token_requests().iter().zip(["first.external.token", "second.external.token"]) {
            let form: Vec<_> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
            let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            assert_eq!(
                form[3..],
                [
                    pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                    pair("client_assertion", assertion)
                ]
            );
        }
        assert_eq!(stage.token_requests().len(), 2);
    }

    #[tokio::test]
    async fn many_callers_share_one_renewal() {
        let stage = Stage::new(|_, _| token("t", 3600)).await;
        assert!(matches!(stage.api.token_state(), TokenState::NoneYet));
        let all = futures_util::future::join_all((0..50).map(|_| stage.api.check_token())).await;
        assert!(all.into_iter().all(|one| one.is_ok()));
        assert_eq!(stage.token_requests().len(), 1);
        assert!(matches!(stage.api.token_state(), TokenState::Held { .. }));
    }

    #[tokio::test]
    async fn a_token_is_renewed_when_a_tenth_of_its_life_or_five_minutes_remain() {
        for (life, renewed_at) in [(1000, 900), (36_000, 35_700)] {
            let stage = Stage::new(move |_, _| token("t", life)).await;
            stage.api.check_token().await.unwrap();
            later(renewed_at - 10).await;
            stage.api.check_token().await.unwrap();
            assert_eq!(stage.token_requests().len(), 1);
            later(11).await;
            stage.api.check_token().await.unwrap();
            assert_eq!(stage.token_requests().len(), 2);
        }
    }

    #[tokio::test]
    async fn while_renewals_fail_the_token_serves_to_its_end() {
        let calls = AtomicU16::new(0);
        let stage = Stage::new(move |_, _| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => token("t", 1000),
            _ => reply(503, &[("retry-after", "5")], "<html>"),
        })
        .await;
        stage.api.check_token().await.unwrap();
        later(950).await;
        stage.api.check_token().await.unwrap();
        stage.api.check_token().await.unwrap();
        assert_eq!(stage.token_requests().len(), 2, "the second failure was not to be provoked yet");
        later(51).await;
        let error = stage.api.check_token().await.unwrap_err();
        assert_eq!(error.fate(), Fate::Retry { after: Some(Duration::from_secs(5)) });
        assert_eq!(stage.token_requests().len(), 3);
        let TokenState::Lacking { why } = stage.api.token_state() else { panic!() };
        assert_eq!(why.code(), "token");
    }

    #[tokio::test]
    async fn a_permanent_error_is_remembered_for_five_minutes() {
        let stage = Stage::new(|_, _| aadsts(401, "invalid_client", 7_000_222)).await;
        for _ in 0..10 {
            let error = stage.api.check_token().await.unwrap_err();
            assert_eq!((error.code(), error.fate()), ("AADSTS7000222", Fate::Operator));
        }
        assert_eq!(stage.token_requests().len(), 1);
        later(301).await;
        stage.api.check_token().await.unwrap_err();
        assert_eq!(stage.token_requests().len(), 2);
    }

    #[tokio::test]
    async fn a_token_that_is_not_there_has_no_time_left() {
        let calls = AtomicU16::new(0);
        let stage =
            Stage::new(move |asked, _| match calls.fetch_add(u16::from(asked.is_for_a_token()), Ordering::SeqCst) {
                0 => aadsts(401, "invalid_client", 7_000_215),
                1 if asked.is_for_a_token() => token("t", 1000),
                _ if asked.is_for_a_token() => reply(503, &[], ""),
                _ => reply(401, &[], ""),
            })
            .await;
        stage.api.check_token().await.unwrap_err();
        assert_eq!(stage.meter.token_seconds(), Some(0.0), "never one");
        later(301).await;
        stage.api.check_token().await.unwrap();
        assert!(stage.meter.token_seconds() > Some(900.0), "{:?}", stage.meter.token_seconds());
        // The API refuses it, and the authority has no other.
        stage.api.subscriptions().await.unwrap_err();
        assert_eq!(stage.meter.token_seconds(), Some(0.0));
    }

    #[tokio::test]
    async fn a_changed_secret_is_tried_at_once() {
        let file = SecretFile::holding("old\n");
        let stage =
            Stage::with_credential(file.credential(), |asked, _| match asked.body.ends_with(b"client_secret=new") {
                true => token("t", 3600),
                false => aadsts(401, "invalid_client", 7_000_215),
            })
            .await;
        stage.api.check_token().await.unwrap_err();
        stage.api.check_token().await.unwrap_err();
        assert_eq!(stage.token_requests().len(), 1);
        file.write("new\r\n");
        stage.api.check_token().await.unwrap();
        assert_eq!(stage.token_requests().len(), 2);
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_read_asks_nobody_and_names_no_secret() {
        let file = SecretFile::holding(" \n");
        let stage = Stage::with_credential(file.credential(), |_, _| token("t", 3600)).await;
        let error = stage.api.check_token().await.unwrap_err();
        assert_eq!((error.code(), error.fate()), ("secret", Fate::Operator));
        assert!(stage.token_requests().is_empty());
        file.write("good");
        stage.api.check_token().await.unwrap();
    }

    #[tokio::test]
    async fn an_authority_that_is_asked_too_often_is_left_alone_for_five_minutes() {
        let stage = Stage::new(|_, _| aadsts(400, "invalid_request", 50196)).await;
        stage.api.check_token().await.unwrap_err();
        later(100).await;
        let error = stage.api.check_token().await.unwrap_err();
        let Fate::Throttled { after: Some(left) } = error.fate() else { panic!("{error:?}") };
        assert!((190..=200).contains(&left.as_secs()), "{left:?}");
        assert_eq!(stage.token_requests().len(), 1);
    }
}
