//! `o365feed subscriptions`: what the service collects for this application, shown, started and stopped.

mod list; // what there is, what is missing, whose webhook
mod start; // what is missing or disabled, or is to have another webhook
mod stop; // after a warning

use clap::Subcommand;
use serde::Serialize;
use url::Url;

use super::{
    Exit, Failure,
    args::usage,
    exit,
    output::{harmless, host_of},
};
use crate::{
    api::{ApiError, Subscription, Webhook},
    config::{Settings, Tenant},
    domain::Fate,
};

#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionsCommand {
    /// Show the subscriptions of each tenant, the missing ones too.
    ///
    /// Nothing is changed. Shown is what the service says of this application in the tenant: what the settings ask for, what is
    /// missing of it, what else runs, and for each where its notifications go. Other applications' subscriptions are not seen.
    #[command(after_long_help = exit::with_codes(list::EXAMPLE, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft]))]
    List(list::ListArgs),
    /// Start what is missing or disabled, with a webhook if one is asked for.
    ///
    /// Looks first, and starts only what does not run, because the service allows one start of a subscription in 15 minutes. The
    /// connector does the same by itself, unless `subscriptions: leave` is set. First contents may take 12 hours to appear.
    ///
    /// With --webhook the service is to send notifications to that address (docs/webhook.md). The address is tried first, as the
    /// service would: one that does not answer 200 is not registered. A webhook that was disabled is enabled again like this.
    #[command(after_long_help = exit::with_codes(start::EXAMPLE, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft]))]
    Start(start::StartArgs),
    /// Stop subscriptions; what becomes available until the next start is lost for good.
    ///
    /// The service keeps nothing for whoever is not subscribed: records of the time in between cannot be had from this API later,
    /// by nobody. Do not stop and start at once to "reset" a subscription: it has left one broken for ever. To pause, stop the
    /// connector instead; the service then keeps seven days. A connector that runs with `subscriptions: manage` starts it again.
    #[command(after_long_help = exit::with_codes(stop::EXAMPLE, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft]))]
    Stop(stop::StopArgs),
}

pub(super) async fn run(command: SubscriptionsCommand) -> Result<(), Failure> {
    match command {
        SubscriptionsCommand::List(args) => list::run(args).await,
        SubscriptionsCommand::Start(args) => start::run(args).await,
        SubscriptionsCommand::Stop(args) => stop::run(args).await,
    }
}

/// A tenant by both its names.
#[derive(Clone, Debug, Serialize)]
struct TenantName {
    tenant: String,
    tenant_id: String,
}

impl From<&Tenant> for TenantName {
    fn from(tenant: &Tenant) -> Self {
        Self { tenant: tenant.name.clone(), tenant_id: tenant.id.to_string() }
    }
}

/// Where a subscription's notifications go.
#[derive(Clone, Debug, Serialize)]
struct WebhookRow {
    /// `enabled`, `disabled` or `expired`.
    status: String,
    /// In full when it is ours, else without what follows the host, which may be somebody's secret.
    address: Option<String>,
    /// Whether it is the `webhook.public_url` of the settings; none when they have none.
    is_ours: Option<bool>,
    expires: Option<String>,
}

impl WebhookRow {
    /// `given`: an address from the command line, which is ours as well.
    fn of(webhook: &Webhook, settings: &Settings, given: Option<&Url>) -> Self {
        let ours = settings.webhook.public_url.as_ref();
        let is_known = [ours, given].into_iter().flatten().any(|ours| webhook.leads_to(ours));
        Self {
            status: webhook.status.clone().unwrap_or_else(|| "enabled".to_owned()).to_lowercase(),
            address: webhook.address.as_deref().map(|full| if is_known { full.to_owned() } else { without_path(full) }),
            is_ours: ours.map(|ours| webhook.leads_to(ours)),
            expires: webhook.expiration.map(|at| at.to_string()),
        }
    }

    /// For a table.
    fn told(webhook: Option<&Self>) -> String {
        let Some(Self { status, address, is_ours, expires }) = webhook else { return "none".to_owned() };
        let whose = match is_ours {
            Some(true) => "ours",
            Some(false) => "another's",
            None => "",
        };
        let until = expires.as_ref().map(|at| format!("until {at}"));
        let parts = [Some(whose), Some(status), address.as_deref(), until.as_deref()];
        parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

fn without_path(address: &str) -> String {
    match Url::parse(address) {
        Ok(url) if url.has_host() => url.origin().ascii_serialization(),
        _ => host_of(address),
    }
}

/// Asks on the terminal; without one the command ends, because it needs --yes.
fn confirmed(question: &str, undone: &str) -> Result<bool, Failure> {
    super::output::confirmed(question)?
        .ok_or_else(|| usage(format!("{undone}: there is no terminal to ask on, so --yes is needed")))
}

/// Why something went wrong, for programs.
#[derive(Clone, Debug, Serialize)]
struct Trouble {
    /// As in docs/runbook.md.
    code: String,
    text: String,
    advice: Option<String>,
    /// How long to wait before the same is tried again.
    retry_after_seconds: Option<u64>,
    #[serde(skip)]
    exit: Exit,
}

impl Trouble {
    fn of(error: &ApiError) -> Self {
        let exit = if error.fate() == Fate::Operator { Exit::Microsoft } else { Exit::Unexpected };
        let after = match error.fate() {
            Fate::Retry { after } | Fate::Throttled { after } => after,
            _ => None,
        };
        let advice = match (error, after) {
            (ApiError::StartedTooOften { .. }, Some(after)) => Some(too_often(after.as_secs())),
            _ => error.advice().map(str::to_owned),
        };
        let mut text = format!("could not {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            text.push_str(&format!(": {next}"));
            cause = next.source();
        }
        Self { code: error.code().to_owned(), text, advice, retry_after_seconds: after.map(|a| a.as_secs()), exit }
    }

    /// In a line or two, for a person.
    fn told(&self) -> String {
        let advice = self.advice.as_ref().map(|advice| format!("\n    {advice}")).unwrap_or_default();
        format!("{}{advice}", harmless(&self.text))
    }
}

fn too_often(seconds: u64) -> String {
    format!(
        "the service allows one start of a subscription in 15 minutes, whoever calls: wait {} min {} s, then start again; \
         until then it stays as it is, and what runs already is not touched",
        seconds / 60,
        seconds % 60
    )
}

/// The subscription of a content type, whatever its spelling.
fn of_type<'a>(found: &'a [Subscription], content_type: &str) -> Option<&'a Subscription> {
    found.iter().find(|known| known.content_type.eq_ignore_ascii_case(content_type))
}

/// The end of a command that did something to content types of tenants.
fn ended_for<'a>(done: impl Iterator<Item = (&'a TenantName, &'a str, &'a Option<Trouble>)>) -> Result<(), Failure> {
    let troubles = done.filter_map(|(tenant, content_type, trouble)| {
        Some((format!("{content_type} of tenant {}", tenant.tenant), trouble.clone()?))
    });
    ended(&troubles.collect::<Vec<_>>())
}

/// The end of a command that had troubles, each with what it was about; the first decides the exit code.
fn ended(troubles: &[(String, Trouble)]) -> Result<(), Failure> {
    let Some((_, first)) = troubles.first() else { return Ok(()) };
    let lines: Vec<String> = troubles.iter().map(|(what, trouble)| format!("{what}: {}", trouble.told())).collect();
    Err(Failure::new(first.exit, anyhow::Error::msg(lines.join("\n"))))
}
