//! Stops subscriptions, after a warning that cannot be overlooked.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::{TenantName, Trouble, confirmed, ended_for};
use crate::{
    api::ApiError,
    cli::{
        Failure,
        args::{SourceArgs, usage},
        output::{OutputArgs, harmless, table},
        tool::{ToolArgs, api},
    },
    config::{Subscriptions, Tenant},
    domain::ContentType,
};

pub(super) const EXAMPLE: &str = "\
Example:
  o365feed subscriptions stop --tenant contoso --type Audit.General

Without a terminal to ask on, --yes is needed.";

const UNDONE: &str = "nothing was stopped";

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct StopArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    /// All content types of the settings, of all tenants: needed when neither --tenant nor --type is given.
    #[arg(long, conflicts_with_all = ["tenants", "types"])]
    all: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    Stopped,
    NotRunning,
    Failed,
}

impl Done {
    fn told(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::NotRunning => "did not run",
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
    error: Option<Trouble>,
}

pub(super) async fn run(args: StopArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    if !args.all && !args.sources.name_tenants() && args.sources.types().is_none() {
        return Err(usage(format!("{UNDONE}: say which, with --tenant or --type, or --all")));
    }
    let sources = args.sources.of(&settings)?;
    warn(&sources, settings.subscriptions == Subscriptions::Manage);
    if !args.yes && !confirmed("Stop them?", UNDONE)? {
        return Err(usage(UNDONE.to_owned()));
    }
    let api = api(&settings)?;
    let mut rows = Vec::new();
    for (tenant, kinds) in sources {
        let Some(feed) = api.tenant(tenant.id) else { continue };
        for kind in kinds {
            let (result, error) = match feed.stop(kind).await {
                Ok(()) => (Done::Stopped, None),
                Err(ApiError::AlreadySo(_)) => (Done::NotRunning, None),
                Err(error) => (Done::Failed, Some(Trouble::of(&error))),
            };
            rows.push(Row { tenant: tenant.into(), content_type: kind.as_str(), result, error });
        }
    }
    args.output.show(&rows, |rows| {
        table(
            &["tenant", "content type", "result"],
            rows.iter()
                .map(|row| [row.tenant.tenant.clone(), row.content_type.to_owned(), row.result.told().to_owned()]),
        )
    })?;
    ended_for(rows.iter().map(|row| (&row.tenant, row.content_type, &row.error)))
}

fn warn(sources: &[(&Tenant, Vec<ContentType>)], is_managed: bool) {
    let lines = sources.iter().flat_map(|(tenant, kinds)| {
        kinds.iter().map(|kind| format!("  {kind} of tenant {}\n", harmless(&tenant.name)))
    });
    let managed =
        "A connector that runs with `subscriptions: manage`, as these settings have it, will start them again.\n";
    let managed = if is_managed { managed } else { "" };
    // Whoever cannot read it is asked all the same, and without a terminal had to say --yes.
    let _ = write!(
        io::stderr(),
        "These subscriptions are to be stopped:\n{}What becomes available until they are started again is lost for good: \
         the service keeps nothing for it.\n{managed}",
        lines.collect::<String>()
    );
}
