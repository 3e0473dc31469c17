//! `o365feed report`: sums over the records, from the topics or straight from the API.
//! What is read is sifted here and handed to one of the sums; each keeps groups or counters, never the records.

mod delay; // how long records are on their way
mod groups; // how many of what, by whom
mod histogram; // percentiles in bounded memory
mod rows; // the records themselves, in four columns
mod service; // records from the API
mod topics; // records from Kafka

use std::io::{self, Write};

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use self::groups::By;
use super::{
    Exit, Failure,
    args::{SpanArgs, TimeSpan},
    config::counted as counted_of,
    exit,
    facts::Facts,
    output::{OutputArgs, as_text},
    records::RecordArgs,
    tool::ToolArgs,
};
use crate::domain::ContentType;

#[derive(Args, Clone, Debug)]
pub(super) struct ReportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Which clients (ClientInfoString) touched mailboxes, who used them, for what.
    ///
    /// Counts the records with a ClientInfoString, which the mailbox records of Audit.Exchange have, by client, user and operation.
    /// With --raw, each record is a row of CreationTime, Operation, ClientInfoString and UserId, in order of CreationTime.
    #[command(after_long_help = guide("report clients --since 24h --type Audit.Exchange --by client,user"))]
    Clients(ClientsArgs),
    /// Which operations there were, and by how many users.
    #[command(after_long_help = guide(r#"report operations --since 7d --where 'user ~ "*@contoso.example"' --limit 20"#))]
    Operations(GroupArgs),
    /// Who did something, how often, and when first and last.
    #[command(after_long_help = guide("report users --since 1h --where 'operation = FileDownloaded'"))]
    Users(GroupArgs),
    /// How long records take from the event to the API, and from there to Kafka.
    ///
    /// Percentiles for each content type: of `available`, from CreationTime until the record's content became available; of
    /// `published`, from then until the record's Kafka timestamp; of `total`, both together. When the content became available is known
    /// from the topic of the listings, by the record's header content_id. With kafka.timestamp `created` no message says when
    /// it was published, and with --source api nothing is: then there is only `available`. Seconds are exact up to two minutes and
    /// within 2 % beyond, so that memory does not grow with the records; one number a content is held beside them.
    #[command(after_long_help = guide("report delay --since 6h --output json"))]
    Delay(CommonArgs),
}

#[derive(Args, Clone, Debug)]
struct ClientsArgs {
    /// What a row stands for.
    #[arg(long, value_enum, value_name = "COLUMNS", value_delimiter = ',', default_values_t = [By::Client, By::User, By::Operation], conflicts_with = "raw")]
    by: Vec<By>,
    /// One row a record; as JSON, one object a line. All rows are held until they are sorted.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    group: GroupArgs,
}

#[derive(Args, Clone, Debug)]
struct GroupArgs {
    /// At most so many rows, the first ones.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    #[command(flatten)]
    common: CommonArgs,
}

/// What every report is told.
#[derive(Args, Clone, Debug)]
struct CommonArgs {
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    records: RecordArgs,
    /// Where the records come from.
    #[arg(long, value_enum, default_value_t = Origin::Kafka)]
    source: Origin,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    tool: ToolArgs,
}

/// What every report's help ends with.
fn guide(example: &str) -> String {
    let text = format!(
        "Which records:
  A span means the records' CreationTime; it is the last 24 hours unless one is given. Records come late, by hours or days, so the
  topics are read from the first message that is not older than the span (and an hour more, as clocks differ) up to where they
  end now. Whatever was created in the span and is published by now is counted, whether kafka.timestamp is `published` or
  `created`; what is published later is not, so a span that has just ended still grows. With --source api, all that became
  available since the span began is fetched, as far as the API lists it: seven days.

Standard error says how many records were read and why the others are not counted: created outside of the span, without a
CreationTime that can be read, without the field that the report is about. With kafka.delivery `at_least_once` the topics may
hold a record twice, and then it counts twice.

Example:
  o365feed {example}"
    );
    exit::with_codes(&text, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft, Exit::Kafka, Exit::Incomplete])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Origin {
    /// The topics: what is committed.
    Kafka,
    /// The API itself, without any Kafka. Every content is fetched, which spends the tenant's budget of requests; an id of each
    /// record is held, because the API repeats records.
    Api,
}

/// A record, and what is known of its way.
struct Incoming<'a> {
    kind: Option<ContentType>,
    bytes: &'a [u8],
    /// When its content became available; with Kafka, the content's listing tells.
    available: Option<Timestamp>,
    /// The message's timestamp, where that is the time of publishing.
    published: Option<Timestamp>,
}

/// What a report is made of.
trait Sum {
    /// What a record must have to be counted, in the words of [`Tally`].
    const NEEDS: &'static str;
    /// Whether it asks when a record's content became available.
    const WANTS_CONTENTS: bool = false;

    /// Takes a record of the span in; `false` when it lacks what the report is about.
    fn add(&mut self, record: &Incoming<'_>, facts: &Facts<'_>, created: Timestamp) -> bool;
}

/// What became of all records that were read.
#[derive(Clone, Debug, Default, serde::Serialize)]
struct Tally {
    read: u64,
    /// With no CreationTime, or one that is no time: they are in no span.
    without_time: u64,
    /// Created before the span or after it.
    outside: u64,
    /// Not meant by --where.
    not_meant: u64,
    /// Without what the report is about.
    lacking: u64,
    counted: u64,
    /// Contents that the API did not give.
    unfetched: u64,
}

/// Lets the records of the span through to a sum.
struct Sieve<'a, S> {
    span: TimeSpan,
    records: &'a RecordArgs,
    sum: S,
    tally: Tally,
}

impl<S: Sum> Sieve<'_, S> {
    fn take(&mut self, record: &Incoming<'_>) {
        self.tally.read += 1;
        let facts = Facts::of(record.bytes);
        let Some(created) = facts.created_at() else {
            self.tally.without_time += 1;
            return;
        };
        let counter = if created < self.span.from || self.span.to <= created {
            &mut self.tally.outside
        } else if !self.records.mean(&facts, record.kind) {
            &mut self.tally.not_meant
        } else if self.sum.add(record, &facts, created) {
            &mut self.tally.counted
        } else {
            &mut self.tally.lacking
        };
        *counter += 1;
    }
}

/// Reads, sums up and prints.
///
/// # Errors
/// [`Exit::Kafka`] when the topics cannot be read; those of the API; [`Exit::Incomplete`], after the report, when contents could
/// not be fetched.
pub(super) fn run(args: ReportArgs) -> Result<(), Failure> {
    match args.what {
        What::Clients(ClientsArgs { raw: true, group, .. }) => {
            let done = sum(&group.common, rows::Rows::default())?;
            done.tell(|rows| rows.show(group.common.output, group.limit))
        }
        What::Clients(ClientsArgs { by, group, .. }) => {
            let done = sum(&group.common, groups::Clients::by(by))?;
            done.tell(|clients| clients.show(group.common.output, group.limit, &done.heading()))
        }
        What::Operations(group) => {
            let done = sum(&group.common, groups::Operations::default())?;
            done.tell(|operations| operations.show(group.common.output, group.limit, &done.heading()))
        }
        What::Users(group) => {
            let done = sum(&group.common, groups::Users::default())?;
            done.tell(|users| users.show(group.common.output, group.limit, &done.heading()))
        }
        What::Delay(common) => {
            let done = sum(&common, delay::Delays::default())?;
            done.tell(|delays| delays.show(common.output, &done.heading()).map(|()| 0))
        }
    }
}

fn sum<S: Sum>(args: &CommonArgs, sum: S) -> Result<Done<S>, Failure> {
    let settings = args.tool.settings()?;
    let span = args.span.of(Timestamp::now(), DEFAULT_SPAN)?;
    let mut sieve = Sieve { span, records: &args.records, sum, tally: Tally::default() };
    match args.source {
        Origin::Kafka => topics::read(&settings, &args.records, span, &mut sieve)?,
        Origin::Api => service::read(&settings, &args.records, span, &mut sieve)?,
    }
    Ok(Done { span, sum: sieve.sum, tally: sieve.tally })
}

const DEFAULT_SPAN: SignedDuration = SignedDuration::from_hours(24);

/// A report that is ready to be shown.
struct Done<S> {
    span: TimeSpan,
    sum: S,
    tally: Tally,
}

/// What stands around the rows in JSON.
#[derive(serde::Serialize)]
struct Heading {
    #[serde(serialize_with = "as_text")]
    from: Timestamp,
    #[serde(serialize_with = "as_text")]
    to: Timestamp,
    records: Tally,
}

/// A report as JSON.
#[derive(serde::Serialize)]
struct Page<'a, R> {
    #[serde(flatten)]
    heading: &'a Heading,
    /// Records of groups beyond those that are kept.
    #[serde(skip_serializing_if = "is_zero")]
    others: u64,
    rows: Vec<R>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl<S: Sum> Done<S> {
    fn heading(&self) -> Heading {
        Heading { from: self.span.from, to: self.span.to, records: self.tally.clone() }
    }

    /// Shows the report, then says on standard error what it was made of. `show` gives how many rows it left out.
    fn tell(&self, show: impl FnOnce(&S) -> Result<usize, Failure>) -> Result<(), Failure> {
        let left_out = show(&self.sum)?;
        let Tally { read, without_time, outside, not_meant, lacking, counted, unfetched } = self.tally;
        let TimeSpan { from, to } = self.span;
        let mut told =
            format!("{} read, {counted} counted, created from {from:.0} to {to:.0}", counted_of(read, "record"));
        for (count, what) in [
            (outside, "outside of the span"),
            (without_time, "without a readable CreationTime"),
            (not_meant, "not meant by --where"),
            (lacking, S::NEEDS),
        ] {
            if count > 0 {
                told += &format!("; {count} {what}");
            }
        }
        if left_out > 0 {
            told += &format!("; {} left out by --limit", counted_of(left_out, "row"));
        }
        // Nobody reads standard error any more: that is no reason to fail.
        let _ = writeln!(io::stderr(), "{told}");
        if unfetched > 0 {
            let lacks =
                anyhow::anyhow!("the report lacks {} that could not be fetched", counted_of(unfetched, "content"));
            return Err(Failure::new(Exit::Incomplete, lacks));
        }
        Ok(())
    }
}

/// What of others' texts is kept: a client that says more says it to fill memories.
fn kept(text: &str) -> Box<str> {
    const LONGEST: usize = 512;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::Parsed;

    #[test]
    fn every_record_is_counted_once_and_the_hostile_ones_too() {
        let hostile = include_str!("../../docs/api/samples/hostile.jsonl");
        let exchange = include_str!("../../docs/api/samples/Audit.Exchange.jsonl");
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let span = TimeSpan { from: time("2026-08-30T00:00:00Z"), to: time("2026-08-31T00:00:00Z") };
        let records = Parsed::<RecordArgs>::of(&["--where", "user != nobody"]);
        let mut sieve = Sieve { span, records: &records, sum: groups::Users::default(), tally: Tally::default() };
        for line in hostile.lines().chain(exchange.lines()) {
            let bytes = line.as_bytes();
            let record = Incoming { kind: Some(ContentType::Exchange), bytes, available: None, published: None };
            sieve.take(&record);
        }
        let Tally { read, without_time, outside, not_meant, lacking, counted, .. } = sieve.tally;
        assert_eq!(read, 31);
        assert_eq!(without_time, 5, "two without a time, and three that are no record");
        assert_eq!((outside, not_meant, lacking), (1, 0, 0));
        assert_eq!(counted, 25);
    }

    #[test]
    fn what_is_kept_of_a_text_is_bounded() {
        assert_eq!(&*kept("Client=OWA"), "Client=OWA");
        assert_eq!(kept(&"ü".repeat(100_000)).chars().count(), 513);
    }
}
