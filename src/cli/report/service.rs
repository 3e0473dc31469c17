//! Records straight from the API: what became available is listed, every content is fetched and cut into its records.

use std::{cell::RefCell, collections::HashSet, convert::Infallible};

use futures_util::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use jiff::Timestamp;

use super::{Incoming, Sieve, Sum};
use crate::{
    cli::{
        Failure,
        args::TimeSpan,
        feed::{Lost, Part, Patience, Place, Survey, fetch},
        output::progress,
        records::RecordArgs,
        tool, within_runtime,
    },
    config::Settings,
    domain::{Batch, Listed, Planner, RecordId, Source},
};

/// Contents that are fetched at once.
const FETCHES: usize = 8;

/// Hands every record to the sieve that may have been created in the span: no content becomes available before its records
/// were created, and some do days later, so everything is listed that became available since the span began.
pub(super) fn read<S: Sum>(
    settings: &Settings,
    records: &RecordArgs,
    span: TimeSpan,
    sieve: &mut Sieve<'_, S>,
) -> Result<(), Failure> {
    let api = tool::api(settings)?;
    let places = Place::all(settings, &api, &records.sources)?;
    // The connector may have spent this minute's budget.
    places.iter().for_each(|place| place.api.take_over());
    let now = Timestamp::now();
    let survey = Survey::new(places, TimeSpan { from: span.from.max(now - Planner::REACH), to: now });
    let (intake, bar) = (RefCell::new(Intake { sieve, seen: HashSet::new() }), progress(0, "fetching contents"));
    within_runtime(async {
        let contents = survey.contents().map_err(|unlisted| unlisted.failure());
        let taken = contents.map(async |found| content(found?, settings, &intake, &bar).await);
        taken.buffer_unordered(FETCHES).try_collect::<()>().await
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// Fetches a content for the sums. One that cannot be had is counted, and what came of it too.
async fn content<S: Sum>(
    (place, content): (Place, Listed),
    settings: &Settings,
    intake: &RefCell<Intake<'_, '_, S>>,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    bar.inc_length(1);
    let take = |part: Part<'_>| -> Result<(), Infallible> {
        if let Part::Records(batch) = part {
            intake.borrow_mut().take(&content, batch);
        }
        Ok(())
    };
    let fetched = fetch(&place.api, &content, settings.kafka.max_record_bytes, Patience::of_a_look(), take).await;
    bar.inc(1);
    match fetched {
        Ok(()) => Ok(()),
        Err(Lost::Taker(never)) => match never {},
        Err(Lost::Content(unfetched)) => match unfetched.refusal(&place.tenant) {
            Some(refusal) => Err(refusal),
            None => {
                intake.borrow_mut().sieve.tally.unfetched += 1;
                Ok(())
            }
        },
    }
}

/// Takes each record once.
struct Intake<'a, 'b, S> {
    sieve: &'a mut Sieve<'b, S>,
    /// One content is fetched twice when it broke off, and the API itself repeats records.
    seen: HashSet<(Source, RecordId)>,
}

impl<S: Sum> Intake<'_, '_, S> {
    fn take(&mut self, content: &Listed, batch: &Batch) {
        for record in batch.iter().filter(|record| self.seen.insert((content.source, record.identity))) {
            self.sieve.take(&Incoming {
                kind: Some(content.source.content_type),
                bytes: record.bytes,
                available: Some(content.created),
                published: None,
            });
        }
    }
}
