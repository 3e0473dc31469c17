//! The open gaps of a span: losses that are named already.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::{
    cli::args::TimeSpan,
    domain::{
        ContentKey, GapReason, Outcome, Source,
        reconcile::{Looked, Verdict},
    },
    kafka::{Gap, Survey},
};

/// A gap that is open, of a content or of one record.
#[derive(Clone, Debug)]
pub(super) struct OpenGap {
    pub source: Source,
    pub content_id: String,
    pub reason: GapReason,
    /// Of a record that was too large: its `Id`, and its size in bytes.
    pub record: Option<(Option<String>, u64)>,
    pub at: Option<Timestamp>,
    pub last_answer: Option<String>,
}

/// What the gaps topic says of the span.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    pub open: Vec<OpenGap>,
    /// Contents that were a gap and are published.
    pub closed: usize,
    /// Spans that nobody listed, and listings that were lost: with when it was noticed.
    pub told: Vec<String>,
}

/// Collects the gaps of contents created in the span. Whose time nobody knows counts by when it was first seen.
pub(super) fn open(survey: &Survey, looked: &[Looked], verdicts: &[Verdict], span: TimeSpan) -> Gaps {
    let listed: HashMap<(Source, ContentKey), (&Looked, Verdict)> = looked
        .iter()
        .zip(verdicts)
        .map(|(looked, verdict)| ((looked.content.source, looked.content.key()), (looked, *verdict)))
        .collect();
    let mut gaps = Gaps::default();
    let (mut contents, mut records) = (HashMap::new(), HashSet::new());
    for gap in survey.gaps() {
        let source = gap.tenant.zip(gap.content_type).map(|(tenant, content_type)| Source { tenant, content_type });
        let Some((source, id)) = source.zip(gap.content_id.clone()) else {
            gaps.told.extend(span_or_listings(source, gap));
            continue;
        };
        let key = ContentKey::of(&id);
        let known = survey.known().get(&source);
        let mark = known.and_then(|known| known.mark(&key));
        let listing = listed.get(&(source, key));
        let created = listing.map(|(looked, _)| looked.content.created).or(mark.map(|mark| mark.created));
        let created = created.unwrap_or(gap.first_seen);
        if created < span.from || span.to <= created {
            continue;
        }
        let open = OpenGap {
            source,
            content_id: id,
            reason: gap.reason,
            record: gap.record.as_ref().map(|record| (record.record_id.clone(), record.size)),
            at: Some(gap.at),
            last_answer: gap.last_answer.clone(),
        };
        if open.record.is_some() {
            if records.insert((source, open.record.clone(), key)) {
                gaps.open.push(open);
            }
            continue;
        }
        // A content that was published after all, or whose records came in another, is none any more.
        let is_published = mark.is_some_and(|mark| mark.outcome == Outcome::Published);
        let is_there = listing.is_some_and(|(_, verdict)| *verdict <= Verdict::Delivered);
        contents.insert((source, key), (open, gap.closed || is_published || is_there));
    }
    for ((source, key), (looked, verdict)) in listed {
        let mark = survey.known().get(&source).and_then(|known| known.mark(&key));
        if let (Verdict::Gap, Some(Outcome::Gap(reason))) = (verdict, mark.map(|mark| mark.outcome)) {
            // The gaps topic lives for months; should it have forgotten, the mark has not.
            let content_id = looked.content.content_id.clone();
            let unnamed = OpenGap { source, content_id, reason, record: None, at: None, last_answer: None };
            contents.entry((source, key)).or_insert((unnamed, false));
        }
    }
    gaps.closed = contents.values().filter(|(_, is_closed)| *is_closed).count();
    gaps.open.extend(contents.into_values().filter(|(_, is_closed)| !is_closed).map(|(gap, _)| gap));
    gaps.open.sort_by(|a, b| (a.source, &a.content_id, &a.record).cmp(&(b.source, &b.content_id, &b.record)));
    gaps
}

/// What no comparison can reach, in a sentence.
fn span_or_listings(source: Option<Source>, gap: &Gap) -> Option<String> {
    let span = gap.span.zip(source).map(|(span, source)| {
        format!("{source}: nobody listed what became available from {} to {} (gap `unlisted`)", span.from, span.to)
    });
    let listings = gap.listings.as_ref().map(|lost| {
        let (partition, first, end) = (lost.partition, lost.first_offset, lost.end_offset);
        format!("listings {first} to {end} of partition {partition} were lost by {} (gap `listings_lost`)", gap.at)
    });
    span.or(listings)
}
