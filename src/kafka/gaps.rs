//! A gap as JSON in the gaps topic: what is missing, why, since when, and what was tried.

use std::fmt::Display;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::domain::{ContentType, GapReason, TenantId};

/// One message of the gaps topic. Its key is the content id; the topic's partition when listings were lost; tenant and
/// content type when a span was not listed.
///
/// Shape: a flat JSON object; what does not apply is left out, not null. Times are RFC 3339 in UTC, sizes are bytes.
/// A gap that closes is written a second time with `closed: true`; the last message of a content id counts.
/// Nothing of a record's or a blob's content is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    #[serde(serialize_with = "as_word")]
    pub reason: GapReason,
    /// Whether what was missing has been published since.
    pub closed: bool,
    /// When this was decided.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// When the listing was first seen, or the loss noticed.
    #[serde(serialize_with = "as_text")]
    pub first_seen: Timestamp,
    /// Fetches that were tried.
    pub attempts: u32,
    /// Records of the content that are in Kafka all the same: it may have been cut off half-way.
    pub records_published: u64,
    /// The last answer in a few words: a status, an error code, a fault of the connection. Never a body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<String>,
    /// Absent when listings were lost: a partition has many tenants.
    #[serde(serialize_with = "as_optional_text", skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    #[serde(serialize_with = "as_optional_text", skip_serializing_if = "Option::is_none")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingRecord {
    /// The record's `Id`, when it has a usable one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_id: Option<String>,
    pub size: u64,
}

/// Contents that became visible in `from <= t < to` may be missing: nobody listed then, and the service lists it no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UnlistedSpan {
    #[serde(serialize_with = "as_text")]
    pub from: Timestamp,
    #[serde(serialize_with = "as_text")]
    pub to: Timestamp,
}

/// Listings that the topic's retention dropped before they were settled: `first_offset <= offset < end_offset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingListings {
    pub partition: i32,
    pub first_offset: i64,
    pub end_offset: i64,
}

/// Enough to recognise an unreadable blob that comes again, and nothing of what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Of the first KiB, in lower-case hexadecimal.
    pub head_sha256: String,
    /// Of what was hashed; at most 1,024.
    pub head_length: u32,
}

impl Gap {
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of texts and numbers is JSON")
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

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

    fn parsed(gap: &Gap) -> serde_json::Value {
        serde_json::from_slice(&gap.to_json()).unwrap()
    }

    fn gap(reason: GapReason) -> Gap {
        Gap {
            reason,
            closed: false,
            at: "2025-10-06T00:00:00.5Z".parse().unwrap(),
            first_seen: "2025-10-05T00:00:00Z".parse().unwrap(),
            attempts: 4,
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
}
