//! Fetches a content and hands its records over while they arrive; begins again after passing trouble.

use super::{patience::Patience, survey::rest};
use crate::{
    api::{ApiError, TenantApi},
    cli::{Failure, output::harmless, tool::failed},
    domain::{Batch, Fate, GapReason, Listed, NotAnArray, Splitter},
};

/// What a fetch gives, in order.
pub(in crate::cli) enum Part<'a> {
    /// An attempt begins: whatever came before comes again, in any order.
    Begins,
    Records(&'a Batch),
}

/// Why the records of a content could not be brought.
pub(in crate::cli) enum Lost<E> {
    Content(Unfetched),
    /// Whoever takes the records failed, so no other content needs to be tried.
    Taker(E),
}

/// A content that cannot be had.
pub(in crate::cli) struct Unfetched {
    content_id: String,
    cause: Cause,
}

enum Cause {
    Api(ApiError),
    Body(NotAnArray),
}

impl Unfetched {
    /// For a terminal, with the advice in a line of its own.
    pub(in crate::cli) fn told(&self) -> String {
        let advice = match &self.cause {
            Cause::Api(error) => error.advice(),
            Cause::Body(_) => None,
        };
        let advice = advice.or_else(|| self.known()).map(|advice| format!("\n  {advice}")).unwrap_or_default();
        format!("content {}: could not {}{advice}", harmless(&self.content_id), harmless(&self.why()))
    }

    /// In a few words, never a body.
    pub(in crate::cli) fn why(&self) -> String {
        self.cause.why()
    }

    /// The same behind its code, where there is one.
    pub(in crate::cli) fn code_and_why(&self) -> String {
        match &self.cause {
            Cause::Api(error) => format!("{}: {error}", error.code()),
            Cause::Body(_) => self.why(),
        }
    }

    /// Whether Microsoft wants a person to act.
    pub(in crate::cli) fn is_refused(&self) -> bool {
        self.cause.fate() == Fate::Operator
    }

    /// When Microsoft wants a person to act: then no other content of the tenant can be had either.
    pub(in crate::cli) fn refusal(self, tenant: &str) -> Option<Failure> {
        match self.cause {
            Cause::Api(error) if error.fate() == Fate::Operator => Some(failed(tenant, error)),
            Cause::Api(_) | Cause::Body(_) => None,
        }
    }

    /// What a person may make of it when the code alone says nothing to do.
    fn known(&self) -> Option<&'static str> {
        match self.cause.fate() {
            Fate::Missing => Some(
                "the service does not have it: check the id and the tenant, or list the span again, which may cut the same records under another id",
            ),
            Fate::Gone(GapReason::Expired) => {
                Some("it has expired and cannot be had any more; what was published from it is in Kafka only")
            }
            Fate::Unreadable => {
                Some("what came is no JSON array: try again later, and look for a proxy that rewrites answers")
            }
            _ => None,
        }
    }
}

impl Cause {
    fn fate(&self) -> Fate {
        match self {
            Self::Api(error) => error.fate(),
            Self::Body(_) => Fate::Unreadable,
        }
    }

    fn why(&self) -> String {
        match self {
            Self::Api(error) => error.to_string(),
            Self::Body(fault) => format!("read its body: {fault}"),
        }
    }
}

/// Brings all records of `content`. A record of more than `largest` bytes is not held and comes as `oversize`.
///
/// # Errors
/// [`Lost::Content`] when there is no sense in trying any more, [`Lost::Taker`] with what `take` gave.
pub(in crate::cli) async fn fetch<E>(
    api: &TenantApi,
    content: &Listed,
    largest: usize,
    mut patience: Patience,
    mut take: impl FnMut(Part<'_>) -> Result<(), E>,
) -> Result<(), Lost<E>> {
    loop {
        take(Part::Begins).map_err(Lost::Taker)?;
        let cause = match attempt(api, content, largest, &mut take).await {
            Ok(()) => return Ok(()),
            Err(Broken::Taker(fault)) => return Err(Lost::Taker(fault)),
            Err(Broken::Content(cause)) => cause,
        };
        match patience.wait(cause.fate(), rand::random()) {
            Some(wait) => rest(wait, &cause.why()).await,
            None => return Err(Lost::Content(Unfetched { content_id: content.content_id.clone(), cause })),
        }
    }
}

enum Broken<E> {
    Content(Cause),
    Taker(E),
}

impl<E> From<ApiError> for Broken<E> {
    fn from(error: ApiError) -> Self {
        Self::Content(Cause::Api(error))
    }
}

impl<E> From<NotAnArray> for Broken<E> {
    fn from(fault: NotAnArray) -> Self {
        Self::Content(Cause::Body(fault))
    }
}

async fn attempt<E>(
    api: &TenantApi,
    content: &Listed,
    largest: usize,
    take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
) -> Result<(), Broken<E>> {
    let mut blob = api.fetch(content).await?;
    let (mut splitter, mut batch) = (Splitter::new(largest), Batch::new());
    while let Some(chunk) = blob.chunk().await? {
        let split = splitter.push(&chunk, &mut batch);
        if !batch.is_empty() {
            take(Part::Records(&batch)).map_err(Broken::Taker)?;
            batch.clear();
        }
        split?;
    }
    Ok(splitter.finish()?)
}
