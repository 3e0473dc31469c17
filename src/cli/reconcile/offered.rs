//! What the API lists in a span, and what is inside of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use crate::{
    api::{Api, ApiError, TenantApi},
    cli::{Failure, args::TimeSpan, output::progress, tool::failed},
    config::Settings,
    domain::{
        Backoff, Batch, ContentKey, Fate, Listed, NotAnArray, Source, Splitter, Window,
        reconcile::{Inside, Known, Looked, Opened},
    },
    pipeline::largest_record,
};

/// Contents, each once.
pub(super) type Offer = Vec<Arc<Listed>>;

/// Sources listed at once: their pages come one after the other anyway.
const LISTINGS_AT_ONCE: usize = 4;

/// Tries of one request, or of one content.
const TRIES: u32 = 5;

/// What is not there, or is no JSON, is asked for again this often: it may be on its way.
const MISSES: u32 = 2;

/// A longer wait that is asked for is not obeyed: it is about one request of many (docs/api/contract.md 5).
const ASKED_MAX: Duration = Duration::from_secs(300);

/// Asks the API, within the budget.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    api: &'a Api,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings, api: &'a Api) -> Self {
        Self { settings, api }
    }

    /// Everything that became available in the span.
    ///
    /// # Errors
    /// When a source cannot be listed to the end: then nothing could be called complete.
    pub(super) async fn list(&self, sources: &[Source], span: TimeSpan) -> Result<Offer, Failure> {
        let bar = progress(sources.len() as u64, "listing");
        let all = stream::iter(sources).map(async |source| {
            let listed = self.list_source(*source, span).await;
            bar.inc(1);
            listed
        });
        let all: Vec<Offer> = all.buffer_unordered(LISTINGS_AT_ONCE).try_collect().await?;
        bar.finish_and_clear();
        Ok(all.into_iter().flatten().collect())
    }

    async fn list_source(&self, source: Source, span: TimeSpan) -> Result<Offer, Failure> {
        let tenant = self.settings.tenants.iter().find(|tenant| tenant.id == source.tenant);
        let name = tenant.map_or("", |tenant| &tenant.name);
        let Some(api) = self.api.tenant(source.tenant) else { return Ok(Vec::new()) };
        let mut found: HashMap<ContentKey, Arc<Listed>> = HashMap::new();
        // The oldest first, before it is out of reach.
        for window in windows(span) {
            let page = list_window(&api, source, window).await.map_err(|error| failed(name, error))?;
            let inside = page.into_iter().filter(|content| span.from <= content.created && content.created < span.to);
            found.extend(inside.map(|content| (content.key(), Arc::new(content))));
        }
        Ok(found.into_values().collect())
    }

    /// Looks into contents, some at once. What cannot be read says so.
    pub(super) async fn open(&self, contents: Offer, known: &HashMap<Source, Known>) -> Vec<Looked> {
        let bar = progress(contents.len() as u64, "fetching");
        let nothing = Known::default();
        let looked = stream::iter(contents).map(async |content| {
            let known = known.get(&content.source).unwrap_or(&nothing);
            let inside = self.open_one(&content, known).await;
            bar.inc(1);
            Looked { content, inside }
        });
        let looked = looked.buffer_unordered(self.settings.fetch.concurrency).collect().await;
        bar.finish_and_clear();
        looked
    }

    async fn open_one(&self, content: &Listed, known: &Known) -> Inside {
        let Some(api) = self.api.tenant(content.source.tenant) else {
            return Inside::Unreadable("its tenant is not in the settings".to_owned());
        };
        let mut tries = 0;
        loop {
            let fault = match read(&api, content, known, largest_record(&self.settings.kafka)).await {
                Ok(opened) => return opened.whole(),
                Err(fault) => fault,
            };
            tries += 1;
            match rest(fault.fate(), tries) {
                Some(rest) => sleep(rest).await,
                None => return Inside::Unreadable(fault.told()),
            }
        }
    }
}

/// The span in pieces that the API takes, oldest first.
fn windows(span: TimeSpan) -> impl Iterator<Item = Window> {
    let mut from = span.from;
    std::iter::from_fn(move || {
        let window = Window::new(from, span.to.min(from + Window::MAX)).ok()?;
        from = window.end();
        Some(window)
    })
}

/// Every page of a window. A page that fails is asked for again; a bad link begins the window again.
async fn list_window(api: &Arc<TenantApi>, source: Source, window: Window) -> Result<Vec<Listed>, ApiError> {
    let (mut tries, mut begun_again) = (0, 0);
    let (mut pages, mut found) = (api.pages(source.content_type, window), Vec::new());
    loop {
        match pages.next().await {
            Ok(Some(page)) => {
                found.extend(page);
                tries = 0;
            }
            Ok(None) => return Ok(found),
            Err(error) if error.fate() == Fate::Relist => {
                // Good pages before the bad link say nothing about the link.
                begun_again += 1;
                let Some(rest) = rest(error.fate(), begun_again) else { return Err(error) };
                sleep(rest).await;
                pages = api.pages(source.content_type, window);
            }
            Err(error) => {
                tries += 1;
                let Some(rest) = rest(error.fate(), tries) else { return Err(error) };
                sleep(rest).await;
            }
        }
    }
}

/// Why a content could not be read this time.
enum Fault {
    Api(ApiError),
    NotAnArray(NotAnArray),
}

impl Fault {
    fn fate(&self) -> Fate {
        match self {
            Self::Api(error) => error.fate(),
            Self::NotAnArray(_) => Fate::Unreadable,
        }
    }

    /// In a few words, never a body.
    fn told(&self) -> String {
        match self {
            Self::Api(error) => format!("{}: {error}", error.code()),
            Self::NotAnArray(fault) => fault.to_string(),
        }
    }
}

/// Reads a content to its end, some records at a time.
async fn read(api: &TenantApi, content: &Listed, known: &Known, largest: usize) -> Result<Opened, Fault> {
    let mut blob = api.fetch(content).await.map_err(Fault::Api)?;
    let (mut splitter, mut batch, mut opened) = (Splitter::new(largest), Batch::new(), Opened::default());
    let key = content.key();
    while let Some(chunk) = blob.chunk().await.map_err(Fault::Api)? {
        splitter.push(&chunk, &mut batch).map_err(Fault::NotAnArray)?;
        opened.take(known, &key, &batch);
        batch.clear();
    }
    splitter.finish().map_err(Fault::NotAnArray)?;
    Ok(opened)
}

/// How long to wait before another try, after so many; `None` when another would not help.
fn rest(fate: Fate, tries: u32) -> Option<Duration> {
    let backoff = Backoff::SERVICE.delay(tries, rand::random());
    match fate {
        _ if TRIES <= tries => None,
        Fate::Retry { after: Some(after) } if ASKED_MAX < after => Some(Backoff::SERVICE.ceiling(tries)),
        Fate::Retry { after } | Fate::Throttled { after } => Some(backoff.max(after.unwrap_or_default())),
        Fate::Missing | Fate::Unreadable => (tries <= MISSES).then_some(backoff),
        Fate::Relist => Some(backoff),
        Fate::Done | Fate::Gone(_) | Fate::Subscribe | Fate::ClampWindow | Fate::Operator => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::stage::{Stage, an_hour, item, reply},
        domain::ContentType,
    };

    #[tokio::test]
    async fn a_link_that_stays_bad_ends_the_listing_though_its_page_is_good() {
        let stage = Stage::with_tokens(|_, root| {
            reply(200, &[("NextPageUri", "https://elsewhere.example/")], format!("[{}]", item(root, "a")))
        })
        .await;
        let source = Source { tenant: stage.api.id(), content_type: ContentType::General };
        let error = list_window(&stage.api, source, an_hour()).await.unwrap_err();
        assert!(matches!(error, ApiError::PageLink { .. }), "{error}");
        assert_eq!(stage.asked().len(), TRIES as usize);
    }

    #[test]
    fn windows_cover_the_span_from_the_oldest_on() {
        let from: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let to = from + jiff::SignedDuration::from_hours(50);
        let cut: Vec<Window> = windows(TimeSpan { from, to }).collect();
        assert_eq!(cut.len(), 3);
        assert_eq!((cut[0].start(), cut[2].end()), (from, to));
        assert!(cut.windows(2).all(|pair| pair[0].end() == pair[1].start()));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let retry = |seconds| Fate::Retry { after: Some(Duration::from_secs(seconds)) };
        assert_eq!(rest(retry(300), 1), Some(ASKED_MAX));
        assert_eq!(rest(retry(3_600), 1), Some(Duration::from_secs(1)));
        assert_eq!(rest(retry(1), TRIES), None);
        assert!(rest(Fate::Missing, MISSES).is_some() && rest(Fate::Missing, MISSES + 1).is_none());
        for fate in [Fate::Operator, Fate::Subscribe, Fate::ClampWindow, Fate::Gone(crate::domain::GapReason::Expired)]
        {
            assert_eq!(rest(fate, 1), None);
        }
    }
}
