//! Every way a call can end badly, and what each means for the work.
//!
//! Messages finish the sentence "could not …". They name codes, statuses and request ids; never a token, a secret or
//! anything out of a blob.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use super::advice;
use crate::domain::{Fate, GapReason};

/// What was being done. The words are the metrics' label `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    List,
    Blob,
    Token,
    Start,
    Stop,
    Subscriptions,
    Notifications,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Blob => "blob",
            Self::Token => "token",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Subscriptions => "subscriptions",
            Self::Notifications => "notifications",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list contents",
            Self::Blob => "fetch a content",
            Self::Token => "get a token",
            Self::Start => "start a subscription",
            Self::Stop => "stop a subscription",
            Self::Subscriptions => "list subscriptions",
            Self::Notifications => "list notifications",
        })
    }
}

/// An answer that was no success: what a log needs to find it again on Microsoft's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub operation: Operation,
    pub status: u16,
    /// `AF…` of the envelope; absent when the body had none of that form.
    pub code: Option<String>,
    /// The envelope's own words, shortened; empty when the body was no envelope.
    pub message: String,
    /// Of the response headers.
    pub request_id: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: http {}", self.operation, self.status)?;
        for part in [self.code.as_deref(), Some(self.message.as_str())].into_iter().flatten().filter(|p| !p.is_empty())
        {
            write!(f, ", {part}")?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

/// An answer of the login authority that was no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAnswer {
    pub status: u16,
    /// `AADSTS…`, or the word `token` when no number was given.
    pub code: String,
    /// The OAuth word: `invalid_client`.
    pub error: String,
    /// First line of the description.
    pub description: String,
    pub trace_id: Option<String>,
    pub correlation_id: Option<String>,
}

impl fmt::Display for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: http {}", Operation::Token, self.status)?;
        for part in [&self.error, &self.description].into_iter().filter(|part| !part.is_empty()) {
            write!(f, ", {part}")?;
        }
        let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
        write!(f, " (trace {}, correlation {})", id(&self.trace_id), id(&self.correlation_id))
    }
}

/// A cause from a library, shared because a remembered error is handed to many callers.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Every way a call can end badly.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    // On the way there and back.
    #[error("{operation}: no connection")]
    Unreachable { operation: Operation, source: Cause },
    #[error("{operation}: nothing came for {} ms", .waited.as_millis())]
    TimedOut { operation: Operation, waited: Duration },
    #[error("{operation}: the body broke off")]
    BrokeOff { operation: Operation, source: Cause },

    // The token.
    #[error("read the credential")]
    Secret { source: Cause },
    /// The authority is in trouble. Tried again after the backoff.
    #[error("{answer}")]
    TokenUnavailable { answer: Box<TokenAnswer>, after: Option<Duration> },
    /// The authority wants to be asked less often.
    #[error("{answer}")]
    TokenThrottled { answer: Box<TokenAnswer>, after: Duration },
    /// The authority gives us no token until a person changes something.
    #[error("{0}")]
    TokenRefused(Box<TokenAnswer>),

    // What the service answered.
    /// AF429, or a 429 of whatever code.
    #[error("{answer}")]
    Throttled { answer: Box<Answer>, after: Option<Duration> },
    /// Started too often. Holds for starts only, not for the tenant.
    #[error("{answer}")]
    StartedTooOften { answer: Box<Answer>, after: Duration },
    /// AF20024 at a start, AF20022 at a stop.
    #[error("{0}")]
    AlreadySo(Box<Answer>),
    /// AF20022, AF20023.
    #[error("{0}")]
    NoSubscription(Box<Answer>),
    /// AF20030, AF20055.
    #[error("{0}")]
    WindowRefused(Box<Answer>),
    /// AF20031.
    #[error("{0}")]
    PageExpired(Box<Answer>),
    /// AF20050, or 404 for a content.
    #[error("{0}")]
    NotFound(Box<Answer>),
    /// AF20051.
    #[error("{0}")]
    Expired(Box<Answer>),
    /// AF20052.
    #[error("{0}")]
    InvalidId(Box<Answer>),
    /// 401 for a fresh token too, or 403: a permission is missing.
    #[error("{0}")]
    Denied(Box<Answer>),
    /// AF20021, AF20003: the webhook is not one, or its expiration is past.
    #[error("{0}")]
    WebhookRefused(Box<Answer>),
    /// The service cannot serve these settings.
    #[error("{0}")]
    Misconfigured(Box<Answer>),
    /// The tenant's unified audit log is switched off, or the tenant is not provisioned.
    #[error("{0}")]
    AuditOff(Box<Answer>),
    /// 408, 5xx, AF50000 and its like.
    #[error("{answer}")]
    Unavailable { answer: Box<Answer>, after: Option<Duration> },
    /// None of the above. A caller that meets it many times over should take it for [`Fate::Operator`].
    #[error("{0}")]
    Unknown(Box<Answer>),

    // An answer of 200 that cannot be used.
    /// The link to the next page leads elsewhere, in a circle or on without end.
    #[error("follow the link to the next page: {why}")]
    PageLink { why: &'static str },
    /// No JSON of the documented shape. Nothing of it was used.
    #[error("{operation}: unreadable answer, {why}")]
    Unreadable { operation: Operation, why: String },
}

impl ApiError {
    /// What the caller must do.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::BrokeOff { .. } => Fate::Retry { after: None },
            Self::TokenUnavailable { after, .. } | Self::Unavailable { after, .. } => Fate::Retry { after: *after },
            Self::TokenThrottled { after, .. } => Fate::Throttled { after: Some(*after) },
            Self::Throttled { after, .. } => Fate::Throttled { after: *after },
            Self::StartedTooOften { after, .. } => Fate::Retry { after: Some(*after) },
            Self::AlreadySo(_) => Fate::Done,
            Self::NoSubscription(_) => Fate::Subscribe,
            Self::WindowRefused(_) => Fate::ClampWindow,
            Self::PageExpired(_) | Self::PageLink { .. } => Fate::Relist,
            Self::NotFound(_) => Fate::Missing,
            Self::Expired(_) => Fate::Gone(GapReason::Expired),
            Self::InvalidId(_) => Fate::Gone(GapReason::InvalidId),
            Self::Secret { .. }
            | Self::TokenRefused(_)
            | Self::Denied(_)
            | Self::WebhookRefused(_)
            | Self::Misconfigured(_)
            | Self::AuditOff(_) => Fate::Operator,
            // Blobs are not parsed in this room, so what is unreadable here is a page or a subscription:
            // asked for again, because to skip it would lose what it names.
            Self::Unknown(_) | Self::Unreadable { .. } => Fate::Retry { after: None },
        }
    }

    /// `AF…`, `AADSTS…` or one of a few words: the metrics' label `code`.
    pub fn code(&self) -> &str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timeout",
            Self::BrokeOff { .. } => "broke_off",
            Self::Secret { .. } => "secret",
            Self::PageLink { .. } => "page_link",
            Self::Unreadable { .. } => "unreadable",
            Self::TokenRefused(answer)
            | Self::TokenUnavailable { answer, .. }
            | Self::TokenThrottled { answer, .. } => &answer.code,
            Self::StartedTooOften { .. } => "started_too_often",
            Self::AuditOff(_) => "audit_off",
            Self::Throttled { answer, .. } => answer.code.as_deref().unwrap_or("throttled"),
            Self::Unavailable { answer, .. } => answer.code.as_deref().unwrap_or("unavailable"),
            Self::Denied(answer) => answer.code.as_deref().unwrap_or("denied"),
            Self::NotFound(answer) => answer.code.as_deref().unwrap_or("not_found"),
            Self::AlreadySo(answer)
            | Self::NoSubscription(answer)
            | Self::WindowRefused(answer)
            | Self::PageExpired(answer)
            | Self::Expired(answer)
            | Self::InvalidId(answer)
            | Self::WebhookRefused(answer)
            | Self::Misconfigured(answer)
            | Self::Unknown(answer) => answer.code.as_deref().unwrap_or("other"),
        }
    }

    /// What a person can do about it, if a person can.
    pub fn advice(&self) -> Option<&'static str> {
        advice::on(self.code())
    }

    /// The service's answer, when there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Throttled { answer, .. }
            | Self::StartedTooOften { answer, .. }
            | Self::Unavailable { answer, .. }
            | Self::AlreadySo(answer)
            | Self::NoSubscription(answer)
            | Self::WindowRefused(answer)
            | Self::PageExpired(answer)
            | Self::NotFound(answer)
            | Self::Expired(answer)
            | Self::InvalidId(answer)
            | Self::Denied(answer)
            | Self::WebhookRefused(answer)
            | Self::Misconfigured(answer)
            | Self::AuditOff(answer)
            | Self::Unknown(answer) => Some(answer),
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::BrokeOff { .. }
            | Self::Secret { .. }
            | Self::TokenUnavailable { .. }
            | Self::TokenThrottled { .. }
            | Self::TokenRefused(_)
            | Self::PageLink { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

/// The connector cannot even begin to talk to the API.
#[derive(Debug, thiserror::Error)]
pub enum ApiSetupError {
    #[error("build the HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("use `{key}` of tenant {tenant}: {why}")]
    Root { tenant: String, key: &'static str, why: &'static str },
}
