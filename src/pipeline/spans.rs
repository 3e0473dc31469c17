//! The spans of the pipeline: whatever is logged within one carries its fields, and each may be exported (docs/logs.md).
//! They are errors by level, so that a filter that lets any line through lets its span through too. There is one a
//! window, an attempt or a transaction, and none a record. Numbers are signed: others are exported as text.

use tracing::{Span, error_span};

use crate::domain::{ContentType, Listing, Pass, Window};

/// A window that is listed, with the rest after it when it failed.
pub fn window(tenant: &str, kind: ContentType, pass: Pass, window: Window) -> Span {
    let (start, end) = (window.start(), window.end());
    error_span!(parent: None, "window", tenant, content_type = kind.as_str(), ?pass, %start, %end)
}

/// Contents that the webhook was told of, from their arrival to their place in the listings.
pub fn notification(contents: usize) -> Span {
    error_span!(parent: None, "notification", contents)
}

/// An attempt at a content, from the moment it was handed out to the moment it was settled or given back.
pub fn fetch(tenant: &str, listing: &Listing) -> Span {
    let (content, attempt) = (&listing.content, i64::from(listing.attempts) + 1);
    let (content_type, content_id) = (content.source.content_type.as_str(), &content.content_id);
    error_span!(parent: None, "fetch", tenant, content_type, content_id, attempt)
}

/// A transaction, from its first record to its commit or abort. Numbers count from 1 since the process began, or began anew.
pub fn transaction(number: i64) -> Span {
    error_span!(parent: None, "transaction", number)
}
