//! What the service collects for us, shown, started and stopped by the operator.

use std::{fs, time::Duration};

use axum::{Router, routing::any};
use o365feed::{
    domain::ContentType,
    simulator::{Operation, RepeatedStart, Scenario, SourceScenario, TenantScenario},
};
use serde_json::{Value, json};

use crate::{
    scratch::Scratch,
    world::{Ran, World, history},
};

const SHAREPOINT: &str = "Audit.SharePoint";
const EXCHANGE: &str = "Audit.Exchange";
const DLP: &str = "DLP.All";

/// SharePoint is not subscribed yet, Exchange is.
fn world(tenant: TenantScenario) -> World {
    let idle = SourceScenario { subscribed: false, ..history(3, 1) };
    let sources = vec![(ContentType::SharePoint, idle), (ContentType::Exchange, history(3, 1))];
    World::new(Scenario { tenants: vec![TenantScenario { sources, ..tenant }], ..Scenario::default() })
}

fn json(ran: &Ran) -> Vec<Value> {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|fault| panic!("{fault}: {}{}", ran.stdout, ran.stderr))
}

/// One member of each row, by content type.
fn of(ran: &Ran, member: &str) -> Vec<(String, Value)> {
    json(ran).iter().map(|row| (row["content_type"].as_str().unwrap().to_owned(), row[member].clone())).collect()
}

fn rows(expected: &[(&str, Value)]) -> Vec<(String, Value)> {
    expected.iter().map(|(kind, value)| ((*kind).to_owned(), value.clone())).collect()
}

#[test]
fn list_shows_what_is_missing_and_what_nobody_asked_for_and_start_starts_only_what_is_missing() {
    let world = world(TenantScenario::default());
    let tool = |args: &[&str]| world.tool(&[&["subscriptions"], args].concat());
    let ran = tool(&["list", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(of(&ran, "status"), rows(&[(EXCHANGE, json!("enabled")), (SHAREPOINT, json!("missing"))]));
    assert_eq!(json(&ran)[0]["tenant"], "contoso");
    assert_eq!(json(&ran)[0]["tenant_id"], world.tenant().to_string());

    let ran = tool(&["start", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(of(&ran, "result"), rows(&[(EXCHANGE, json!("already_running")), (SHAREPOINT, json!("started"))]));
    let ran = tool(&["start"]);
    assert_eq!((ran.code, ran.stdout.matches("runs already").count()), (0, 2), "{}", ran.stdout);
    assert_eq!(world.simulator().counts().starts, 1, "what runs is not started");

    assert_eq!(tool(&["start", "--type", "dlp.all"]).code, 0);
    let ran = tool(&["list", "--output", "json"]);
    let settings = rows(&[(EXCHANGE, json!(true)), (SHAREPOINT, json!(true)), (DLP, json!(false))]);
    assert_eq!(of(&ran, "in_settings"), settings);
    let ran = tool(&["list", "--type", DLP]);
    let expected =
        "TENANT   CONTENT TYPE  STATUS   SETTINGS       WEBHOOK\ncontoso  DLP.All       enabled  not asked for  none\n";
    assert_eq!(ran.stdout, expected);

    let ran = tool(&["list", "--tenant", "fabrikam"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("fabrikam") && ran.stderr.contains("contoso"), "{}", ran.stderr);
}

#[test]
fn stop_warns_and_wants_a_word_and_is_done_once() {
    let world = world(TenantScenario { stop_status: 204, ..TenantScenario::default() });
    let tool = |args: &[&str]| world.tool(&[&["subscriptions", "stop"], args].concat());
    let ran = tool(&["--type", EXCHANGE]);
    assert_eq!(ran.code, 2, "{}", ran.stdout);
    assert!(ran.stderr.contains("lost for good") && ran.stderr.contains("--yes"), "{}", ran.stderr);
    assert_eq!(world.simulator().counts().of(Operation::Stop), 0);

    let ran = tool(&["--yes"]);
    assert_eq!(ran.code, 2, "{}", ran.stdout);
    assert!(ran.stderr.contains("--tenant or --type, or --all"), "{}", ran.stderr);
    assert_eq!(tool(&["--all", "--type", EXCHANGE, "--yes"]).code, 2);
    assert_eq!(world.simulator().counts().of(Operation::Stop), 0);

    let ran = tool(&["--all", "--yes", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("lost for good"), "{}", ran.stderr);
    assert_eq!(of(&ran, "result"), rows(&[(EXCHANGE, json!("stopped")), (SHAREPOINT, json!("not_running"))]));
    let ran = tool(&["--tenant", "contoso", "--yes"]);
    assert_eq!((ran.code, ran.stdout.matches("did not run").count()), (0, 2), "{}", ran.stdout);
    let ran = world.tool(&["subscriptions", "list", "--output", "json"]);
    assert_eq!(of(&ran, "status"), rows(&[(EXCHANGE, json!("missing")), (SHAREPOINT, json!("missing"))]));
}

#[test]
fn a_start_that_comes_too_soon_says_how_long_to_wait_and_the_others_go_on() {
    let world = world(TenantScenario { start: RepeatedStart::Cooldown, ..TenantScenario::default() });
    let tool = |args: &[&str]| world.tool(&[&["subscriptions"], args].concat());
    assert_eq!(tool(&["start"]).code, 0);
    assert_eq!(tool(&["stop", "--all", "--yes"]).code, 0);
    let ran = tool(&["start", "--output", "json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    // Exchange ran from the beginning and was never started before.
    assert_eq!(of(&ran, "result"), rows(&[(EXCHANGE, json!("started")), (SHAREPOINT, json!("failed"))]));
    let error = &json(&ran)[1]["error"];
    assert_eq!(error["code"], "started_too_often");
    assert!((600..=900).contains(&error["retry_after_seconds"].as_u64().unwrap()), "{error}");
    assert!(ran.stderr.contains("one start of a subscription in 15 minutes"), "{}", ran.stderr);
    assert!(ran.stderr.contains("wait 14 min"), "{}", ran.stderr);
}

#[test]
fn what_runs_already_although_the_list_does_not_show_it_is_no_failure() {
    let world = world(TenantScenario { listed_after: Duration::from_secs(3_600), ..TenantScenario::default() });
    let start = || world.tool(&["subscriptions", "start", "--output", "json"]);
    assert_eq!(start().code, 0);
    let ran = start();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        of(&ran, "result"),
        rows(&[(EXCHANGE, json!("already_running")), (SHAREPOINT, json!("already_running"))])
    );
    assert_eq!(world.simulator().counts().requests[&(Operation::Start, 400)], 1, "the service said AF20024");
    let told = world.tool(&["subscriptions", "start"]).stdout;
    assert!(told.contains("runs already (AF20024: the service says that it runs)"), "{told}");
}

#[test]
fn a_type_without_its_permission_fails_alone_with_the_advice_and_its_code() {
    let world = world(TenantScenario { roles: vec!["ActivityFeed.Read".to_owned()], ..TenantScenario::default() });
    let ran = world.tool(&["subscriptions", "start", "--type", DLP, "--type", SHAREPOINT]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stdout.contains("FAILED") && ran.stdout.contains("started"), "{}", ran.stdout);
    assert!(ran.stderr.contains("AF10001") && ran.stderr.contains("ActivityFeed.ReadDlp"), "{}", ran.stderr);
}

#[test]
fn a_webhook_needs_an_address_and_a_secret_of_the_settings() {
    let mut world = world(TenantScenario::default());
    let ran = world.tool(&["subscriptions", "start", "--webhook", "http://feed.example.com/"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("https"), "{}", ran.stderr);
    let ran = world.tool(&["subscriptions", "start", "--webhook"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("webhook.public_url"), "{}", ran.stderr);
    world.set("webhook.public_url", "https://feed.example.com/webhook");
    let ran = world.tool(&["subscriptions", "start", "--webhook"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("webhook.auth_id_file"), "{}", ran.stderr);
    world.set("webhook.auth_id_file", "/nowhere/auth-id");
    let ran = world.tool(&["subscriptions", "start", "--webhook"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("/nowhere/auth-id"), "{}", ran.stderr);
    assert_eq!(world.simulator().counts().starts, 0);
}

#[test]
fn another_programs_webhook_is_neither_shown_in_full_nor_replaced_without_a_word() {
    let mut world = world(TenantScenario::default());
    let receiver = world.runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(async || "fine"))).await });
        address
    });
    let secret = Scratch::new("another-webhook");
    let file = secret.path().join("auth-id");
    fs::write(&file, "our-secret-0123456789\n").unwrap();
    world.set("webhook.auth_id_file", file.display());
    let (theirs, ours) = (format!("http://{receiver}/theirs?key=hidden"), format!("http://{receiver}/ours"));
    let start = |world: &World, args: &[&str]| {
        world.tool(&[&["subscriptions", "start", "--type", EXCHANGE, "--output", "json"], args].concat())
    };
    let listed = |world: &World| {
        let ran = world.tool(&["subscriptions", "list", "--type", EXCHANGE, "--output", "json"]);
        json(&ran)[0]["webhook"]["address"].clone()
    };
    let ran = start(&world, &["--webhook", &theirs]);
    assert_eq!((ran.code, &json(&ran)[0]["webhook"]["address"]), (0, &json!(theirs)), "{}", ran.stderr);
    assert_eq!(listed(&world), format!("http://{receiver}"));

    let starts = world.simulator().counts().starts;
    for wish in [&["--webhook", &ours][..], &["--no-webhook"]] {
        let ran = start(&world, wish);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains("the webhook at 127.0.0.1 is another's"), "{}", ran.stderr);
        assert!(ran.stderr.contains("--yes is needed") && !ran.stderr.contains("hidden"), "{}", ran.stderr);
    }
    assert_eq!(start(&world, &["--no-webhook", "--expires", "2099-01-31"]).code, 2);
    assert_eq!(world.simulator().counts().starts, starts, "nothing was changed");
    assert_eq!(start(&world, &[]).code, 0, "it is left alone when no word is said of webhooks");

    let ran = start(&world, &["--webhook", &ours, "--yes"]);
    assert_eq!((ran.code, &json(&ran)[0]["result"]), (0, &json!("webhook_set")), "{}", ran.stderr);
    world.set("webhook.public_url", &ours);
    assert_eq!(listed(&world), json!(ours));
    let ran = start(&world, &["--no-webhook"]);
    assert_eq!((ran.code, &json(&ran)[0]["result"]), (0, &json!("webhook_removed")), "{}", ran.stderr);
}
