//! `o365feed tail`: the records of the topics as they are committed, for a person, a pipe or a program.

mod line; // a record in columns

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use rdkafka::{
    Message as _,
    message::{Headers, OwnedMessage},
};
use serde::Serialize;
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use self::line::Style;
use super::{
    Exit, Failure, SettingsFrom,
    args::duration,
    exit,
    facts::Facts,
    output::{OutputArgs, harmless},
    records::{RecordArgs, Topics},
    settings, within_runtime,
};
use crate::{
    config::Settings,
    domain::ContentType,
    kafka::{Next, ReadError, ReadFrom, ReadTo, TopicReader},
};

#[derive(Args, Clone, Debug)]
#[command(after_long_help = exit::with_codes("Examples:\n  \
    o365feed tail --since 10m --type Audit.Exchange\n  \
    o365feed tail --where 'operation = UserLoginFailed' --output json | jq .record.ClientIP\n  \
    o365feed tail --no-follow --raw > everything.jsonl", &[Exit::Unexpected, Exit::Usage, Exit::Kafka]))]
pub(super) struct TailArgs {
    #[command(flatten)]
    records: RecordArgs,
    /// Begin so long ago, such as 10m or 2d, instead of now.
    ///
    /// Goes by the messages' timestamps: the time of publishing, or with kafka.timestamp `created` the record's own.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<SignedDuration>,
    /// Stop where the topics end now; without --since, begin where they begin.
    #[arg(long)]
    no_follow: bool,
    /// Stop after so many records.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    lines: Option<u64>,
    /// The bytes of each record on a line; line feeds between its members become spaces.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    from: SettingsFrom,
}

/// How long what was begun may take once the end was asked for: a pager that nobody pages takes for ever.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Shows records until it is stopped, or told to stop by its arguments.
///
/// # Errors
/// [`Exit::Kafka`] when the topics cannot be read.
pub(super) fn run(args: TailArgs) -> Result<(), Failure> {
    let settings = settings(&args.from)?;
    within_runtime(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
        let (stop, (told, mut ended)) = (Arc::new(AtomicBool::new(false)), oneshot::channel());
        let stopped = Arc::clone(&stop);
        // Not a thread of the runtime, which would be waited for.
        let following = move || told.send(follow(&args, &settings, &stopped));
        thread::Builder::new().name("tail".to_owned()).spawn(following).map_err(anyhow::Error::from)?;
        tokio::select! {
            ended = &mut ended => return ended.map_err(anyhow::Error::from)?,
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stop.store(true, Ordering::Relaxed);
        let _ = timeout(END_WITHIN, ended).await;
        Ok(())
    })
}

fn follow(args: &TailArgs, settings: &Settings, stop: &AtomicBool) -> Result<(), Failure> {
    let topics = args.records.topics(settings)?;
    let now = Timestamp::now();
    let from = match args.since {
        Some(since) => ReadFrom::Time(now.checked_sub(since).unwrap_or(Timestamp::UNIX_EPOCH)),
        None if args.no_follow => ReadFrom::Start,
        None => ReadFrom::End,
    };
    let to = if args.no_follow { ReadTo::EndOfNow } else { ReadTo::Never };
    let reader = TopicReader::open(&settings.kafka, &topics.names(), from, to).map_err(failed)?;
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let form = match args {
        TailArgs { raw: true, .. } => Form::Raw,
        TailArgs { output, .. } if output.is_json() => Form::Json,
        _ => Form::Line(Style::fitting(is_terminal)),
    };
    let mut shown = Shown { out: BufWriter::new(stdout.lock()), form, is_terminal, flushed: Instant::now() };
    match shown.all(reader, &topics, args, stop) {
        Err(Ended::Read(error)) => Err(failed(error)),
        Err(Ended::Write(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::from(error).into()),
        _ => Ok(()),
    }
}

fn failed(error: ReadError) -> Failure {
    Failure::new(Exit::Kafka, anyhow::Error::from(error).context("could not show the records"))
}

enum Form {
    Line(Style),
    Raw,
    Json,
}

/// Where records are shown, and how.
struct Shown<W: Write> {
    out: W,
    form: Form,
    is_terminal: bool,
    flushed: Instant,
}

/// Why showing came to its end before all was shown.
enum Ended {
    Read(ReadError),
    Write(io::Error),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl<W: Write> Shown<W> {
    fn all(
        &mut self,
        mut reader: TopicReader,
        topics: &Topics,
        args: &TailArgs,
        stop: &AtomicBool,
    ) -> Result<(), Ended> {
        let mut left = args.lines.unwrap_or(u64::MAX);
        while left > 0 && !stop.load(Ordering::Relaxed) {
            match reader.next()? {
                Next::Message(message) => left -= u64::from(self.take(&message, topics, args)?),
                Next::Quiet => self.out.flush()?,
                Next::End => break,
            }
            // A trickle that is never quiet is to be seen too.
            if TopicReader::PATIENCE < self.flushed.elapsed() {
                self.out.flush()?;
                self.flushed = Instant::now();
            }
        }
        self.out.flush()?;
        Ok(())
    }

    /// Shows the record if it was asked for.
    fn take(&mut self, message: &OwnedMessage, topics: &Topics, args: &TailArgs) -> io::Result<bool> {
        if !topics.hold(message) {
            return Ok(false);
        }
        let (record, kind) = (message.payload().unwrap_or_default(), topics.kind(message));
        let facts = Facts::of(record);
        if !args.records.mean(&facts, kind) {
            return Ok(false);
        }
        self.show(message, record, &facts, kind)?;
        Ok(true)
    }

    fn show(
        &mut self,
        message: &OwnedMessage,
        record: &[u8],
        facts: &Facts<'_>,
        kind: Option<ContentType>,
    ) -> io::Result<()> {
        let line = match &self.form {
            Form::Line(style) => return writeln!(self.out, "{}", style.line(facts, kind, record.len())),
            Form::Raw => one_line(record),
            Form::Json => serde_json::to_vec(&Told::of(message, record))?,
        };
        if self.is_terminal {
            return writeln!(self.out, "{}", harmless(&String::from_utf8_lossy(&line)));
        }
        self.out.write_all(&line)?;
        self.out.write_all(b"\n")
    }
}

/// Line feeds can only stand between the parts of JSON, where a space says the same.
fn one_line(record: &[u8]) -> Vec<u8> {
    record.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// A message as JSON.
#[derive(Serialize)]
struct Told<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: Option<String>,
    key: Option<String>,
    headers: Map<String, Value>,
    /// As it is in the message, but for bytes that are no UTF-8. What is no JSON is a string.
    record: Box<RawValue>,
}

impl<'a> Told<'a> {
    fn of(message: &'a OwnedMessage, record: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let headers = headers.map(|header| (header.key.to_owned(), header.value.map(text).into()));
        let line = text(&one_line(record));
        let timestamp = message.timestamp().to_millis().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let record = RawValue::from_string(line.clone()).or_else(|_| to_raw_value(&line));
        Self {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: timestamp.map(|time| time.to_string()),
            key: message.key().map(text),
            headers: headers.collect(),
            record: record.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    #[test]
    fn a_message_is_one_line_of_json_around_the_record_as_it_is() {
        let of = |record: &[u8]| {
            let headers = OwnedHeaders::new().insert(Header { key: "operation", value: Some("Send") });
            let at = rdkafka::Timestamp::CreateTime(1_788_091_200_123);
            let (payload, key) = (Some(record.to_vec()), Some(b"id".to_vec()));
            let message = OwnedMessage::new(payload, key, "t".to_owned(), at, 2, 7, Some(headers));
            serde_json::to_string(&Told::of(&message, record)).unwrap()
        };
        let around = r#"{"topic":"t","partition":2,"offset":7,"timestamp":"2026-08-30T12:00:00.123Z","key":"id","headers":{"operation":"Send"},"record":"#;
        assert_eq!(of(b"{\"a\":\n1e400}"), format!("{around}{{\"a\": 1e400}}}}"));
        assert_eq!(of(b"no \"json\""), format!("{around}\"no \\\"json\\\"\"}}"));
        assert_eq!(of(b"\"\xff\""), format!("{around}\"\u{fffd}\"}}"));
    }

    #[test]
    fn what_others_wrote_moves_no_cursor() {
        let record = "{\"Operation\":\"\u{9b}31m\"}".as_bytes();
        for (is_terminal, expected) in
            [(true, "{\"Operation\":\"\u{fffd}31m\"}\n".as_bytes()), (false, &[record, b"\n"].concat())]
        {
            let mut shown = Shown { out: Vec::new(), form: Form::Raw, is_terminal, flushed: Instant::now() };
            let message = OwnedMessage::new(None, None, "t".to_owned(), rdkafka::Timestamp::NotAvailable, 0, 0, None);
            shown.show(&message, record, &Facts::default(), None).unwrap();
            assert_eq!(shown.out, expected);
        }
    }
}
