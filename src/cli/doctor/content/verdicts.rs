//! From what was listed and fetched to probes 15 to 22.

use jiff::SignedDuration;
use uuid::Uuid;

use super::{BlobFault, HOURS, KindSeen, PAGES_MAX, Sample, Seen};
use crate::{
    api::ApiError,
    cli::config::counted,
    cli::doctor::report::{Probe, Verdict, told},
    domain::ContentType,
};

/// Probes 15, 16, 17, 20, 21 and 22.
pub(in crate::cli::doctor) fn judge(seen: &Seen) -> Vec<Probe> {
    vec![contents(seen), pages(seen), window(seen), blobs(seen), mailboxes(seen), delay(seen)]
}

/// What 16, 17 and 19 say of an error, 15 need not say too.
fn belongs_elsewhere(error: &ApiError) -> Option<u8> {
    match error {
        ApiError::PageLink { .. } | ApiError::PageExpired(_) | ApiError::Unreadable { .. } => Some(16),
        ApiError::WindowRefused(_) => Some(17),
        ApiError::Throttled { .. } => Some(19),
        _ => None,
    }
}

fn contents(seen: &Seen) -> Probe {
    let is_quiet = |kind: &KindSeen| kind.contents.is_empty() && kind.error.is_none();
    // One quiet type among busy ones is the rule; a tenant where nothing happens for a day is not.
    let all_quiet = seen.kinds.iter().all(is_quiet);
    seen.kinds.iter().fold(Probe::of(15), |probe, kind| {
        let name = kind.kind;
        if let Some(error) = &kind.error {
            return match belongs_elsewhere(error) {
                Some(number) => probe.see(format!("{name}: see probe {number}")),
                None => {
                    let text = format!("{name}: {} [{}]", told(error), error.code());
                    probe.find(Verdict::Failure, text, error.advice().unwrap_or("run this again in some minutes"))
                }
            };
        }
        let Some(newest) = kind.contents.last() else {
            let text = format!("{name}: nothing in the last {HOURS} hours");
            return if all_quiet {
                probe.find(
                    Verdict::Warning,
                    text,
                    "a subscription that was started within the last day may take 24 hours: wait; otherwise search the audit log in the Microsoft Purview portal for the same day: is it empty too, the audit log is off or the tenant is quiet",
                )
            } else {
                probe.find(Verdict::Note, format!("{text}; the type is quiet, or not audited"), "")
            };
        };
        let age = seen.now.duration_since(newest.created);
        let more = if kind.is_cut { " or more" } else { "" };
        probe.see(format!(
            "{name}: {}{more} between {} and {} h ago, the newest {} old",
            counted(kind.contents.len(), "content"),
            kind.hours - 1,
            kind.hours,
            span(age)
        ))
    })
}

fn pages(seen: &Seen) -> Probe {
    seen.kinds.iter().fold(Probe::of(16), |probe, kind| {
        let name = kind.kind;
        match &kind.error {
            Some(error) if belongs_elsewhere(error) == Some(16) => probe.find(
                Verdict::Failure,
                format!("{name}: {}", told(error)),
                error
                    .advice()
                    .unwrap_or("look for a proxy that changes answers; if there is none, report it with this line"),
            ),
            Some(_) => probe.see(format!("{name}: not listed to its end")),
            None if kind.is_cut => probe.see(format!("{name}: links to next pages work, {PAGES_MAX} pages were read")),
            None if kind.turned > 0 => probe.see(format!("{name}: {} pages, to the last", kind.pages)),
            None => probe.see(format!("{name}: {} of one page", counted(kind.hours as usize, "listing"))),
        }
    })
}

fn window(seen: &Seen) -> Probe {
    let ahead = seen.ahead.map_or_else(|| "unknown".to_owned(), |ahead| format!("{} s ahead of ours", ahead.as_secs()));
    let from = seen.now - SignedDuration::from_hours(HOURS.into());
    let asked = format!("asked for hours between {from} and {}; the service's clock is {ahead}", seen.now);
    let refused = seen.kinds.iter().filter_map(|kind| Some((kind.kind, kind.error.as_ref()?)));
    refused.filter(|(_, error)| belongs_elsewhere(error) == Some(17)).fold(
        Probe::of(17).see(asked),
        |probe, (kind, error)| {
            probe.find(Verdict::Failure, format!("{kind}: {}", told(error)), error.advice().unwrap_or_default())
        },
    )
}

/// Probes 18 and 19. `throttled`: the answer that asked to wait; `budget`: requests a minute by the settings.
pub(in crate::cli::doctor) fn judge_throttle(
    throttled: Option<&ApiError>,
    publisher: Uuid,
    budget: u32,
    spent: u64,
) -> Vec<Probe> {
    let message = throttled.and_then(ApiError::answer).map(|answer| answer.message.clone()).unwrap_or_default();
    let is_anonymous = message.contains(&Uuid::nil().to_string());
    let sent = Probe::of(18).see(format!("PublisherIdentifier {publisher} goes with every call"));
    let sent = if is_anonymous {
        sent.find(
            Verdict::Failure,
            format!("the service says: {message}"),
            "set `publisher_identifier` to your tenant's id; if it is set, something between strips it from the address",
        )
    } else {
        sent
    };
    let used = format!("{spent} requests of this command to the tenant; quota.requests_per_minute is {budget}");
    let rate = Probe::of(19).see(used);
    let rate = match throttled {
        Some(_) if is_anonymous => rate.see("throttled, as probe 18 says"),
        Some(error) => rate.find(Verdict::Warning, told(error), error.advice().unwrap_or_default()),
        None if BASELINE < budget => rate.find(
            Verdict::Note,
            format!("more than the {BASELINE} a minute that a tenant has at least; larger tenants have more"),
            "",
        ),
        None => rate.see(format!("a tenant has at least {BASELINE} a minute, for all its programs together")),
    };
    vec![sent, rate]
}

/// Requests a minute of every tenant (docs/api/contract.md 4).
const BASELINE: u32 = 2_000;

fn blobs(seen: &Seen) -> Probe {
    let samples = seen.kinds.iter().filter_map(|kind| Some((kind.kind, kind.sample.as_ref()?)));
    let mut probe = samples.fold(Probe::of(20), |probe, (kind, sample)| match sample {
        Ok(sample) => probe.see(format!("{kind}: fresh, {} records in {} bytes", sample.records, sample.bytes)),
        Err(fault) => bad_blob(probe, Verdict::Failure, &format!("{kind}: fresh"), fault),
    });
    if probe.evidence.is_empty() {
        return Probe::skipped(20, "no content was listed");
    }
    if let Some(old) = &seen.old {
        let text = format!("old, listed {} ago", span(seen.now.duration_since(old.created)));
        probe = match &old.fetched {
            Ok(()) => probe.see(text),
            Err(fault) => bad_blob(probe, Verdict::Warning, &text, fault),
        };
    } else {
        probe = probe.see("no content is listed that is nearly seven days old");
    }
    probe
}

fn bad_blob(probe: Probe, verdict: Verdict, which: &str, fault: &BlobFault) -> Probe {
    let gaps =
        "what cannot be fetched becomes a gap: `o365feed reconcile` lists them, docs/runbook.md says what each means";
    match fault {
        BlobFault::Api(error @ ApiError::Throttled { .. }) => {
            probe.see(format!("{which}: {}, see probe 19", told(error)))
        }
        BlobFault::Api(error) => {
            let text = format!("{which}: {} [{}]", told(error), error.code());
            probe.find(verdict, text, error.advice().unwrap_or(gaps))
        }
        BlobFault::Unreadable(why) => probe.find(verdict, format!("{which}: {why}"), gaps),
    }
}

/// Record types of administrators' and of mailbox actions (docs/api/record-types.tsv).
const ADMIN: &str = "1";
const MAILBOX: [&str; 3] = ["2", "3", "50"];
/// In fewer records the absence of a kind means little.
const ENOUGH: u64 = 100;

fn mailboxes(seen: &Seen) -> Probe {
    let exchange = seen.kinds.iter().find(|kind| kind.kind == ContentType::Exchange);
    let Some(Ok(sample)) = exchange.and_then(|kind| kind.sample.as_ref()) else {
        return Probe::skipped(21, "there is no content of Audit.Exchange to look into");
    };
    judge_mailboxes(sample)
}

fn judge_mailboxes(sample: &Sample) -> Probe {
    let count = |kind: &str| sample.types.get(kind).copied().unwrap_or(0);
    let (admin, mailbox): (u64, u64) = (count(ADMIN), MAILBOX.iter().map(|kind| count(kind)).sum());
    let text = format!("of {} records {admin} are of administrators and {mailbox} of mailboxes", sample.records);
    let probe = Probe::of(21);
    if 0 < mailbox || admin == 0 {
        return probe.see(text);
    }
    let verdict = if sample.records < ENOUGH { Verdict::Note } else { Verdict::Warning };
    probe.find(
        verdict,
        text,
        "if mailbox events are missed: `Get-OrganizationConfig | fl AuditDisabled`, `Set-Mailbox <user> -AuditEnabled $true`; some need a larger licence. The API does not switch auditing on",
    )
}

fn delay(seen: &Seen) -> Probe {
    let samples = seen.kinds.iter().filter_map(|kind| kind.sample.as_ref()?.as_ref().ok());
    let lags: Vec<i64> = samples.flat_map(|sample| sample.lags_s.iter().copied()).collect();
    let newest = seen.kinds.iter().filter_map(|kind| kind.contents.last()).map(|content| content.created).max();
    let Some(newest) = newest else { return Probe::skipped(22, "no content was listed") };
    judge_delay(lags, seen.now.duration_since(newest))
}

fn judge_delay(mut lags: Vec<i64>, newest: SignedDuration) -> Probe {
    let probe = Probe::of(22).see(format!("the newest content is {} old", span(newest)));
    if lags.is_empty() {
        return probe.see("no record of the sample has a time");
    }
    lags.sort_unstable();
    let rank = |share: usize| SignedDuration::from_secs(lags[(lags.len() - 1) * share / 100]);
    let text = format!(
        "from event to content: half within {}, 95 % within {}, the last {} ({} records)",
        span(rank(50)),
        span(rank(95)),
        span(rank(100)),
        lags.len()
    );
    if SignedDuration::from_hours(24) < rank(50) {
        let advice = "look at the service health in the Microsoft 365 admin center: so late is an incident on Microsoft's side, and the records come";
        return probe.find(Verdict::Warning, text, advice);
    }
    probe.see(text)
}

/// `95 s`, `12 min`, `5 h`, `3 d`: to be read, not to be computed with.
fn span(span: SignedDuration) -> String {
    match span.as_secs() {
        seconds if seconds.abs() < 120 => format!("{seconds} s"),
        seconds if seconds.abs() < 2 * 3_600 => format!("{} min", seconds / 60),
        seconds if seconds.abs() < 2 * 86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(types: &[(&str, u64)]) -> Sample {
        let types = types.iter().map(|(kind, count)| ((*kind).to_owned(), *count));
        Sample { records: types.clone().map(|(_, count)| count).sum(), types: types.collect(), ..Sample::default() }
    }

    #[test]
    fn administrators_without_mailboxes_are_worth_a_word() {
        let of = |types: &[(&str, u64)]| judge_mailboxes(&sample(types)).verdict;
        assert_eq!(of(&[("1", 500), ("50", 1)]), Verdict::Ok);
        assert_eq!(of(&[("1", 500)]), Verdict::Warning);
        assert_eq!(of(&[("1", 5)]), Verdict::Note);
        assert_eq!(of(&[("78", 500)]), Verdict::Ok);
    }

    #[test]
    fn half_of_the_records_later_than_a_day_is_an_incident() {
        let of = |lags: &[i64]| judge_delay(lags.to_vec(), SignedDuration::from_mins(3));
        let probe = of(&[60, 60, 200_000]);
        assert_eq!(probe.verdict, Verdict::Ok);
        assert!(probe.evidence[1].contains("half within 60 s, 95 % within 60 s, the last 2 d"), "{:?}", probe.evidence);
        assert_eq!(of(&[60, 100_000, 200_000]).verdict, Verdict::Warning);
        assert_eq!(of(&[]).verdict, Verdict::Ok);
    }
}
