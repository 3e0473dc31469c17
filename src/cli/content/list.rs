//! `o365feed content list`: what the service offers of a span, and with `--blobs` the records too.

use std::{
    cell::{Cell, RefCell},
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
};

use clap::Args;
use futures_util::{StreamExt, pin_mut};
use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    ending::{Troubles, written},
    sink::{Brought, Sink},
};
use crate::{
    cli::{
        Failure,
        args::{SourceArgs, SpanArgs},
        config::counted,
        feed::{Patience, Place, Survey, Unlisted, in_reach},
        output::{OutputArgs, for_stdout, harmless, progress, tell},
        tool::{self, ToolArgs},
    },
    domain::Listed,
};

/// What `o365feed content list` may be told.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Bring the records instead of listing where they are: a record a line, as received.
    #[arg(long, conflicts_with = "output")]
    blobs: bool,
    /// Write the records to a file for each content in this folder; what is complete there is not fetched again.
    #[arg(long, value_name = "FOLDER", requires = "blobs")]
    into: Option<PathBuf>,
    /// Contents that are fetched at once.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64), requires = "blobs")]
    concurrency: u8,
}

/// What follows the arguments in `--help`.
pub(in crate::cli) const MORE: &str = "\
Examples:
  o365feed content list --since 2h --type Audit.Exchange
  o365feed content list --from 2026-01-30 --to 2026-01-31 --output json | jq -r .[].content_id
  o365feed content list --since 24h --blobs | jq -c 'select(.Operation == \"FileDeleted\")'
  o365feed content list --since 7d --blobs --into ./blobs

Without --since or --from it is the last 24 hours.";

/// Asked for when no span is given: what the service itself takes for one.
const A_DAY: SignedDuration = SignedDuration::from_hours(24);

/// Lists, or brings, what the arguments ask for.
///
/// # Errors
/// When something could not be had; everything else was given all the same.
pub(in crate::cli) async fn run(args: ListArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let api = tool::api(&settings)?;
    let span = in_reach(&args.span, Timestamp::now(), A_DAY)?;
    let places = Place::all(&settings, &api, &args.sources)?;
    let (sources, mut troubles) = (places.len(), Troubles::default());
    let survey = Survey::new(places, span);
    if args.blobs {
        return bring(survey, &args, troubles).await;
    }
    let listed = list(survey, args.output, &mut troubles).await;
    let Some(contents) = written(listed)? else { return Ok(()) };
    tell(&format!(
        "{} of {} made available from {:.0} to {:.0}",
        counted(contents, "content"),
        counted(sources, "source"),
        span.from,
        span.to
    ));
    troubles.ending(sources)
}

/// Prints contents as they come; gives how many. Nothing but their ids is kept.
async fn list(survey: Survey, output: OutputArgs, troubles: &mut Troubles) -> io::Result<u64> {
    let mut out = BufWriter::new(io::stdout());
    let is_watched = io::stdout().is_terminal();
    let names = survey.tenants();
    let mut rows = Rows {
        is_json: output.is_json(),
        is_watched,
        width: names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(6),
        count: 0,
    };
    rows.begin(&mut out)?;
    let contents = survey.contents();
    pin_mut!(contents);
    while let Some(found) = contents.next().await {
        match found {
            Ok((place, listed)) => {
                rows.row(&mut out, &place, &listed)?;
                if is_watched {
                    out.flush()?;
                }
            }
            Err(unlisted) => troubles.unlisted(unlisted),
        }
    }
    rows.end(&mut out)?;
    out.flush()?;
    Ok(rows.count)
}

/// A table whose width is known before its rows are, or an array.
struct Rows {
    is_json: bool,
    /// By a person, at a terminal.
    is_watched: bool,
    /// Of the first column.
    width: usize,
    count: u64,
}

/// A content in JSON.
#[derive(Serialize)]
struct Item<'a> {
    tenant: &'a str,
    tenant_id: String,
    content_type: &'static str,
    content_id: &'a str,
    content_uri: &'a str,
    created: String,
    expires: String,
}

impl Rows {
    fn begin(&self, out: &mut impl Write) -> io::Result<()> {
        if self.is_json {
            return out.write_all(b"[");
        }
        let (tenant, kind, created, expires, content) = ("TENANT", "CONTENT TYPE", "CREATED", "EXPIRES", "CONTENT ID");
        writeln!(out, "{tenant:<width$}  {kind:<26}  {created:<24}  {expires:<24}  {content}", width = self.width)
    }

    fn row(&mut self, out: &mut impl Write, place: &Place, listed: &Listed) -> io::Result<()> {
        let comma = if self.count == 0 { "\n" } else { ",\n" };
        self.count += 1;
        let (kind, id) = (place.kind.as_str(), &listed.content_id);
        let (created, expires) = (format!("{:.3}", listed.created), format!("{:.3}", listed.expires));
        if !self.is_json {
            let (tenant, id) = (harmless(&place.tenant), harmless(id));
            return writeln!(
                out,
                "{tenant:<width$}  {kind:<26}  {created:<24}  {expires:<24}  {id}",
                width = self.width
            );
        }
        let item = Item {
            tenant: &place.tenant,
            tenant_id: place.api.id().to_string(),
            content_type: kind,
            content_id: id,
            content_uri: &listed.content_uri,
            created,
            expires,
        };
        out.write_all(comma.as_bytes())?;
        out.write_all(&for_stdout(&serde_json::to_vec(&item)?, self.is_watched))
    }

    fn end(&self, out: &mut impl Write) -> io::Result<()> {
        if self.is_json { out.write_all(b"\n]\n") } else { Ok(()) }
    }
}

/// What was brought so far.
#[derive(Default)]
struct Tally {
    contents: Cell<u64>,
    records: Cell<u64>,
    before: Cell<u64>,
}

async fn bring(survey: Survey, args: &ListArgs, troubles: Troubles) -> Result<(), Failure> {
    let sources = survey.sources();
    let sink = Sink::new(args.into.as_deref()).map_err(anyhow::Error::from)?;
    let (tally, troubles) = (Tally::default(), RefCell::new(troubles));
    let is_shown = args.into.is_some() || !io::stdout().is_terminal();
    let bar = if is_shown { progress(0, "fetching") } else { ProgressBar::hidden() };
    let contents = survey.contents().map(|found| content(found, &sink, &tally, &troubles, &bar));
    let contents = contents.buffer_unordered(args.concurrency.into());
    pin_mut!(contents);
    let mut ended = Ok(());
    while ended.is_ok()
        && let Some(brought) = contents.next().await
    {
        ended = brought;
    }
    bar.finish_and_clear();
    if written(ended.and_then(|()| sink.finish()))?.is_none() {
        return Ok(());
    }
    let before = match tally.before.get() {
        0 => String::new(),
        before => format!("; {before} were there already"),
    };
    tell(&format!(
        "{} of {}{before}",
        counted(tally.records.get(), "record"),
        counted(tally.contents.get(), "content")
    ));
    troubles.borrow().ending(sources)
}

async fn content(
    found: Result<(Place, Listed), Unlisted>,
    sink: &Sink,
    tally: &Tally,
    troubles: &RefCell<Troubles>,
    bar: &ProgressBar,
) -> io::Result<()> {
    let (place, listed) = match found {
        Ok(found) => found,
        Err(unlisted) => {
            bar.suspend(|| troubles.borrow_mut().unlisted(unlisted));
            return Ok(());
        }
    };
    bar.inc_length(1);
    match sink.bring(&place.api, &listed, Patience::default()).await? {
        Brought::Whole(records) => {
            tally.records.set(tally.records.get() + records);
            tally.contents.set(tally.contents.get() + 1);
        }
        Brought::Before => tally.before.set(tally.before.get() + 1),
        lost @ (Brought::Missing(_) | Brought::TooLarge(_)) => {
            bar.suspend(|| troubles.borrow_mut().lost(&place.tenant, &listed.content_id, &lost));
        }
    }
    bar.inc(1);
    Ok(())
}
