//! The history of a webhook: what was attempted, and what is attempted in vain.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::post};
use o365feed::{
    domain::ContentType,
    simulator::{Notifier, Operation, Scenario, SourceScenario},
};
use serde_json::{Value, json};

use crate::{
    wait,
    world::{PATIENCE, World, history, live, nowhere, scenario},
};

#[test]
fn attempts_are_listed_with_those_that_failed_first() {
    let source = SourceScenario { live: live(240.0, 1), page_size: 2, ..history(1, 1) };
    let notifier = Notifier {
        interval: Duration::from_millis(50),
        first_retry: Duration::from_millis(50),
        contents: 1,
        ..Notifier::default()
    };
    let world = World::on(
        &nowhere().to_string(),
        Scenario {
            notifier,
            ..scenario(vec![(ContentType::Exchange, source.clone()), (ContentType::General, source)])
        },
    );
    let none = world.tool(&["notifications", "--since", "24h"]);
    assert_eq!(none.code, 0, "{}", none.stderr);
    assert!(none.stdout.contains("0 attempts") && none.stdout.contains("content list"), "{}", none.stdout);

    let status = Arc::new(AtomicU16::new(200));
    let address = receiver(&world, Arc::clone(&status));
    subscribe(&world, ContentType::Exchange, &address);
    let sent = |status: u16| world.simulator().counts().notifications.get(&status).copied().unwrap_or(0);
    assert!(wait::comes_true(PATIENCE, || 5 < sent(200)));
    status.store(503, Ordering::Relaxed);
    assert!(wait::comes_true(PATIENCE, || 3 < sent(503)));
    status.store(200, Ordering::Relaxed);
    let before = sent(200);
    assert!(wait::comes_true(PATIENCE, || before + 2 < sent(200)));

    let (well, badly) = (sent(200), sent(503));
    let ran = world.tool(&["notifications", "--since", "24h", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let failed = rows.iter().take_while(|row| row["success"] == false).count() as u64;
    assert_eq!(failed, badly, "{}", ran.stdout);
    assert!(rows[failed as usize..].iter().all(|row| row["success"] == true), "{}", ran.stdout);
    assert!(well <= rows.len() as u64 - failed);
    assert!(rows.iter().all(|row| row["content_type"] == "Audit.Exchange" && row["tenant"] == "contoso"));
    let asked = world.simulator().counts().of(Operation::Notifications);
    assert!(2 * 24 * 2 + 4 < asked, "{asked} requests: no windows, or no pages");

    let table = world.tool(&["notifications", "--since", "1h", "--type", "Audit.Exchange"]);
    assert_eq!(table.code, 0, "{}", table.stderr);
    assert!(table.stdout.starts_with("SENT ") && table.stdout.contains(&format!("{badly} failed")), "{}", table.stdout);
    assert!(table.stdout.contains("check its address"), "{}", table.stdout);
}

/// A receiver on this machine that answers with `status`; gives its address.
fn receiver(world: &World, status: Arc<AtomicU16>) -> String {
    world.runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let answer = move || async move { StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap() };
        let router = Router::new().route("/hook", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    })
}

/// Sets the webhook as another program would.
fn subscribe(world: &World, kind: ContentType, address: &str) {
    let (root, tenant) = (world.simulator().api_root(), world.tenant());
    let call = async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let form = world.login();
        let url = root.join(&format!("{tenant}/oauth2/v2.0/token")).unwrap();
        let answer = client.post(url).form(&form).send().await.unwrap().bytes().await.unwrap();
        let token = serde_json::from_slice::<Value>(&answer).unwrap()["access_token"].as_str().unwrap().to_owned();
        let path = format!(
            "api/v1.0/{tenant}/activity/feed/subscriptions/start?contentType={kind}&PublisherIdentifier={tenant}"
        );
        let body = json!({"webhook": {"address": address}}).to_string();
        client.post(root.join(&path).unwrap()).bearer_auth(token).body(body).send().await.unwrap()
    };
    let answer = world.runtime().block_on(call);
    assert_eq!(answer.status(), 200, "{answer:?}");
}
