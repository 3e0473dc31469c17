//! Ctrl-C and SIGTERM.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Failure;

/// Cancelled by the first Ctrl-C or SIGTERM; a second one, later than a second, ends the process at once with exit code 130.
///
/// # Errors
/// When the process may not handle signals.
pub(super) fn interrupted() -> Result<CancellationToken, Failure> {
    let (told, mut terminate) =
        (CancellationToken::new(), signal(SignalKind::terminate()).map_err(anyhow::Error::from)?);
    let first_cancels = told.clone();
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            // Some wrappers signal the process and its group: that is one wish, told twice.
            if first.is_some_and(|first| first.elapsed() > Duration::from_secs(1)) {
                tracing::warn!("told twice: ending at once; what was not finished is rolled back");
                std::process::exit(130);
            }
            first.get_or_insert_with(Instant::now);
            first_cancels.cancel();
        }
    });
    Ok(told)
}
