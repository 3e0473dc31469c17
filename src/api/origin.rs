//! The token goes to the configured host and nowhere else. Every URL of the API is made or checked here.

use jiff::{Timestamp, tz::TimeZone};
use url::Url;
use uuid::Uuid;

use super::error::ApiError;
use crate::domain::{ContentType, Listed, TenantId, Window};

/// Where one tenant's feed lives, and who asks.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `https://manage.office.com/api/v1.0/{tenant}/activity/feed`
    feed: Url,
    publisher: Uuid,
}

/// Paths that the token may go to. The samples of the reference show both.
const API: [&str; 2] = ["/api/v1.0/", "/api/v1/"];
const PUBLISHER: &str = "PublisherIdentifier";

impl Origin {
    /// `None` when `root` has no host that a path could follow.
    pub fn new(root: &Url, tenant: TenantId, publisher: Uuid) -> Option<Self> {
        let mut feed = root.clone();
        if !root.has_host() || !matches!(root.scheme(), "https" | "http") {
            return None;
        }
        feed.set_path(&format!("/api/v1.0/{tenant}/activity/feed"));
        feed.set_query(None);
        feed.set_fragment(None);
        Some(Self { feed, publisher })
    }

    pub fn subscriptions(&self) -> Url {
        self.under("subscriptions/list", "")
    }

    pub fn start(&self, kind: ContentType) -> Url {
        self.under("subscriptions/start", &format!("contentType={kind}"))
    }

    pub fn stop(&self, kind: ContentType) -> Url {
        self.under("subscriptions/stop", &format!("contentType={kind}"))
    }

    /// The first page of `window`. The service counts whole seconds, so the window is widened to them: what is asked
    /// for twice does no harm, what is not asked for is lost.
    pub fn contents(&self, kind: ContentType, window: Window) -> Url {
        self.within("subscriptions/content", kind, window)
    }

    /// The first page of the notifications of `window`, widened likewise.
    pub fn notifications(&self, kind: ContentType, window: Window) -> Url {
        self.within("subscriptions/notifications", kind, window)
    }

    fn within(&self, path: &str, kind: ContentType, window: Window) -> Url {
        let (start, end) = (whole_second(window.start(), false), whole_second(window.end(), true));
        self.under(path, &format!("contentType={kind}&startTime={start}&endTime={end}"))
    }

    fn under(&self, path: &str, query: &str) -> Url {
        let mut url = self.feed.clone();
        url.set_path(&format!("{}/{path}", self.feed.path()));
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        self.with_publisher(url)
    }

    /// The URL of a listed content. Its own link is used when it leads to our host and to that content; the tenant in it
    /// may differ from ours (contract 3). Any other link is replaced: one that led to `http://localhost` once stopped a
    /// collector for two weeks.
    pub fn content(&self, content: &Listed) -> Url {
        let theirs = Url::parse(&content.content_uri).ok();
        let url = theirs.filter(|_| self.is_link_to(&content.content_uri, &content.content_id));
        self.with_publisher(url.unwrap_or_else(|| self.rebuilt(&content.content_id)))
    }

    /// The id of the content that a link leads to, which somebody typed or stored. `None` unless it is one of a content
    /// on our host: the token must not go elsewhere, and what was meant must not be guessed at.
    pub fn content_id(&self, link: &str) -> Option<String> {
        let url = Url::parse(link).ok().filter(|url| self.may_have_the_token(url))?;
        let (_, id) = url.path().split_once("/activity/feed/audit/")?;
        let id = id.replace("%24", "$");
        (!id.is_empty() && !id.contains(['/', '%'])).then_some(id)
    }

    /// Whether the link leads to our API, and there to this content.
    pub fn is_link_to(&self, link: &str, content_id: &str) -> bool {
        Url::parse(link).is_ok_and(|url| self.may_have_the_token(&url) && leads_to(&url, content_id))
    }

    /// [`Self::is_link_to`], and nothing in it that only we may say: not another tenant, no query. For links that others send us.
    pub fn is_own_link_to(&self, link: &str, content_id: &str) -> bool {
        let below = |url: &Url| {
            let path = API.iter().find_map(|api| url.path().strip_prefix(api))?;
            Some(path.replace("%24", "$").to_lowercase())
        };
        self.is_link_to(link, content_id)
            && Url::parse(link)
                .is_ok_and(|url| url.query().is_none() && below(&url) == below(&self.rebuilt(content_id)))
    }

    fn rebuilt(&self, content_id: &str) -> Url {
        let mut url = self.feed.clone();
        url.path_segments_mut().expect("an http url has a path").extend(["audit", content_id]);
        url
    }

    /// The next page, from the link in the header.
    ///
    /// # Errors
    /// [`ApiError::PageLink`] when the token must not go there.
    pub fn next_page(&self, link: &str) -> Result<Url, ApiError> {
        let url = Url::parse(link).map_err(|_| ApiError::PageLink { why: "it is no absolute url" })?;
        if url.origin() != self.feed.origin() {
            return Err(ApiError::PageLink { why: "it leads to another host, scheme or port" });
        }
        if !self.may_have_the_token(&url) {
            return Err(ApiError::PageLink { why: "it leads out of the api" });
        }
        Ok(self.with_publisher(url))
    }

    fn may_have_the_token(&self, url: &Url) -> bool {
        url.origin() == self.feed.origin()
            // A name in the url would be sent as credentials in the token's place.
            && url.username().is_empty()
            && url.password().is_none()
            && API.iter().any(|api| url.path().starts_with(api))
    }

    /// Appends the publisher unless it is there; the rest of the query stays as it came.
    fn with_publisher(&self, mut url: Url) -> Url {
        if url.query_pairs().any(|(name, _)| name.eq_ignore_ascii_case(PUBLISHER)) {
            return url;
        }
        let query = match url.query() {
            Some(query) if !query.is_empty() => format!("{query}&{PUBLISHER}={}", self.publisher),
            _ => format!("{PUBLISHER}={}", self.publisher),
        };
        url.set_query(Some(&query));
        url
    }
}

fn leads_to(url: &Url, content_id: &str) -> bool {
    let tail = format!("/activity/feed/audit/{content_id}");
    url.path().replace("%24", "$").ends_with(&tail)
}

fn whole_second(time: Timestamp, up: bool) -> String {
    let second = time.as_second() + i64::from(up && time.subsec_nanosecond() != 0);
    let whole = Timestamp::from_second(second).unwrap_or(time);
    whole.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::Source;

    const TENANT: &str = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";
    const PUBLISHER_ID: &str = "11111111-2222-3333-4444-555555555555";

    fn origin() -> Origin {
        Origin::new(&"https://manage.office.com".parse().unwrap(), tenant(), PUBLISHER_ID.parse().unwrap()).unwrap()
    }

    fn tenant() -> TenantId {
        TenantId(TENANT.parse().unwrap())
    }

    fn content(uri: &str, id: &str) -> String {
        let source = Source { tenant: tenant(), content_type: ContentType::General };
        let (created, expires) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let (content_id, content_uri) = (id.to_owned(), uri.to_owned());
        origin().content(&Listed { source, content_id, content_uri, created, expires, raw: Bytes::new() }).into()
    }

    #[test]
    fn every_operation_names_the_publisher() {
        let (origin, kind) = (origin(), ContentType::SharePoint);
        let root = format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/subscriptions");
        let tail = format!("PublisherIdentifier={PUBLISHER_ID}");
        assert_eq!(origin.subscriptions().as_str(), format!("{root}/list?{tail}"));
        assert_eq!(origin.start(kind).as_str(), format!("{root}/start?contentType=Audit.SharePoint&{tail}"));
        assert_eq!(origin.stop(kind).as_str(), format!("{root}/stop?contentType=Audit.SharePoint&{tail}"));
    }

    #[test]
    fn a_window_is_asked_for_in_whole_seconds_and_in_full() {
        let window = |start: &str, end: &str| Window::new(start.parse().unwrap(), end.parse().unwrap()).unwrap();
        let of = |start, end| origin().contents(ContentType::Dlp, window(start, end)).query().unwrap().to_owned();
        let tail = format!("PublisherIdentifier={PUBLISHER_ID}");
        assert_eq!(
            of("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            format!("contentType=DLP.All&startTime=2026-01-01T00:00:00&endTime=2026-01-01T01:00:00&{tail}")
        );
        assert!(
            of("2026-01-01T00:00:00.9Z", "2026-01-01T00:00:00.95Z").contains("T00:00:00&endTime=2026-01-01T00:00:01&")
        );
    }

    #[test]
    fn a_contents_own_link_is_used_when_it_leads_to_our_host_whatever_the_tenant() {
        let id = "20260829074832071144651$20260829075121886098815$audit_sharepoint$na0036";
        for version in ["v1.0", "v1"] {
            let uri = format!("https://manage.office.com/api/{version}/other-tenant/activity/feed/audit/{id}");
            assert_eq!(content(&uri, id), format!("{uri}?PublisherIdentifier={PUBLISHER_ID}"));
            let with_query = format!("{uri}?x=%24y&publisheridentifier=abc");
            assert_eq!(content(&with_query, id), with_query);
        }
    }

    #[test]
    fn a_contents_link_that_leads_elsewhere_is_rebuilt() {
        let tail = "api/v1.0/t/activity/feed/audit/1$2";
        let elsewhere = [
            format!("http://manage.office.com/{tail}"),
            format!("https://manage.office.com:8443/{tail}"),
            format!("https://evil.example/{tail}"),
            format!("https://manage.office.com.evil.example/{tail}"),
            format!("https://manage.office.com@evil.example/{tail}"),
            format!("https://user:word@manage.office.com/{tail}"),
            format!("http://localhost/{tail}"),
            "https://manage.office.com/api/v1.0/t/activity/feed/audit/3$4".to_owned(),
            "https://manage.office.com/api/v2/t/activity/feed/audit/1$2".to_owned(),
            "https://manage.office.com/api/v1.0/../../else/activity/feed/audit/1$2".to_owned(),
            "/activity/feed/audit/1$2".to_owned(),
            String::new(),
        ];
        let ours = format!(
            "https://manage.office.com/api/v1.0/{TENANT}/activity/feed/audit/1$2?PublisherIdentifier={PUBLISHER_ID}"
        );
        for uri in elsewhere {
            assert_eq!(content(&uri, "1$2"), ours, "{uri}");
        }
    }

    #[test]
    fn an_id_with_odd_characters_stays_within_the_audit_path() {
        for id in ["../../subscriptions/stop", "a/b", "a?b#c", "..", "a%2fb", "ü"] {
            let url = Url::parse(&content("", id)).unwrap();
            assert!(url.path().starts_with(&format!("/api/v1.0/{TENANT}/activity/feed/audit")), "{url}");
            assert_eq!(url.path().matches('/').count(), 7 - usize::from(id == ".."), "{url}");
        }
    }

    #[test]
    fn the_id_of_a_link_is_taken_only_from_our_host() {
        let id = "1$2$audit_general$na0036";
        for good in [
            format!("https://manage.office.com/api/v1.0/other-tenant/activity/feed/audit/{id}"),
            format!("https://manage.office.com/api/v1/t/activity/feed/audit/{}?x=y", id.replace('$', "%24")),
            format!("https://MANAGE.office.com:443/api/v1.0/t/activity/feed/audit/{id}"),
        ] {
            assert_eq!(origin().content_id(&good).as_deref(), Some(id), "{good}");
        }
        for bad in [
            format!("http://manage.office.com/api/v1.0/t/activity/feed/audit/{id}"),
            format!("https://evil.example/api/v1.0/t/activity/feed/audit/{id}"),
            format!("https://u@manage.office.com/api/v1.0/t/activity/feed/audit/{id}"),
            format!("https://manage.office.com/elsewhere/activity/feed/audit/{id}"),
            "https://manage.office.com/api/v1.0/t/activity/feed/audit/".to_owned(),
            "https://manage.office.com/api/v1.0/t/activity/feed/audit/1/2".to_owned(),
            "https://manage.office.com/api/v1.0/t/activity/feed/audit/1%2f2".to_owned(),
            "https://manage.office.com/api/v1.0/t/activity/feed/subscriptions/stop".to_owned(),
            id.to_owned(),
        ] {
            assert_eq!(origin().content_id(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_link_to_the_next_page_is_kept_verbatim_and_gets_the_publisher_once() {
        let link = format!(
            "https://manage.office.com/api/v1.0/{TENANT}/activity/feed/subscriptions/content?contenttype=Audit.General\
             &endtime=2020-02-20T10:46:42.0000000Z&starttime=2020-02-19T10:46:42.0000000Z\
             &nextpage=20200220001806300068349$20200219104642000000000$na0022&x=%2B%24"
        );
        let next = origin().next_page(&link).unwrap();
        assert_eq!(next.as_str(), format!("{link}&PublisherIdentifier={PUBLISHER_ID}"));
        assert_eq!(origin().next_page(next.as_str()).unwrap(), next);
    }

    #[test]
    fn a_link_to_the_next_page_that_leads_elsewhere_is_refused() {
        for link in [
            "http://manage.office.com/api/v1.0/t/x",
            "https://manage.office.com:444/api/v1.0/t/x",
            "https://evil.example/api/v1.0/t/x",
            "https://a@manage.office.com/api/v1.0/t/x",
            "https://manage.office.com/elsewhere",
            "https://manage.office.com/api/v1.0evil",
            "file:///api/v1.0/x",
            "api/v1.0/x",
            "",
        ] {
            assert!(matches!(origin().next_page(link), Err(ApiError::PageLink { .. })), "{link}");
        }
    }
}
