//! The result of a comparison: as JSON for programs, and as tables and a sentence for people.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Asked, Repair, gaps::Gaps};
use crate::{
    cli::{
        config::counted,
        output::{harmless, table},
    },
    domain::{
        RecordId, Source,
        reconcile::{Cell, Counts, Findings, Moment, Verdict},
    },
    kafka::Survey,
};

/// Everything that a report is made of.
pub(super) struct Outcome {
    pub findings: Findings,
    pub open_gaps: Gaps,
    /// `None` when none was asked for.
    pub repair: Option<Repair>,
    /// Contents from before the beginning of their source.
    pub left_out: usize,
    pub allow_gaps: bool,
    pub deep: bool,
}

/// What `--output json` prints. Times are RFC 3339 in UTC.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    from: String,
    to: String,
    listed_at: String,
    /// When the ledger was last written to, as far as it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger_written_at: Option<String>,
    deep: bool,
    pub(super) complete: bool,
    /// The same in a sentence.
    pub(super) verdict: String,
    sources: Vec<SourceRow>,
    missing: Vec<MissingRow>,
    unreadable: Vec<UnreadableRow>,
    open_gaps: Vec<GapRow>,
    closed_gaps: usize,
    /// Contents that `--repair` put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    put_back: Option<usize>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SourceRow {
    tenant: String,
    tenant_id: String,
    content_type: &'static str,
    contents: CountsRow,
    /// Of the contents that were looked into.
    records: CountsRow,
    hours: Vec<HourRow>,
}

#[derive(Debug, Serialize)]
struct HourRow {
    hour: String,
    contents: CountsRow,
    records: CountsRow,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CountsRow {
    all: u64,
    delivered: u64,
    filtered: u64,
    waiting: u64,
    gap: u64,
    missing: u64,
    unknown: u64,
}

#[derive(Debug, Serialize)]
struct MissingRow {
    tenant: String,
    tenant_id: String,
    content_type: &'static str,
    content_id: String,
    content_created: String,
    /// The record's `Id`; absent when it has no usable one.
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<String>,
    /// As the ledger would know it, in hexadecimal.
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_time: Option<String>,
}

#[derive(Debug, Serialize)]
struct UnreadableRow {
    tenant: String,
    tenant_id: String,
    content_type: &'static str,
    content_id: String,
    content_created: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct GapRow {
    tenant: String,
    tenant_id: String,
    content_type: &'static str,
    reason: &'static str,
    content_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<String>,
    /// Of a record that is too large, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_answer: Option<String>,
}

/// What waits for longer is worth a word.
const LONG: SignedDuration = SignedDuration::from_hours(1);

impl Report {
    pub(super) fn of(asked: &Asked<'_>, survey: &Survey, moment: Moment, outcome: Outcome) -> Self {
        let Outcome { findings, open_gaps, repair, left_out, allow_gaps, deep } = outcome;
        let total = findings.total();
        let unknown = total.contents.of(Verdict::Unknown);
        // What was listed in a span that nobody could list in time has no gap of its own.
        let gap_count =
            open_gaps.open.len().max(usize::try_from(total.contents.of(Verdict::Gap)).unwrap_or(usize::MAX));
        let complete = findings.missing.is_empty()
            && total.contents.of(Verdict::Missing) == 0
            && unknown == 0
            && (allow_gaps || gap_count == 0);
        let mut notes = asked.notes.clone();
        notes.extend(reaches(asked, survey));
        if 0 < left_out {
            let are = if left_out == 1 { "is" } else { "are" };
            notes.push(format!(
                "{} {are} from before the beginning (listing.start_from) and not counted",
                counted(left_out, "content")
            ));
        }
        if let Some(too_old) = repair.map(|repair| repair.too_old).filter(|too_old| 0 < *too_old) {
            notes.push(format!(
                "not put back: {}, older than dedupe.window; what is published of them would be published again; set it to 8d, restart the connector and repair once more",
                counted(too_old, "content")
            ));
        }
        if let Some(since) = findings.waiting_since.filter(|since| *since < moment.listed_at - LONG) {
            notes.push(format!("the oldest content that waits became available at {since}: is a connector running?"));
        }
        notes.extend(open_gaps.told.iter().cloned());
        let name = |source: Source| asked.tenant_name(source).to_owned();
        let missing = findings.missing.iter().map(|record| MissingRow {
            tenant: name(record.content.source),
            tenant_id: record.content.source.tenant.to_string(),
            content_type: record.content.source.content_type.as_str(),
            content_id: record.content.content_id.clone(),
            content_created: record.content.created.to_string(),
            record_id: record.id.clone(),
            identity: hex(record.identity),
            creation_time: record.created.and_then(|at| Timestamp::from_second(at).ok()).map(|at| at.to_string()),
        });
        let unreadable = findings.unreadable.iter().map(|(content, why)| UnreadableRow {
            tenant: name(content.source),
            tenant_id: content.source.tenant.to_string(),
            content_type: content.source.content_type.as_str(),
            content_id: content.content_id.clone(),
            content_created: content.created.to_string(),
            why: why.clone(),
        });
        let gaps = open_gaps.open.iter().map(|gap| GapRow {
            tenant: name(gap.source),
            tenant_id: gap.source.tenant.to_string(),
            content_type: gap.source.content_type.as_str(),
            reason: gap.reason.as_str(),
            content_id: gap.content_id.clone(),
            record_id: gap.record.as_ref().and_then(|(id, _)| id.clone()),
            size: gap.record.as_ref().map(|(_, size)| *size),
            at: gap.at.map(|at| at.to_string()),
            last_answer: gap.last_answer.clone(),
        });
        Self {
            from: asked.span.from.to_string(),
            to: asked.span.to.to_string(),
            listed_at: moment.listed_at.to_string(),
            ledger_written_at: survey.newest_entry().map(|at| at.to_string()),
            deep,
            complete,
            verdict: sentence(&total, &findings, gap_count, complete),
            sources: asked.sources.iter().map(|source| SourceRow::of(asked, *source, &findings)).collect(),
            missing: missing.collect(),
            unreadable: unreadable.collect(),
            open_gaps: gaps.collect(),
            closed_gaps: open_gaps.closed,
            put_back: repair.map(|repair| repair.put_back),
            notes,
        }
    }

    /// Tables and sentences. At most `limit` missing records are named.
    pub(super) fn to_text(&self, limit: usize) -> String {
        let depth =
            if self.deep { "every record compared" } else { "contents compared, unknown ones record by record" };
        let mut text = format!("From {} to {}, {depth}.\n\n", minute(&self.from), minute(&self.to));
        text += &table(
            &["tenant", "content type", "contents", "delivered", "filtered", "waiting", "gap", "missing", "unknown"],
            self.sources.iter().map(|row| cells(&row.tenant, row.content_type, &row.contents)),
        );
        if self.sources.iter().any(|row| 0 < row.records.all) {
            text += "\n";
            text += &table(
                &["tenant", "content type", "records", "delivered", "filtered", "waiting", "gap", "missing", "unknown"],
                self.sources.iter().map(|row| cells(&row.tenant, row.content_type, &row.records)),
            );
        }
        self.hours_to_text(&mut text);
        self.missing_to_text(&mut text, limit);
        self.gaps_to_text(&mut text);
        for note in &self.notes {
            let _ = write!(text, "\nNote: {}", harmless(note));
        }
        if !self.notes.is_empty() {
            text += "\n";
        }
        match self.put_back {
            Some(0) => text += "\nNothing to put back.\n",
            Some(count) => {
                let _ = writeln!(
                    text,
                    "\nPut {} back on the listings: `o365feed run` fetches what is there again, and publishes what is missing.",
                    counted(count, "content")
                );
            }
            None => {}
        }
        let _ = writeln!(text, "\n{}", self.verdict);
        text
    }

    /// Hours in which something is not there, or not yet.
    fn hours_to_text(&self, text: &mut String) {
        let rows = self.sources.iter().flat_map(|source| {
            let open = source.hours.iter().filter(|hour| {
                let CountsRow { waiting, gap, missing, unknown, .. } = hour.contents;
                0 < waiting + gap + missing + unknown
            });
            open.map(|hour| {
                let CountsRow { all, waiting, gap, missing, unknown, .. } = hour.contents;
                let counts = [all, waiting, gap, missing, unknown, hour.records.missing].map(|count| count.to_string());
                [vec![minute(&hour.hour), source.tenant.clone(), source.content_type.to_owned()], counts.to_vec()]
                    .concat()
            })
        });
        let rows: Vec<Vec<String>> = rows.collect();
        if !rows.is_empty() {
            *text += "\nHours that are not complete:\n";
            let headings = [
                "hour",
                "tenant",
                "content type",
                "contents",
                "waiting",
                "gap",
                "missing",
                "unknown",
                "records missing",
            ];
            *text += &table(&headings, rows);
        }
    }

    fn missing_to_text(&self, text: &mut String, limit: usize) {
        if !self.missing.is_empty() {
            *text += "\nMissing records:\n";
            let rows = self.missing.iter().take(limit).map(|row| {
                let id = row.record_id.clone().unwrap_or_else(|| format!("(no Id) {}", row.identity));
                let created = row.creation_time.clone().unwrap_or_default();
                [row.tenant.clone(), row.content_type.to_owned(), row.content_id.clone(), id, created]
            });
            *text += &table(&["tenant", "content type", "content", "record", "creation time"], rows);
            and_more(text, self.missing.len(), limit);
        }
        if !self.unreadable.is_empty() {
            *text += "\nContents that could not be read:\n";
            let rows =
                self.unreadable.iter().take(limit).map(|row| {
                    [row.tenant.clone(), row.content_type.to_owned(), row.content_id.clone(), row.why.clone()]
                });
            *text += &table(&["tenant", "content type", "content", "why"], rows);
            and_more(text, self.unreadable.len(), limit);
        }
    }

    fn gaps_to_text(&self, text: &mut String) {
        if !self.open_gaps.is_empty() {
            *text += "\nOpen gaps:\n";
            let rows = self.open_gaps.iter().map(|row| {
                let record = row.record_id.clone().or(row.size.map(|_| "(no Id)".to_owned())).unwrap_or_default();
                let size = row.size.map(|size| size.to_string()).unwrap_or_default();
                [
                    row.tenant.clone(),
                    row.content_type.to_owned(),
                    row.reason.to_owned(),
                    row.content_id.clone(),
                    record,
                    size,
                ]
            });
            *text += &table(&["tenant", "content type", "reason", "content", "record", "bytes"], rows);
        }
        if 0 < self.closed_gaps {
            let _ = writeln!(text, "\nGaps that are closed: {}.", self.closed_gaps);
        }
    }
}

impl SourceRow {
    fn of(asked: &Asked<'_>, source: Source, findings: &Findings) -> Self {
        let hours = findings.hours.get(&source);
        let mut total = Cell::default();
        hours.into_iter().flat_map(|hours| hours.values()).for_each(|cell| total.merge(cell));
        let row = |(hour, cell): (&Timestamp, &Cell)| HourRow {
            hour: hour.to_string(),
            contents: CountsRow::of(&cell.contents),
            records: CountsRow::of(&cell.records),
        };
        Self {
            tenant: asked.tenant_name(source).to_owned(),
            tenant_id: source.tenant.to_string(),
            content_type: source.content_type.as_str(),
            contents: CountsRow::of(&total.contents),
            records: CountsRow::of(&total.records),
            hours: hours.into_iter().flatten().map(row).collect(),
        }
    }
}

impl CountsRow {
    fn of(counts: &Counts) -> Self {
        Self {
            all: counts.all(),
            delivered: counts.of(Verdict::Delivered),
            filtered: counts.of(Verdict::Filtered),
            waiting: counts.of(Verdict::Waiting),
            gap: counts.of(Verdict::Gap),
            missing: counts.of(Verdict::Missing),
            unknown: counts.of(Verdict::Unknown),
        }
    }
}

/// Where the ledger does not reach back as far as the span does.
fn reaches(asked: &Asked<'_>, survey: &Survey) -> Vec<String> {
    let short = asked.sources.iter().filter_map(|source| {
        let reach = survey.known().get(source)?.reach();
        (asked.span.from < reach).then(|| {
            format!(
                "{source}: the ledger begins later than the span; of what was created before {reach} it cannot say that it is missing"
            )
        })
    });
    short.collect()
}

fn sentence(total: &Cell, findings: &Findings, gaps: usize, complete: bool) -> String {
    let (contents, records) = (&total.contents, &total.records);
    let mut rest = Vec::new();
    if 0 < contents.of(Verdict::Waiting) {
        rest.push(format!("{} of the contents not published yet", contents.of(Verdict::Waiting)));
    }
    if 0 < gaps {
        rest.push(counted(gaps as u64, "open gap"));
    }
    let all = counted(contents.all(), "content");
    if complete && contents.all() == 0 && rest.is_empty() {
        // A proof about nothing should not read like one.
        return "complete: the API lists nothing in this span".to_owned();
    }
    if complete {
        let looked = if records.all() == 0 {
            String::new()
        } else {
            format!(", and {} looked at in them,", counted(records.all(), "record"))
        };
        let rest = rest.iter().fold(String::new(), |text, part| text + "; " + part);
        return format!("complete: {all}{looked} are accounted for{rest}");
    }
    let mut said = Vec::new();
    if !findings.missing.is_empty() {
        let missing = counted(findings.missing.len() as u64, "record");
        said.push(format!("{missing} missing, in {}", counted(contents.of(Verdict::Missing), "content")));
    }
    if 0 < contents.of(Verdict::Unknown) {
        said.push(format!("{} nobody can tell of", counted(contents.of(Verdict::Unknown), "content")));
    }
    said.extend(rest);
    format!("not complete: {}; {all} compared", said.join("; "))
}

fn cells(tenant: &str, kind: &str, counts: &CountsRow) -> Vec<String> {
    let CountsRow { all, delivered, filtered, waiting, gap, missing, unknown } = *counts;
    let counts = [all, delivered, filtered, waiting, gap, missing, unknown].map(|count| count.to_string());
    [vec![tenant.to_owned(), kind.to_owned()], counts.to_vec()].concat()
}

fn and_more(text: &mut String, all: usize, limit: usize) {
    if limit < all {
        let _ = writeln!(text, "and {} more; --limit or --output json shows them", all - limit);
    }
}

/// A time to the minute.
fn minute(time: &str) -> String {
    time.get(..16).map_or_else(|| time.to_owned(), |minute| format!("{minute}Z"))
}

fn hex(id: RecordId) -> String {
    id.0.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
