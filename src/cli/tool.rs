//! What the operator's tools have in common when they talk to the API.

use clap::Args;

use super::{Exit, Failure, SettingsFrom, output::harmless, settings};
use crate::{
    api::{Api, ApiError},
    config::Settings,
    domain::Fate,
    telemetry::Metrics,
};

/// The settings of a tool that calls the API beside a connector that may be running.
#[derive(Args, Clone, Debug)]
pub(super) struct ToolArgs {
    #[command(flatten)]
    pub(super) from: SettingsFrom,
    /// Requests a minute that this command may make to a tenant; a quarter of quota.requests_per_minute otherwise.
    ///
    /// The tenant's budget is one for all programs, so whatever a command takes, a running connector may lack.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(60..=1_000_000))]
    requests_per_minute: Option<u32>,
}

impl ToolArgs {
    /// # Errors
    /// Wrong settings.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = settings(&self.from)?;
        let own = self.requests_per_minute.unwrap_or(settings.quota.requests_per_minute / 4);
        settings.quota.requests_per_minute = own.max(LEAST);
        Ok(settings)
    }
}

/// What the budget must be at least.
const LEAST: u32 = 60;

/// The API with metrics that nobody reads.
///
/// # Errors
/// Settings that no connection can be made with.
pub(super) fn api(settings: &Settings) -> Result<Api, Failure> {
    Api::new(settings, &Metrics::new()).map_err(|fault| Failure::new(Exit::Usage, fault))
}

/// An error of the API with its advice, and the exit code that a program can act on.
pub(super) fn failed(tenant: &str, error: ApiError) -> Failure {
    let exit = match error.fate() {
        Fate::Operator => Exit::Microsoft,
        _ => Exit::Unexpected,
    };
    let advice = error.advice().map(|advice| format!("\n  {advice}")).unwrap_or_default();
    let error = harmless(&format!("{:#}", anyhow::Error::from(error)));
    Failure::new(exit, anyhow::anyhow!("tenant {tenant}: could not {error}{advice}"))
}
