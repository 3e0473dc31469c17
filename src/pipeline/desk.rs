//! What the listers ask of the writer, who alone knows what is published and what waits.

use std::future::Future;

use crossbeam_channel::Sender;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::writer::Request;
use crate::{
    domain::{ContentKey, Origin, Source},
    kafka::UnlistedSpan,
};

/// Where the writer keeps what it knows about the sources it owns.
pub trait Desk: Send + Sync + 'static {
    /// Which of `contents` are to be appended to the listings; with none, only how many wait.
    ///
    /// Those answered `true` count as announced, and are not wanted again, until they come back through the topic or
    /// [`Desk::unclaim`] takes them back. `None`: the source's partition is not ours any more, so listing ends.
    fn wanted(
        &self,
        source: Source,
        contents: Vec<ContentKey>,
        origin: Origin,
    ) -> impl Future<Output = Option<Wanted>> + Send;

    /// The append of these contents was not acknowledged: they are to be wanted again. Never waits; what is not
    /// announced, or of a source that was lost, is passed over.
    fn unclaim(&self, source: Source, contents: Vec<ContentKey>);

    /// How far the source is listed now, and what of it never can be. Never waits.
    fn progress(&self, source: Source, progress: Progress);
}

/// What a later owner must know, and what the gaps topic is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Everything before it is listed, or in `lost` of this progress or of one before.
    pub listed_to: Timestamp,
    pub lost: Option<UnlistedSpan>,
}

/// The answer to [`Desk::wanted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// One for each content asked about, in that order.
    pub append: Vec<bool>,
    /// Contents of the source that wait to be published now.
    pub pending: usize,
}

/// The desk of the running writer.
#[derive(Clone, Debug)]
pub struct WriterDesk(pub Sender<Request>);

impl Desk for WriterDesk {
    async fn wanted(&self, source: Source, contents: Vec<ContentKey>, origin: Origin) -> Option<Wanted> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Request::Wanted { source, contents, origin, reply }).ok()?;
        answer.await.ok()?
    }

    fn unclaim(&self, source: Source, contents: Vec<ContentKey>) {
        // A writer that has ended has forgotten its claims with everything else.
        let _ = self.0.send(Request::Unclaim { source, contents });
    }

    fn progress(&self, source: Source, progress: Progress) {
        let _ = self.0.send(Request::Progress { source, progress });
    }
}
