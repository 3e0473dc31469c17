//! What to tell the operator, by error code. Codes and meanings: docs/api/contract.md 2.5 and 5.

/// Advice on an error's code, as `ApiError::code` gives it. `None` where waiting is all there is to do.
pub fn on(code: &str) -> Option<&'static str> {
    let number = code.strip_prefix("AADSTS").and_then(|number| number.parse().ok());
    number.map_or_else(|| on_service(code), on_token)
}

fn on_service(code: &str) -> Option<&'static str> {
    Some(match code {
        "AF10001" => {
            "grant the application permission ActivityFeed.Read (ActivityFeed.ReadDlp for DLP.All) on Office 365 Management APIs, with admin consent; application, not delegated; it shows in tokens issued afterwards"
        }
        "denied" => {
            "the API refuses even a fresh token: check that cloud, audience and tenant belong together, that ActivityFeed.Read has admin consent, and that this machine's clock is right"
        }
        "AF20001" | "AF20002" | "AF20053" | "AF20054" => {
            "a fault of this program: please report it with the whole line"
        }
        "AF20003" => "the webhook's expiration lies in the past: give a later one with --expires, or none",
        "AF20021" => {
            "the service could not validate the webhook: it must be https with a certificate that Microsoft trusts, reachable from outside, and answer 200 within seconds. What ran before goes on, perhaps without a webhook: see `subscriptions list`"
        }
        "AF20010" | "AF20011" | "AF20013" => {
            "check the tenant's id and that the client id is registered in that tenant"
        }
        "AF20012" => "assign a licence with Exchange Online to someone in the tenant",
        "AF20020" => "remove the content type from the settings",
        "AF20022" => "set `subscriptions: manage`, or run `o365feed subscriptions start`",
        "AF20023" => {
            "an administrator disabled the subscription or auditing is off: check the unified audit log, then start the subscription (once in 15 minutes at most)"
        }
        "AF20030" | "AF20055" => "compare this machine's clock with the service's",
        "AF20052" => "if it happens often, check that the configured tenant is the one that owns the contents",
        "AF429" => {
            "lower quota.requests_per_minute, or ask Microsoft support for more; other products of the tenant use the same quota"
        }
        "audit_off" => {
            "switch the unified audit log on (Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true), wait an hour; data follows after 12 to 24 h"
        }
        "started_too_often" => "wait: the service allows one start in 15 minutes",
        "secret" => {
            "check that the files of the credential exist, are readable for this process and hold what they should"
        }
        "unreachable" => "allow https to the API host and to the login authority; check DNS, proxy and certificates",
        "page_link" => {
            "the API, or something between, sent a link that must not be followed; check for a proxy that rewrites"
        }
        _ => return None,
    })
}

fn on_token(number: u32) -> Option<&'static str> {
    Some(match number {
        90055 | 50196 => "tokens are asked for too often: look for other programs with the same client id",
        90002 | 900_023 => "the authority does not know this tenant: check the tenant's id and the cloud",
        700_016 | 70001 | 700_011 => {
            "the client id is not known in this tenant: check it, or grant admin consent there"
        }
        7_000_112 | 1_000_031 => "the application is disabled: enable its sign-in under enterprise applications",
        7_000_215 | 70002 => {
            "the client secret is wrong: use the secret's value, not its id; a new secret takes minutes to spread"
        }
        7_000_222 => "the client secret has expired: create a new one and put it into the secret's file",
        700_027 | 50012 | 50013 | 700_030 => "the certificate is not registered with the application, or has expired",
        500_133 | 700_024 => {
            "this machine's clock is wrong, or nobody renews the federated token's file: set the clock by NTP, see who writes the file"
        }
        7_000_218 | 700_025 | 900_144 => "the application takes no client secret: check that it is no public client",
        70021 | 700_211 | 700_212 | 700_213 | 7_002_138 => {
            "the federated credential does not match the token: compare issuer, subject and audience, letter by letter"
        }
        500_011 | 50001 | 650_052 => {
            "the tenant has no Office 365 Management APIs: check the audience and that the tenant has a Microsoft 365 licence"
        }
        500_014 => {
            "the Office 365 Management APIs are disabled in this tenant: its licence lapsed or has no Exchange Online"
        }
        65001 | 650_056 | 650_057 | 90094 => "grant admin consent to the application's permissions",
        53003 | 530_032 | 530_035 => "conditional access blocks the application: exempt it or this address",
        900_382 | 900_432 | 90038 => "the tenant lives in another cloud: set `cloud`",
        70011 | 700_022 | 901_002 => "the audience is not one that this authority knows: check `audience` and `cloud`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_found_by_code_and_absent_for_what_only_time_mends() {
        assert!(on("AADSTS7000222").unwrap().contains("expired"));
        assert!(on("AF10001").unwrap().contains("ActivityFeed.Read"));
        assert_eq!(on("AADSTS90033"), None);
        assert_eq!(on("AF50000"), None);
        assert_eq!(on("AADSTS"), None);
    }

    /// docs/runbook.md repeats the advice word for word, so that a line of the log is found there.
    #[test]
    fn every_code_stands_in_the_documentation_with_its_advice() {
        let page = include_str!("../../docs/runbook.md");
        let codes = codes();
        assert!(codes.len() > 50, "the source is not read any more: {codes:?}");
        for code in codes {
            let advice = on(&code).expect(&code);
            let is_row = |line: &&str| line.contains(&format!("`{code}`")) && line.contains(advice);
            assert_eq!(page.lines().filter(is_row).count(), 1, "{code}: {advice}");
        }
    }

    /// Words that `ApiError::code` gives where nobody can do anything but wait.
    #[test]
    fn codes_without_advice_stand_there_too() {
        let page = include_str!("../../docs/runbook.md");
        let source = include_str!("error.rs").split("pub fn code(&self)").nth(1).unwrap();
        let source = source.split("pub fn advice").next().unwrap();
        let codes: Vec<&str> = source.split('"').skip(1).step_by(2).collect();
        assert!(codes.len() > 8, "the source is not read any more: {codes:?}");
        for code in codes {
            assert!(page.contains(&format!("`{code}`")), "{code}");
        }
    }

    /// The codes in the source above: a `match` cannot be asked for its arms.
    fn codes() -> Vec<String> {
        let source = include_str!("advice.rs").split("#[cfg(test)]").next().unwrap();
        let (service, token) = source.split_once("fn on_token").unwrap();
        let (_, service) = service.split_once("fn on_service").unwrap();
        let words = service.split('"').skip(1).step_by(2).filter(|text| !text.contains(' '));
        let is_number = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit());
        let patterns = token.lines().filter_map(|line| Some(line.split_once("=>")?.0));
        let numbers = patterns.flat_map(|line| line.split([' ', '|'])).filter(is_number);
        words.map(str::to_owned).chain(numbers.map(|number| format!("AADSTS{}", number.replace('_', "")))).collect()
    }
}
