//! A record as a message: its topic, key, headers and timestamp. Whoever publishes records does it through here.

use std::borrow::Cow;

use rdkafka::message::{Header, OwnedHeaders};

use super::publisher::Message;
use crate::{
    config::{Headers, Kafka, Redact, TimestampSource},
    domain::{Listed, REDACTED_MEMBER, RecordRef, redacted},
};

/// A header whose value is longer than this says more than a header should, and is left out.
pub const LONGEST_HEADER: usize = 1_024;

/// What a record's key and headers may take beside its value.
const RECORD_FRAMING: usize = 1_024;

/// The header of a record that something was taken out of. Its value names the member.
const REDACTED_HEADER: &str = "redacted";

/// What all records of a content have in common.
pub struct Frame {
    topic: String,
    /// The headers that each record has; the others follow.
    common: Vec<(&'static str, String)>,
    headers: Headers,
    timestamp: TimestampSource,
    /// Nothing is published unredacted that the settings redact: there is no way around a frame.
    redacts: bool,
}

impl Frame {
    /// For the records of `content` that go to `topic`.
    pub fn of(kafka: &Kafka, redact: Redact, content: &Listed, topic: String) -> Self {
        let mut common = Vec::new();
        if kafka.headers.tenant_id {
            common.push(("tenant_id", content.source.tenant.to_string()));
        }
        if kafka.headers.content_id {
            common.push(("content_id", content.content_id.clone()));
        }
        let redacts = redact.sensitive_information_detections;
        Self { topic, common, headers: kafka.headers, timestamp: kafka.timestamp, redacts }
    }

    /// The same with a header that every record has, whatever the settings say of headers.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.common.push((name, value));
        self
    }

    /// Whether the record is there in full, and its message no larger than `limit`.
    pub fn fits(record: &RecordRef<'_>, message: &Message<'_>, limit: usize) -> bool {
        record.oversize.is_none() && message.value.len() + record.key.map_or(0, str::len) + RECORD_FRAMING <= limit
    }

    pub fn message<'a>(&'a self, record: &RecordRef<'a>) -> Message<'a> {
        let value = if self.redacts { redacted(record.bytes) } else { Cow::Borrowed(record.bytes) };
        let created = record.created.filter(|_| self.timestamp == TimestampSource::Created);
        Message {
            topic: &self.topic,
            partition: None,
            key: record.key.map(str::as_bytes),
            headers: self.headers_of(record, matches!(value, Cow::Owned(_))),
            value,
            timestamp: created.and_then(|seconds| seconds.checked_mul(1_000)),
        }
    }

    fn headers_of(&self, record: &RecordRef<'_>, is_redacted: bool) -> Option<OwnedHeaders> {
        let own = [
            ("record_type", record.record_type.filter(|_| self.headers.record_type)),
            ("workload", record.workload.filter(|_| self.headers.workload)),
            ("operation", record.operation.filter(|_| self.headers.operation)),
            (REDACTED_HEADER, is_redacted.then_some(REDACTED_MEMBER)),
        ];
        let present = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let all = self.common.iter().map(|(key, value)| (*key, value.as_str())).chain(present);
        let mut headers = OwnedHeaders::new_with_capacity(self.common.len() + own.len());
        for (key, value) in all.filter(|(_, value)| value.len() <= LONGEST_HEADER) {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;
    use rdkafka::message::Headers as _;
    use uuid::Uuid;

    use super::*;
    use crate::{
        domain::{Batch, ContentType, Source, Splitter, TenantId},
        kafka::client,
    };

    #[test]
    fn a_header_marks_what_was_redacted_whatever_the_settings_say_of_headers() {
        let off =
            Headers { tenant_id: false, content_id: false, record_type: false, workload: false, operation: false };
        let kafka = Kafka { headers: off, ..client::tests::settings() };
        let content = Listed {
            source: Source { tenant: TenantId(Uuid::nil()), content_type: ContentType::General },
            content_id: String::new(),
            content_uri: String::new(),
            created: Timestamp::UNIX_EPOCH,
            expires: Timestamp::UNIX_EPOCH,
            raw: Bytes::new(),
        };
        let blob = br#"[{"Id":"a","x":{"SensitiveInformationDetections":[4111]}},{"Id":"b"}]"#;
        let mut batch = Batch::new();
        Splitter::new(1_000).push(blob, &mut batch).unwrap();
        let sent = |redacts| {
            let redact = Redact { sensitive_information_detections: redacts };
            let frame = Frame::of(&kafka, redact, &content, "topic".to_owned());
            let told = |message: Message<'_>| {
                let headers = message.headers.unwrap();
                let headers: Vec<_> =
                    headers.iter().map(|header| format!("{}={:?}", header.key, header.value)).collect();
                (String::from_utf8(message.value.into_owned()).unwrap(), headers)
            };
            batch.iter().map(|record| told(frame.message(&record))).collect::<Vec<_>>()
        };
        let (plain, redacted) = (sent(false), sent(true));
        assert_eq!(plain[0], (r#"{"Id":"a","x":{"SensitiveInformationDetections":[4111]}}"#.to_owned(), vec![]));
        assert_eq!(redacted[0].0, r#"{"Id":"a","x":{"SensitiveInformationDetections":{}}}"#);
        let header = format!("redacted={:?}", Some(REDACTED_MEMBER.as_bytes()));
        assert_eq!(redacted[0].1, [header]);
        assert_eq!(plain[1], redacted[1]);
    }
}
