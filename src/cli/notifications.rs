//! `o365feed notifications`: how the service fared with the webhooks of the subscriptions.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Failure,
    args::{SourceArgs, SpanArgs},
    config::counted,
    content::Troubles,
    feed::{Place, Subject, Survey, in_reach},
    output::{OutputArgs, progress, table},
    tool::{self, ToolArgs},
};
use crate::{
    api::{Notification, Pages},
    domain::Window,
};

/// What `o365feed notifications` may be told.
#[derive(Args, Clone, Debug)]
pub(super) struct NotificationsArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What follows the arguments in `--help`.
pub(super) const MORE: &str = "\
Examples:
  o365feed notifications --since 24h
  o365feed notifications --since 7d --type Audit.Exchange --output json | jq -r 'map(select(.success | not))[].status'

Without --since or --from it is the last 24 hours. What was offered is listed by `o365feed content list`.";

const A_DAY: SignedDuration = SignedDuration::from_hours(24);

impl Subject for Notification {
    fn pages(place: &Place, window: Window) -> Pages<Self> {
        place.api.notifications(place.kind, window)
    }
}

/// One attempt.
#[derive(Debug, Serialize)]
struct Row {
    tenant: String,
    tenant_id: String,
    content_type: &'static str,
    /// UTC.
    sent: String,
    success: bool,
    status: String,
    content_id: String,
}

/// Lists the attempts, those that failed first, the newest before the older.
///
/// # Errors
/// When a source could not be listed to its end; the others are told all the same.
pub(super) async fn run(args: NotificationsArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let api = tool::api(&settings)?;
    let span = in_reach(&args.span, Timestamp::now(), A_DAY)?;
    let places = Place::all(&settings, &api, &args.sources)?;
    let sources = places.len();
    let mut survey = Survey::new(places, span);
    let bar = progress(0, "listing");
    let (mut found, mut troubles) = (Vec::new(), Troubles::default());
    while let Some(page) = survey.next().await {
        match page {
            Ok((place, page)) => {
                bar.inc(page.len() as u64);
                found.extend(page.into_iter().map(|notification| (place.clone(), notification)));
            }
            Err(source) => bar.suspend(|| troubles.unlisted(source)),
        }
    }
    bar.finish_and_clear();
    // Windows are widened to whole seconds, so that the last attempt of one may be the first of the next.
    found.sort_by(|(_, a), (_, b)| order(a, b));
    found.dedup_by(|(_, a), (_, b)| a == b);
    let rows: Vec<Row> = found.into_iter().map(|(place, notification)| Row::of(&place, notification)).collect();
    args.output.show(&rows, |rows| told(rows))?;
    troubles.ending(sources)
}

fn order(a: &Notification, b: &Notification) -> std::cmp::Ordering {
    let key = |n: &Notification| (n.is_success(), std::cmp::Reverse(n.sent), n.content.source);
    key(a).cmp(&key(b)).then_with(|| a.content.content_id.cmp(&b.content.content_id))
}

impl Row {
    fn of(place: &Place, notification: Notification) -> Self {
        Self {
            tenant: place.tenant.to_string(),
            tenant_id: place.api.id().to_string(),
            content_type: place.kind.as_str(),
            sent: format!("{:.3}", notification.sent),
            success: notification.is_success(),
            status: notification.status,
            content_id: notification.content.content_id,
        }
    }
}

fn told(rows: &[Row]) -> String {
    let columns =
        |row: &Row| [&row.sent, &row.status, &row.tenant, row.content_type, &row.content_id].map(str::to_owned);
    let failures = rows.iter().filter(|row| !row.success).count();
    let mut text = if rows.is_empty() {
        String::new()
    } else {
        table(&["sent", "status", "tenant", "content type", "content id"], rows.iter().map(columns))
    };
    text += &format!(
        "{} to notify a webhook, {failures} failed.\nThis lists attempts, several for a content when some failed and none without a webhook; \
         the contents themselves are listed by `o365feed content list`, whether anybody was notified or not.\n",
        counted(rows.len(), "attempt")
    );
    if 0 < failures {
        text += "Where they fail for long the service disables the webhook: check its address, its certificate, and that it answers 200 within seconds.\n";
    }
    text
}
