//! Fetches a content and hands its records over while they arrive; begins again after passing trouble.

use super::{patience::Patience, survey::rest};
use crate::{
    api::{ApiError, TenantApi},
    cli::output::harmless,
    domain::{Batch, Fate, Listed, NotAnArray, Splitter},
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
    fate: Fate,
    why: String,
    advice: Option<&'static str>,
}

impl Unfetched {
    /// For a terminal, with the advice in a line of its own.
    pub(in crate::cli) fn told(&self) -> String {
        let advice = self.advice.or_else(|| self.known()).map(|advice| format!("\n  {advice}")).unwrap_or_default();
        format!("content {}: could not {}{advice}", harmless(&self.content_id), harmless(&self.why))
    }

    /// In a few words.
    pub(in crate::cli) fn why(&self) -> String {
        self.why.clone()
    }

    /// What a person may make of it when the code alone says nothing to do.
    fn known(&self) -> Option<&'static str> {
        match self.fate {
            Fate::Missing => Some(
                "the service does not have it: check the id and the tenant, or list the span again, which may cut the same records under another id",
            ),
            Fate::Gone(crate::domain::GapReason::Expired) => {
                Some("it has expired and cannot be had any more; what was published from it is in Kafka only")
            }
            Fate::Unreadable => {
                Some("what came is no JSON array: try again later, and look for a proxy that rewrites answers")
            }
            _ => None,
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
        let (fate, why, advice) = match attempt(api, content, largest, &mut take).await {
            Ok(()) => return Ok(()),
            Err(Broken::Taker(fault)) => return Err(Lost::Taker(fault)),
            Err(Broken::Api(error)) => (error.fate(), error.to_string(), error.advice()),
            Err(Broken::Body(fault)) => (Fate::Unreadable, format!("read its body: {fault}"), None),
        };
        match patience.wait(fate, rand::random()) {
            Some(wait) => rest(wait, &why).await,
            None => return Err(Lost::Content(Unfetched { content_id: content.content_id.clone(), fate, why, advice })),
        }
    }
}

enum Broken<E> {
    Api(ApiError),
    Body(NotAnArray),
    Taker(E),
}

async fn attempt<E>(
    api: &TenantApi,
    content: &Listed,
    largest: usize,
    take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
) -> Result<(), Broken<E>> {
    let mut blob = api.fetch(content).await.map_err(Broken::Api)?;
    let (mut splitter, mut batch) = (Splitter::new(largest), Batch::new());
    while let Some(chunk) = blob.chunk().await.map_err(Broken::Api)? {
        let split = splitter.push(&chunk, &mut batch);
        if !batch.is_empty() {
            take(Part::Records(&batch)).map_err(Broken::Taker)?;
            batch.clear();
        }
        split.map_err(Broken::Body)?;
    }
    splitter.finish().map_err(Broken::Body)
}
