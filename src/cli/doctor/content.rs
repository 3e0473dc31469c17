//! Probes 15 to 22: what the service lists and gives. This file looks; `verdicts` decides.

mod verdicts; // from what was seen to the probes

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

pub(super) use self::verdicts::{judge, judge_throttle};
use crate::{
    api::{ApiError, TenantApi},
    domain::{Batch, ContentType, Listed, Planner, Splitter, Window},
};

/// What was seen of one content type.
pub(super) struct KindSeen {
    pub(super) kind: ContentType,
    /// Windows of an hour that were listed, the newest first; the last of them is the only one with contents.
    pub(super) hours: u32,
    pub(super) pages: u32,
    /// Listings that had more than one page.
    pub(super) turned: u32,
    /// The last listing went on behind [`PAGES_MAX`].
    pub(super) is_cut: bool,
    pub(super) contents: Vec<Listed>,
    pub(super) error: Option<ApiError>,
    pub(super) sample: Option<Result<Sample, BlobFault>>,
}

/// A look into some blobs. Nothing of a record is kept but its type and its age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Records by `RecordType`.
    pub(super) types: BTreeMap<String, u64>,
    /// From a record's `CreationTime` to its content's creation, in seconds.
    pub(super) lags_s: Vec<i64>,
}

/// Why a blob was of no use.
#[derive(Clone, Debug)]
pub(super) enum BlobFault {
    Api(ApiError),
    /// Came, but is no JSON array.
    Unreadable(String),
}

/// A content near the end of its time.
pub(super) struct OldSeen {
    pub(super) created: Timestamp,
    pub(super) fetched: Result<(), BlobFault>,
}

/// All that was seen of a tenant.
pub(super) struct Seen {
    pub(super) now: Timestamp,
    pub(super) kinds: Vec<KindSeen>,
    pub(super) old: Option<OldSeen>,
    /// How far the service's clock is ahead of ours.
    pub(super) ahead: Option<SignedDuration>,
}

/// How far back is looked, an hour at a time.
const HOURS: i32 = 24;
/// Pages of one listing: enough to see that links work.
const PAGES_MAX: u32 = 5;
/// Of one blob. What is longer is judged by its beginning.
const BLOB_BYTES_MAX: u64 = 8 << 20;
/// Blobs of Audit.Exchange that are looked into: mailbox events do not come in each.
const EXCHANGE_BLOBS: usize = 3;
/// Where old contents are looked for: an hour short of where the connector begins.
const OLD: SignedDuration = Planner::REACH.saturating_sub(SignedDuration::from_hours(1));

/// For each type 1 to 24 listings of an hour until one has contents, and one to three blobs; one old listing and its blob.
/// Ends early when the service asks to wait.
pub(super) async fn look(api: &Arc<TenantApi>, kinds: &[ContentType], now: Timestamp) -> Seen {
    let mut seen = Seen { now, kinds: Vec::new(), old: None, ahead: None };
    for kind in kinds {
        seen.kinds.push(one_kind(api, *kind, now).await);
        if seen.throttled().is_some() {
            return seen;
        }
    }
    let busiest = seen.kinds.iter().filter(|seen| !seen.contents.is_empty()).min_by_key(|seen| seen.hours);
    if let Some(kind) = busiest.map(|seen| seen.kind) {
        seen.old = old(api, kind, now).await;
    }
    seen.ahead = api.server_clock_skew();
    seen
}

impl Seen {
    /// The answer that asked to wait, if there was one.
    pub(super) fn throttled(&self) -> Option<&ApiError> {
        let blobs = self.kinds.iter().filter_map(|seen| match &seen.sample {
            Some(Err(BlobFault::Api(error))) => Some(error),
            _ => None,
        });
        let listings = self.kinds.iter().filter_map(|seen| seen.error.as_ref());
        listings.chain(blobs).find(|error| matches!(error, ApiError::Throttled { .. }))
    }

    /// Everything that was listed.
    pub(super) fn contents(&self) -> Vec<Listed> {
        self.kinds.iter().flat_map(|seen| seen.contents.iter().cloned()).collect()
    }
}

async fn one_kind(api: &Arc<TenantApi>, kind: ContentType, now: Timestamp) -> KindSeen {
    let mut seen = KindSeen {
        kind,
        hours: 0,
        pages: 0,
        turned: 0,
        is_cut: false,
        contents: Vec::new(),
        error: None,
        sample: None,
    };
    for hour in 0..HOURS {
        if let Err(error) = one_hour(api, &mut seen, now - SignedDuration::from_hours(i64::from(hour))).await {
            // A listing that broke off says nothing that could be relied on.
            seen.contents.clear();
            seen.error = Some(error);
            return seen;
        }
        if !seen.contents.is_empty() {
            break;
        }
    }
    seen.contents.sort_by_key(|content| content.created);
    let count = if kind == ContentType::Exchange { EXCHANGE_BLOBS } else { 1 };
    let mut sample = Sample::default();
    for content in seen.contents.iter().rev().take(count) {
        if let Err(fault) = sampled(api, content, &mut sample).await {
            seen.sample = Some(Err(fault));
            return seen;
        }
    }
    seen.sample = (!seen.contents.is_empty()).then_some(Ok(sample));
    seen
}

async fn one_hour(api: &Arc<TenantApi>, seen: &mut KindSeen, end: Timestamp) -> Result<(), ApiError> {
    let window = Window::new(end - SignedDuration::from_hours(1), end).expect("an hour is a window");
    let mut pages = api.pages(seen.kind, window);
    seen.hours += 1;
    for turn in 0..PAGES_MAX {
        let Some(page) = pages.next().await? else { return Ok(()) };
        seen.pages += 1;
        seen.turned += u32::from(turn == 1);
        seen.contents.extend(page);
    }
    seen.is_cut = true;
    Ok(())
}

async fn sampled(api: &TenantApi, content: &Listed, sample: &mut Sample) -> Result<(), BlobFault> {
    let mut blob = api.fetch(content).await.map_err(BlobFault::Api)?;
    let (mut splitter, mut batch, mut bytes) = (Splitter::new(1 << 20), Batch::new(), 0);
    let unreadable = |fault: crate::domain::NotAnArray| BlobFault::Unreadable(fault.to_string());
    while let Some(chunk) = blob.chunk().await.map_err(BlobFault::Api)? {
        bytes += chunk.len() as u64;
        sample.bytes += chunk.len() as u64;
        splitter.push(&chunk, &mut batch).map_err(unreadable)?;
        for record in batch.iter() {
            sample.records += 1;
            *sample.types.entry(record.record_type.unwrap_or("none").to_owned()).or_default() += 1;
            sample.lags_s.extend(record.created.map(|created| content.created.as_second() - created));
        }
        batch.clear();
        if BLOB_BYTES_MAX < bytes {
            return Ok(());
        }
    }
    splitter.finish().map_err(unreadable)
}

/// The oldest content of the first page of the oldest day. A listing that fails is none: the newer ones have told why.
async fn old(api: &Arc<TenantApi>, kind: ContentType, now: Timestamp) -> Option<OldSeen> {
    let window = Window::new(now - OLD, now - OLD + Window::MAX).ok()?;
    let page = api.pages(kind, window).next().await.ok()??;
    let content = page.into_iter().filter(|content| now < content.expires).min_by_key(|content| content.created)?;
    let fetched = sampled(api, &content, &mut Sample::default()).await;
    Some(OldSeen { created: content.created, fetched })
}
