//! A listing, page by page, as far as its links may be followed.

use std::{collections::HashSet, sync::Arc};

use url::Url;

use super::{
    call,
    client::TenantApi,
    error::{ApiError, Operation},
    wire,
};
use crate::domain::{ContentKey, Listed, Source};

/// The pages of one window, of contents or of what else is listed page by page. Each call is one request.
pub struct Pages<T = Listed> {
    api: Arc<TenantApi>,
    source: Source,
    operation: Operation,
    read: Reader<T>,
    next: Next,
    /// Every page asked for, to notice a circle.
    seen: HashSet<ContentKey>,
}

/// Reads a page's body: its items, or what is wrong with it.
type Reader<T> = fn(&[u8], Source) -> Result<Vec<T>, String>;

enum Next {
    Page(Url),
    /// A link that was refused: said again to whoever asks again.
    Refused(&'static str),
    End,
}

impl<T> Pages<T> {
    /// A day of the busiest tenant on record has about 400 pages; a service that goes on for longer goes on for ever.
    const MAX: usize = 100_000;
    /// The largest page that is read, some 80,000 items; 600 were seen.
    const PAGE_BYTES_MAX: usize = 32 << 20;

    pub(super) fn new(api: Arc<TenantApi>, source: Source, operation: Operation, first: Url, read: Reader<T>) -> Self {
        Self { api, source, operation, read, next: Next::Page(first), seen: HashSet::new() }
    }

    /// The next page: 0..n items in order of arrival, possibly repeated from an earlier page. `None` after the last.
    ///
    /// The window may be remembered as read only once `None` was given.
    ///
    /// # Errors
    /// After a passing error the same page is asked for again by the next call. [`ApiError::PageLink`] comes after the
    /// page that carried the link, so that page's contents are not lost; the window is then to be listed again.
    /// [`ApiError::Unreadable`] when an item cannot be read: nothing of its page is given.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, ApiError> {
        let url = match &self.next {
            Next::Page(url) => url.clone(),
            Next::Refused(why) => return Err(ApiError::PageLink { why }),
            Next::End => return Ok(None),
        };
        let operation = self.operation;
        let response = self.api.caller.call(operation, &url).await?;
        let link = wire::next_page(response.headers());
        let idle = self.api.caller.timeouts.idle;
        let page = match call::whole_body(operation, response, idle, Self::PAGE_BYTES_MAX).await {
            Ok(body) => (self.read)(&body, self.source).map_err(|why| ApiError::Unreadable { operation, why }),
            Err(error) => Err(error),
        }
        .inspect_err(|error| self.api.caller.meter.error(error))?;
        self.seen.insert(ContentKey::of(url.as_str()));
        self.next = self.follow(link);
        Ok(Some(page))
    }

    fn follow(&self, link: Option<String>) -> Next {
        let Some(link) = link else { return Next::End };
        let refused = match self.api.origin.next_page(&link) {
            Ok(url) if self.seen.contains(&ContentKey::of(url.as_str())) => "it leads back to a page already read",
            Ok(_) if Self::MAX <= self.seen.len() => "there are too many pages",
            Ok(url) => return Next::Page(url),
            Err(ApiError::PageLink { why }) => why,
            Err(_) => "it cannot be checked",
        };
        self.api.caller.meter.error(&ApiError::PageLink { why: refused });
        Next::Refused(refused)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use axum::{body::Body, http::Response};

    use super::*;
    use crate::{
        api::stage::{Asked, PUBLISHER, Stage, af, an_hour, item, ok, reply},
        domain::{ContentType, Fate},
    };

    fn pages(stage: &Stage) -> Pages {
        stage.api.pages(ContentType::General, an_hour())
    }

    fn link(root: &str, page: &str) -> String {
        format!(
            "{root}/api/v1.0/t/activity/feed/subscriptions/content?contenttype=Audit.General&nextpage={page}$na0022"
        )
    }

    fn page_of(asked: &Asked) -> &str {
        asked.query.split("nextpage=").nth(1).and_then(|rest| rest.split('$').next()).unwrap_or("1")
    }

    fn one(root: &str, id: &str, next: &[(&str, &str)]) -> Response<Body> {
        reply(200, next, format!("[{}]", item(root, id)))
    }

    #[tokio::test]
    async fn pages_follow_one_another_to_the_last_even_when_one_is_empty() {
        let stage = Stage::with_tokens(|asked, root| match page_of(asked) {
            "1" => one(root, "a", &[("NextPageUri", &link(root, "2"))]),
            "2" => reply(200, &[("nextpageurl", &link(root, "3"))], "[]"),
            _ => one(root, "b", &[("NextPageUri", "")]),
        })
        .await;
        let (mut pages, mut ids) = (pages(&stage), Vec::new());
        while let Some(page) = pages.next().await.unwrap() {
            ids.extend(page.into_iter().map(|listed| listed.content_id));
        }
        assert_eq!(ids, ["a", "b"]);
        assert!(pages.next().await.unwrap().is_none());
        let asked = stage.asked();
        assert_eq!(asked.len(), 3);
        assert!(asked[0].query.starts_with("contentType=Audit.General&startTime=2026-01-01T00:00:00&endTime="));
        assert!(asked[1].query.ends_with(&format!("nextpage=2$na0022&PublisherIdentifier={PUBLISHER}")));
    }

    #[tokio::test]
    async fn notifications_are_paged_likewise_from_their_own_path() {
        let stage = Stage::with_tokens(|asked, root| {
            let item = item(root, "a").replacen(
                '{',
                r#"{"notificationSent":"2026-01-01T00:00:01Z","notificationStatus":"503","#,
                1,
            );
            let path = format!("{root}/api/v1.0/t/activity/feed/subscriptions/notifications?nextpage=2");
            let headers = if page_of(asked) == "1" { vec![("NextPageUri", path.as_str())] } else { Vec::new() };
            reply(200, &headers, format!("[{item}]"))
        })
        .await;
        let (mut pages, mut statuses) = (stage.api.notifications(ContentType::General, an_hour()), Vec::new());
        while let Some(page) = pages.next().await.unwrap() {
            statuses.extend(page.into_iter().map(|notification| notification.status));
        }
        assert_eq!(statuses, ["503", "503"]);
        let asked = stage.asked();
        assert!(asked.iter().all(|asked| asked.path.ends_with("/activity/feed/subscriptions/notifications")));
        assert!(asked.iter().all(|asked| asked.query.contains(PUBLISHER)));
        assert!(asked[0].query.starts_with("contentType=Audit.General&startTime=2026-01-01T00:00:00&endTime="));
    }

    #[tokio::test]
    async fn a_link_that_must_not_be_followed_spoils_the_window_but_not_the_page() {
        let elsewhere = Stage::with_tokens(|_, _| ok("[]")).await;
        let foreign = link(&elsewhere.root, "2");
        let stage = Stage::with_tokens(move |_, root| one(root, "a", &[("NextPageUri", &foreign)])).await;
        let mut pages = pages(&stage);
        assert_eq!(pages.next().await.unwrap().unwrap().len(), 1);
        for _ in 0..2 {
            assert_eq!(pages.next().await.unwrap_err().fate(), Fate::Relist);
        }
        assert!(elsewhere.asked().is_empty());
        assert_eq!((stage.asked().len(), stage.meter.errors("page_link")), (1, 1));
    }

    #[tokio::test]
    async fn a_circle_of_links_ends() {
        let stage = Stage::with_tokens(|asked, root| {
            let next = if page_of(asked) == "2" { "3" } else { "2" };
            reply(200, &[("NextPageUri", &link(root, next))], "[]")
        })
        .await;
        let mut pages = pages(&stage);
        let error = loop {
            if let Err(error) = pages.next().await {
                break error;
            }
        };
        assert_eq!(error.fate(), Fate::Relist);
        assert_eq!(stage.asked().len(), 3);
    }

    #[tokio::test]
    async fn a_listing_without_end_is_ended() {
        let stage = Stage::with_tokens(|_, _| ok("[]")).await;
        let mut pages = pages(&stage);
        let follow = |pages: &Pages| pages.follow(Some(link(&stage.root, "next")));
        pages.seen = (1..Pages::<Listed>::MAX).map(|page| ContentKey::of(&page.to_string())).collect();
        assert!(matches!(follow(&pages), Next::Page(_)));
        pages.seen.insert(ContentKey::of("one more"));
        assert!(matches!(follow(&pages), Next::Refused(_)));
    }

    #[tokio::test]
    async fn after_passing_trouble_the_same_page_is_asked_for_again() {
        let calls = AtomicU16::new(0);
        let stage =
            Stage::with_tokens(move |asked, root| match (page_of(asked), calls.fetch_add(1, Ordering::SeqCst)) {
                ("1", _) => one(root, "a", &[("NextPageUri", &link(root, "2"))]),
                (_, 1) => af(503, "AF50000"),
                (_, 2) => ok("[{}]"),
                (_, 3) => reply(401, &[], ""),
                _ => one(root, "b", &[]),
            })
            .await;
        let mut pages = pages(&stage);
        pages.next().await.unwrap();
        assert_eq!(pages.next().await.unwrap_err().code(), "AF50000");
        assert_eq!(pages.next().await.unwrap_err().code(), "unreadable");
        assert_eq!(pages.next().await.unwrap().unwrap()[0].content_id, "b");
        assert!(pages.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_expired_page_and_a_missing_subscription_have_their_fates() {
        for (code, fate) in [("AF20031", Fate::Relist), ("AF20022", Fate::Subscribe), ("AF20055", Fate::ClampWindow)] {
            let stage = Stage::with_tokens(move |_, _| af(400, code)).await;
            assert_eq!(pages(&stage).next().await.unwrap_err().fate(), fate);
        }
    }
}
