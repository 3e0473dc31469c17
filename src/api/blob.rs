//! A content's bytes while they arrive.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use super::{
    call,
    error::{ApiError, Operation},
};

/// The body of a content, in pieces, exactly as the service sent it (only the transfer's gzip is undone).
#[derive(Debug)]
pub struct Blob {
    response: Response,
    idle: Duration,
}

impl Blob {
    pub(super) fn new(response: Response, idle: Duration) -> Self {
        Self { response, idle }
    }

    /// The next piece, of any size; `None` when the service ended the body.
    ///
    /// # Errors
    /// [`ApiError::TimedOut`] when nothing came for the idle time, [`ApiError::BrokeOff`] when the connection ended
    /// before the body did. What came before stays good: a later fetch of the same content repeats it.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        call::piece(Operation::Blob, &mut self.response, self.idle).await
    }
}
