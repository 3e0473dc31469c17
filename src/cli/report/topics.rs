//! Records from Kafka.

use std::collections::HashMap;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use rdkafka::{Message as _, message::OwnedMessage};

use super::{Incoming, Sieve, Sum};
use crate::{
    cli::{
        Exit, Failure,
        args::{TimeSpan, usage},
        output::progress,
        records::{RecordArgs, header},
    },
    config::{Settings, TimestampSource},
    domain::ContentKey,
    kafka::{Next, ReadError, ReadFrom, ReadTo, TopicReader, decode_listing},
};

/// How far the clocks of the service, of whoever publishes and of the broker may be apart.
const CLOCKS: SignedDuration = SignedDuration::from_hours(1);

/// Hands every record to the sieve that may have been created in the span.
///
/// No record is published before it was created, so nothing of the span lies before the first message that is not older than its
/// start, whichever of the two times the timestamp is; and as records come late, only the topics' ends are the end.
pub(super) fn read<S: Sum>(
    settings: &Settings,
    records: &RecordArgs,
    span: TimeSpan,
    sieve: &mut Sieve<'_, S>,
) -> Result<(), Failure> {
    let topics = records.topics(settings)?;
    let from = span.from.checked_sub(CLOCKS).unwrap_or(Timestamp::MIN);
    let reader = open(settings, &topics.names(), from)?;
    // A listing is written before its records: what is listed by now covers whatever lies before the ends above.
    let created = if S::WANTS_CONTENTS { contents(settings, from)? } else { HashMap::new() };
    let is_published = settings.kafka.timestamp == TimestampSource::Published;
    each(reader, "reading records", |message| {
        if !topics.hold(&message) {
            return;
        }
        let content_id = header(&message, "content_id");
        let published = message.timestamp().to_millis().filter(|_| is_published);
        sieve.take(&Incoming {
            kind: topics.kind(&message),
            bytes: message.payload().unwrap_or_default(),
            available: content_id.and_then(|id| created.get(&ContentKey::of(id)).copied()),
            published: published.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        });
    })
}

/// When each content became available: the first time that was told of its id.
fn contents(settings: &Settings, from: Timestamp) -> Result<HashMap<ContentKey, Timestamp>, Failure> {
    if !settings.kafka.headers.content_id {
        let why = "kafka.headers.content_id is off, so no record says which content it came in";
        return Err(usage(format!("{why}; `--source api` can tell how long records take until they are available")));
    }
    let mut contents = HashMap::new();
    let reader = open(settings, &[settings.kafka.listings_topic()], from)?;
    each(reader, "reading listings", |message| {
        let (key, value, headers) = (message.key(), message.payload(), message.headers());
        // What cannot be read is the connector's to complain about.
        let Ok(listing) = decode_listing(key, value, headers, message.timestamp().to_millis()) else { return };
        let content = listing.content;
        let known = contents.entry(content.key()).or_insert(content.created);
        *known = content.created.min(*known);
    })?;
    Ok(contents)
}

/// For every committed message from `from` up to where the topics end now.
fn open(settings: &Settings, topics: &[String], from: Timestamp) -> Result<TopicReader, Failure> {
    TopicReader::open(&settings.kafka, topics, ReadFrom::Time(from), ReadTo::EndOfNow).map_err(failed)
}

fn each(mut reader: TopicReader, doing: &'static str, mut take: impl FnMut(OwnedMessage)) -> Result<(), Failure> {
    let bar = progress(reader.offsets(), doing);
    loop {
        match reader.next().map_err(failed)? {
            Next::Message(message) => {
                bar.inc(1);
                take(message);
            }
            Next::Quiet => {}
            Next::End => break,
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn failed(error: ReadError) -> Failure {
    let told = Err::<(), _>(error).context("could not report");
    Failure::new(Exit::Kafka, told.expect_err("it is the error from above"))
}
