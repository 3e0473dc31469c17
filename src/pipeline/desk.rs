//! What the listers ask of the writer, who alone knows what is published and what waits.

use std::future::Future;

use crate::domain::{ContentKey, Origin, Source};

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
}

/// The answer to [`Desk::wanted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// One for each content asked about, in that order.
    pub append: Vec<bool>,
    /// Contents of the source that wait to be published now.
    pub pending: usize,
}
