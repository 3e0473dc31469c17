//! The composed records of docs/api/samples, hostile ones included, as bytes nobody has touched.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::{ContentType, RecordId};

const HOSTILE: &str = include_str!("../../docs/api/samples/hostile.jsonl");

/// One line of a sample file.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) bytes: &'static [u8],
    /// The usable `Id`, if it has one.
    pub(super) id: Option<String>,
    pub(super) identity: RecordId,
}

/// Every line for `kind`: its own file, then the hostile ones. Some share an identity.
pub(super) fn samples(kind: ContentType) -> Vec<Sample> {
    let own = match kind {
        ContentType::AzureActiveDirectory => include_str!("../../docs/api/samples/Audit.AzureActiveDirectory.jsonl"),
        ContentType::Exchange => include_str!("../../docs/api/samples/Audit.Exchange.jsonl"),
        ContentType::SharePoint => include_str!("../../docs/api/samples/Audit.SharePoint.jsonl"),
        ContentType::General => include_str!("../../docs/api/samples/Audit.General.jsonl"),
        ContentType::Dlp => include_str!("../../docs/api/samples/DLP.All.jsonl"),
    };
    let mut seen: HashMap<&[u8], u64> = HashMap::new();
    let lines = own.split('\n').chain(HOSTILE.split('\n')).filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (bytes, id) = (line.as_bytes(), usable_id(line));
            let identity = match &id {
                Some(id) => RecordId::of_text(id),
                None => {
                    let ordinal = seen.entry(bytes).or_default();
                    *ordinal += 1;
                    RecordId::of_bytes(bytes, *ordinal - 1)
                }
            };
            Sample { bytes, id, identity }
        })
        .collect()
}

/// The text under the top-level key `Id`, the last one if there are several; nothing unless it is a string with something in it.
fn usable_id(record: &str) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_str(record);
    reader.disable_recursion_limit();
    let raw = reader.deserialize_map(LastId).ok()??;
    serde_json::from_str::<String>(raw.get()).ok().filter(|id| !id.is_empty())
}

struct LastId;

impl<'de> Visitor<'de> for LastId {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut last = None;
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            if key == "Id" {
                last = Some(value);
            }
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_line_has_the_identity_the_contract_gives_it() {
        for kind in ContentType::ALL {
            let samples = samples(kind);
            assert!(samples.len() >= 30, "{kind}: {}", samples.len());
            let of = |text: &str| samples.iter().find(|s| s.bytes.starts_with(text.as_bytes())).unwrap();
            assert_eq!(of("{}").identity, RecordId::of_bytes(b"{}", 0));
            assert_eq!(of("null").id, None);
            assert_eq!(of("\"a bare").id, None);
        }
        let hostile = samples(ContentType::Dlp);
        let named =
            |operation: &str| hostile.iter().find(|s| String::from_utf8_lossy(s.bytes).contains(operation)).unwrap();
        assert_eq!(named("\"Hostile4\"").id, None, "no Id");
        assert_eq!(named("\"Hostile5\"").id, None, "an empty Id");
        assert_eq!(named("\"Hostile6\"").id.as_deref(), Some("not-a-guid"));
        assert_eq!(named("\"Hostile12\"").id.as_deref(), Some("7e3ba379-f878-50bd-a879-e868adf1b6d7"), "depth 120");
        assert_eq!(named("\"Hostile20\"").id.as_deref(), Some("ff02bef3-b0ce-5fe9-9938-78833d7aaf73"), "look-alikes");
    }

    #[test]
    fn the_last_of_two_ids_wins() {
        assert_eq!(usable_id(r#"{"Id":"a","x":{"Id":"c"},"Id":"b"}"#).as_deref(), Some("b"));
        assert_eq!(usable_id(r#"{"Id":"a","Id":7}"#), None);
        assert_eq!(usable_id(r#"{"I\u0064":"a"}"#).as_deref(), Some("a"), "an escaped key is the same key");
    }
}
