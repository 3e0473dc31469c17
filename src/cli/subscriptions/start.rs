//! Starts what is missing or disabled, or is to have another webhook; each content type by itself.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use url::Url;

use super::{TenantName, Trouble, WebhookRow, confirmed, ended_for, of_type};
use crate::{
    api::{ApiError, NewWebhook, Subscription, TenantApi, Webhook},
    cli::{
        Exit, Failure,
        args::{SourceArgs, time, usage},
        output::{OutputArgs, harmless, host_of, table, tell},
        tool::{ToolArgs, api},
    },
    config::{Settings, Tenant, receiver},
    domain::ContentType,
};

pub(super) const EXAMPLE: &str = "\
Examples:
  o365feed subscriptions start                                  all that the settings ask for
  o365feed subscriptions start --tenant contoso --type DLP.All  one of them
  o365feed subscriptions start --webhook                        and notifications to webhook.public_url

When one is refused, the others are started all the same.";

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct StartArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    /// Have notifications sent to ADDRESS; without one, to webhook.public_url of the settings.
    ///
    /// The secret that the service shows with them is webhook.auth_id_file or webhook.auth_id_env; it is never an argument. Without
    /// this option a webhook that there is stays as it is.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, value_parser = address)]
    webhook: Option<Option<Url>>,
    /// When the service is to stop sending them, such as 2027-01-31; never otherwise.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "webhook", conflicts_with = "no_webhook")]
    expires: Option<Timestamp>,
    /// Take away the webhook of what runs; polling goes on.
    #[arg(long, conflicts_with = "webhook")]
    no_webhook: bool,
    /// Do not ask before another program's webhook is replaced or taken away.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

fn address(text: &str) -> Result<Url, String> {
    receiver(text).ok_or_else(|| "not an https address such as https://feed.example.com/webhook".to_owned())
}

/// What is to become of webhooks.
enum Wish {
    Leave,
    Remove,
    Set(NewWebhook),
}

impl Wish {
    fn address(&self) -> Option<&Url> {
        match self {
            Self::Set(webhook) => Some(&webhook.address),
            Self::Leave | Self::Remove => None,
        }
    }
}

/// What became of a content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    Started,
    WebhookSet,
    WebhookRemoved,
    /// It ran already, as asked for.
    AlreadyRunning,
    /// The list does not show it, and its start was met with AF20024.
    #[serde(rename = "already_running")]
    SaidToRun,
    Failed,
}

impl Done {
    fn told(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::WebhookSet => "webhook set",
            Self::WebhookRemoved => "webhook removed",
            Self::AlreadyRunning => "runs already",
            Self::SaidToRun => "runs already (AF20024: the service says that it runs)",
            Self::Failed => "FAILED",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    tenant: TenantName,
    content_type: &'static str,
    result: Done,
    webhook: Option<WebhookRow>,
    error: Option<Trouble>,
}

pub(super) async fn run(args: StartArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let sources = args.sources.of(&settings)?;
    let wish = wish(&args, &settings)?;
    let api = api(&settings)?;
    let mut known = Vec::new();
    for (tenant, kinds) in sources {
        let Some(feed) = api.tenant(tenant.id) else { continue };
        let found = feed.subscriptions().await;
        known.push((tenant, kinds, feed, found));
    }
    let others = known.iter().flat_map(|(tenant, kinds, _, found)| {
        let found = found.as_deref().unwrap_or_default();
        kinds.iter().filter_map(|kind| other_webhook(&settings, &wish, tenant, *kind, found))
    });
    let others: Vec<String> = others.collect();
    if !others.is_empty() {
        tell(&others.join("\n"));
        let undone = "nothing was started or changed";
        if !args.yes && !confirmed("Take them over?", undone)? {
            return Err(usage(undone.to_owned()));
        }
    }
    if let Wish::Set(webhook) = &wish {
        webhook.try_out().await.map_err(|why| {
            let why = anyhow::Error::from(why).context(
                "the webhook is not registered, and nothing was started, because the address does not answer as the service \
                 needs it to; is the receiver running (webhook.enabled), and do address and secret fit?",
            );
            Failure::new(Exit::Unexpected, why)
        })?;
    }
    let mut rows = Vec::new();
    for (tenant, kinds, feed, found) in known {
        for kind in kinds {
            let outcome = match &found {
                Ok(found) => start(&feed, kind, of_type(found, kind.as_str()), &wish).await,
                Err(error) => Err(error.clone()),
            };
            rows.push(row(&settings, &wish, tenant, kind, outcome));
        }
    }
    args.output.show(&rows, |rows| {
        table(
            &["tenant", "content type", "result", "webhook"],
            rows.iter().map(|row| {
                let (name, kind) = (row.tenant.tenant.clone(), row.content_type.to_owned());
                [name, kind, row.result.told().to_owned(), WebhookRow::told(row.webhook.as_ref())]
            }),
        )
    })?;
    ended_for(rows.iter().map(|row| (&row.tenant, row.content_type, &row.error)))
}

fn wish(args: &StartArgs, settings: &Settings) -> Result<Wish, Failure> {
    let asked = match &args.webhook {
        None if args.no_webhook => return Ok(Wish::Remove),
        None => return Ok(Wish::Leave),
        Some(asked) => asked.as_ref().or(settings.webhook.public_url.as_ref()),
    };
    let address =
        asked.ok_or_else(|| usage("--webhook needs an address, or webhook.public_url in the settings".to_owned()))?;
    let auth_id = settings.webhook.auth_id.as_ref().ok_or_else(|| {
        usage("--webhook needs webhook.auth_id_file or webhook.auth_id_env in the settings: the secret by which the service shows who it is".to_owned())
    })?;
    let auth_id = auth_id.read().map_err(|fault| usage(format!("could not read webhook.auth_id_file: {fault}")))?;
    if args.expires.is_some_and(|at| at <= Timestamp::now()) {
        return Err(usage("--expires lies in the past".to_owned()));
    }
    Ok(Wish::Set(NewWebhook { address: address.clone(), auth_id: Some(auth_id), expires: args.expires }))
}

/// The webhook of another program that would be lost, told in a line.
fn other_webhook(
    settings: &Settings,
    wish: &Wish,
    tenant: &Tenant,
    kind: ContentType,
    found: &[Subscription],
) -> Option<String> {
    if matches!(wish, Wish::Leave) {
        return None;
    }
    let webhook = of_type(found, kind.as_str())?.webhook.as_ref()?;
    let address = webhook.address.as_deref().filter(|address| !address.is_empty())?;
    let host = harmless(&host_of(address));
    let is_others = !is_ours(webhook, settings, wish);
    is_others.then(|| format!("{kind} of tenant {}: the webhook at {host} is another's", harmless(&tenant.name)))
}

/// Whether it is that of the settings, or the one that was asked for.
fn is_ours(webhook: &Webhook, settings: &Settings, wish: &Wish) -> bool {
    let ours = settings.webhook.public_url.as_ref();
    [ours, wish.address()].into_iter().flatten().any(|ours| webhook.leads_to(ours))
}

/// Does what is needed, and no more: each start counts against the 15 minutes.
async fn start(
    feed: &TenantApi,
    kind: ContentType,
    found: Option<&Subscription>,
    wish: &Wish,
) -> Result<(Done, Option<Subscription>), ApiError> {
    let webhook = found.and_then(|found| found.webhook.as_ref());
    let runs = found.is_some_and(Subscription::is_enabled);
    let is_as_wished = match wish {
        Wish::Leave => true,
        Wish::Remove => webhook.is_none(),
        Wish::Set(wished) => webhook.is_some_and(|webhook| wished.is(webhook)),
    };
    if runs && is_as_wished {
        return Ok((Done::AlreadyRunning, found.cloned()));
    }
    let (done, outcome) = match wish {
        Wish::Set(wished) => (Done::WebhookSet, feed.start_with(kind, wished).await),
        Wish::Remove => (Done::WebhookRemoved, feed.start(kind).await),
        // A start without a webhook would take away the one that there is.
        Wish::Leave => match webhook.and_then(|webhook| webhook.again(Timestamp::now())) {
            Some(again) => (Done::Started, feed.start_with(kind, &again).await),
            None => (Done::Started, feed.start(kind).await),
        },
    };
    match outcome {
        Ok(started) => Ok((if runs { done } else { Done::Started }, Some(started))),
        // AF20024: somebody was faster, or the list is behind. It runs, which is what was asked for.
        Err(ApiError::AlreadySo(_)) => Ok((Done::SaidToRun, found.cloned())),
        Err(error) => Err(error),
    }
}

fn row(
    settings: &Settings,
    wish: &Wish,
    tenant: &Tenant,
    kind: ContentType,
    outcome: Result<(Done, Option<Subscription>), ApiError>,
) -> Row {
    let (result, subscription, error) = match outcome {
        Ok((done, subscription)) => (done, subscription, None),
        Err(error) => (Done::Failed, None, Some(Trouble::of(&error))),
    };
    let webhook = subscription.and_then(|known| known.webhook);
    Row {
        tenant: tenant.into(),
        content_type: kind.as_str(),
        result,
        webhook: webhook.map(|webhook| WebhookRow::of(&webhook, settings, wish.address())),
        error,
    }
}
