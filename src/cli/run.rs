//! `o365feed run`: the connector itself.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Exit, Failure};
use crate::{
    config::Settings,
    http::{Health, serve},
    pipeline::{PipelineError, Topics, run as run_pipeline},
    telemetry::Metrics,
};

/// Runs until SIGTERM or Ctrl-C, then drains; a second signal ends at once.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    let (metrics, health, stop) = (Metrics::new(), Health::new(), CancellationToken::new());
    let serving = CancellationToken::new();
    let listen = settings.http.listen;
    let served = serve(listen, metrics.clone(), health.clone(), serving.clone())
        .await
        .map_err(|fault| Failure::new(Exit::Usage, fault))?;
    info!(address = %served.address, slot = settings.kafka.slot, "o365feed {} begins", env!("CARGO_PKG_VERSION"));
    on_signals(stop.clone())?;
    let ended = run_pipeline(settings, Topics::Ensure, metrics, health, stop).await;
    serving.cancel();
    ended.map_err(failure)?;
    info!("stopped, with everything that was begun finished");
    Ok(())
}

/// The exit code that each ending has.
pub fn failure(ended: PipelineError) -> Failure {
    let exit = match ended {
        PipelineError::Api(_) | PipelineError::Webhook(_) => Exit::Usage,
        PipelineError::Microsoft(_) => Exit::Microsoft,
        PipelineError::Topics(_) | PipelineError::Ledger(_) | PipelineError::Kafka(_) => Exit::Kafka,
        PipelineError::SlotTaken(_) => Exit::SlotTaken,
    };
    Failure::new(exit, ended)
}

fn on_signals(stop: CancellationToken) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            // Some wrappers signal the process and its group: that is one wish, told twice.
            if first.is_some_and(|first| first.elapsed() > Duration::from_secs(1)) {
                warn!("told twice: ending at once; the open transaction will be rolled back");
                std::process::exit(130);
            }
            first.get_or_insert_with(Instant::now);
            stop.cancel();
        }
    });
    Ok(())
}
