//! Records straight from the API: what became available is listed, every content is fetched and cut into its records.

use std::{collections::HashSet, sync::Arc, time::Duration};

use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};

use super::{Incoming, Sieve, Sum};
use crate::{
    api::{ApiError, TenantApi},
    cli::{Failure, args::TimeSpan, output::progress, records::RecordArgs, tool, within_runtime},
    config::Settings,
    domain::{Backoff, Batch, ContentKey, ContentType, Fate, Listed, RecordId, Source, Splitter, Window},
};

/// How far back the API lists. An hour less than it says, for what passes while the windows are read.
const REACH: SignedDuration = SignedDuration::from_hours(7 * 24 - 1);

/// Contents that are fetched at once.
const FETCHES: usize = 8;

/// How often a listing or a fetch is begun before it is given up.
const TRIES: u32 = 5;

/// Nobody waits for longer than this in front of a terminal, whatever the service asks for.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Blobs go to the sums in pieces of this.
const BATCH_BYTES: usize = 256 * 1_024;

/// Hands every record to the sieve that may have been created in the span: no content becomes available before its records
/// were created, and some do days later, so everything is listed that became available since the span began.
pub(super) fn read<S: Sum>(
    settings: &Settings,
    records: &RecordArgs,
    span: TimeSpan,
    sieve: &mut Sieve<'_, S>,
) -> Result<(), Failure> {
    let api = tool::api(settings)?;
    let mut feeds = Vec::new();
    for (tenant, kinds) in records.sources(settings)? {
        let Some(api) = api.tenant(tenant.id) else { continue };
        // The connector may have spent this minute's budget.
        api.take_over();
        feeds.extend(kinds.into_iter().map(|kind| Feed { api: Arc::clone(&api), name: tenant.name.clone(), kind }));
    }
    within_runtime(async {
        let (results, mut got) = mpsc::channel(FETCHES);
        let largest = settings.kafka.max_record_bytes;
        let mut walking = JoinSet::new();
        walking.spawn(walk(feeds, span.from, largest, results));
        // One content is fetched twice when it broke off, and the API itself repeats records.
        let mut seen: HashSet<(Source, RecordId)> = HashSet::new();
        while let Some((content, batch)) = got.recv().await {
            for record in batch.iter().filter(|record| seen.insert((content.source, record.identity))) {
                sieve.take(&Incoming {
                    kind: Some(content.source.content_type),
                    bytes: record.bytes,
                    available: Some(content.created),
                    published: None,
                });
            }
        }
        let walked = walking.join_next().await.ok_or_else(|| anyhow::anyhow!("nothing was read"))?;
        sieve.tally.unfetched = walked.map_err(anyhow::Error::from)??;
        Ok(())
    })
}

/// A content type of a tenant.
struct Feed {
    api: Arc<TenantApi>,
    name: String,
    kind: ContentType,
}

type Results = mpsc::Sender<(Arc<Listed>, Batch)>;

/// Lists every feed from `from` until now and fetches all of it. Gives how many contents could not be had.
async fn walk(feeds: Vec<Feed>, from: Timestamp, largest: usize, results: Results) -> Result<u64, Failure> {
    let now = Timestamp::now();
    let mut fetches = Fetches {
        slots: Arc::new(Semaphore::new(FETCHES)),
        running: JoinSet::new(),
        unfetched: 0,
        bar: progress(0, "fetching contents"),
        largest,
        results,
    };
    for feed in feeds {
        let mut start = from.max(now - REACH);
        let mut known = HashSet::new();
        while let Ok(window) = Window::new(start, now.min(start + Window::MAX)) {
            list(&feed, window, &mut known, &mut fetches).await?;
            start = window.end();
        }
    }
    fetches.all().await
}

/// Has all contents of a window fetched that are not `known`. It is listed anew after an error: a page may not be there any
/// more.
async fn list(
    feed: &Feed,
    window: Window,
    known: &mut HashSet<ContentKey>,
    fetches: &mut Fetches,
) -> Result<(), Failure> {
    let mut failures = 0;
    let mut pages = feed.api.pages(feed.kind, window);
    loop {
        match pages.next().await {
            Ok(Some(page)) => {
                for content in page.into_iter().filter(|content| known.insert(content.key())) {
                    fetches.begin(feed, content).await?;
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                failures += 1;
                let Some(rest) = rest(&error, failures) else { return Err(tool::failed(&feed.name, error)) };
                sleep(rest).await;
                pages = feed.api.pages(feed.kind, window);
            }
        }
    }
}

/// The fetches that run; dropping it ends them.
struct Fetches {
    slots: Arc<Semaphore>,
    running: JoinSet<Result<bool, Failure>>,
    unfetched: u64,
    bar: ProgressBar,
    largest: usize,
    results: Results,
}

impl Fetches {
    /// Returns when the fetch has begun, so that nobody lists further ahead than a page.
    async fn begin(&mut self, feed: &Feed, content: Listed) -> Result<(), Failure> {
        self.bar.inc_length(1);
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(anyhow::Error::from)?;
        let (api, name, results) = (Arc::clone(&feed.api), feed.name.clone(), self.results.clone());
        let (bar, largest) = (self.bar.clone(), self.largest);
        self.running.spawn(async move {
            let _slot = slot;
            let fetched = fetch(&api, &name, Arc::new(content), largest, &results).await;
            bar.inc(1);
            fetched
        });
        while let Some(ended) = self.running.try_join_next() {
            self.unfetched += u64::from(!ended.map_err(anyhow::Error::from)??);
        }
        Ok(())
    }

    async fn all(mut self) -> Result<u64, Failure> {
        while let Some(ended) = self.running.join_next().await {
            self.unfetched += u64::from(!ended.map_err(anyhow::Error::from)??);
        }
        self.bar.finish_and_clear();
        Ok(self.unfetched)
    }
}

/// Whether the content could be had, as far as it goes.
async fn fetch(
    api: &TenantApi,
    name: &str,
    content: Arc<Listed>,
    largest: usize,
    results: &Results,
) -> Result<bool, Failure> {
    let mut failures = 0;
    loop {
        let error = match fetch_once(api, &content, largest, results).await {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        failures += 1;
        let rest = match &error {
            Broken::Api(error) => rest(error, failures),
            Broken::Unreadable => (failures < TRIES).then(|| jittered(failures)),
        };
        match (rest, error) {
            (Some(rest), _) => sleep(rest).await,
            (None, Broken::Api(error)) if error.fate() == Fate::Operator => return Err(tool::failed(name, error)),
            (None, _) => return Ok(false),
        }
    }
}

enum Broken {
    Api(ApiError),
    /// No JSON array.
    Unreadable,
}

async fn fetch_once(api: &TenantApi, content: &Arc<Listed>, largest: usize, results: &Results) -> Result<(), Broken> {
    let mut blob = api.fetch(content).await.map_err(Broken::Api)?;
    let (mut splitter, mut batch) = (Splitter::new(largest), Batch::new());
    loop {
        let chunk = blob.chunk().await.map_err(Broken::Api)?;
        let pushed = chunk.as_ref().map_or(Ok(()), |chunk| splitter.push(chunk, &mut batch));
        if !batch.is_empty() && (chunk.is_none() || pushed.is_err() || BATCH_BYTES <= batch.bytes()) {
            // Nobody listens any more once the report has failed.
            let _ = results.send((Arc::clone(content), std::mem::take(&mut batch))).await;
        }
        pushed.map_err(|_| Broken::Unreadable)?;
        if chunk.is_none() {
            return splitter.finish().map_err(|_| Broken::Unreadable);
        }
    }
}

/// How long to rest before the next try; `None` when another would be in vain.
fn rest(error: &ApiError, failures: u32) -> Option<Duration> {
    let after = match error.fate() {
        Fate::Retry { after } | Fate::Throttled { after } => after,
        Fate::Missing | Fate::Unreadable | Fate::Relist => None,
        Fate::Done | Fate::Gone(_) | Fate::Subscribe | Fate::ClampWindow | Fate::Operator => return None,
    };
    (failures < TRIES).then(|| after.unwrap_or_else(|| jittered(failures)).min(LONGEST_REST))
}

fn jittered(failures: u32) -> Duration {
    Backoff::SERVICE.delay(failures, rand::random())
}
