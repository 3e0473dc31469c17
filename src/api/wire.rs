//! JSON and headers as the services send them, read leniently and turned into our types. Unknown members are ignored,
//! numbers may be texts, times may have any fraction; what still does not fit is an error, never skipped.

mod history; // attempts to tell a webhook

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp, civil, fmt::rfc2822, tz::TimeZone};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

pub use self::history::{Notification, notifications};
use super::webhook::Webhook;
use crate::domain::{ContentType, Listed, Source};

/// Longest text of an answer that is kept for a log.
const TEXT_MAX: usize = 300;

/// A longer wait is not believed: to ask again after a day does no harm.
const WAIT_MAX: Duration = Duration::from_secs(86_400);

/// The text without control characters, at most [`TEXT_MAX`] characters of it.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect()
}

fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    // serde_json names what is wrong and where; of the values it may quote a text, so only the place is kept.
    serde_json::from_slice(without_bom(body))
        .map_err(|e| format!("{:?} error at line {} column {}", e.classify(), e.line(), e.column()))
}

/// The body of an answer that was no success, as far as it could be read.
#[derive(Debug, Default)]
pub struct Envelope {
    code: String,
    message: String,
}

/// Reads `{"error":{"code","message"}}`, `{"Message"}`, or plain text; HTML and everything else says nothing.
pub fn envelope(body: &[u8]) -> Envelope {
    let body = without_bom(body);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => match object.get("error") {
            Some(error) => Envelope { code: text(&error["code"]), message: text(&error["message"]) },
            None => Envelope {
                code: String::new(),
                message: object.get("Message").or_else(|| object.get("message")).map(text).unwrap_or_default(),
            },
        },
        Ok(Value::String(message)) => Envelope { code: String::new(), message },
        Ok(_) => Envelope::default(),
        Err(_) => plain_text(body),
    }
}

fn plain_text(body: &[u8]) -> Envelope {
    match std::str::from_utf8(body) {
        Ok(text) if !text.trim_start().starts_with(['<', '{', '[']) => {
            Envelope { code: String::new(), message: text.trim().to_owned() }
        }
        _ => Envelope::default(),
    }
}

impl Envelope {
    /// The code, if it is of the form `AF` and digits.
    pub fn af_code(&self) -> Option<&str> {
        let digits = self.code.strip_prefix("AF")?;
        let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then_some(self.code.as_str())
    }

    /// Message, and the code when it is free text, on one line.
    pub fn text(&self) -> String {
        match self.af_code() {
            None if !self.code.is_empty() => one_line(&format!("{} {}", self.code, self.message)),
            _ => one_line(&self.message),
        }
    }

    /// (wire) The unified audit log is off, or the tenant is not provisioned.
    pub fn says_audit_is_off(&self) -> bool {
        let missing = |text: &str| text.contains("DataServiceException") && text.contains("does not exist");
        self.code.starts_with("StartSubscription [") || missing(&self.message) || missing(&self.code)
    }

    /// (wire) "Too many frequent subscription start requests. Please retry again after 14m 56s"
    pub fn is_start_cooldown(&self) -> bool {
        self.message.contains("subscription start requests") || self.cooldown().is_some()
    }

    /// The `14m 56s` of the message.
    pub fn cooldown(&self) -> Option<Duration> {
        let words: Vec<&str> = self.message.split_whitespace().collect();
        words.windows(2).find_map(|pair| {
            let minutes: u64 = pair[0].strip_suffix('m')?.parse().ok()?;
            let seconds: u64 = pair[1].trim_end_matches(['.', '"']).strip_suffix('s')?.parse().ok()?;
            Some(Duration::from_secs(minutes.checked_mul(60)?.checked_add(seconds)?).min(WAIT_MAX))
        })
    }

    /// (wire) "Please retry the request again in an hour."
    pub fn says_in_an_hour(&self) -> bool {
        self.message.contains("in an hour")
    }
}

/// What the authority gave.
pub struct TokenReply {
    pub access_token: String,
    pub expires_in: Duration,
}

/// A token answer of 200; `None` when there is no usable token in it.
pub fn token(body: &[u8]) -> Option<TokenReply> {
    #[derive(Deserialize)]
    struct Raw {
        access_token: String,
        #[serde(default)]
        expires_in: Value,
    }
    let raw: Raw = parse(body).ok()?;
    let seconds = number(&raw.expires_in).unwrap_or(TOKEN_LIFE_UNSTATED.as_secs_f64());
    let is_usable = !raw.access_token.is_empty() && raw.access_token.bytes().all(|b| b.is_ascii_graphic());
    // Microsoft's longest is a day; a year is no promise but a mistake.
    (is_usable && 1.0 <= seconds).then(|| TokenReply {
        access_token: raw.access_token,
        expires_in: Duration::from_secs_f64(seconds.min(86_400.0)),
    })
}

/// Assumed of a token that does not say how long it lasts.
const TOKEN_LIFE_UNSTATED: Duration = Duration::from_secs(600);

/// v1 answers carry numbers as texts, v2 as numbers.
pub fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n: &f64| n.is_finite())
}

/// An OAuth error. Source: docs/api/contract.md 2.5.
#[derive(Debug, Deserialize)]
pub struct TokenFault {
    pub error: String,
    #[serde(default)]
    pub error_description: String,
    #[serde(default)]
    error_codes: Value,
    #[serde(default)]
    pub trace_id: Option<String>,
    #[serde(default)]
    pub correlation_id: Option<String>,
}

impl TokenFault {
    /// The number behind `AADSTS`.
    pub fn number(&self) -> Option<u32> {
        let listed = self.error_codes.get(0).and_then(number).map(|n| n as u32);
        let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
        listed.or_else(|| self.error_description.strip_prefix("AADSTS").and_then(digits)).filter(|n| *n != 0)
    }
}

/// `None` for whatever is no OAuth error: a proxy's page, nothing at all.
pub fn token_fault(body: &[u8]) -> Option<TokenFault> {
    parse(body).ok()
}

/// One subscription as the service tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// As whoever subscribed first spelled it; possibly a type that this connector does not know.
    pub content_type: String,
    /// One of the documented samples has none.
    pub status: Option<String>,
    pub webhook: Option<Webhook>,
}

impl Subscription {
    /// The type, if it is one of the five.
    pub fn kind(&self) -> Option<ContentType> {
        self.content_type.parse().ok()
    }

    /// A subscription that is listed without a status counts as running.
    pub fn is_enabled(&self) -> bool {
        self.status.as_deref().is_none_or(|status| status.eq_ignore_ascii_case("enabled"))
    }
}

#[derive(Deserialize)]
struct RawSubscription {
    #[serde(rename = "contentType")]
    content_type: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    webhook: Option<Webhook>,
}

impl From<RawSubscription> for Subscription {
    fn from(raw: RawSubscription) -> Self {
        Self { content_type: raw.content_type, status: raw.status, webhook: raw.webhook }
    }
}

/// The answer to `subscriptions/list`.
pub fn subscriptions(body: &[u8]) -> Result<Vec<Subscription>, String> {
    Ok(parse::<Vec<RawSubscription>>(body)?.into_iter().map(Subscription::from).collect())
}

/// The answer to a start. A success without a readable body is still a success.
pub fn started(body: &[u8], kind: ContentType) -> Subscription {
    parse::<RawSubscription>(body).map_or_else(
        |_| Subscription { content_type: kind.to_string(), status: Some("enabled".to_owned()), webhook: None },
        Subscription::from,
    )
}

/// The items of a notification.
pub fn raw_items(body: &[u8]) -> Result<Vec<&RawValue>, String> {
    parse(body)
}

/// Whose content an item of a notification says it is: tenant and content type, as texts.
pub fn item_owner(raw: &RawValue) -> Result<(String, String), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Owner {
        tenant_id: String,
        content_type: String,
    }
    let owner: Owner = parse(raw.get().as_bytes())?;
    Ok((owner.tenant_id, owner.content_type))
}

/// One page of a listing: what it names, in the order of arrival.
pub fn page(body: &[u8], source: Source) -> Result<Vec<Listed>, String> {
    items(body, |raw| listed(raw, source))
}

fn items<T>(body: &[u8], read: impl Fn(&RawValue) -> Result<T, String>) -> Result<Vec<T>, String> {
    raw_items(body)?.into_iter().enumerate().map(|(at, raw)| read(raw).map_err(|e| format!("item {at}: {e}"))).collect()
}

/// One item of a page, or of a notification, as what `source` was asked for.
pub fn listed(raw: &RawValue, source: Source) -> Result<Listed, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        content_type: String,
        content_id: String,
        content_uri: String,
        content_created: String,
        content_expiration: String,
    }
    let item: Item = parse(raw.get().as_bytes())?;
    if item.content_type.parse() != Ok(source.content_type) {
        return Err(format!("it is of another content type than {}", source.content_type));
    }
    if item.content_id.is_empty() {
        return Err("contentId is empty".to_owned());
    }
    Ok(Listed {
        source,
        created: time(&item.content_created).ok_or("contentCreated is no time")?,
        expires: time(&item.content_expiration).ok_or("contentExpiration is no time")?,
        content_id: item.content_id,
        content_uri: item.content_uri,
        // Copied, so that a content that waits for days does not keep its whole page in memory.
        raw: Bytes::copy_from_slice(raw.get().as_bytes()),
    })
}

/// A time with or without zone (then UTC), with a fraction of any length.
pub fn time(text: &str) -> Option<Timestamp> {
    let text = short_fraction(text.trim());
    let local = || text.parse::<civil::DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(local)
}

/// Cuts a fraction to the nine digits that a time can hold.
fn short_fraction(text: &str) -> String {
    let Some((whole, rest)) = text.split_once('.') else { return text.to_owned() };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    format!("{whole}.{}{}", &rest[..digits.min(9)], &rest[digits..])
}

/// The link to the next page, if there is one: header `NextPageUri` or `NextPageUrl` (header names have no case).
/// Bytes that are no text make a link that no check lets pass.
pub fn next_page(headers: &HeaderMap) -> Option<String> {
    let text = |name| Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).trim().to_owned());
    ["NextPageUri", "NextPageUrl"].into_iter().filter_map(text).find(|link| !link.is_empty())
}

/// `Retry-After` in seconds or as a date, counted by the service's own clock. A date gone by is no wait.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(WAIT_MAX));
    }
    let wait = http_date(text)?.duration_since(date(headers).unwrap_or(now));
    Some(wait.max(SignedDuration::ZERO).unsigned_abs().min(WAIT_MAX))
}

/// The header `Date`: the service's clock, to the second.
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

/// A time as headers write it.
pub fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// What Microsoft's support asks for.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    let named = ["mise-correlation-id", "request-id", "x-ms-request-id"];
    named.iter().find_map(|name| headers.get(*name)?.to_str().ok()).map(one_line)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};
    use uuid::Uuid;

    use super::*;
    use crate::domain::TenantId;

    pub(super) const ITEM: &str = r#"{"contentType":"audit.GENERAL", "contentId":"1$2$na0022","contentUri":"https://h/audit/1$2$na0022",
        "contentCreated":"2026-08-29T07:51:21.886Z","contentExpiration":"2026-09-12T07:48:32.071Z","new":{"a":[1e99]}}"#;

    pub(super) fn general() -> Source {
        Source { tenant: TenantId(Uuid::nil()), content_type: ContentType::General }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let name = |name: &str| name.parse::<HeaderName>().unwrap();
        pairs.iter().map(|(n, value)| (name(n), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn an_item_is_read_leniently_and_kept_byte_for_byte() {
        let page = page(format!("\u{feff}[ {ITEM} ]").as_bytes(), general()).unwrap();
        assert_eq!(page[0].raw, ITEM.as_bytes());
        assert_eq!(page[0].content_id, "1$2$na0022");
        assert_eq!(page[0].created, "2026-08-29T07:51:21.886Z".parse().unwrap());
        assert_eq!(super::page(b"[]", general()).unwrap(), []);
    }

    #[test]
    fn an_item_that_cannot_be_read_spoils_the_page() {
        let bad = [
            ITEM.replace("GENERAL", "Exchange"),
            ITEM.replace("\"contentId\"", "\"other\""),
            ITEM.replace("1$2$na0022\",\"contentUri", "\",\"contentUri"),
            ITEM.replace("2026-08-29", "yesterday"),
            "null".to_owned(),
            "7".to_owned(),
        ];
        for item in bad {
            assert!(
                page(format!("[{ITEM},{item}]").as_bytes(), general()).unwrap_err().starts_with("item 1"),
                "{item}"
            );
        }
        for body in ["", "{}", "<html>", "[1", "null"] {
            assert!(page(body.as_bytes(), general()).is_err(), "{body}");
        }
    }

    #[test]
    fn times_have_any_fraction_and_may_lack_the_zone() {
        let expected: Timestamp = "2026-08-29T07:51:21.886Z".parse().unwrap();
        for text in ["2026-08-29T07:51:21.886Z", "2026-08-29T07:51:21.8860000", "2026-08-29T07:51:21.886000000000000Z"]
        {
            assert_eq!(time(text), Some(expected), "{text}");
        }
        assert_eq!(time("2026-08-29T09:51:21.886+02:00"), Some(expected));
        for text in ["", ".", "2026-08-29T07:51:21.ü", "now"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_of_a_token_may_be_texts() {
        for life in ["3599", "\"3599\"", "3599.0"] {
            let reply = token(format!(r#"{{"access_token":"abc","expires_in":{life}}}"#).as_bytes()).unwrap();
            assert_eq!(reply.expires_in.as_secs(), 3599);
        }
        assert_eq!(token(br#"{"access_token":"abc"}"#).unwrap().expires_in, TOKEN_LIFE_UNSTATED);
        for body in
            ["{}", r#"{"access_token":""}"#, r#"{"access_token":"a\nb"}"#, r#"{"access_token":"a","expires_in":0}"#]
        {
            assert!(token(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn the_next_page_has_two_names_in_any_case_and_empty_is_the_last() {
        for name in ["NextPageUri", "nextpageuri", "NEXTPAGEURL", "Nextpageurl"] {
            assert_eq!(next_page(&headers(&[(name, " https://h/x ")])).as_deref(), Some("https://h/x"), "{name}");
            assert_eq!(next_page(&headers(&[(name, "")])), None);
        }
        assert_eq!(next_page(&headers(&[])), None);
        assert_eq!(next_page(&headers(&[("NextPageUri", ""), ("NextPageUrl", "x")])).as_deref(), Some("x"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_services_clock() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let of = |pairs: &[(&str, &str)]| retry_after(&headers(pairs), now).map(|d| d.as_secs());
        assert_eq!(of(&[("retry-after", "17")]), Some(17));
        assert_eq!(of(&[("retry-after", "Thu, 01 Jan 2026 00:01:00 GMT")]), Some(60));
        let by_its_clock =
            [("retry-after", "Thu, 01 Jan 2026 00:01:00 GMT"), ("date", "Thu, 01 Jan 2026 00:00:50 GMT")];
        assert_eq!(of(&by_its_clock), Some(10));
        assert_eq!(of(&[("retry-after", "Wed, 31 Dec 2025 00:00:00 GMT")]), Some(0));
        assert_eq!(of(&[("retry-after", "18446744073709551615")]), Some(WAIT_MAX.as_secs()));
        assert_eq!(of(&[("retry-after", "soon")]), None);
        assert_eq!(of(&[("retry-after", "-1")]), None);
    }

    #[test]
    fn subscriptions_may_lack_a_status_and_name_types_we_do_not_know() {
        let body = br#"[{"contentType":"Audit.Sharepoint","webhook":null},{"contentType":"X","status":"disabled",
            "webhook":{"status":"expired","address":"https://a","authId":null,"expiration":""}}]"#;
        let list = subscriptions(body).unwrap();
        assert_eq!(list[0].kind(), Some(ContentType::SharePoint));
        assert!(list[0].is_enabled() && !list[1].is_enabled());
        assert_eq!(list[1].kind(), None);
        assert_eq!(started(b"", ContentType::Dlp).kind(), Some(ContentType::Dlp));
    }

    #[test]
    fn a_cooldown_is_read_out_of_the_sentence() {
        let of = |message: &str| Envelope { code: String::new(), message: message.to_owned() }.cooldown();
        assert_eq!(of("retry again after 14m 56s"), Some(Duration::from_secs(896)));
        assert_eq!(of("retry again after 0m 5s."), Some(Duration::from_secs(5)));
        assert_eq!(of("retry again after 99999999999999999999m 5s"), None);
        assert_eq!(of("retry later"), None);
    }
}
