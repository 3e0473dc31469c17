//! The history of notifications: every attempt to tell a webhook of a content.

use jiff::Timestamp;
use serde::Deserialize;

use super::{items, listed, one_line, parse, time};
use crate::domain::{Listed, Source};

/// An attempt to tell a webhook of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub content: Listed,
    /// UTC.
    pub sent: Timestamp,
    /// `success`, or why it failed, in the service's own words on one line.
    pub status: String,
}

impl Notification {
    pub fn is_success(&self) -> bool {
        self.status.eq_ignore_ascii_case("success")
    }
}

/// One page of a history of notifications, in the order of arrival.
pub fn notifications(body: &[u8], source: Source) -> Result<Vec<Notification>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        notification_sent: String,
        notification_status: String,
    }
    items(body, |raw| {
        let item: Item = parse(raw.get().as_bytes())?;
        Ok(Notification {
            content: listed(raw, source)?,
            sent: time(&item.notification_sent).ok_or("notificationSent is no time")?,
            status: one_line(item.notification_status.trim()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::tests::{ITEM, general};

    #[test]
    fn a_notification_is_a_content_with_a_time_and_a_status() {
        let with = |more: &str| ITEM.replacen('{', &format!("{{{more},"), 1);
        let sent = r#""notificationSent":"2026-08-29T07:52:00.1234567Z","notificationStatus":"#;
        let of = |status: &str| with(&format!("{sent}{status}"));
        let body = format!("[{},{}]", of(r#""Success""#), of(r#"" 500\u000ano ""#));
        let read = notifications(body.as_bytes(), general()).unwrap();
        assert_eq!((read[0].is_success(), read[0].content.content_id.as_str()), (true, "1$2$na0022"));
        assert_eq!((read[1].is_success(), read[1].status.as_str()), (false, "500 no"));
        assert_eq!(read[0].sent, "2026-08-29T07:52:00.1234567Z".parse().unwrap());
        for bad in [ITEM.to_owned(), of("7"), with(r#""notificationSent":"x","notificationStatus":"success""#)] {
            assert!(
                notifications(format!("[{bad}]").as_bytes(), general()).unwrap_err().starts_with("item 0"),
                "{bad}"
            );
        }
    }
}
