//! Sends what a webhook is due: the validation when it is registered, then notifications. Goes to the registered address
//! and nowhere else: no proxy, no redirect.

use std::{io, sync::Arc};

use futures_util::future::join_all;
use reqwest::{Client, header::CONTENT_TYPE, redirect::Policy};
use serde_json::{Value, json};

use super::{
    clock::ns,
    feed,
    server::{Shared, SimTenant},
    source::{Content, SimSource},
    webhook::{Delivery, SUCCESS, Wish},
};

const JSON: &str = "application/json; charset=utf-8";
const AUTH_ID: &str = "Webhook-AuthID";

/// Sends notifications until the simulator stops.
pub(super) async fn run(shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let turn = async {
            tokio::time::sleep(shared.notifier.interval).await;
            let sources = shared.tenants.iter().flat_map(|tenant| tenant.sources.iter().map(move |one| (tenant, one)));
            join_all(sources.map(|(tenant, source)| notify(&shared, tenant, source))).await;
        };
        tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            () = turn => {}
        }
    }
}

/// Asks the receiver whether it is one.
///
/// # Errors
/// Why it is not, in a sentence.
pub(super) async fn validate(shared: &Shared, wish: &Wish) -> Result<(), String> {
    let code = shared.correlation().to_string();
    let body = json!({"validationCode": code});
    let status = post(shared, wish, &body, Some(&code)).await;
    shared.counter.note(|counts| *counts.validations.entry(*status.as_ref().unwrap_or(&0)).or_default() += 1);
    match status {
        Ok(200) => Ok(()),
        Ok(other) => Err(format!("It answered {other}.")),
        Err(why) => Err(why),
    }
}

async fn notify(shared: &Shared, tenant: &SimTenant, source: &SimSource) {
    let now = shared.clock.now();
    let Some(wish) = source.hook().target(now).filter(|_| source.subscription().is_enabled()) else { return };
    let due = {
        let view = source.view(now);
        let until = source.arrivals.until(ns(now));
        let mut hook = source.hook();
        hook.announce(shared.seed, &shared.notifier, until, |i| view.shows(i).then(|| source.announced(i)));
        hook.take_due(&shared.notifier)
    };
    for delivery in due {
        let status = send(shared, tenant, source, &wish, &delivery).await;
        let mut hook = source.hook();
        if hook.went(shared.seed, &shared.notifier, delivery, shared.clock.now(), &status) {
            shared.counter.note(|counts| counts.webhooks_disabled += 1);
        }
    }
}

async fn send(shared: &Shared, tenant: &SimTenant, source: &SimSource, wish: &Wish, delivery: &Delivery) -> String {
    let body: Value = delivery.contents.iter().map(|&content| told(shared, tenant, source, content)).collect();
    let status = post(shared, wish, &body, None).await;
    shared.counter.note(|counts| {
        *counts.notifications.entry(*status.as_ref().unwrap_or(&0)).or_default() += 1;
        if status == Ok(200) {
            counts.announced.extend(delivery.contents.iter().map(|&content| source.id(content)));
        }
    });
    match status {
        Ok(200) => SUCCESS.to_owned(),
        Ok(other) => format!("Failed with HTTP status {other}."),
        Err(why) => why,
    }
}

/// One content of a notification.
fn told(shared: &Shared, tenant: &SimTenant, source: &SimSource, content: Content) -> Value {
    let spelled = source.subscription().spelled.clone();
    let mut item = feed::listed(shared, source, &spelled, content);
    item["tenantId"] = json!(tenant.scenario.id.to_string());
    item["clientId"] = json!(tenant.scenario.client_id);
    item
}

/// The status of the answer, or why none came.
async fn post(shared: &Shared, wish: &Wish, body: &Value, code: Option<&str>) -> Result<u16, String> {
    let client = shared.webhook_client.get_or_init(client).as_ref().map_err(Clone::clone)?;
    let mut request = client
        .post(wish.address.clone())
        .timeout(shared.notifier.timeout)
        .header(CONTENT_TYPE, JSON)
        .body(body.to_string());
    if let Some(auth_id) = &wish.auth_id {
        request = request.header(AUTH_ID, auth_id);
    }
    if let Some(code) = code {
        request = request.header("Webhook-ValidationCode", code);
    }
    match request.send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(fault) if fault.is_timeout() => Err("It did not answer in time.".to_owned()),
        Err(_) => Err("It cannot be reached.".to_owned()),
    }
}

fn client() -> Result<Client, String> {
    let client = Client::builder().no_proxy().redirect(Policy::none()).build();
    client.map_err(|fault| format!("The service has no client: {fault}."))
}
