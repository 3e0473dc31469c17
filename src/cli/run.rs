//! `o365feed run`: the connector itself.

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Exit, Failure, signals::interrupted};
use crate::{
    config::Settings,
    http::{Health, serve},
    pipeline::{PipelineError, Topics, run as run_pipeline},
    telemetry::{Metrics, init_logs_and_traces},
};

/// Runs until SIGTERM or Ctrl-C, then drains; a second signal ends at once.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    let traces = init_logs_and_traces(&settings).map_err(|fault| Failure::new(Exit::Usage, fault))?;
    let ended = feed(settings).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    ended
}

async fn feed(settings: Settings) -> Result<(), Failure> {
    let (metrics, health) = (Metrics::new(), Health::new());
    let serving = CancellationToken::new();
    let listen = settings.http.listen;
    let served = serve(listen, metrics.clone(), health.clone(), serving.clone())
        .await
        .map_err(|fault| Failure::new(Exit::Usage, fault))?;
    info!(address = %served.address, slot = settings.kafka.slot, "o365feed {} begins", env!("CARGO_PKG_VERSION"));
    let ended = run_pipeline(settings, Topics::Ensure, metrics, health, interrupted()?).await;
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
