//! What there is, what is missing of what the settings ask for, and whose webhook it is.

use clap::Args;
use serde::Serialize;

use super::{TenantName, Trouble, WebhookRow, ended, of_type};
use crate::{
    api::Subscription,
    cli::{
        Failure,
        args::SourceArgs,
        output::{OutputArgs, table},
        tool::{ToolArgs, api},
    },
    config::{Settings, Tenant},
    domain::ContentType,
};

pub(super) const EXAMPLE: &str = "\
Example:
  o365feed subscriptions list
  TENANT   CONTENT TYPE      STATUS   SETTINGS  WEBHOOK
  contoso  Audit.Exchange    enabled  wanted    ours enabled https://feed.example.com/webhook
  contoso  Audit.SharePoint  missing  wanted    none

STATUS missing: not started; `o365feed subscriptions start` starts it. SETTINGS not asked for: it runs, and no record of it is
published. WEBHOOK another's: some other program gets the notifications, at an address of which only the host is
shown; reading by polling works all the same.";

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A content type of a tenant.
#[derive(Clone, Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    tenant: TenantName,
    content_type: String,
    /// `enabled`, `disabled`, `missing`, or `unknown` when the tenant's could not be listed.
    status: String,
    in_settings: bool,
    webhook: Option<WebhookRow>,
    error: Option<Trouble>,
}

pub(super) async fn run(args: ListArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let sources = args.sources.of(&settings)?;
    let api = api(&settings)?;
    let (mut rows, mut troubles) = (Vec::new(), Vec::new());
    for (tenant, kinds) in sources {
        let Some(feed) = api.tenant(tenant.id) else { continue };
        match feed.subscriptions().await {
            Ok(found) => rows.extend(rows_of(&settings, tenant, &found, args.sources.types())),
            Err(error) => {
                let trouble = Trouble::of(&error);
                rows.extend(kinds.into_iter().map(|kind| Row {
                    status: "unknown".to_owned(),
                    error: Some(trouble.clone()),
                    ..row(&settings, tenant, kind.as_str(), None)
                }));
                troubles.push((format!("tenant {}", tenant.name), trouble));
            }
        }
    }
    args.output.show(&rows, |rows| {
        table(
            &["tenant", "content type", "status", "settings", "webhook"],
            rows.iter().map(|row| {
                let settings = if row.in_settings { "wanted" } else { "not asked for" };
                let webhook = WebhookRow::told(row.webhook.as_ref());
                [row.tenant.tenant.clone(), row.content_type.clone(), row.status.clone(), settings.to_owned(), webhook]
            }),
        )
    })?;
    ended(&troubles)
}

/// The five types in their order, as far as they are there or wanted, then what else the service names.
fn rows_of(settings: &Settings, tenant: &Tenant, found: &[Subscription], asked: Option<&[ContentType]>) -> Vec<Row> {
    let is_shown = |kind: &ContentType| match asked {
        Some(asked) => asked.contains(kind),
        None => tenant.content_types.contains(kind) || of_type(found, kind.as_str()).is_some(),
    };
    let known = ContentType::ALL.into_iter().filter(is_shown);
    let known = known.map(|kind| row(settings, tenant, kind.as_str(), of_type(found, kind.as_str())));
    let strange = found.iter().filter(|one| one.kind().is_none() && asked.is_none());
    known.chain(strange.map(|one| row(settings, tenant, &one.content_type, Some(one)))).collect()
}

fn row(settings: &Settings, tenant: &Tenant, content_type: &str, found: Option<&Subscription>) -> Row {
    let status = match found {
        None => "missing",
        Some(found) if found.is_enabled() => "enabled",
        Some(_) => "disabled",
    };
    Row {
        tenant: tenant.into(),
        content_type: content_type.to_owned(),
        status: status.to_owned(),
        in_settings: content_type.parse().is_ok_and(|kind| tenant.content_types.contains(&kind)),
        webhook: found.and_then(|found| found.webhook.as_ref()).map(|webhook| WebhookRow::of(webhook, settings, None)),
        error: None,
    }
}
