//! Lists a span of time for some sources: window by window, page by page, each content once.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use jiff::SignedDuration;

use super::patience::Patience;
use crate::{
    api::{Api, ApiError, Pages, TenantApi},
    cli::{
        Failure,
        args::{SourceArgs, TimeSpan},
        output::{harmless, tell},
        tool::failed,
    },
    config::Settings,
    domain::{ContentType, Fate, Listed, Source, Window},
};

/// A source as a person names it, and the way to it.
#[derive(Clone)]
pub(in crate::cli) struct Place {
    /// The tenant's name in the settings.
    pub(in crate::cli) tenant: Arc<str>,
    pub(in crate::cli) kind: ContentType,
    pub(in crate::cli) api: Arc<TenantApi>,
}

impl Place {
    pub(in crate::cli) fn source(&self) -> Source {
        Source { tenant: self.api.id(), content_type: self.kind }
    }

    /// The way to a source; `None` when the settings do not have its tenant.
    pub(in crate::cli) fn of(source: Source, settings: &Settings, api: &Api) -> Option<Self> {
        let tenant = settings.tenants.iter().find(|tenant| tenant.id == source.tenant)?;
        Some(Self { tenant: tenant.name.as_str().into(), kind: source.content_type, api: api.tenant(tenant.id)? })
    }

    /// The sources that the arguments ask for, in the order of the settings.
    ///
    /// # Errors
    /// When the settings have no such tenant.
    pub(in crate::cli) fn all(settings: &Settings, api: &Api, sources: &SourceArgs) -> Result<Vec<Self>, Failure> {
        let mut places = Vec::new();
        for (tenant, kinds) in sources.of(settings)? {
            let Some(api) = api.tenant(tenant.id) else { continue };
            let name: Arc<str> = tenant.name.as_str().into();
            let of_type = |kind| Self { tenant: Arc::clone(&name), kind, api: Arc::clone(&api) };
            places.extend(kinds.into_iter().map(of_type));
        }
        Ok(places)
    }
}

/// One call asks for so much: a busy tenant's hour has some pages, and a longer window may be answered in part.
const WIDTH: SignedDuration = SignedDuration::from_hours(1);

/// What is listed window by window: contents, or notifications.
pub(in crate::cli) trait Subject: Sized {
    fn pages(place: &Place, window: Window) -> Pages<Self>;
}

impl Subject for Listed {
    fn pages(place: &Place, window: Window) -> Pages<Self> {
        place.api.pages(place.kind, window)
    }
}

/// A listing that was given up: nothing more of its source comes.
pub(in crate::cli) struct Unlisted {
    place: Place,
    pub(in crate::cli) error: ApiError,
}

impl Unlisted {
    pub(in crate::cli) fn source(&self) -> Source {
        self.place.source()
    }

    /// With the advice, and the exit code.
    pub(in crate::cli) fn failure(self) -> Failure {
        failed(&format!("{}, {}", self.place.tenant, self.place.kind), self.error)
    }
}

/// The listing of all windows of all places, oldest first.
pub(in crate::cli) struct Survey<T: Subject = Listed> {
    places: VecDeque<Place>,
    span: TimeSpan,
    /// Those of the first place that are not read so far.
    windows: VecDeque<Window>,
    pages: Option<Pages<T>>,
    patience: Patience,
    /// How often the present window was begun again.
    relisted: u32,
}

/// A link that leads astray does so each time, after a page that was good.
const MOST_RELISTED: u32 = 3;

impl<T: Subject> Survey<T> {
    pub(in crate::cli) fn new(places: Vec<Place>, span: TimeSpan) -> Self {
        let windows = Window::tiles(span.from, span.to, WIDTH).collect();
        Self { places: places.into(), span, windows, pages: None, patience: Patience::default(), relisted: 0 }
    }

    /// Places that are not listed to their end.
    pub(in crate::cli) fn sources(&self) -> usize {
        self.places.len()
    }

    /// The names of their tenants.
    pub(in crate::cli) fn tenants(&self) -> Vec<Arc<str>> {
        self.places.iter().map(|place| Arc::clone(&place.tenant)).collect()
    }

    /// The next page, possibly with what an earlier one had; `None` after the last. After an error it goes on with the next place.
    pub(in crate::cli) async fn next(&mut self) -> Option<Result<(Place, Vec<T>), Unlisted>> {
        loop {
            let place = self.places.front()?.clone();
            let Some(window) = self.windows.front().copied() else {
                self.next_place();
                continue;
            };
            let pages = self.pages.get_or_insert_with(|| T::pages(&place, window));
            match pages.next().await {
                Ok(Some(page)) => {
                    self.patience = Patience::default();
                    return Some(Ok((place, page)));
                }
                Ok(None) => {
                    (self.pages, self.relisted) = (None, 0);
                    self.windows.pop_front();
                }
                Err(error) if error.fate() == Fate::Relist && self.relisted < MOST_RELISTED => {
                    (self.pages, self.relisted) = (None, self.relisted + 1);
                }
                Err(error) => {
                    let Some(wait) = self.patience.wait(error.fate(), rand::random()) else {
                        self.next_place();
                        return Some(Err(Unlisted { place, error }));
                    };
                    rest(wait, &error.to_string()).await;
                }
            }
        }
    }

    fn next_place(&mut self) {
        self.places.pop_front();
        (self.pages, self.patience, self.relisted) = (None, Patience::default(), 0);
        self.windows = Window::tiles(self.span.from, self.span.to, WIDTH).collect();
    }
}

impl Survey<Listed> {
    /// Every content once, as they are listed; nothing is listed ahead of whoever takes them.
    pub(in crate::cli) fn contents(self) -> impl Stream<Item = Result<(Place, Listed), Unlisted>> {
        let mut seen = HashSet::new();
        let pages = stream::unfold(self, |mut survey| async move { Some((survey.next().await?, survey)) });
        pages.flat_map(move |page| {
            let mut fresh = Vec::new();
            match page {
                Ok((place, page)) => {
                    let new = page.into_iter().filter(|listed| seen.insert((listed.source, listed.key())));
                    fresh.extend(new.map(|listed| Ok((place.clone(), listed))));
                }
                Err(unlisted) => fresh.push(Err(unlisted)),
            }
            stream::iter(fresh)
        })
    }
}

/// Waits, and says why when it takes long enough for somebody to wonder.
pub(in crate::cli) async fn rest(wait: Duration, why: &str) {
    if Duration::from_secs(5) <= wait {
        tell(&format!("waiting {} s: could not {}", wait.as_secs(), harmless(why)));
    }
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::stage::{Stage, af, an_hour, item, reply};

    fn survey(stage: &Stage, kinds: &[ContentType]) -> Survey {
        let place = |kind: &ContentType| Place { tenant: "contoso".into(), kind: *kind, api: Arc::clone(&stage.api) };
        let window = an_hour();
        Survey::new(kinds.iter().map(place).collect(), TimeSpan { from: window.start(), to: window.end() + WIDTH })
    }

    async fn all(survey: Survey) -> (Vec<String>, Vec<String>) {
        let (mut ids, mut faults) = (Vec::new(), Vec::new());
        for found in survey.contents().collect::<Vec<_>>().await {
            match found {
                Ok((_, listed)) => ids.push(listed.content_id),
                Err(unlisted) => faults.push(unlisted.failure().to_string()),
            }
        }
        (ids, faults)
    }

    #[tokio::test]
    async fn a_content_of_two_windows_and_two_pages_comes_once() {
        let stage = Stage::with_tokens(|asked, root| {
            let next = format!("{root}/api/v1.0/t/activity/feed/subscriptions/content?nextpage=2{}", asked.query.len());
            let headers = if asked.query.contains("nextpage") { vec![] } else { vec![("NextPageUri", next.as_str())] };
            reply(200, &headers, format!("[{},{}]", item(root, "a"), item(root, "b")))
        })
        .await;
        let (ids, faults) = all(survey(&stage, &[ContentType::General])).await;
        assert_eq!((ids, faults), (vec!["a".to_owned(), "b".to_owned()], vec![]));
        assert_eq!(stage.asked().len(), 4);
    }

    #[tokio::test]
    async fn a_link_that_leads_astray_each_time_ends_the_listing_of_its_source_only() {
        let stage = Stage::with_tokens(|asked, root| {
            if asked.query.contains("contentType=DLP.All") {
                return af(400, "AF20022");
            }
            let astray = asked.query.contains("endTime=2026-01-01T02:00:00");
            let headers = if astray { vec![("NextPageUri", "https://evil.example/")] } else { vec![] };
            reply(200, &headers, format!("[{}]", item(root, if astray { "b" } else { "a" })))
        })
        .await;
        let (ids, faults) = all(survey(&stage, &[ContentType::Dlp, ContentType::General])).await;
        assert_eq!(ids, ["a", "b"]);
        let [subscription, link] = &faults[..] else { panic!("{faults:?}") };
        assert!(
            subscription.contains("contoso, DLP.All: could not list contents: http 400, AF20022"),
            "{subscription}"
        );
        assert!(link.contains("follow the link"), "{link}");
        assert_eq!(stage.asked().len(), 1 + 1 + 1 + MOST_RELISTED as usize);
    }
}
