//! `o365feed reconcile`: everything that the API lists, held against the ledger, the listings and the gaps.
//! The judgement is `domain::reconcile`'s; in here the service is asked, the topics are read and the result is told.

mod gaps; // open gaps of the span
mod offered; // what the API lists, and what is inside
mod report; // the result as JSON and in words

use std::{collections::HashMap, sync::Arc};

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use self::{
    offered::{Offer, Reader},
    report::{Outcome, Report},
};
use super::{
    Exit, Failure,
    args::{SourceArgs, SpanArgs, TimeSpan, duration, usage},
    feed::cut_to_reach,
    output::OutputArgs,
    tool::{ToolArgs, api},
};
use crate::{
    config::{Settings, StartFrom},
    domain::{
        Day, Listed, Origin, Planner, Source,
        reconcile::{Inside, Known, Looked, Moment, Standing, Verdict, compare},
    },
    kafka::{ListingsWriter, Survey, SurveyError},
};

#[derive(Args, Clone, Debug)]
pub(super) struct ReconcileArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// Fetch every content and compare each of its records; otherwise only contents that nobody knows are fetched.
    ///
    /// Without it a content that the ledger calls published is believed. With it every record's id is looked for, which
    /// takes a request for each content and the time to read it all.
    #[arg(long)]
    deep: bool,
    /// What is younger than this may be unknown: the connector has not listed it yet.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    grace: SignedDuration,
    /// So many missing records are named in the table; JSON has all.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
    /// End with 0 although there are open gaps: losses that are named already.
    #[arg(long)]
    allow_gaps: bool,
    /// Put contents that lack something back on the listings topic, for the running connector to fetch again.
    ///
    /// These are contents with missing records, and contents that are an open gap and can be had now. Nothing is asked before,
    /// because nothing can go wrong by it: a listing is a hint to look. The connector fetches the content once more and
    /// compares each record with its ledger, so what is there already is a repeat and only what is missing is published.
    /// Contents older than dedupe.window, whose records the connector may have forgotten, are left alone and counted.
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is told below `--help`.
pub(super) const GUIDE: &str = "\
Verdicts, worst first:
  missing    the API has it, and neither ledger nor gaps know it
  unknown    it could not be read, or the ledger does not reach back to it
  waiting    listed and not published yet, or younger than --grace
  gap        not there, and the gaps topic says why
  delivered  in its topic, under this content id or another
  filtered   left out on purpose

Examples:
  o365feed reconcile --since 24h
  o365feed reconcile --since 7d --deep --tenant contoso --type Audit.Exchange --output json
  o365feed reconcile --since 7d --deep --repair

Exit codes: 0 complete (something may be waiting); 7 something is missing, unknown or an open gap (but see --allow-gaps);
1 try again; 2 wrong usage; 3 Microsoft refuses; 4 Kafka cannot be read or the ledger is another group's.";

/// What is compared: some sources in a span.
struct Asked<'a> {
    settings: &'a Settings,
    sources: Vec<Source>,
    span: TimeSpan,
    notes: Vec<String>,
}

/// Compares, tells, and puts back if asked to.
///
/// # Errors
/// [`Exit::Incomplete`] unless everything is accounted for; what kept from comparing, otherwise.
pub(super) async fn run(args: ReconcileArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let now = Timestamp::now();
    let asked = Asked::of(&args, &settings, now)?;
    let moment = Moment { listed_at: now, grace: args.grace };
    let survey = open_topics(&asked).await?;
    // The API first: what the topics know by then, they knew of all that was listed.
    let api = api(&settings)?;
    let reader = Reader::new(&settings, &api);
    let mut offered = reader.list(&asked.sources, asked.span).await?;
    let mut survey = read_topics(&settings, survey).await?;
    let before = asked.leave_out_what_came_before(&mut offered, survey.known());
    let looked = look_inside(&args, &reader, offered, survey.known(), moment).await?;
    if looked.iter().any(is_unsure) {
        // While contents were fetched the connector went on.
        survey = read_topics(&settings, survey).await?;
    }
    let findings = compare(survey.known(), &looked, moment);
    let repair = match args.repair {
        true => Some(put_back(&settings, &looked, &findings.verdicts, survey.known(), moment).await?),
        false => None,
    };
    let open_gaps = gaps::open(&survey, &looked, &findings.verdicts, asked.span);
    let outcome =
        Outcome { findings, open_gaps, repair, left_out: before, allow_gaps: args.allow_gaps, deep: args.deep };
    let report = Report::of(&asked, &survey, moment, outcome);
    args.output.show(&report, |report| report.to_text(args.limit))?;
    if report.complete {
        return Ok(());
    }
    let what = anyhow::anyhow!("what the API offers is not all accounted for; the report names what is not");
    Err(Failure::new(Exit::Incomplete, what))
}

impl<'a> Asked<'a> {
    fn of(args: &ReconcileArgs, settings: &'a Settings, now: Timestamp) -> Result<Self, Failure> {
        let span_asked = args.span.of(now, Planner::REACH)?;
        let span = cut_to_reach(span_asked, now)?;
        let mut notes = Vec::new();
        if span_asked.from < span.from {
            notes.push(format!("the API lists 6 d 23 h back: compared from {:.0} on", span.from));
        }
        let mut sources = Vec::new();
        for (tenant, kinds) in args.sources.of(settings)? {
            for kind in kinds {
                if !tenant.content_types.contains(&kind) {
                    let name = &tenant.name;
                    return Err(usage(format!(
                        "tenant {name} does not have {kind} in its content_types: nothing is published of it"
                    )));
                }
                sources.push(Source { tenant: tenant.id, content_type: kind });
            }
        }
        sources.sort_unstable();
        sources.dedup();
        Ok(Self { settings, sources, span, notes })
    }

    /// The name that the settings give the source's tenant.
    fn tenant_name(&self, source: Source) -> &str {
        let tenant = self.settings.tenants.iter().find(|tenant| tenant.id == source.tenant);
        tenant.map_or("", |tenant| &tenant.name)
    }

    /// Nothing created before a source began was ever to be published. Gives how many contents that were.
    fn leave_out_what_came_before(&self, offered: &mut Offer, known: &HashMap<Source, Known>) -> usize {
        let all = offered.len();
        let first = match self.settings.listing.start_from {
            StartFrom::Earliest => return 0,
            StartFrom::Now => None,
            StartFrom::At(time) => Some(time),
        };
        offered.retain(|content| {
            let began = known.get(&content.source).and_then(Known::beginning).or(first);
            began.is_none_or(|began| began <= content.created)
        });
        all - offered.len()
    }
}

async fn open_topics(asked: &Asked<'_>) -> Result<Survey, Failure> {
    let (settings, sources, since) = (asked.settings.clone(), asked.sources.clone(), asked.span.from);
    let opened = tokio::task::spawn_blocking(move || Survey::new(&settings, &sources, since)).await;
    opened.map_err(anyhow::Error::from)?.map_err(|fault| kafka_failed(asked.settings, fault))
}

/// Reads the topics to their present ends.
async fn read_topics(settings: &Settings, mut survey: Survey) -> Result<Survey, Failure> {
    let read = tokio::task::spawn_blocking(move || survey.read().map(|()| survey)).await;
    read.map_err(anyhow::Error::from)?.map_err(|fault| kafka_failed(settings, fault))
}

fn kafka_failed(settings: &Settings, fault: SurveyError) -> Failure {
    let servers = &settings.kafka.bootstrap_servers;
    Failure::new(
        Exit::Kafka,
        anyhow::Error::from(fault).context(format!("could not learn from Kafka at {servers} what is published")),
    )
}

/// Whether a later look at the topics may say more.
fn is_unsure(looked: &Looked) -> bool {
    match &looked.inside {
        Inside::Unopened => false,
        Inside::Unreadable(_) => true,
        Inside::Read(opened) => opened.has_strays(),
    }
}

/// Fetches what only its records can tell of; all, when it is to be deep.
async fn look_inside(
    args: &ReconcileArgs,
    reader: &Reader<'_>,
    offered: Offer,
    known: &HashMap<Source, Known>,
    moment: Moment,
) -> Result<Vec<Looked>, Failure> {
    let is_to_be_opened = |content: &Listed| {
        let standing = known.get(&content.source).map_or(Standing::Nobody, |known| known.standing(content, moment));
        // A gap that can be had now is one to repair.
        args.deep || standing == Standing::Nobody || (args.repair && standing == Standing::Gap)
    };
    let (open, rest): (Vec<_>, Vec<_>) = offered.into_iter().partition(|content| is_to_be_opened(content));
    let mut looked = reader.open(open, known).await;
    looked.extend(rest.into_iter().map(|content| Looked { content, inside: Inside::Unopened }));
    looked.sort_by_key(|looked| (looked.content.source, looked.content.created));
    Ok(looked)
}

/// What a repair did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Repair {
    /// Contents put back.
    put_back: usize,
    /// Contents of which the connector may have forgotten what it published: fetched again, all of it would be new.
    too_old: usize,
}

/// Appends to the listings what lacks something and can be had.
async fn put_back(
    settings: &Settings,
    looked: &[Looked],
    verdicts: &[Verdict],
    known: &HashMap<Source, Known>,
    moment: Moment,
) -> Result<Repair, Failure> {
    let is_gap = |content: &Listed| {
        known.get(&content.source).is_some_and(|known| known.standing(content, moment) == Standing::Gap)
    };
    let lacking = looked.iter().zip(verdicts).filter(|(looked, verdict)| {
        let can_be_had = matches!(looked.inside, Inside::Read(_));
        can_be_had && (**verdict == Verdict::Missing || is_gap(&looked.content))
    });
    let lacking = lacking.map(|(looked, _)| Arc::clone(&looked.content));
    let oldest = oldest_remembered(settings, moment.listed_at);
    let (contents, too_old): (Vec<_>, Vec<_>) =
        lacking.partition(|content| oldest <= Day::of(content.created).first_needed());
    let failed = |fault| {
        let fault = anyhow::Error::from(fault).context("could not put contents back on the listings");
        Failure::new(Exit::Kafka, fault)
    };
    if !contents.is_empty() {
        let writer = ListingsWriter::new(&settings.kafka).map_err(failed)?;
        writer.append(&contents, Origin::Repair).await.map_err(failed)?;
    }
    Ok(Repair { put_back: contents.len(), too_old: too_old.len() })
}

/// The first day whose ids a running connector holds in any case (docs/exactly-once.md, rule 13).
fn oldest_remembered(settings: &Settings, now: Timestamp) -> Day {
    let window = settings.dedupe.window.as_secs().div_ceil(24 * 60 * 60);
    Day(Day::of(now).0.saturating_sub(i32::try_from(window).unwrap_or(i32::MAX)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::{config::load, domain::ContentType};

    #[test]
    fn the_usual_memory_reaches_as_far_as_the_api_lists() {
        let mut settings = settings();
        let now: Timestamp = "2026-01-31T00:30:00Z".parse().unwrap();
        let is_remembered = |settings: &Settings, created: Timestamp| {
            oldest_remembered(settings, now) <= Day::of(created).first_needed()
        };
        assert!(is_remembered(&settings, now - Planner::REACH));
        settings.dedupe.window = Duration::from_secs(24 * 60 * 60);
        assert!(is_remembered(&settings, now));
        assert!(!is_remembered(&settings, now - SignedDuration::from_hours(1)), "it needs the day before yesterday");
    }

    #[test]
    fn the_span_is_cut_to_what_the_api_lists() {
        let settings = settings();
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let asked = |args: &[&str]| {
            let args = Parsed::try_parse_from([&["reconcile"], args].concat()).unwrap().args;
            Asked::of(&args, &settings, now).map(|asked| (asked.sources.len(), asked.span, asked.notes.len()))
        };
        let from_reach = TimeSpan { from: now - Planner::REACH, to: now };
        assert_eq!(asked(&[]).unwrap(), (5, from_reach, 0));
        assert_eq!(asked(&["--since", "7d"]).unwrap(), (5, from_reach, 1));
        let hour = TimeSpan { from: now - SignedDuration::from_hours(1), to: now };
        let kind = ContentType::Exchange.as_str();
        assert_eq!(asked(&["--since", "1h", "--type", kind, "--type", kind]).unwrap(), (1, hour, 0));
        assert!(asked(&["--from", "2026-01-01", "--to", "2026-01-02"]).is_err());
        assert!(asked(&["--from", "2026-02-01"]).is_err());
    }

    #[derive(Debug, clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        args: ReconcileArgs,
    }

    fn settings() -> Settings {
        let guid = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";
        let env = [("AZURE_TENANT_ID", guid), ("AZURE_CLIENT_ID", guid), ("AZURE_CLIENT_SECRET", "s3cr3t")];
        load(None, env.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec(), "feed-0").unwrap()
    }
}
