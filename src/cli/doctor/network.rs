//! Probes 2 and 3: whether the login authority and the API can be reached, and how far the clocks are apart.

use std::time::Duration;

use jiff::SignedDuration;

use super::report::{Probe, Verdict};
use crate::{
    api::{Line, Obstacle, Reached, Unreached, Way, reach},
    config::Tenant,
};

/// What was met on the way to one host.
pub(super) struct Road {
    /// `login authority` or `API`
    pub(super) to: &'static str,
    pub(super) found: Result<Reached, Unreached>,
}

/// Tries both hosts, one request each.
pub(super) async fn look(tenant: &Tenant, patience: Duration) -> Vec<Road> {
    let (authority, api) = tokio::join!(reach(&tenant.authority, patience), reach(&tenant.api_root, patience));
    vec![Road { to: "login authority", found: authority }, Road { to: "API", found: api }]
}

pub(super) fn judge(roads: &[Road]) -> Probe {
    roads.iter().fold(Probe::of(2), |probe, road| match &road.found {
        Err(blocked) => probe.find(Verdict::Failure, format!("{}: {blocked}", road.to), advice(blocked)),
        Ok(reached) => {
            let way = match &reached.way {
                Way::Direct { addresses } => format!("{}, no proxy", addresses_of(*addresses)),
                Way::Proxy(proxy) => format!("through the proxy {proxy}"),
            };
            let text = |line: &str| format!("{}: {} reached ({way}), {line}", road.to, reached.host);
            match reached.line {
                Line::Tls => probe.see(text(&format!("TLS trusted, {} ms", reached.took.as_millis()))),
                Line::Plain => probe.find(Verdict::Note, text("plain http, as only a simulator should be"), ""),
                Line::Unseen => {
                    probe.find(Verdict::Note, text("a kind of proxy that this probe cannot see behind"), "")
                }
            }
        }
    })
}

fn addresses_of(count: usize) -> String {
    if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") }
}

fn advice(blocked: &Unreached) -> String {
    let host = &blocked.host;
    match (&blocked.obstacle, &blocked.proxy) {
        (Obstacle::Name { name, .. }, Some(_)) => {
            format!("check the proxy's name `{name}` in HTTPS_PROXY, or except {host} by NO_PROXY")
        }
        (Obstacle::Name { name, .. }, None) => format!("check the DNS of this machine: `getent hosts {name}`"),
        (Obstacle::Connection(_) | Obstacle::Silence { .. }, Some(proxy)) => {
            format!("check that the proxy {proxy} runs and lets {host} pass; or except {host} by NO_PROXY")
        }
        (Obstacle::Connection(_) | Obstacle::Silence { .. }, None) => {
            format!("allow https to {host} in the firewall, or set HTTPS_PROXY")
        }
        (Obstacle::Proxy(_), _) => {
            format!("let the proxy tunnel (CONNECT) to {host}; user and password go into HTTPS_PROXY")
        }
        (Obstacle::Untrusted { .. }, _) => format!(
            "somebody between opens the TLS of {host}: except it from inspection, or add the issuer's certificate to this machine's authorities (SSL_CERT_FILE)"
        ),
        (Obstacle::Tls(_), _) => {
            format!("check what stands between here and {host}: it does not speak TLS 1.2 or later")
        }
    }
}

/// The clocks by the `Date` of both answers.
pub(super) fn judge_clock(roads: &[Road]) -> Probe {
    let ahead = |road: &Road| Some((road.to, road.found.as_ref().ok()?.clock_ahead?));
    let seen: Vec<(&str, SignedDuration)> = roads.iter().filter_map(ahead).collect();
    if seen.is_empty() {
        return Probe::skipped(3, "no answer carried a date");
    }
    seen.into_iter().fold(Probe::of(3), |probe, (to, ahead)| {
        let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
        let text = format!("the {to}'s clock is {} s {direction} ours", ahead.abs().as_secs());
        let advice = "set this machine's clock by NTP: `timedatectl set-ntp true`, `chronyc tracking`";
        match ahead.abs() {
            skew if skew > UNUSABLE => probe.find(Verdict::Failure, text, advice),
            skew if skew > TOLERABLE => probe.find(Verdict::Warning, text, advice),
            _ => probe.see(text),
        }
    })
}

/// More is worth an hour of somebody's time (docs/api/contract.md 10).
const TOLERABLE: SignedDuration = SignedDuration::from_secs(60);
/// Tokens are refused beyond this: five minutes are what Microsoft's services allow.
const UNUSABLE: SignedDuration = SignedDuration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn road(found: Result<Reached, Obstacle>) -> Road {
        let host = "manage.office.com:443".to_owned();
        Road { to: "API", found: found.map_err(|obstacle| Unreached { host, proxy: None, obstacle }) }
    }

    fn reached(line: Line, seconds: i64) -> Result<Reached, Obstacle> {
        Ok(Reached {
            host: "manage.office.com:443".to_owned(),
            way: Way::Proxy("proxy:3128".to_owned()),
            line,
            took: Duration::from_millis(30),
            clock_ahead: Some(SignedDuration::from_secs(seconds)),
        })
    }

    #[test]
    fn every_obstacle_is_a_failure_with_something_to_do() {
        let silence = Obstacle::Silence { doing: "connecting", waited: Duration::from_secs(10) };
        let obstacles = [
            Obstacle::Name { name: "manage.office.com".to_owned(), why: "no such host".to_owned() },
            Obstacle::Connection("refused".to_owned()),
            Obstacle::Proxy("HTTP/1.1 407".to_owned()),
            Obstacle::Untrusted { issuer: "`Contoso Proxy`".to_owned(), why: "self-signed".to_owned() },
            Obstacle::Tls("handshake".to_owned()),
            silence,
        ];
        for obstacle in obstacles {
            let probe = judge(&[road(Err(obstacle.clone()))]);
            assert_eq!((probe.verdict, probe.advice.len()), (Verdict::Failure, 1), "{obstacle}");
            assert!(probe.evidence[0].contains(&obstacle.to_string()));
        }
    }

    #[test]
    fn tls_is_fine_and_what_is_not_seen_through_is_a_note() {
        let of = |line| judge(&[road(reached(line, 0))]);
        assert_eq!(of(Line::Tls).verdict, Verdict::Ok);
        assert!(of(Line::Tls).evidence[0].contains("through the proxy proxy:3128"));
        assert_eq!([Line::Plain, Line::Unseen].map(|line| of(line).verdict), [Verdict::Note; 2]);
    }

    #[test]
    fn clocks_may_be_a_minute_apart_and_tokens_fail_beyond_five() {
        let of = |seconds| judge_clock(&[road(reached(Line::Tls, seconds))]).verdict;
        assert_eq!([0, 60, -60].map(of), [Verdict::Ok; 3]);
        assert_eq!([61, -300].map(of), [Verdict::Warning; 2]);
        assert_eq!([301, -86_400].map(of), [Verdict::Failure; 2]);
        assert_eq!(judge_clock(&[]).verdict, Verdict::Skipped);
    }
}
