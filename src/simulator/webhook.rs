//! A subscription's webhook as the service keeps it: what is registered, what is due to be sent, what was sent.
//! It decides; [`super::notifier`] sends. Source: docs/api/contract.md 3.1, 3.2, 3.7 and 3.8.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use url::{Host, Url};

use super::{
    answer::Answer,
    random::{chance, mix},
    source::Content,
};

/// How notifications are sent. Retries are paced by the machine's clock, whatever the simulated one says.
#[derive(Clone, Debug)]
pub struct Notifier {
    /// How often it looks for what is new and what is due.
    pub interval: Duration,
    /// How long a receiver may take to answer.
    pub timeout: Duration,
    /// Until the second try; doubled for each one after it.
    pub first_retry: Duration,
    /// Failures in a row after which the webhook is disabled.
    pub disable_after: u32,
    /// Contents in one request.
    pub contents: usize,
    /// Share of requests (0 to 1) that are sent again although they were answered well.
    pub repeats: f64,
    /// Whether what is due is sent in the order opposite to that of its coming.
    pub reversed: bool,
    /// Share of contents (0 to 1) that are never announced.
    pub forgets: f64,
}

impl Default for Notifier {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            first_retry: Duration::from_secs(5),
            disable_after: 8,
            contents: 10,
            repeats: 0.0,
            reversed: false,
            forgets: 0.0,
        }
    }
}

/// A webhook as a start call asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) address: Url,
    pub(super) auth_id: Option<String>,
    expires: Option<Timestamp>,
}

/// Reads the body of a start call. Nothing: it asks for no webhook.
///
/// # Errors
/// The answer to send instead.
pub(super) fn wish(body: &[u8], now: Timestamp) -> Result<Option<Wish>, Answer> {
    if body.is_empty() {
        return Ok(None);
    }
    let bad = |name: &str| Answer::error(400, "AF20002", format!("Invalid parameter type: {name}."));
    let body: Value = serde_json::from_slice(body).map_err(|_| bad("body"))?;
    let members = body.as_object().ok_or_else(|| bad("body"))?;
    let webhook = members.iter().find(|(name, _)| name.eq_ignore_ascii_case("webhook")).map(|(_, value)| value);
    let Some(webhook) = webhook.filter(|webhook| !webhook.is_null()) else { return Ok(None) };
    let text = |name: &str| webhook[name].as_str().filter(|text| !text.is_empty());
    let address = text("address").ok_or_else(|| Answer::error(400, "AF20001", "Missing parameter: address."))?;
    let expires = match text("expiration").map(str::parse::<Timestamp>) {
        None => None,
        Some(Ok(at)) if now < at => Some(at),
        Some(Ok(at)) => {
            let text = format!("Expiration {at} provided is set to past date and time.");
            return Err(Answer::error(400, "AF20003", text));
        }
        Some(Err(_)) => return Err(bad("expiration")),
    };
    let url = Url::parse(address).ok().filter(may_be_called);
    let address = url.ok_or_else(|| not_validated(address, "it is not https"))?;
    Ok(Some(Wish { address, auth_id: text("authId").map(str::to_owned), expires }))
}

pub(super) fn not_validated(address: &str, why: &str) -> Answer {
    Answer::error(400, "AF20021", format!("The webhook endpoint {address} could not be validated. {why}"))
}

/// Https, or plain http to this very machine, where nobody listens in.
fn may_be_called(url: &Url) -> bool {
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => return false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_local)
}

/// The webhook of one subscription, and the history of its notifications.
#[derive(Debug, Default)]
pub(super) struct Hook {
    registered: Option<Registered>,
    /// Oldest first.
    sent: Vec<Sent>,
    registrations: u64,
}

#[derive(Debug)]
struct Registered {
    wish: Wish,
    is_disabled: bool,
    /// The first arrival that is not announced yet.
    next: u64,
    due: Vec<Delivery>,
    failures: u32,
}

/// A request that is to be made.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) contents: Vec<Content>,
    tries: u32,
    not_before: Instant,
    /// By which registration. One that was replaced decides nothing any more.
    registration: u64,
}

/// A content in a request that was made.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) content: Content,
    pub(super) at: Timestamp,
    /// `success`, or what went wrong.
    pub(super) status: String,
}

impl Hook {
    /// Whether a start with this wish changes something.
    pub(super) fn differs(&self, wish: Option<&Wish>) -> bool {
        match &self.registered {
            Some(registered) => registered.is_disabled || Some(&registered.wish) != wish,
            None => wish.is_some(),
        }
    }

    /// From now on, arrivals from `next` on are announced as `wish` says, or nothing is.
    pub(super) fn register(&mut self, wish: Option<Wish>, next: u64) {
        self.registrations += 1;
        self.registered = wish.map(|wish| Registered { wish, is_disabled: false, next, due: Vec::new(), failures: 0 });
    }

    /// As `list` and `start` tell it; null when there is none.
    pub(super) fn told(&self, now: Timestamp) -> Value {
        let Some(registered) = &self.registered else { return Value::Null };
        let Wish { address, auth_id, expires } = &registered.wish;
        let status = match () {
            () if registered.is_disabled => "disabled",
            () if expires.is_some_and(|at| at <= now) => "expired",
            () => "enabled",
        };
        json!({
            "status": status,
            "address": address.as_str(),
            "authId": auth_id,
            "expiration": expires.map(|at| at.to_string()),
        })
    }

    /// Where notifications go now, if they go anywhere.
    pub(super) fn target(&self, now: Timestamp) -> Option<Wish> {
        let registered = self.registered.as_ref().filter(|registered| !registered.is_disabled)?;
        Some(registered.wish.clone()).filter(|wish| wish.expires.is_none_or(|at| now < at))
    }

    /// Has the arrivals before `until` announced, each by what `content` makes of it, but for those that are forgotten.
    pub(super) fn announce(
        &mut self,
        seed: u64,
        notifier: &Notifier,
        until: u64,
        content: impl Fn(u64) -> Option<Content>,
    ) {
        let registration = self.registrations;
        let Some(registered) = &mut self.registered else { return };
        let is_kept = |i: &u64| !chance(mix(seed, &[14, *i]), notifier.forgets);
        let new: Vec<Content> = (registered.next..until).filter(is_kept).filter_map(content).collect();
        registered.next = registered.next.max(until);
        let deliveries = new.chunks(notifier.contents.max(1)).map(|contents| Delivery {
            contents: contents.to_vec(),
            tries: 0,
            not_before: Instant::now(),
            registration,
        });
        registered.due.extend(deliveries);
    }

    /// Takes what is to be sent now.
    pub(super) fn take_due(&mut self, notifier: &Notifier) -> Vec<Delivery> {
        let Some(registered) = &mut self.registered else { return Vec::new() };
        let now = Instant::now();
        let mut due: Vec<Delivery> = registered.due.extract_if(.., |delivery| delivery.not_before <= now).collect();
        if notifier.reversed {
            due.reverse();
        }
        due
    }

    /// Remembers how a request went, and decides what follows; true when the webhook is disabled for it.
    pub(super) fn went(
        &mut self,
        seed: u64,
        notifier: &Notifier,
        mut delivery: Delivery,
        now: Timestamp,
        status: &str,
    ) -> bool {
        let serial = self.sent.len() as u64;
        let sent = delivery.contents.iter().map(|&content| Sent { content, at: now, status: status.to_owned() });
        self.sent.extend(sent);
        let is_current = delivery.registration == self.registrations;
        let Some(registered) = self.registered.as_mut().filter(|registered| is_current && !registered.is_disabled)
        else {
            return false;
        };
        delivery.tries += 1;
        if status == SUCCESS {
            registered.failures = 0;
            if chance(mix(seed, &[15, serial]), notifier.repeats) {
                registered.due.push(delivery);
            }
            return false;
        }
        registered.failures += 1;
        if notifier.disable_after <= registered.failures {
            registered.is_disabled = true;
            registered.due.clear();
            return true;
        }
        delivery.not_before = Instant::now() + notifier.first_retry * 2_u32.saturating_pow(delivery.tries - 1);
        registered.due.push(delivery);
        false
    }

    pub(super) fn sent(&self) -> &[Sent] {
        &self.sent
    }
}

/// The status of a notification that was taken.
pub(super) const SUCCESS: &str = "success";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-08-30T12:00:00Z";

    fn wished(body: &str) -> Result<Option<Wish>, u16> {
        wish(body.as_bytes(), NOW.parse().unwrap()).map_err(|answer| answer.status)
    }

    fn a_hook(until: u64, notifier: &Notifier) -> Hook {
        let mut hook = Hook::default();
        hook.register(wished(r#"{"webhook":{"address":"https://a.example/x"}}"#).unwrap(), 0);
        hook.announce(1, notifier, until, |i| Some(Content { first: i, last: i }));
        hook
    }

    #[test]
    fn s27_only_https_or_this_machine_is_ever_called() {
        for none in ["", "{}", r#"{"webhook":null}"#] {
            assert_eq!(wished(none), Ok(None));
        }
        for good in ["https://a.example/x", "http://127.0.0.1:1/x", "http://localhost/", "http://[::1]/"] {
            assert!(wished(&format!(r#"{{"Webhook":{{"address":"{good}"}}}}"#)).unwrap().is_some(), "{good}");
        }
        for bad in ["http://a.example/x", "ftp://127.0.0.1/", "x", "http://127.0.0.1.example/"] {
            assert_eq!(wished(&format!(r#"{{"webhook":{{"address":"{bad}"}}}}"#)), Err(400), "{bad}");
        }
        assert_eq!(wished(r#"{"webhook":{"address":"https://a","expiration":"2026-08-30T11:59:59Z"}}"#), Err(400));
    }

    #[test]
    fn s27_retries_back_off_and_failures_in_a_row_disable() {
        let notifier = Notifier { disable_after: 3, contents: 2, ..Notifier::default() };
        let mut hook = a_hook(3, &notifier);
        let now = NOW.parse().unwrap();
        let mut due = hook.take_due(&notifier);
        assert_eq!(due.iter().map(|one| one.contents.len()).collect::<Vec<_>>(), [2, 1]);
        let (first, second) = (due.remove(0), due.remove(0));
        assert!(!hook.went(1, &notifier, first, now, "http 503"));
        assert!(hook.take_due(&notifier).is_empty(), "it waits for its second try");
        assert!(!hook.went(1, &notifier, second.clone(), now, SUCCESS));
        assert!(!hook.went(1, &notifier, second.clone(), now, "http 503"), "a success began the count anew");
        assert!(!hook.went(1, &notifier, second.clone(), now, "http 503"));
        assert!(hook.went(1, &notifier, second, now, "http 503"));
        assert_eq!((hook.told(now)["status"].as_str(), hook.target(now)), (Some("disabled"), None));
        assert_eq!(hook.sent().len(), 6);
        assert!(hook.differs(wished(r#"{"webhook":{"address":"https://a.example/x"}}"#).unwrap().as_ref()));
    }

    #[test]
    fn s27_what_belongs_to_a_webhook_that_was_replaced_decides_nothing() {
        let notifier = Notifier { disable_after: 1, ..Notifier::default() };
        let mut hook = a_hook(1, &notifier);
        let old = hook.take_due(&notifier).remove(0);
        let now = NOW.parse().unwrap();
        hook.register(wished(r#"{"webhook":{"address":"https://b.example"}}"#).unwrap(), 1);
        assert!(!hook.went(1, &notifier, old, now, "http 503"));
        assert_eq!(hook.told(now)["status"], "enabled");
    }
}
