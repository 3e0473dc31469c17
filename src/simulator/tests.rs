//! The promises of docs/api/contract.md 11, over HTTP against a running simulator. One test a line.

mod accounting;
mod blobs;
mod feed;
mod tokens;
mod webhooks;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::*;
use crate::domain::ContentType;

const START: &str = "2026-08-30T12:00:00Z";
const PUBLISHER: &str = "0e1f2a3b-0000-4000-8000-c0a17e500002";

/// A simulator at a standing clock, and a caller that holds a token for its first tenant.
struct World {
    sim: Simulator,
    client: Client,
    token: String,
}

impl World {
    async fn of(tenant: TenantScenario) -> Self {
        Self::with(Scenario { tenants: vec![tenant], ..Scenario::default() }).await
    }

    async fn of_source(source: SourceScenario) -> Self {
        Self::of(TenantScenario { sources: vec![(ContentType::SharePoint, source)], ..TenantScenario::default() }).await
    }

    async fn with(scenario: Scenario) -> Self {
        let scenario = Scenario { clock: Clock::Virtual(START.parse().unwrap()), ..scenario };
        let (faults, tenant) = (scenario.faults.clone(), scenario.tenants[0].clone());
        let sim = Simulator::start(Scenario { faults: Faults::default(), ..scenario }).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let mut world = Self { sim, client, token: String::new() };
        world.token = world.token_for(&tenant, &tenant.audience).await;
        world.sim.control().set_faults(faults);
        world
    }

    async fn token_for(&self, tenant: &TenantScenario, audience: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &tenant.client_id),
            ("client_secret", tenant.client_secret.expose_secret()),
            ("scope", &format!("{audience}/.default")),
        ];
        let url = self.sim.api_root().join(&format!("{}/oauth2/v2.0/token", tenant.id)).unwrap();
        let answer: Value = read(self.client.post(url).form(&form).send().await.unwrap()).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    fn at(&self, seconds: i64) -> String {
        (START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds))
            .strftime("%Y-%m-%dT%H:%M:%S")
            .to_string()
    }

    /// A call to `…/activity/feed/{path}`, the publisher added.
    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let mark = if path.contains('?') { '&' } else { '?' };
        let tenant = TenantScenario::default().id;
        let path = format!("api/v1.0/{tenant}/activity/feed/{path}{mark}PublisherIdentifier={PUBLISHER}");
        self.client.request(method, self.sim.api_root().join(&path).unwrap()).bearer_auth(&self.token)
    }

    async fn post(&self, path: &str) -> Response {
        self.call(Method::POST, path).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.call(Method::GET, path).send().await.unwrap()
    }

    /// A URL that an answer named, used as it is.
    async fn follow(&self, url: &str) -> Response {
        self.client.get(url).bearer_auth(&self.token).send().await.unwrap()
    }

    async fn list(&self, from: i64, to: i64) -> Response {
        let (from, to) = (self.at(from), self.at(to));
        self.get(&format!("subscriptions/content?contentType=Audit.SharePoint&startTime={from}&endTime={to}")).await
    }

    async fn listed(&self, from: i64, to: i64) -> Vec<Value> {
        read::<Vec<Value>>(self.list(from, to).await).await
    }

    /// The URI of the oldest content of the last two hours.
    async fn first_uri(&self) -> String {
        self.listed(-7_200, 1).await[0]["contentUri"].as_str().unwrap().to_owned()
    }
}

async fn read<T: serde::de::DeserializeOwned>(answer: Response) -> T {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// Status and code of an error, the message beside.
async fn refusal(answer: Response) -> (u16, String, String) {
    let status = answer.status().as_u16();
    let json: Value = read(answer).await;
    let text = |name: &str| json["error"][name].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("message"))
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn a_source() -> SourceScenario {
    SourceScenario::default()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn is_ok(answer: &Response) -> bool {
    answer.status() == StatusCode::OK
}
