//! Probes 4 to 7: the token, what it says about itself, and what it allows.

use jiff::Timestamp;

use super::report::{Probe, Verdict, told};
use crate::{
    api::{ApiError, Claims},
    config::Tenant,
    domain::ContentType,
};

/// The resource application of the API, which a token may name in place of its address.
///
/// Source: docs/api/contract.md 1.
const RESOURCE: &str = "c5393580-f805-4401-95e8-94b7a6ef2fc2";
const READ: &str = "ActivityFeed.Read";
const READ_DLP: &str = "ActivityFeed.ReadDlp";

/// Probe 4, and probe 9 where the refusal decides it.
pub(super) fn judge_token(asked: &Result<Claims, ApiError>) -> Vec<Probe> {
    let error = match asked {
        Ok(claims) => {
            let until = claims.expires.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string());
            return vec![Probe::of(4).see(format!("a token was issued, good until {until}"))];
        }
        Err(ApiError::Unreadable { .. }) => return vec![Probe::of(4).see("a token was issued; it is no JWT")],
        Err(error) => error,
    };
    let passing = "passing trouble of the login service or of the way there: run this again in some minutes";
    let advice = error.advice().unwrap_or(passing);
    let mut probes = vec![Probe::of(4).find(Verdict::Failure, format!("{} [{}]", told(error), error.code()), advice)];
    if error.code() == "AADSTS500014" {
        probes.push(Probe::of(9).find(Verdict::Failure, "as probe 4 says", advice));
    }
    probes
}

/// Probe 5.
pub(super) fn judge_claims(claims: &Claims, tenant: &Tenant, now: Timestamp) -> Probe {
    let mut probe = Probe::of(5);
    let same = |one: &str, other: &str| one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'));
    let audience = claims.audience.as_deref().unwrap_or("none");
    let fits = [tenant.audience.as_str(), tenant.api_root.as_str(), RESOURCE].iter().any(|good| same(good, audience));
    let text = format!("audience {audience}");
    probe = if fits {
        probe.see(text)
    } else {
        probe.find(
            Verdict::Failure,
            format!("{text}, and the API is {}", tenant.api_root),
            "set `cloud` to the tenant's cloud; if `audience` is set, remove it or make it the API's address",
        )
    };
    let ids = [
        ("tenant", &claims.tenant, tenant.id.to_string(), "check `id` of this tenant: the token is for another one"),
        (
            "application",
            &claims.application,
            tenant.client_id.clone(),
            "check `client_id` of this tenant: the token is another application's",
        ),
    ];
    for (noun, found, expected, advice) in ids {
        // Neither claim is promised: one that is not there proves nothing.
        probe = match found {
            Some(found) if same(found, &expected) => probe.see(format!("{noun} {found}")),
            Some(found) => {
                probe.find(Verdict::Failure, format!("{noun} {found}, and the settings say {expected}"), advice)
            }
            None => probe.find(Verdict::Note, format!("the token names no {noun}"), ""),
        };
    }
    // Only the service's clock decides whether a token is good: ours, or the authority's, is worth a warning.
    let clock = "set this machine's clock by NTP (probe 3)";
    match (claims.not_before, claims.expires) {
        (Some(begins), _) if now + SKEW < begins => {
            probe.find(Verdict::Warning, format!("not good before {begins}, and it is {now}"), clock)
        }
        (_, Some(ends)) if ends <= now => {
            probe.find(Verdict::Warning, format!("expired at {ends}, and it is {now}"), clock)
        }
        (_, Some(ends)) => probe.see(format!("expires at {ends}")),
        (_, None) => probe.find(Verdict::Note, "the token does not say when it expires", ""),
    }
}

/// What the clocks may differ by.
const SKEW: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// Probes 6 and 7, and the content types that the token allows.
pub(super) fn judge_roles(claims: &Claims, kinds: &[ContentType]) -> (Vec<Probe>, Vec<ContentType>) {
    let has = |role: &str| claims.roles.iter().any(|found| found == role);
    let (dlp, others): (Vec<ContentType>, Vec<ContentType>) = kinds.iter().partition(|kind| **kind == ContentType::Dlp);
    let roles = if claims.roles.is_empty() { "none".to_owned() } else { claims.roles.join(", ") };
    let seen = format!("roles: {roles}");
    let read = if others.is_empty() {
        Probe::skipped(6, "only DLP.All is wanted")
    } else if has(READ) {
        Probe::of(6).see(seen.clone())
    } else if !claims.scopes.is_empty() {
        Probe::of(6).find(
            Verdict::Failure,
            format!("{seen}; the token carries delegated permissions: {}", claims.scopes.join(", ")),
            "in the app registration, API permissions, Office 365 Management APIs: choose *application* permissions, not delegated, and grant admin consent",
        )
    } else {
        Probe::of(6).find(Verdict::Failure, seen.clone(), grant(READ))
    };
    let read_dlp = if dlp.is_empty() {
        Probe::skipped(7, "DLP.All is not wanted")
    } else if has(READ_DLP) {
        Probe::of(7).see(seen)
    } else {
        Probe::of(7).find(
            Verdict::Failure,
            seen,
            format!("{}; or remove DLP.All from `content_types`", grant(READ_DLP)),
        )
    };
    let mut allowed = if read.has_failed() { Vec::new() } else { others };
    allowed.extend(if read_dlp.has_failed() { Vec::new() } else { dlp });
    (vec![read, read_dlp], allowed)
}

fn grant(role: &str) -> String {
    format!(
        "in the app registration, API permissions, Office 365 Management APIs, application permissions: add {role} and grant admin consent; it shows in tokens issued afterwards"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";

    fn tenant() -> Tenant {
        let env = [("AZURE_TENANT_ID", ID), ("AZURE_CLIENT_ID", ID), ("AZURE_CLIENT_SECRET", "x")];
        let env = env.map(|(name, text)| (name.to_owned(), text.to_owned()));
        crate::config::load(None, env, "feed-0").unwrap().tenants.remove(0)
    }

    fn claims() -> Claims {
        let text = |text: &str| Some(text.to_owned());
        Claims {
            audience: text("https://manage.office.com/"),
            tenant: text(ID),
            application: text(&ID.to_uppercase()),
            roles: vec![READ.to_owned(), READ_DLP.to_owned()],
            not_before: Timestamp::from_second(0).ok(),
            expires: Timestamp::from_second(3_600).ok(),
            ..Claims::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn claims_that_are_another_s_are_a_failure_and_absent_ones_a_note() {
        let text = |text: &str| Some(text.to_owned());
        let judge = |claims: Claims, now| judge_claims(&claims, &tenant(), at(now)).verdict;
        assert_eq!(judge(claims(), 60), Verdict::Ok);
        assert_eq!(judge(Claims { audience: text(RESOURCE), ..claims() }, 60), Verdict::Ok);
        let graph = text("https://graph.microsoft.com");
        assert_eq!(judge(Claims { audience: graph, ..claims() }, 60), Verdict::Failure);
        assert_eq!(judge(Claims { audience: None, ..claims() }, 60), Verdict::Failure);
        assert_eq!(judge(Claims { tenant: text("other"), ..claims() }, 60), Verdict::Failure);
        assert_eq!(judge(Claims { application: text("other"), ..claims() }, 60), Verdict::Failure);
        assert_eq!(judge(claims(), 3_600), Verdict::Warning);
        assert_eq!(judge(claims(), -301), Verdict::Warning);
        assert_eq!(judge(Claims { tenant: None, ..claims() }, 60), Verdict::Note);
        assert_eq!(judge(Claims { expires: None, ..claims() }, 60), Verdict::Note);
    }

    #[test]
    fn a_missing_role_costs_its_content_types_only() {
        let all = ContentType::ALL;
        let judge = |roles: &[&str], scopes: &[&str], kinds: &[ContentType]| {
            let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let (probes, allowed) = judge_roles(&Claims { roles: own(roles), scopes: own(scopes), ..claims() }, kinds);
            (probes[0].verdict, probes[1].verdict, allowed.len())
        };
        use Verdict::{Failure, Ok, Skipped};
        assert_eq!(judge(&[READ, READ_DLP], &[], &all), (Ok, Ok, 5));
        assert_eq!(judge(&[READ], &[], &all), (Ok, Failure, 4));
        assert_eq!(judge(&[READ_DLP], &[], &all), (Failure, Ok, 1));
        assert_eq!(judge(&[], &[READ], &all), (Failure, Failure, 0));
        assert_eq!(judge(&[READ], &[], &[ContentType::General]), (Ok, Skipped, 1));
        assert_eq!(judge(&[READ_DLP], &[], &[ContentType::Dlp]), (Skipped, Ok, 1));
        let (probes, _) = judge_roles(&Claims { roles: vec![], scopes: vec!["x".into()], ..claims() }, &all);
        assert!(probes[0].advice[0].contains("not delegated"));
    }
}
