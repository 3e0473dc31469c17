//! The operations of the API: subscriptions, listings, blobs. Each is a plain function from a call to an answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::{
    answer::{Answer, Ending, http_date},
    arrivals::{parse_stamp, stamp},
    blob::{Blob, Cut},
    clock::{at_ns, ns, wire_ms},
    counts::Operation,
    fault::{Damage, Failure, ThrottleShape},
    notifier,
    random::mix,
    scenario::{Disabled, RepeatedStart, TenantScenario},
    server::{Shared, SimTenant},
    source::{Content, Named, SHARD, SimSource},
    token::Grant,
    webhook::{self, Sent},
    window::{Asked, asked},
};
use crate::domain::ContentType;

const COOLDOWN: SignedDuration = SignedDuration::from_mins(15);

/// A request to the API, read but not yet believed.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) operation: Operation,
    /// As the URL has it.
    pub(super) tenant: String,
    /// For a blob.
    pub(super) content_id: String,
    /// Names in lower case: the service does not mind.
    pub(super) query: Vec<(String, String)>,
    /// Without `Bearer`.
    pub(super) token: Option<String>,
    /// For a start.
    pub(super) body: Bytes,
}

impl Call {
    /// Reads a query string into pairs, names in lower case.
    pub(super) fn query(text: &str) -> Vec<(String, String)> {
        form_urlencoded::parse(text.as_bytes()).map(|(name, value)| (name.to_lowercase(), value.into_owned())).collect()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What tells this request from others when it is tried again.
    fn key(&self) -> String {
        let asked = ["contenttype", "starttime", "endtime", "nextpage"].map(|name| self.parameter(name).unwrap_or(""));
        format!("{} {} {}", self.tenant, self.content_id, asked.join(" "))
    }
}

/// Answers a call. Nothing means that no answer is ever to come.
pub(super) async fn answer(shared: &Shared, call: &Call) -> Option<Answer> {
    let (publisher, is_admitted) = admit(shared, call);
    let failure = shared.faults.failure(call.operation, &call.key());
    let answer = match failure {
        Some((Failure::Silence, _)) => return None,
        Some((Failure::Status(status), before)) => down(status, before),
        Some((Failure::Denied, _)) => Answer::denied(),
        Some((Failure::Code(number), _)) => Answer::error(400, &format!("AF{number}"), "As the scenario wants it."),
        Some((Failure::AuditOff, _)) => audit_off(shared, call),
        Some((Failure::Throttled(shape), _)) => throttled(shared, call, shape, publisher),
        _ if !is_admitted => throttled(shared, call, shared.faults.faults().throttle, publisher),
        _ => perform(shared, call).await.unwrap_or_else(|refusal| refusal),
    };
    Some(match failure {
        Some((Failure::Reset, _)) => answer.ending(Ending::Reset),
        Some((Failure::Stall, _)) => answer.ending(Ending::Stall),
        Some((Failure::ByteOrderMark, _)) => answer.byte_order_mark(),
        Some((Failure::Close, _)) => answer.header("connection", "close"),
        Some((Failure::Slow(ms), _)) => answer.after(Duration::from_millis(ms.into())),
        Some((Failure::StrayLink, _)) => answer.header("NextPageUri", "https://elsewhere.example/api/v1.0/next"),
        _ => answer,
    })
}

/// The unified audit log is switched off, or the tenant is not provisioned (docs/api/contract.md 3.1).
fn audit_off(shared: &Shared, call: &Call) -> Answer {
    let text =
        format!("Microsoft.Office.Compliance.Audit.DataServiceException: Tenant {} does not exist.", call.tenant);
    Answer::error(400, &format!("StartSubscription [CorrId={}]", shared.correlation()), text)
}

/// 500 in either of its texts, anything else as a proxy says it.
pub(super) fn down(status: u16, before: u32) -> Answer {
    match (status, before % 2) {
        (500, 0) => Answer::error(500, "AF50000", "An internal error occurred. Retry the request."),
        (500, _) => {
            Answer::error(500, "AF50000", "An internal error occurred. Please retry the request again in an hour.")
        }
        _ => Answer::page(status),
    }
}

/// Counts the call against its publisher's minute. An unreadable publisher counts as none.
fn admit(shared: &Shared, call: &Call) -> (Uuid, bool) {
    let publisher = call.parameter("publisheridentifier");
    if publisher.is_none() {
        shared.counter.note(|counts| counts.missing_publisher += 1);
    }
    let publisher = publisher.and_then(|text| Uuid::try_parse(text).ok()).unwrap_or_default();
    match shared.tenant(&call.tenant) {
        Some(tenant) => {
            let quota = tenant.scenario.quota_per_minute;
            (publisher, shared.counter.admit(publisher, tenant.scenario.id, quota, Instant::now()))
        }
        None => (publisher, true),
    }
}

fn throttled(shared: &Shared, call: &Call, shape: ThrottleShape, publisher: Uuid) -> Answer {
    let message = format!("Too many requests. Method={}, PublisherId={publisher}", call.operation.method());
    let answer = |status| Answer::error(status, "AF429", &message);
    let wait = |seconds: u32| {
        if let Some(tenant) = shared.tenant(&call.tenant) {
            let wait = Duration::from_secs(u64::from(seconds));
            shared.counter.barred(publisher, tenant.scenario.id, wait, Instant::now());
        }
    };
    match shape {
        ThrottleShape::Forbidden => answer(403),
        ThrottleShape::TooMany => answer(429),
        ThrottleShape::TooManySeconds(seconds) => {
            wait(seconds);
            answer(429).header("retry-after", seconds.to_string())
        }
        ThrottleShape::TooManyDate(seconds) => {
            // A date has whole seconds, so the last one may be cut.
            wait(seconds.saturating_sub(1));
            answer(429).header("retry-after", http_date(shared.date() + SignedDuration::from_secs(seconds.into())))
        }
    }
}

async fn perform(shared: &Shared, call: &Call) -> Result<Answer, Answer> {
    let grant = authorised(shared, call)?;
    if call.parameter("publisheridentifier").is_some_and(|text| Uuid::try_parse(text).is_err()) {
        return Err(Answer::error(400, "AF20002", "Invalid parameter type: PublisherIdentifier. Expected type: guid"));
    }
    let now = shared.clock.now();
    match call.operation {
        Operation::Subscriptions => Ok(subscriptions(&grant.tenant, now)),
        Operation::Start => start(shared, &grant, call, now).await,
        Operation::Stop => stop(&grant, call, now),
        Operation::Content => content(shared, &grant, call, now),
        Operation::Notifications => notifications(shared, &grant, call, now),
        Operation::Blob => blob(shared, &grant, call, now),
        Operation::Token | Operation::Unknown => Err(Answer::page(404)),
    }
}

fn authorised(shared: &Shared, call: &Call) -> Result<Grant, Answer> {
    let grant = call.token.as_deref().and_then(|token| shared.tokens.grant(token)).ok_or_else(Answer::denied)?;
    let audience = grant.audience.trim_end_matches('/');
    let fits = [grant.tenant.scenario.audience.as_str(), shared.root.as_str()];
    let fits = fits.iter().any(|good| good.trim_end_matches('/').eq_ignore_ascii_case(audience));
    if grant.expires <= shared.clock.now() || !fits {
        return Err(Answer::denied());
    }
    let own = grant.tenant.scenario.id;
    match shared.tenant(&call.tenant) {
        Some(tenant) if tenant.scenario.id == own => Ok(grant),
        _ if Uuid::try_parse(&call.tenant).is_err() => {
            let text = format!("The tenant ID passed in the URL ({}) is not a valid GUID.", call.tenant);
            Err(Answer::error(400, "AF20013", text))
        }
        _ => {
            let text = format!(
                "The tenant ID passed in the URL ({}) does not match the tenant ID passed in the access token ({own}).",
                call.tenant
            );
            Err(Answer::error(400, "AF20010", text))
        }
    }
}

fn permitted(grant: &Grant, kind: ContentType) -> Result<(), Answer> {
    let needed = if kind == ContentType::Dlp { "ActivityFeed.ReadDlp" } else { "ActivityFeed.Read" };
    if grant.roles.iter().any(|role| role == needed) {
        return Ok(());
    }
    let text = format!(
        "The permission set ({}) sent in the request did not include the expected permission {needed}.",
        grant.roles.join(" ")
    );
    Err(Answer::error(401, "AF10001", text))
}

/// The source a call names, and its content type as the caller spells it.
fn wanted<'a>(grant: &'a Grant, call: &'a Call) -> Result<(&'a Arc<SimSource>, &'a str), Answer> {
    let spelled = call
        .parameter("contenttype")
        .ok_or_else(|| Answer::error(400, "AF20001", "Missing parameter: contentType."))?;
    let unknown = || Answer::error(400, "AF20020", "The specified content type is not valid.");
    let kind: ContentType = spelled.parse().map_err(|_| unknown())?;
    permitted(grant, kind)?;
    Ok((grant.tenant.source(kind), spelled))
}

/// The answer to whoever reads what is not subscribed.
fn not_running(source: &SimSource) -> Option<Answer> {
    let subscription = source.subscription();
    match (subscription.is_enabled(), subscription.is_broken() || subscription.disabled.is_some()) {
        (true, _) => None,
        (false, true) => Some(disabled()),
        (false, false) => Some(unsubscribed()),
    }
}

fn unsubscribed() -> Answer {
    Answer::error(400, "AF20022", "No subscription found for the specified content type.")
}

fn disabled() -> Answer {
    Answer::error(400, "AF20023", "The subscription was disabled.")
}

fn subscriptions(tenant: &SimTenant, now: Timestamp) -> Answer {
    let known = tenant.sources.iter().filter_map(|source| {
        let (subscription, hook) = (source.subscription(), source.hook());
        let age = subscription.last_start_ns.map(|started| now.duration_since(at_ns(started)).unsigned_abs());
        let is_listed = age.is_none_or(|age| tenant.scenario.listed_after <= age);
        let status = if subscription.is_disabled() { "disabled" } else { "enabled" };
        ((subscription.is_enabled() || subscription.is_disabled()) && is_listed)
            .then(|| json!({"contentType": subscription.spelled, "status": status, "webhook": hook.told(now)}))
    });
    Answer::json(200, &known.collect::<Value>())
}

/// Starts a subscription, or gives a running one another webhook, or takes its webhook away.
async fn start(shared: &Shared, grant: &Grant, call: &Call, now: Timestamp) -> Result<Answer, Answer> {
    let (source, spelled) = wanted(grant, call)?;
    let (is_enabled, last_start_ns) = {
        let subscription = source.subscription();
        (subscription.is_enabled(), subscription.last_start_ns)
    };
    let TenantScenario { start: repeated, broken_by_restart_within, .. } = grant.tenant.scenario;
    let since = last_start_ns.map(|last| now.duration_since(at_ns(last)));
    if let Some(left) = since.map(|since| COOLDOWN - since).filter(|left| *left > SignedDuration::ZERO)
        && repeated == RepeatedStart::Cooldown
    {
        let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
        let text =
            format!("Too many frequent subscription start requests. Please retry again after {minutes}m {seconds}s");
        return Err(Answer::error(429, "TooManyRequests", text));
    }
    let wish = webhook::wish(&call.body, now)?;
    let is_change = !is_enabled || source.hook().differs(wish.as_ref());
    if !is_change && repeated != RepeatedStart::Fine {
        let text = "The subscription is already enabled. No property change.";
        return Err(Answer::error(400, "AF20024", text));
    }
    if source.subscription().disabled == Some(Disabled::ForGood) {
        return Err(disabled());
    }
    if is_change {
        // Until the new one is validated there is none; if it never is, the subscription stays without.
        source.hook().register(None, 0);
        if let Some(wish) = &wish {
            let refused = |why: String| webhook::not_validated(wish.address.as_str(), &why);
            notifier::validate(shared, wish).await.map_err(refused)?;
        }
        source.hook().register(wish, source.arrivals.until(ns(now)));
        if is_enabled {
            source.subscription().last_start_ns = Some(ns(now));
        } else {
            source.start(spelled, now, broken_by_restart_within);
        }
    }
    let told = source.hook().told(now);
    Ok(Answer::json(200, &json!({"contentType": spelled, "status": "enabled", "webhook": told})))
}

fn stop(grant: &Grant, call: &Call, now: Timestamp) -> Result<Answer, Answer> {
    let (source, _) = wanted(grant, call)?;
    if !source.subscription().is_enabled() {
        return Err(unsubscribed());
    }
    source.stop(now);
    source.hook().register(None, 0);
    Ok(Answer::new(grant.tenant.scenario.stop_status, "text/plain", ""))
}

fn content(shared: &Shared, grant: &Grant, call: &Call, now: Timestamp) -> Result<Answer, Answer> {
    let (source, spelled) = wanted(grant, call)?;
    if let Some(refusal) = not_running(source) {
        return Err(refusal);
    }
    let after_ns = call.parameter("nextpage").map(page_mark).transpose()?;
    let (start, end) = (call.parameter("starttime"), call.parameter("endtime"));
    let wide = grant.tenant.scenario.windows;
    let Asked::Span { start, end } = asked(start, end, now, wide, after_ns.is_some())? else {
        return Ok(Answer::json(200, &json!([])));
    };
    let page_size = source.scenario.page_size.max(1);
    let (page, has_more) = source.list(ns(start), ns(end), now, after_ns, page_size);
    let mut shown = page.clone();
    if source.scenario.shuffled {
        shown.sort_unstable_by_key(|content| mix(shared.seed, &[content.first]));
    }
    let items: Value = shown.iter().map(|&content| listed(shared, source, spelled, content)).collect();
    let answer = Answer::json(200, &items);
    Ok(match page.last().filter(|_| has_more) {
        Some(last) => {
            let mark = format!("{}${}${SHARD}", stamp(source.arrivals.at(last.last)), stamp(ns(start)));
            let next = next_page(&shared.feed_url(&grant.tenant), "content", spelled, (start, end), &mark);
            answer.header(&source.scenario.next_page_header, next)
        }
        None => answer,
    })
}

/// The history of notifications, by when their contents became available, an entry for each try.
fn notifications(shared: &Shared, grant: &Grant, call: &Call, now: Timestamp) -> Result<Answer, Answer> {
    let (source, spelled) = wanted(grant, call)?;
    if let Some(refusal) = not_running(source) {
        return Err(refusal);
    }
    let skip = call.parameter("nextpage").map(entry_mark).transpose()?;
    let (start, end) = (call.parameter("starttime"), call.parameter("endtime"));
    let Asked::Span { start, end } = asked(start, end, now, grant.tenant.scenario.windows, skip.is_some())? else {
        return Ok(Answer::json(200, &json!([])));
    };
    let is_asked = |sent: &&Sent| (start..end).contains(&at_ns(ms(source.arrivals.at(sent.content.last))));
    let hook = source.hook();
    let (skip, page_size) = (skip.unwrap_or(0), source.scenario.page_size.max(1));
    let mut left = hook.sent().iter().filter(is_asked).skip(skip);
    let told = |sent: &Sent| {
        let mut item = listed(shared, source, spelled, sent.content);
        item["notificationSent"] = json!(wire_ms(ns(sent.at)));
        item["notificationStatus"] = json!(sent.status);
        item
    };
    let items: Value = left.by_ref().take(page_size).map(told).collect();
    let answer = Answer::json(200, &items);
    Ok(match left.next() {
        Some(_) => {
            let mark = format!("{}$entries${SHARD}", skip + page_size);
            let next = next_page(&shared.feed_url(&grant.tenant), "notifications", spelled, (start, end), &mark);
            answer.header(&source.scenario.next_page_header, next)
        }
        None => answer,
    })
}

/// A time as the items write it, cut to milliseconds.
fn ms(ns: i64) -> i64 {
    ns.div_euclid(1_000_000) * 1_000_000
}

/// The URL of the next page as on the wire: names in lower case, `$` as it is, no publisher.
fn next_page(feed: &str, what: &str, spelled: &str, window: (Timestamp, Timestamp), mark: &str) -> String {
    let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%S.%7fZ").to_string();
    let (start, end) = (time(window.0), time(window.1));
    format!("{feed}/subscriptions/{what}?contenttype={spelled}&endtime={end}&starttime={start}&nextpage={mark}")
}

fn bad_page(text: &str) -> Answer {
    Answer::error(400, "AF20031", format!("Invalid nextPage Input: {text}."))
}

fn entry_mark(text: &str) -> Result<usize, Answer> {
    let parts: Vec<&str> = text.split('$').collect();
    let [entries, "entries", SHARD] = parts[..] else { return Err(bad_page(text)) };
    entries.parse().map_err(|_| bad_page(text))
}

fn page_mark(text: &str) -> Result<i64, Answer> {
    let bad = || bad_page(text);
    let parts: Vec<&str> = text.split('$').collect();
    let [after, start, SHARD] = parts[..] else { return Err(bad()) };
    parse_stamp(start).and(parse_stamp(after)).ok_or_else(bad)
}

pub(super) fn listed(shared: &Shared, source: &SimSource, spelled: &str, content: Content) -> Value {
    let id = source.id(content);
    json!({
        "contentUri": format!("{}/audit/{id}", shared.feed_url_of(source.source.tenant)),
        "contentId": id,
        "contentType": spelled,
        "contentCreated": wire_ms(source.arrivals.at(content.last)),
        "contentExpiration": wire_ms(source.expires_ns(content)),
    })
}

fn blob(shared: &Shared, grant: &Grant, call: &Call, now: Timestamp) -> Result<Answer, Answer> {
    let id = &call.content_id;
    shared.counter.note(|counts| *counts.blob_gets.entry(id.clone()).or_default() += 1);
    let named = grant.tenant.sources.iter().map(|source| (source, source.named(id, now)));
    let (source, named) = named.into_iter().find(|(_, named)| *named != Named::Invalid).ok_or_else(|| invalid(id))?;
    permitted(grant, source.source.content_type)?;
    let Named::Content(content) = named else { return Err(missing(id)) };
    if source.expires_ns(content) <= ns(now) {
        return Err(expired(id));
    }
    let blob = Blob::new(Arc::clone(source), source.view(now).arrivals(content));
    match shared.faults.damage(source.source, content) {
        Some(damage) => damaged(blob, damage, id),
        None => Ok(Answer::blob(blob)),
    }
}

fn damaged(blob: Blob, damage: Damage, id: &str) -> Result<Answer, Answer> {
    let half = blob.records() / 2;
    Ok(match damage {
        Damage::NotFound => return Err(Answer::page(404)),
        Damage::Missing => return Err(missing(id)),
        Damage::Expired => return Err(expired(id)),
        Damage::InvalidId => return Err(invalid(id)),
        Damage::Denied => return Err(Answer::denied()),
        Damage::Status(status) => return Err(down(status, 0)),
        Damage::Truncated => Answer::blob(blob.cut(Cut::After(half))),
        Damage::CutMidRecord => Answer::blob(blob.cut(Cut::Inside(half))),
        Damage::Shorter => Answer::blob(blob.cut(Cut::Shorter(half))),
        Damage::NotJson => Answer::new(200, "application/json; charset=utf-8", "upstream gave up"),
        Damage::Html => Answer::page(200),
        Damage::Empty => Answer::json(200, &json!([])),
        Damage::Reset => Answer::blob(blob).ending(Ending::Reset),
        Damage::Stall => Answer::blob(blob).ending(Ending::Stall),
    })
}

fn missing(id: &str) -> Answer {
    Answer::error(400, "AF20050", format!("The specified content ({id}) does not exist."))
}

fn expired(id: &str) -> Answer {
    let text = format!(
        "Content requested with the key {id} has already expired. Content older than 7 days cannot be retrieved."
    );
    Answer::error(400, "AF20051", text)
}

fn invalid(id: &str) -> Answer {
    Answer::error(400, "AF20052", format!("Blob key {id} in the url is invalid"))
}
