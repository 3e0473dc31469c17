//! `o365feed replay`: publish again on purpose what the API still has.

mod book; // what the ledger says of a replay
mod press; // records and ledger entries, in transactions

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clap::Args;
use futures_util::{StreamExt, pin_mut};
use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};
use uuid::Uuid;

use self::{
    book::{Book, new_replay},
    press::{Done, Origin, Press, PressError},
};
use super::{
    Exit, Failure,
    args::{SourceArgs, SpanArgs, TimeSpan, usage},
    config::counted,
    feed::{Lost, Part, Patience, Place, Survey, Unlisted, fetch, in_reach, within_reach},
    output::{OutputArgs, confirmed, harmless, progress, table, tell},
    tool::{self, ToolArgs},
};
use crate::{
    api::Api,
    config::{Kafka, Settings},
    domain::{Fate, Listed, Source},
    kafka::{TransactionError, expect_topics},
};

/// What `o365feed replay` may be told.
#[derive(Args, Clone, Debug)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// Publish to this topic, which must exist; to the topics of the content types otherwise.
    #[arg(long, value_name = "TOPIC")]
    to_topic: Option<String>,
    /// Go on with a replay that broke off: the same span, sources and topic, and nothing of what it had committed.
    #[arg(long, value_name = "ID", conflicts_with_all = ["tenants", "types", "since", "from", "to", "to_topic"])]
    resume: Option<Uuid>,
    /// Do not ask, although the consumers of these topics will see the records twice.
    #[arg(long, short)]
    yes: bool,
    /// Contents that are fetched at once.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    #[command(flatten)]
    output: OutputArgs,
}

/// What follows the arguments in `--help`.
pub(super) const MORE: &str = "\
Examples:
  o365feed replay --from 2026-01-30T08:00 --to 2026-01-30T10:00 --type Audit.Exchange --to-topic o365.rebuilt
  o365feed replay --since 24h --yes
  o365feed replay --resume 019c0d2e-7a5b-7cc3-98c4-dc0c0c07398f

Every record of a replay carries its id in the header `replay`.";

/// Aborted transactions in a row, without a commit between them, after which a person should look.
const MOST_SETBACKS: u32 = 5;

/// To be fenced once may be the end of a transaction that timed out, which librdkafka tells alike; more often it is another
/// process, and one of the two has to give way.
const MOST_FENCED: u32 = 1;

/// How often it is looked whether the open transaction is due.
const LOOK: Duration = Duration::from_millis(50);

/// The record limit is never lowered below this.
const SMALLEST_LIMIT: usize = 64 * 1024;

/// What is replayed, and how.
struct Work {
    places: Vec<Place>,
    span: TimeSpan,
    concurrency: usize,
}

/// Replays to the end of the span, or says how to go on.
///
/// # Errors
/// [`Exit::Incomplete`] when something could not be had or it was interrupted.
pub(super) async fn run(args: ReplayArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let api = tool::api(&settings)?;
    let replay = args.resume.unwrap_or_else(|| new_replay(Timestamp::now()));
    // Its own transactional id, which no connector has: neither can fence the other.
    let kafka = Kafka { slot: format!("replay-{replay}"), ..settings.kafka.clone() };
    let settings = Settings { kafka, ..settings };
    let limit = settings.kafka.max_record_bytes;
    let (press, work) = match args.resume {
        Some(_) => {
            let press = set_up(&settings, Origin::Ledger(replay), Done::default(), limit)?;
            let work = again(&settings, &api, &press.book, args.concurrency.into())?;
            expect(&settings, &outputs(&settings, &press.book)).await?;
            (press, work)
        }
        None => {
            let (book, work) = args.plan(&settings, &api, replay)?;
            let outputs = outputs(&settings, &book);
            expect(&settings, &outputs).await?;
            args.confirm(&settings, &outputs, work.span)?;
            (set_up(&settings, Origin::Fresh(book), Done::default(), limit)?, work)
        }
    };
    tell(&format!(
        "replay {replay}: from {:.0} to {:.0}; if it breaks off: {}",
        work.span.from,
        work.span.to,
        resume(replay)
    ));
    let before = press.book.published;
    let (book, done, missing) = to_the_end(&settings, press, &work).await?;
    let summary = Summary {
        replay,
        topic: book.topic.clone(),
        from: work.span.from.to_string(),
        to: work.span.to.to_string(),
        contents: done.contents,
        published: book.published - before,
        published_before: before,
        repeats: done.repeats,
        filtered: done.filtered,
        gaps: missing.gaps(&settings, &done),
    };
    args.output.show(&summary, Summary::told)?;
    if summary.gaps.is_empty() {
        return Ok(());
    }
    let why = format!(
        "{}: what is missing was not published; try them again with {}",
        counted(summary.gaps.len(), "gap"),
        resume(replay)
    );
    Err(Failure::new(if missing.refused { Exit::Microsoft } else { Exit::Incomplete }, anyhow::Error::msg(why)))
}

impl ReplayArgs {
    /// What a new replay is about.
    fn plan(&self, settings: &Settings, api: &Api, replay: Uuid) -> Result<(Book, Work), Failure> {
        if !self.span.is_given() {
            return Err(usage("say which span is to be published again: --since, or --from and --to".to_owned()));
        }
        let span = in_reach(&self.span, Timestamp::now(), SignedDuration::from_hours(1))?;
        let own = [settings.kafka.listings_topic(), settings.kafka.ledger_topic(), settings.kafka.gaps_topic()];
        if let Some(topic) = self.to_topic.as_ref().filter(|topic| own.contains(topic)) {
            return Err(usage(format!("the topic {topic} is the connector's own and takes no records")));
        }
        let places = Place::all(settings, api, &self.sources)?;
        let spans = places.iter().map(|place| (place.source(), span)).collect();
        let book = Book::new(replay, self.to_topic.clone(), spans);
        Ok((book, Work { places, span, concurrency: self.concurrency.into() }))
    }

    /// Asks, when consumers of the connector's topics will see records twice.
    fn confirm(&self, settings: &Settings, outputs: &BTreeSet<String>, span: TimeSpan) -> Result<(), Failure> {
        let kafka = &settings.kafka;
        let of_tenant = |id| crate::domain::ContentType::ALL.map(|kind| kafka.output_topic(id, kind));
        let usual: BTreeSet<String> =
            settings.tenants.iter().flat_map(|tenant| of_tenant(tenant.id)).chain(routes(settings)).collect();
        let twice: Vec<&str> = outputs.intersection(&usual).map(String::as_str).collect();
        if self.yes || twice.is_empty() {
            return Ok(());
        }
        let what = format!(
            "what was made available from {:.0} to {:.0} will be published again: consumers of {} will see these records twice",
            span.from,
            span.to,
            twice.join(", ")
        );
        match confirmed(&format!("{what}. Go on?"))? {
            Some(true) => Ok(()),
            Some(false) => Err(usage("not confirmed: nothing was published".to_owned())),
            None => {
                Err(usage(format!("{what}; if that is what you want, say --yes, or name another topic by --to-topic")))
            }
        }
    }
}

/// What a replay that broke off still has to do.
fn again(settings: &Settings, api: &Api, book: &Book, concurrency: usize) -> Result<Work, Failure> {
    let Some(span) = book.spans.values().copied().next() else {
        return Err(usage(format!("the ledger {} knows no replay {}", settings.kafka.ledger_topic(), book.replay)));
    };
    let place = |source: &Source| {
        let place = Place::of(*source, settings, api);
        place.ok_or_else(|| usage(format!("the settings have no tenant {}, which the replay is about", source.tenant)))
    };
    let places = book.spans.keys().map(place).collect::<Result<_, _>>()?;
    Ok(Work { places, span: within_reach(span, Timestamp::now())?, concurrency })
}

/// The topics that the records will go to.
fn outputs(settings: &Settings, book: &Book) -> BTreeSet<String> {
    let usual = |source: &Source| settings.kafka.output_topic(source.tenant, source.content_type);
    match &book.topic {
        Some(topic) => BTreeSet::from([topic.clone()]),
        None => book.spans.keys().map(usual).chain(routes(settings)).collect(),
    }
}

/// The topics that filters send records to.
fn routes(settings: &Settings) -> impl Iterator<Item = String> {
    settings.filter.routes.iter().map(|route| route.topic.clone())
}

async fn expect(settings: &Settings, outputs: &BTreeSet<String>) -> Result<(), Failure> {
    expect_topics(settings, outputs).await.map_err(|fault| Failure::new(Exit::Kafka, fault))
}

fn resume(replay: Uuid) -> String {
    format!("o365feed replay --resume {replay}")
}

fn set_up(settings: &Settings, origin: Origin, done: Done, limit: usize) -> Result<Press<'_>, Failure> {
    Press::set_up(settings, origin, done, limit).map_err(|fault| Failure::new(Exit::Kafka, fault))
}

/// Runs passes over the span until one comes to its end. After each trouble with a transaction everything is read back
/// from the ledger, which alone knows what was committed.
async fn to_the_end(settings: &Settings, mut press: Press<'_>, work: &Work) -> Result<(Book, Done, Missing), Failure> {
    let replay = press.book.replay;
    let broke_off = |exit, why: anyhow::Error| {
        Failure::new(exit, why.context(format!("the replay broke off; go on with {}", resume(replay))))
    };
    let (mut setbacks, mut fenced, mut limit) = (0, 0, settings.kafka.max_record_bytes);
    let stop = stopped()?;
    pin_mut!(stop);
    loop {
        let (reached, cell) = (press.book.published, RefCell::new(press));
        let missing = RefCell::default();
        let ended = tokio::select! {
            ended = pass(work, &cell, &missing) => ended.map_err(Some),
            () = &mut stop => Err(None),
        };
        press = cell.into_inner();
        let Err(fault) = ended else {
            let (book, done) = press.close();
            return Ok((book, done, missing.into_inner()));
        };
        setbacks = if reached < press.book.published { 1 } else { setbacks + 1 };
        let (done, met_oversize) = press.abandon();
        let Some(fault) = fault else {
            return Err(broke_off(Exit::Incomplete, anyhow::anyhow!("interrupted")));
        };
        fenced += u32::from(matches!(fault, TransactionError::Fenced(_)));
        if MOST_FENCED < fenced {
            return Err(broke_off(Exit::SlotTaken, anyhow::anyhow!("another process is at the same replay")));
        }
        if MOST_SETBACKS < setbacks {
            return Err(broke_off(Exit::Kafka, fault.into()));
        }
        if met_oversize {
            limit = (limit / 2).max(SMALLEST_LIMIT);
            tell(&format!("a topic refused a message for its size; records above {limit} bytes are left out and told"));
        }
        tell(&format!("beginning again after what is committed: {:#}", anyhow::Error::from(fault)));
        sleep(Duration::from_secs(1 << setbacks)).await;
        press = Press::set_up(settings, Origin::Ledger(replay), done, limit)
            .map_err(|fault: PressError| broke_off(Exit::Kafka, fault.into()))?;
    }
}

/// Comes to its end with the first SIGINT or SIGTERM.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Lists the span and publishes what the book does not know. All of it is one task, on the thread that waits for the
/// command's end: the press may block there, and nothing is shared.
async fn pass(work: &Work, press: &RefCell<Press<'_>>, missing: &RefCell<Missing>) -> Result<(), TransactionError> {
    let bar = progress(0, "replaying");
    let survey: Survey = Survey::new(work.places.clone(), work.span);
    let contents =
        survey.contents().map(|found| content(found, press, missing, &bar)).buffer_unordered(work.concurrency);
    pin_mut!(contents);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => press.borrow_mut().commit_if_due()?,
            next = contents.next() => match next {
                Some(published) => published?,
                None => break,
            },
        }
    }
    bar.finish_and_clear();
    press.borrow_mut().commit()
}

/// Publishes a content, unless that is done.
async fn content(
    found: Result<(Place, Listed), Unlisted>,
    press: &RefCell<Press<'_>>,
    missing: &RefCell<Missing>,
    bar: &ProgressBar,
) -> Result<(), TransactionError> {
    let (place, content) = match found {
        Ok(found) => found,
        Err(unlisted) => {
            missing.borrow_mut().unlisted(unlisted);
            return Ok(());
        }
    };
    bar.inc_length(1);
    if press.borrow().book.is_whole(content.source, content.key()) {
        bar.inc(1);
        return Ok(());
    }
    let (largest, mut came, mut published) = (press.borrow().largest(), 0, 0);
    let brought = fetch(&place.api, &content, largest, Patience::default(), |part| match part {
        Part::Begins => {
            came = 0;
            Ok(())
        }
        Part::Records(batch) => {
            came += batch.len() as u64;
            published += press.borrow_mut().publish(&content, batch)?;
            Ok(())
        }
    });
    match brought.await {
        Ok(()) => press.borrow_mut().is_whole(&content, came.saturating_sub(published))?,
        Err(Lost::Taker(fault)) => return Err(fault),
        Err(Lost::Content(unfetched)) => {
            bar.suspend(|| tell(&format!("tenant {}: {}", place.tenant, unfetched.told())));
            missing.borrow_mut().contents.insert((content.source, content.content_id), unfetched.why());
        }
    }
    bar.inc(1);
    Ok(())
}

/// What could not be had in a pass.
#[derive(Default)]
struct Missing {
    contents: BTreeMap<(Source, String), String>,
    listings: BTreeMap<Source, String>,
    /// Microsoft wants a person to act.
    refused: bool,
}

impl Missing {
    fn unlisted(&mut self, unlisted: Unlisted) {
        let source = unlisted.source();
        let (is_refused, failure) = (unlisted.error.fate() == Fate::Operator, unlisted.failure());
        tell(&failure.to_string());
        self.refused |= is_refused;
        self.listings.insert(source, failure.to_string());
    }

    fn gaps(&self, settings: &Settings, done: &Done) -> Vec<Gap> {
        let listings = self.listings.iter().map(|(source, why)| Gap::of(settings, *source, None, why.clone()));
        let contents =
            self.contents.iter().map(|((source, id), why)| Gap::of(settings, *source, Some(id.clone()), why.clone()));
        let large = done.too_large.iter().map(|record| {
            let why = format!("a record of {} bytes, which no topic takes", record.bytes);
            Gap::of(settings, record.source, Some(record.content_id.clone()), why)
        });
        listings.chain(contents).chain(large).collect()
    }
}

/// Something of the span that was not published.
#[derive(Debug, Serialize)]
struct Gap {
    tenant: String,
    tenant_id: String,
    content_type: &'static str,
    /// None when it is the listing that could not be had.
    content_id: Option<String>,
    why: String,
}

impl Gap {
    fn of(settings: &Settings, source: Source, content_id: Option<String>, why: String) -> Self {
        let tenant_id = source.tenant.to_string();
        let name = settings.tenants.iter().find(|tenant| tenant.id == source.tenant).map(|tenant| tenant.name.clone());
        let tenant = name.unwrap_or_else(|| tenant_id.clone());
        Self { tenant, tenant_id, content_type: source.content_type.as_str(), content_id, why }
    }
}

/// How a replay went.
#[derive(Debug, Serialize)]
struct Summary {
    replay: Uuid,
    /// None: the topics of the content types.
    topic: Option<String>,
    /// UTC.
    from: String,
    to: String,
    /// Published in full by this run.
    contents: u64,
    published: u64,
    /// By runs that it went on from.
    published_before: u64,
    /// Records that came more than once and were published once.
    repeats: u64,
    /// Left out by `filter.drop`.
    filtered: u64,
    gaps: Vec<Gap>,
}

impl Summary {
    fn told(&self) -> String {
        let mut text = format!(
            "replay {}: {} of {} published, {} left out, {}",
            self.replay,
            counted(self.published, "record"),
            counted(self.contents, "content"),
            counted(self.repeats, "repeat"),
            counted(self.gaps.len(), "gap")
        );
        if 0 < self.filtered {
            text += &format!("; {} dropped by the filter", counted(self.filtered, "record"));
        }
        if 0 < self.published_before {
            text += &format!("; {} published before it was resumed", counted(self.published_before, "record"));
        }
        text.push('\n');
        if !self.gaps.is_empty() {
            let row = |gap: &Gap| {
                let id = gap.content_id.clone().unwrap_or_else(|| "(the listing)".to_owned());
                [gap.tenant.clone(), gap.content_type.to_owned(), id, harmless(&gap.why)]
            };
            text += &table(&["tenant", "content type", "content", "why"], self.gaps.iter().map(row));
        }
        text
    }
}
