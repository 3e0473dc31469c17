//! What the API lists in a span, and what is inside of it.

use std::{collections::HashMap, convert::Infallible, future::ready, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    api::Api,
    cli::{
        Failure,
        args::TimeSpan,
        feed::{Lost, Part, Patience, Place, Survey, fetch},
        output::progress,
    },
    config::Settings,
    domain::{
        Listed, Source,
        reconcile::{Inside, Known, Looked, Opened},
    },
    pipeline::largest_record,
};

/// Contents, each once.
pub(super) type Offer = Vec<Arc<Listed>>;

/// Sources listed at once: their pages come one after the other anyway.
const LISTINGS_AT_ONCE: usize = 4;

/// Asks the API, within the budget.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    api: &'a Api,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings, api: &'a Api) -> Self {
        Self { settings, api }
    }

    /// Everything that became available in the span.
    ///
    /// # Errors
    /// When a source cannot be listed to the end: then nothing could be called complete.
    pub(super) async fn list(&self, sources: &[Source], span: TimeSpan) -> Result<Offer, Failure> {
        let bar = progress(sources.len() as u64, "listing");
        let places = sources.iter().filter_map(|source| Place::of(*source, self.settings, self.api));
        let all = stream::iter(places).map(async |place| {
            let listed = list_source(place, span).await;
            bar.inc(1);
            listed
        });
        let all: Vec<Offer> = all.buffer_unordered(LISTINGS_AT_ONCE).try_collect().await?;
        bar.finish_and_clear();
        Ok(all.into_iter().flatten().collect())
    }

    /// Looks into contents, some at once. What cannot be read says so.
    pub(super) async fn open(&self, contents: Offer, known: &HashMap<Source, Known>) -> Vec<Looked> {
        let bar = progress(contents.len() as u64, "fetching");
        let nothing = Known::default();
        let looked = stream::iter(contents).map(async |content| {
            let known = known.get(&content.source).unwrap_or(&nothing);
            let inside = self.open_one(&content, known).await;
            bar.inc(1);
            Looked { content, inside }
        });
        let looked = looked.buffer_unordered(self.settings.fetch.concurrency).collect().await;
        bar.finish_and_clear();
        looked
    }

    async fn open_one(&self, content: &Listed, known: &Known) -> Inside {
        let Some(api) = self.api.tenant(content.source.tenant) else {
            return Inside::Unreadable("its tenant is not in the settings".to_owned());
        };
        let (mut opened, key) = (Opened::default(), content.key());
        let take = |part: Part<'_>| -> Result<(), Infallible> {
            match part {
                Part::Begins => opened = Opened::default(),
                Part::Records(batch) => opened.take(known, &key, batch),
            }
            Ok(())
        };
        let fetched = fetch(&api, content, largest_record(&self.settings.kafka), Patience::of_a_look(), take).await;
        match fetched {
            Ok(()) => opened.whole(),
            Err(Lost::Content(unfetched)) => Inside::Unreadable(unfetched.code_and_why()),
            Err(Lost::Taker(never)) => match never {},
        }
    }
}

async fn list_source(place: Place, span: TimeSpan) -> Result<Offer, Failure> {
    // Windows are widened to whole seconds.
    let is_inside = |content: &Listed| span.from <= content.created && content.created < span.to;
    let contents = Survey::new(vec![place], span).contents();
    let inside = contents.map_ok(|(_, content)| Arc::new(content)).try_filter(|content| ready(is_inside(content)));
    inside.try_collect().await.map_err(|unlisted| unlisted.failure())
}
