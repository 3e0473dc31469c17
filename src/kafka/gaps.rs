//! A gap as JSON in the gaps topic: what is missing, why, since when, and what was tried.

use std::{fmt::Display, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use crate::domain::{ContentType, GapReason, TenantId};

/// One message of the gaps topic. Its key is the content id; the topic's partition when listings were lost; tenant and
/// content type when a span was not listed.
///
/// Shape: a flat JSON object; what does not apply is left out, not null. Times are RFC 3339 in UTC, sizes are bytes.
/// A gap that closes is written a second time with `closed: true`; the last message of a content id counts.
/// Nothing of a record's or a blob's content is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    #[serde(serialize_with = "as_word", deserialize_with = "of_word")]
    pub reason: GapReason,
    /// Whether what was missing has been published since.
    pub closed: bool,
    /// When this was decided.
    #[serde(serialize_with = "as_text", deserialize_with = "of_text")]
    pub at: Timestamp,
    /// When the listing was first seen, or the loss noticed.
    #[serde(serialize_with = "as_text", deserialize_with = "of_text")]
    pub first_seen: Timestamp,
    /// Fetches that were tried.
    pub attempts: u32,
    /// Records of the content that are in Kafka all the same: it may have been cut off half-way.
    pub records_published: u64,
    /// The last answer in a few words: a status, an error code, a fault of the connection. Never a body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<String>,
    /// Absent when listings were lost: a partition has many tenants.
    #[serde(default, serialize_with = "as_optional_text", deserialize_with = "of_tenant")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    #[serde(default, serialize_with = "as_optional_text", deserialize_with = "of_optional_text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_uri: Option<String>,
    /// The single record that is missing.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub record: Option<MissingRecord>,
    /// The span in which nothing was listed.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub span: Option<UnlistedSpan>,
    /// The listings that are missing.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub listings: Option<MissingListings>,
    /// The start of a blob that is no JSON array.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Unreadable>,
}

/// A record that is larger than the topic takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingRecord {
    /// The record's `Id`, when it has a usable one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_id: Option<String>,
    pub size: u64,
}

/// Contents that became visible in `from <= t < to` may be missing: nobody listed then, and the service lists it no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlistedSpan {
    #[serde(serialize_with = "as_text", deserialize_with = "of_text")]
    pub from: Timestamp,
    #[serde(serialize_with = "as_text", deserialize_with = "of_text")]
    pub to: Timestamp,
}

/// Listings that the topic's retention dropped before they were settled: `first_offset <= offset < end_offset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingListings {
    pub partition: i32,
    pub first_offset: i64,
    pub end_offset: i64,
}

/// Enough to recognise an unreadable blob that comes again, and nothing of what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Of the first KiB, in lower-case hexadecimal.
    pub head_sha256: String,
    /// Of what was hashed; at most 1,024.
    pub head_length: u32,
}

impl Gap {
    /// An open gap that was noticed at `now` and says nothing more yet.
    pub fn new(reason: GapReason, now: Timestamp) -> Self {
        Self {
            reason,
            closed: false,
            at: now,
            first_seen: now,
            attempts: 0,
            records_published: 0,
            last_answer: None,
            tenant: None,
            content_type: None,
            content_id: None,
            content_uri: None,
            record: None,
            span: None,
            listings: None,
            unreadable: None,
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of texts and numbers is JSON")
    }

    /// Reads back what [`Self::to_json`] wrote; members that are unknown are passed over.
    ///
    /// # Errors
    /// When it is no gap of this form, or for a reason that this version does not know.
    pub fn from_json(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
}

fn as_word<S: Serializer>(reason: &GapReason, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(reason.as_str())
}

fn as_text<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn as_optional_text<S: Serializer>(value: &Option<impl Display>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

fn of_word<'de, D: Deserializer<'de>>(from: D) -> Result<GapReason, D::Error> {
    let word = String::deserialize(from)?;
    let known = GapReason::ALL.into_iter().find(|reason| reason.as_str() == word);
    known.ok_or_else(|| D::Error::custom("an unknown reason; a newer o365feed wrote it"))
}

fn of_text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

fn of_optional_text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<Option<T>, D::Error> {
    of_text(from).map(Some)
}

fn of_tenant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TenantId>, D::Error> {
    of_text(from).map(|id: Uuid| Some(TenantId(id)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_content_that_could_not_be_had() {
        let gap = Gap {
            tenant: Some(TenantId(Uuid::from_u128(1))),
            content_type: Some(ContentType::Exchange),
            content_id: Some("c$1".into()),
            content_uri: Some("https://manage.office.com/…/audit/c$1".into()),
            last_answer: Some("404 AF20050".into()),
            ..gap(GapReason::NotFound)
        };
        let expected = json!({
            "reason": "not_found", "closed": false, "at": "2025-10-06T00:00:00.5Z", "first_seen": "2025-10-05T00:00:00Z",
            "attempts": 4, "records_published": 0, "last_answer": "404 AF20050",
            "tenant": "00000000-0000-0000-0000-000000000001", "content_type": "Audit.Exchange", "content_id": "c$1",
            "content_uri": "https://manage.office.com/…/audit/c$1",
        });
        assert_eq!(parsed(&gap), expected);
    }

    #[test]
    fn what_belongs_to_one_reason_stands_in_the_same_flat_object() {
        let record = Some(MissingRecord { record_id: Some("7".into()), size: 9_000_000 });
        let oversize = parsed(&Gap { record, ..gap(GapReason::Oversize) });
        assert_eq!((&oversize["record_id"], &oversize["size"]), (&json!("7"), &json!(9_000_000)));

        let listings = Some(MissingListings { partition: 3, first_offset: 10, end_offset: 70 });
        let lost = parsed(&Gap { listings, ..gap(GapReason::ListingsLost) });
        assert_eq!((&lost["partition"], &lost["end_offset"]), (&json!(3), &json!(70)));
        assert!(lost.get("tenant").is_none() && lost.get("listings").is_none());

        let unreadable = Some(Unreadable { head_sha256: "ab".into(), head_length: 12 });
        let unreadable = parsed(&Gap { unreadable, ..gap(GapReason::Unreadable) });
        assert_eq!((&unreadable["head_sha256"], &unreadable["head_length"]), (&json!("ab"), &json!(12)));
    }

    #[test]
    fn a_span_that_was_not_listed_says_from_when_to_when() {
        let day = |day: &str| format!("2025-10-{day}T00:00:00Z").parse().unwrap();
        let span = Some(UnlistedSpan { from: day("10"), to: day("13") });
        let told = parsed(&Gap { span, ..gap(GapReason::Unlisted) });
        assert_eq!((&told["reason"], &told["from"]), (&json!("unlisted"), &json!("2025-10-10T00:00:00Z")));
    }

    #[test]
    fn what_is_no_gap_is_an_error() {
        for wrong in ["", "null", "{}", r#"{"reason":"lost","closed":false}"#, "[1]", "\u{0}"] {
            assert!(Gap::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let mut newer = parsed(&gap(GapReason::Expired));
        newer["more"] = json!({"of": "it"});
        assert_eq!(Gap::from_json(newer.to_string().as_bytes()).unwrap(), gap(GapReason::Expired));
        newer["reason"] = json!("withheld");
        assert!(Gap::from_json(newer.to_string().as_bytes()).unwrap_err().to_string().contains("unknown reason"));
    }

    /// Every gap of these tests is read back as well.
    fn parsed(gap: &Gap) -> serde_json::Value {
        assert_eq!(Gap::from_json(&gap.to_json()).unwrap(), *gap);
        serde_json::from_slice(&gap.to_json()).unwrap()
    }

    fn gap(reason: GapReason) -> Gap {
        Gap {
            first_seen: "2025-10-05T00:00:00Z".parse().unwrap(),
            attempts: 4,
            ..Gap::new(reason, "2025-10-06T00:00:00.5Z".parse().unwrap())
        }
    }
}
