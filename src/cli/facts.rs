//! What people ask of a record: who did what when, from where. Read from any JSON without ever failing on it.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::{ContentType, Subject, creation_time, member_name};

/// Some members of a record, as texts. `None` where the record lacks the member, has `null` there, or is no object.
///
/// A value of another type than the schema says is its JSON text (docs/api/contract.md 8.1). The last member of a name counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts<'a> {
    /// `Id`
    pub(super) id: Option<Cow<'a, str>>,
    /// `CreationTime` as it was written.
    pub(super) created: Option<Cow<'a, str>>,
    pub(super) operation: Option<Cow<'a, str>>,
    /// `UserId`
    pub(super) user: Option<Cow<'a, str>>,
    /// `ClientInfoString`, which mailbox records have.
    pub(super) client: Option<Cow<'a, str>>,
    /// `ClientIP`
    pub(super) ip: Option<Cow<'a, str>>,
    /// `ObjectId`
    pub(super) object: Option<Cow<'a, str>>,
    pub(super) workload: Option<Cow<'a, str>>,
    pub(super) record_type: Option<Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    /// Bytes that are no UTF-8 are replaced; what is no JSON object has no facts.
    pub(super) fn of(record: &'a [u8]) -> Self {
        if let Ok(facts) = serde_json::from_slice(record) {
            return facts;
        }
        match String::from_utf8_lossy(record) {
            Cow::Borrowed(_) => Self::default(), // UTF-8 was not what was wrong with it
            Cow::Owned(mended) => serde_json::from_str::<Facts<'_>>(&mended).map(Facts::owned).unwrap_or_default(),
        }
    }

    /// `None` when `CreationTime` is missing or no time.
    pub(super) fn created_at(&self) -> Option<Timestamp> {
        self.created.as_deref().and_then(creation_time)
    }

    pub(super) fn subject(&self, kind: Option<ContentType>) -> Subject<'_> {
        Subject {
            content_type: kind.map(ContentType::as_str),
            record_type: self.record_type.as_deref().filter(|text| is_whole(text)),
            operation: self.operation.as_deref(),
            workload: self.workload.as_deref(),
            user: self.user.as_deref(),
        }
    }

    fn owned(self) -> Facts<'static> {
        let owned = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Facts {
            id: owned(self.id),
            created: owned(self.created),
            operation: owned(self.operation),
            user: owned(self.user),
            client: owned(self.client),
            ip: owned(self.ip),
            object: owned(self.object),
            workload: owned(self.workload),
            record_type: owned(self.record_type),
        }
    }

    fn member(&mut self, name: &[u8]) -> Option<&mut Option<Cow<'a, str>>> {
        Some(match name {
            b"Id" => &mut self.id,
            b"CreationTime" => &mut self.created,
            b"Operation" => &mut self.operation,
            b"UserId" => &mut self.user,
            b"ClientInfoString" => &mut self.client,
            b"ClientIP" => &mut self.ip,
            b"ObjectId" => &mut self.object,
            b"Workload" => &mut self.workload,
            b"RecordType" => &mut self.record_type,
            _ => return None,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Facts<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Facts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut facts = Facts::default();
                while let Some(Name(name)) = members.next_key()? {
                    match facts.member(&name) {
                        Some(member) => *member = text(members.next_value()?),
                        None => drop(members.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(facts)
            }
        }

        json.deserialize_map(Members)
    }
}

/// A member's name.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        member_name(json, |name| Self(name.to_vec()))
    }
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let json = value.get();
    if json == "null" {
        return None;
    }
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Some(Cow::Borrowed(json));
    };
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    // What is no Unicode (a lone surrogate) stays as it was written.
    Some(serde_json::from_str(json).map_or(Cow::Borrowed(inner), Cow::Owned))
}

fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_its_facts_and_the_hostile_ones_harm_nothing() {
        let hostile = include_str!("../../docs/api/samples/hostile.jsonl");
        let facts: Vec<Facts<'_>> = hostile.lines().map(|line| Facts::of(line.as_bytes())).collect();
        assert_eq!(facts[0].operation.as_deref(), Some("Hostile1"));
        assert_eq!(facts[1].operation.as_deref(), Some("SecondOperation"), "the last one counts");
        assert_eq!(facts[2].subject(None).record_type, Some("25"), "a string of digits");
        assert_eq!(facts[7].created_at().unwrap().to_string(), "2026-08-30T12:00:08.1234567Z");
        assert_eq!((facts[8].created_at(), facts[9].created_at()), (None, None));
        assert_eq!(facts[11].operation.as_deref(), Some("Hostile12"), "deeper than any recursion");
        assert_eq!(facts[15..18], [Facts::default(), Facts::default(), Facts::default()]);

        let exchange = include_str!("../../docs/api/samples/Audit.Exchange.jsonl");
        let first = Facts::of(exchange.lines().next().unwrap().as_bytes());
        assert_eq!(first.client.as_deref(), Some("Client=OWA;Action=ViaProxy"));
        assert_eq!(first.ip.as_deref(), Some("198.51.100.24"));
    }

    #[test]
    fn a_member_of_another_type_is_its_json_text() {
        let record =
            br#"{"Operation":["a", 1],"UserId":7,"ClientIP":null,"ObjectId":"\ud83d","RecordType":1.5,"\ud83d":0}"#;
        let facts = Facts::of(record);
        assert_eq!((facts.operation.as_deref(), facts.user.as_deref()), (Some(r#"["a", 1]"#), Some("7")));
        assert_eq!((facts.ip.as_deref(), facts.object.as_deref()), (None, Some("\\ud83d")));
        assert_eq!((facts.record_type.as_deref(), facts.subject(None).record_type), (Some("1.5"), None));
    }

    #[test]
    fn bytes_that_are_no_utf8_cost_only_themselves() {
        let facts = Facts::of(b"{\"Operation\":\"a\xff\",\"UserId\":\"u\"}");
        assert_eq!((facts.operation.as_deref(), facts.user.as_deref()), (Some("a\u{fffd}"), Some("u")));
        assert_eq!(Facts::of(b"\xff"), Facts::default());
        assert_eq!(Facts::of(b"{\"Operation\":\"cut"), Facts::default());
    }
}
