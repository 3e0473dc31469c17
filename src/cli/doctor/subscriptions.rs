//! Probes 8 to 14: what the list of subscriptions and, with --fix, their starts say.

use jiff::Timestamp;
use url::Url;

use super::report::{Probe, Verdict, told};
use crate::{
    api::{ApiError, Subscription, TenantApi, Webhook},
    cli::{config::counted, output::host_of},
    domain::ContentType,
};

/// What the service said.
pub(super) struct Seen {
    pub(super) listed: Result<Vec<Subscription>, ApiError>,
    /// What --fix tried to start, each once: the service allows one start in 15 minutes.
    pub(super) starts: Vec<(ContentType, Result<(), ApiError>)>,
}

/// One request, and with `fix` one more for each type that does not run.
pub(super) async fn look(api: &TenantApi, kinds: &[ContentType], fix: bool) -> Seen {
    let listed = api.subscriptions().await;
    let mut starts = Vec::new();
    if let Ok(subscriptions) = &listed
        && fix
    {
        for kind in kinds.iter().filter(|kind| !runs(subscriptions, **kind)) {
            let webhook = of(subscriptions, *kind).and_then(|subscription| subscription.webhook.as_ref());
            starts.push((*kind, api.start_again(*kind, webhook, Timestamp::now()).await.map(drop)));
        }
    }
    Seen { listed, starts }
}

fn of(subscriptions: &[Subscription], kind: ContentType) -> Option<&Subscription> {
    subscriptions.iter().find(|subscription| subscription.kind() == Some(kind))
}

fn runs(subscriptions: &[Subscription], kind: ContentType) -> bool {
    of(subscriptions, kind).is_some_and(Subscription::is_enabled)
}

/// The probes, and the types that ran when they were listed.
pub(super) struct Judged {
    pub(super) probes: Vec<Probe>,
    pub(super) running: Vec<ContentType>,
    /// Started by --fix just now.
    pub(super) started: Vec<ContentType>,
    /// The service asked to wait: nothing more is asked of it.
    pub(super) throttled: Option<ApiError>,
}

/// `manages`: whether `o365feed run` starts what does not run. `ours`: where we receive notifications, if we do.
pub(super) fn judge(seen: &Seen, kinds: &[ContentType], manages: bool, ours: Option<&Url>) -> Judged {
    let mut judged = Judged { probes: Vec::new(), running: Vec::new(), started: Vec::new(), throttled: None };
    let subscriptions = match &seen.listed {
        Ok(subscriptions) => subscriptions,
        Err(error @ ApiError::Throttled { .. }) => {
            judged.throttled = Some(error.clone());
            return judged;
        }
        Err(error) => {
            judged.probes = unlisted(error);
            return judged;
        }
    };
    judged.running = kinds.iter().copied().filter(|kind| runs(subscriptions, *kind)).collect();
    judged.started = seen.starts.iter().filter(|(_, start)| start.is_ok()).map(|(kind, _)| *kind).collect();
    judged.probes = vec![
        audit_log(seen, subscriptions.len()),
        licence(seen),
        states(seen, subscriptions, kinds, manages),
        already_on(seen),
        too_often(seen),
        foreign_webhook(subscriptions, ours),
        webhook_state(subscriptions, ours),
    ];
    judged
}

fn unlisted(error: &ApiError) -> Vec<Probe> {
    let advice = error.advice().unwrap_or("run this again in some minutes; if it stays, look at the service health");
    let found =
        |number| Probe::of(number).find(Verdict::Failure, format!("{} [{}]", told(error), error.code()), advice);
    match error.code() {
        NO_LICENCE => vec![Probe::of(8).see("the service answers"), found(9)],
        _ => vec![found(8)],
    }
}

/// The service's word for a tenant without a licence (docs/api/contract.md 5).
const NO_LICENCE: &str = "AF20012";

fn audit_log(seen: &Seen, count: usize) -> Probe {
    let off = seen.starts.iter().find_map(|(kind, start)| match start {
        Err(error @ ApiError::AuditOff(_)) => Some((kind, error)),
        _ => None,
    });
    match off {
        Some((kind, error)) => {
            Probe::of(8).find(Verdict::Failure, format!("{kind}: {}", told(error)), error.advice().unwrap_or_default())
        }
        None => Probe::of(8).see(format!("the service lists {} of this application", counted(count, "subscription"))),
    }
}

fn licence(seen: &Seen) -> Probe {
    let missing = seen.starts.iter().filter_map(|(kind, start)| Some((kind, start.as_ref().err()?)));
    missing.filter(|(_, error)| error.code() == NO_LICENCE).fold(
        Probe::of(9).see("a token and the list of subscriptions were given"),
        |probe, (kind, error)| {
            probe.find(Verdict::Failure, format!("{kind}: {}", told(error)), error.advice().unwrap_or_default())
        },
    )
}

fn states(seen: &Seen, subscriptions: &[Subscription], kinds: &[ContentType], manages: bool) -> Probe {
    let mut probe = Probe::of(10);
    for kind in kinds {
        let state = match of(subscriptions, *kind) {
            Some(subscription) if subscription.is_enabled() => {
                probe = probe.see(format!("{kind}: enabled"));
                continue;
            }
            Some(_) => "disabled",
            None => "missing",
        };
        let start = seen.starts.iter().find(|(started, _)| started == kind).map(|(_, start)| start);
        probe = match start {
            Some(Ok(())) => probe.find(
                Verdict::Note,
                format!("{kind}: was {state}, started now; first contents come within 12 hours, some within minutes"),
                "",
            ),
            Some(Err(ApiError::AlreadySo(_))) => {
                probe.find(Verdict::Note, format!("{kind}: was {state}, and its start says that it runs"), "")
            }
            Some(Err(error @ ApiError::StartedTooOften { .. })) => {
                probe.find(Verdict::Warning, format!("{kind}: {state}; {}", told(error)), "wait, as probe 12 says")
            }
            Some(Err(error)) => {
                let text = format!("{kind}: {state}; {} [{}]", told(error), error.code());
                probe.find(Verdict::Failure, text, error.advice().unwrap_or("run this again in some minutes"))
            }
            // Until it runs, what happens in the tenant is lost to this application.
            None if manages => probe.find(
                Verdict::Warning,
                format!("{kind}: {state}; nothing is collected for it until it is started"),
                "`o365feed run` starts it by itself; to start it now: `o365feed doctor --fix`",
            ),
            None => probe.find(
                Verdict::Failure,
                format!("{kind}: {state}, and `subscriptions: leave` keeps `o365feed run` from starting it"),
                "start it: `o365feed doctor --fix`; or set `subscriptions: manage`",
            ),
        };
    }
    probe
}

fn already_on(seen: &Seen) -> Probe {
    let already = seen.starts.iter().filter(|(_, start)| matches!(start, Err(ApiError::AlreadySo(_))));
    let already: Vec<String> = already.map(|(kind, _)| kind.to_string()).collect();
    match (seen.starts.is_empty(), already.is_empty()) {
        (true, _) => Probe::skipped(11, "nothing was started; only --fix starts what does not run"),
        (false, true) => Probe::of(11).see("no start was met with AF20024"),
        (false, false) => Probe::of(11).find(
            Verdict::Note,
            format!("AF20024 for {}: it runs already, which is fine", already.join(", ")),
            "",
        ),
    }
}

fn too_often(seen: &Seen) -> Probe {
    if seen.starts.is_empty() {
        return Probe::skipped(12, "nothing was started; only --fix starts what does not run");
    }
    seen.starts.iter().fold(Probe::of(12), |probe, (kind, start)| match start {
        Err(ApiError::StartedTooOften { after, .. }) => probe.find(
            Verdict::Warning,
            format!("{kind}: started within the last 15 minutes already"),
            format!("wait {} min, then run `o365feed doctor --fix` again", after.as_secs().div_ceil(60)),
        ),
        _ => probe.see(format!("{kind}: no start within the last 15 minutes")),
    })
}

fn is_ours(webhook: &Webhook, ours: Option<&Url>) -> bool {
    ours.is_some_and(|ours| webhook.leads_to(ours))
}

fn foreign_webhook(subscriptions: &[Subscription], ours: Option<&Url>) -> Probe {
    subscriptions.iter().fold(Probe::of(13), |probe, subscription| {
        let kind = &subscription.content_type;
        let address = subscription.webhook.as_ref().and_then(|webhook| webhook.address.as_deref());
        match address.filter(|address| !address.is_empty()) {
            Some(_) if subscription.webhook.as_ref().is_some_and(|webhook| is_ours(webhook, ours)) => {
                probe.see(format!("{kind}: notifications come to us"))
            }
            None => probe.see(format!("{kind}: no webhook")),
            Some(address) => probe.find(
                Verdict::Warning,
                format!("{kind}: notifications go to {}", host_of(address)),
                "another product uses this application, and may stop what this one needs: register an application of its own for each product",
            ),
        }
    })
}

fn webhook_state(subscriptions: &[Subscription], ours: Option<&Url>) -> Probe {
    let webhooks = subscriptions.iter().filter_map(|found| Some((&found.content_type, found.webhook.as_ref()?)));
    let probe = webhooks.fold(Probe::of(14), |probe, (kind, webhook)| match webhook.status.as_deref() {
        Some(status) if !status.eq_ignore_ascii_case("enabled") && is_ours(webhook, ours) => probe.find(
            Verdict::Warning,
            format!("{kind}: our webhook is {status}"),
            "nothing is lost, polling brings everything; `o365feed notifications` says why, `o365feed subscriptions start --webhook` registers it again",
        ),
        Some(status) if !status.eq_ignore_ascii_case("enabled") => probe.find(
            Verdict::Note,
            format!("{kind}: the webhook is {status}"),
            "o365feed asks by itself and needs no webhook; whoever does starts the subscription again",
        ),
        _ => probe.see(format!("{kind}: the webhook is enabled")),
    });
    if probe.evidence.is_empty() { probe.see("there is no webhook, and none is needed") } else { probe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_told_by_its_host_alone() {
        let webhook = |status: &str| Webhook {
            status: Some(status.to_owned()),
            address: Some("https://siem.example.com/hook?key=s3cr3t".to_owned()),
            ..Webhook::default()
        };
        let with = |status| {
            let kind = ContentType::Dlp;
            vec![Subscription { content_type: kind.to_string(), status: None, webhook: Some(webhook(status)) }]
        };
        let probe = foreign_webhook(&with("enabled"), None);
        assert_eq!(probe.verdict, Verdict::Warning);
        assert_eq!(probe.evidence, ["DLP.All: notifications go to siem.example.com"]);
        let state = |status, ours| webhook_state(&with(status), ours).verdict;
        assert_eq!(state("enabled", None), Verdict::Ok);
        assert_eq!(["disabled", "expired"].map(|status| state(status, None)), [Verdict::Note; 2]);
        let ours = Url::parse("https://siem.example.com/hook?key=s3cr3t").unwrap();
        assert_eq!(foreign_webhook(&with("enabled"), Some(&ours)).verdict, Verdict::Ok);
        assert_eq!(["enabled", "disabled"].map(|status| state(status, Some(&ours))), [Verdict::Ok, Verdict::Warning]);
        let none = Webhook { address: Some(String::new()), ..Webhook::default() };
        let none = vec![Subscription { webhook: Some(none), ..with("enabled").remove(0) }];
        assert_eq!(foreign_webhook(&none, None).verdict, Verdict::Ok);
    }
}
