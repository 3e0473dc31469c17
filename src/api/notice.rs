//! What the service tells a webhook: contents that became available. Whoever sent it, nothing of it is believed but
//! what a listing of ours could have said too (docs/api/contract.md 3.7).

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{client::Api, wire};
use crate::domain::{Listed, Source, TenantId};

/// One entry of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notified {
    Content(Listed),
    /// Of a tenant that the settings do not have, or of a content type that nobody knows.
    Foreign,
    /// Its link does not lead to this content in the tenant's API.
    Elsewhere,
    /// Not of the documented shape.
    Unreadable,
}

impl Api {
    /// Reads the body of a notification. One bad entry does not spoil the others: what it names is found by polling.
    ///
    /// Shape: an array of `{tenantId, clientId, contentType, contentId, contentUri, contentCreated, contentExpiration}`.
    ///
    /// # Errors
    /// When it is no JSON array; the text says where, and nothing of what is in it.
    ///
    /// Source: Activity API reference, "Receiving notifications" (docs/api/contract.md 3.7).
    pub fn notified(&self, body: &[u8]) -> Result<Vec<Notified>, String> {
        let now = Timestamp::now();
        Ok(wire::raw_items(body)?.into_iter().map(|raw| self.entry(raw, now)).collect())
    }

    fn entry(&self, raw: &RawValue, now: Timestamp) -> Notified {
        let Ok((tenant, content_type)) = wire::item_owner(raw) else { return Notified::Unreadable };
        let Ok(tenant) = Uuid::try_parse(&tenant).map(TenantId) else { return Notified::Unreadable };
        let (Some(api), Ok(content_type)) = (self.tenant(tenant), content_type.parse()) else {
            return Notified::Foreign;
        };
        match wire::listed(raw, Source { tenant, content_type }) {
            Err(_) => Notified::Unreadable,
            Ok(listed) if !is_plausible(&listed, now) => Notified::Unreadable,
            Ok(listed) if api.origin.is_own_link_to(&listed.content_uri, &listed.content_id) => {
                Notified::Content(listed)
            }
            Ok(_) => Notified::Elsewhere,
        }
    }
}

/// Whether a listing of ours could say such times now: what expires in a thousand years would be tried for as long.
fn is_plausible(content: &Listed, now: Timestamp) -> bool {
    let age = now.duration_since(content.created);
    let life = content.expires.duration_since(content.created);
    (-AHEAD..=OLDEST).contains(&age) && (SignedDuration::ZERO..=LONGEST).contains(&life)
}

/// How far the service's clock may be ahead of ours.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// The service lists seven days back, and tells of nothing older.
const OLDEST: SignedDuration = SignedDuration::from_hours(8 * 24);

/// The longest life seen is some 21 days (docs/api/contract.md 3.5).
const LONGEST: SignedDuration = SignedDuration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::stage::settings_of, domain::ContentType, telemetry::Metrics};

    const TENANT: &str = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";

    fn entry(change: impl FnOnce(&mut serde_json::Value)) -> Notified {
        let mut entry = serde_json::json!({
            "tenantId": TENANT, "clientId": "x", "contentType": "Audit.Sharepoint",
            "contentId": "1$2$IsFromNotification", "contentUri": link(),
            "contentCreated": hours_from_now(-2), "contentExpiration": hours_from_now(166),
        });
        change(&mut entry);
        read(&format!("[{entry}]")).unwrap().remove(0)
    }

    fn link() -> String {
        format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/audit/1$2$IsFromNotification")
    }

    fn hours_from_now(hours: i64) -> String {
        (Timestamp::now() + SignedDuration::from_hours(hours)).to_string()
    }

    fn read(body: &str) -> Result<Vec<Notified>, String> {
        let settings = settings_of("https://manage.office.com", TENANT.parse().unwrap());
        Api::new(&settings, &Metrics::new()).unwrap().notified(body.as_bytes())
    }

    #[test]
    fn an_entry_is_a_content_only_when_all_of_it_fits() {
        let Notified::Content(listed) = entry(|_| {}) else { panic!("it is a good one") };
        assert_eq!(
            (listed.source.content_type, listed.content_id.as_str()),
            (ContentType::SharePoint, "1$2$IsFromNotification")
        );
        assert_eq!(entry(|e| e["tenantId"] = "00000000-0000-0000-0000-000000000001".into()), Notified::Foreign);
        assert_eq!(entry(|e| e["contentType"] = "Audit.New".into()), Notified::Foreign);
        for link in [
            "https://evil.example/api/v1.0/t/activity/feed/audit/1$2$IsFromNotification",
            "",
            "https://manage.office.com/api/v1.0/t/activity/feed/audit/3",
            "https://manage.office.com/api/v1.0/t/activity/feed/audit/1$2$IsFromNotification",
            &format!("{}?PublisherIdentifier=x", link()),
        ] {
            assert_eq!(entry(|e| e["contentUri"] = link.into()), Notified::Elsewhere, "{link}");
        }
        let times = [
            ("contentCreated", -9 * 24),
            ("contentCreated", 2),
            ("contentExpiration", -3),
            ("contentExpiration", 31 * 24),
        ];
        for (name, hours) in times {
            assert_eq!(entry(|e| e[name] = hours_from_now(hours).into()), Notified::Unreadable, "{name}: {hours}");
        }
        assert_eq!(entry(|e| e["contentExpiration"] = "9999-12-30T00:00:00Z".into()), Notified::Unreadable);
        for name in ["tenantId", "contentType", "contentId", "contentUri", "contentCreated", "contentExpiration"] {
            assert_eq!(entry(|e| e[name] = 7.into()), Notified::Unreadable, "{name}");
            assert_eq!(entry(|e| _ = e.as_object_mut().unwrap().remove(name)), Notified::Unreadable, "{name}");
        }
        assert_eq!(entry(|e| e["contentId"] = "".into()), Notified::Unreadable);
    }

    #[test]
    fn what_is_no_array_is_refused_and_rubbish_in_one_is_passed_over() {
        for body in ["", "{}", "null", "[", "[1,]", "<html>", "\u{0}"] {
            assert!(read(body).is_err(), "{body}");
        }
        assert_eq!(read("[]"), Ok(Vec::new()));
        let rubbish = vec![Notified::Unreadable; 4];
        assert_eq!(read(r#"[1, null, {"tenantId":1,"tenantId":2}, "x"]"#), Ok(rubbish));
        let deep = format!("[{}]", "[".repeat(50_000) + &"]".repeat(50_000));
        assert_eq!(read(&deep), Ok(vec![Notified::Unreadable]));
    }
}
