//! What is wrong with a tenant, once in the log for each change, and in the health for as long as it lasts.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{error, info, warn};

use super::setbacks::Setback;
use crate::{
    api::{ApiError, Operation},
    domain::ContentType,
    http::Health,
};

/// The troubles of one tenant, shared by its sources.
pub struct Troubles {
    tenant: String,
    health: Health,
    on_refused: Arc<dyn Fn(&ApiError) + Send + Sync>,
    standing: Mutex<Standing>,
}

/// What is not over. By code: the words carry a request's id, and so differ each time.
#[derive(Default)]
struct Standing {
    token: Token,
    sources: BTreeMap<ContentType, Trouble>,
}

#[derive(Default)]
enum Token {
    #[default]
    NoneYet,
    Held,
    Lacks(String),
}

/// Trouble that passes is told to `/readyz` when it has come so often in a row.
const PATIENCE: u32 = 3;

struct Trouble {
    code: String,
    text: String,
}

impl Troubles {
    /// Until there is a token the tenant counts as not ready.
    pub fn new(tenant: &str, health: Health, on_refused: Arc<dyn Fn(&ApiError) + Send + Sync>) -> Self {
        let troubles = Self { tenant: tenant.to_owned(), health, on_refused, standing: Mutex::default() };
        troubles.health.not_ok(&troubles.token_condition(), "there is no token yet");
        troubles
    }

    /// A call of a source ended badly, as the last of `failures` in a row.
    pub fn met(&self, kind: ContentType, error: &ApiError, setback: Setback, failures: u32) {
        if concerns_token(error) {
            self.no_token(error, setback);
        } else if setback.needs_person {
            self.stands(kind, error);
        } else {
            let (tenant, code, rest_ms) = (&self.tenant, error.code(), setback.rest.as_millis());
            let text = told(error);
            warn!(tenant, content_type = kind.as_str(), code, rest_ms, "{text}; it will be tried again");
            if PATIENCE <= failures {
                let mut standing = self.standing();
                standing.sources.insert(kind, Trouble { code: code.to_owned(), text });
                self.health.not_ok(&self.tenant_condition(), standing.told());
            }
        }
    }

    /// There is no token, for this reason.
    pub fn no_token(&self, error: &ApiError, setback: Setback) {
        if matches!(error, ApiError::TokenRefused(_)) {
            (self.on_refused)(error);
        }
        let (code, text) = (error.code(), told(error));
        self.health.not_ok(&self.token_condition(), &text);
        let mut standing = self.standing();
        if matches!(&standing.token, Token::Lacks(known) if known == code) {
            return;
        }
        standing.token = Token::Lacks(code.to_owned());
        if setback.needs_person {
            error!(tenant = self.tenant, code, "{text}");
        } else {
            warn!(tenant = self.tenant, code, "{text}; it will be tried again");
        }
    }

    /// Only a person can mend what keeps this source from being listed.
    pub fn stands(&self, kind: ContentType, error: &ApiError) {
        let (code, text) = (error.code(), told(error));
        let mut standing = self.standing();
        let trouble = Trouble { code: code.to_owned(), text: text.clone() };
        let before = standing.sources.insert(kind, trouble);
        self.health.not_ok(&self.tenant_condition(), standing.told());
        if before.is_some_and(|before| before.code == code) {
            return;
        }
        let (tenant, content_type) = (&self.tenant, kind.as_str());
        if matches!(error, ApiError::NoSubscription(_)) {
            // The operator wants to start subscriptions by hand, and may not have come to it yet.
            warn!(tenant, content_type, code, "{text}");
        } else {
            error!(tenant, content_type, code, "{text}");
        }
    }

    /// A call of a source went well, and so did its token.
    pub fn works(&self, kind: ContentType) {
        self.token_held();
        let mut standing = self.standing();
        if standing.sources.remove(&kind).is_none() {
            return;
        }
        info!(tenant = self.tenant, content_type = kind.as_str(), "listing works again");
        if standing.sources.is_empty() {
            self.health.ok(&self.tenant_condition());
        } else {
            self.health.not_ok(&self.tenant_condition(), standing.told());
        }
    }

    pub fn token_held(&self) {
        let mut standing = self.standing();
        match std::mem::replace(&mut standing.token, Token::Held) {
            Token::Held => return,
            Token::NoneYet => {}
            Token::Lacks(_) => info!(tenant = self.tenant, "there is a token again"),
        }
        self.health.ok(&self.token_condition());
    }

    fn token_condition(&self) -> String {
        format!("token {}", self.tenant)
    }

    fn tenant_condition(&self) -> String {
        format!("tenant {}", self.tenant)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Every change is one assignment, so a panic elsewhere cannot have left it half done.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not listed any more cannot be ill.
impl Drop for Troubles {
    fn drop(&mut self) {
        self.health.forget(&self.token_condition());
        self.health.forget(&self.tenant_condition());
    }
}

impl Standing {
    fn told(&self) -> String {
        let lines = self.sources.iter().map(|(kind, trouble)| format!("{kind}: {}", trouble.text));
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// Whether the call failed before anything was sent to the API.
fn concerns_token(error: &ApiError) -> bool {
    match error {
        ApiError::Secret { .. }
        | ApiError::TokenUnavailable { .. }
        | ApiError::TokenThrottled { .. }
        | ApiError::TokenRefused(_) => true,
        ApiError::Unreachable { operation, .. }
        | ApiError::TimedOut { operation, .. }
        | ApiError::BrokeOff { operation, .. } => *operation == Operation::Token,
        _ => false,
    }
}

/// An error with its causes and what to do about it, for a person.
pub fn told(error: &ApiError) -> String {
    let mut text = format!("could not {error}");
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    if let Some(advice) = error.advice() {
        text.push_str("; ");
        text.push_str(advice);
    }
    text
}
