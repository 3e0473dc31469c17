//! What fetching alone costs: `curl --parallel` on every content that the API lists.

use std::{fs, process::Command};

use o365feed::domain::ContentType;
use reqwest::{Client, Response};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::{
    meter::{self, Usage},
    scratch::Scratch,
    world::Simulation,
};

/// As many at once as the connector by default.
const PARALLEL: &str = "32";
const DAYS: i64 = 7;

/// Lists everything, then lets curl fetch it. Gives what curl used and how many bytes it had.
///
/// # Panics
/// Unless all `contents` were listed and fetched.
pub async fn fetch(simulation: &Simulation, contents: u64) -> (Usage, u64) {
    let client = Client::builder().no_proxy().build().unwrap();
    let token = token(&client, simulation).await;
    let mut urls = Vec::new();
    for kind in ContentType::ALL {
        list(&client, simulation, &token, kind, &mut urls).await;
    }
    assert_eq!(urls.len() as u64, contents, "not all contents are listed");

    let files = Scratch::new("curl");
    let sizes = files.path().join("sizes");
    let mut command = Command::new("curl");
    command.args(["--config", "-", "--parallel", "--parallel-max", PARALLEL, "--no-progress-meter", "--fail"]);
    command.args(["--globoff", "--noproxy", "*", "--write-out", "%{size_download}\n"]);
    command.stdout(fs::File::create(&sizes).unwrap());
    // The token goes in on standard input, where no list of processes shows it.
    let mut config = format!("header = \"Authorization: Bearer {token}\"\n");
    urls.iter().for_each(|url| config += &format!("url = \"{url}\"\noutput = /dev/null\n"));
    let usage = meter::run(&mut command, config.as_bytes());
    let told = fs::read_to_string(sizes).unwrap();
    let size = |line: &str| line.parse().unwrap_or_else(|_| panic!("curl says {line:?}"));
    let sizes: Vec<u64> = told.lines().map(size).collect();
    assert_eq!(sizes.len() as u64, contents, "curl left out some contents");
    (usage, sizes.iter().sum())
}

async fn token(client: &Client, simulation: &Simulation) -> String {
    let tenant = &simulation.tenant;
    let scope = format!("{}/.default", tenant.audience);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &tenant.client_id),
        ("client_secret", tenant.client_secret.expose_secret()),
        ("scope", &scope),
    ];
    let url = format!("{}/{}/oauth2/v2.0/token", simulation.api_root, tenant.id);
    let answer = client.post(url).form(&form).send().await.unwrap().error_for_status().unwrap();
    json(answer).await["access_token"].as_str().expect("a token").to_owned()
}

async fn list(client: &Client, simulation: &Simulation, token: &str, kind: ContentType, urls: &mut Vec<String>) {
    let root = format!("{}/api/v1.0/{}/activity/feed", simulation.api_root, simulation.tenant.id);
    let now = jiff::Timestamp::now().as_second();
    for day in 0..DAYS {
        // Half-open windows of a day, the last of which ends now. A minute short of seven days, as the service wants.
        let at = |days: i64| {
            let second = (now - days * 86_400).max(now - DAYS * 86_400 + 60);
            jiff::Timestamp::from_second(second).unwrap().strftime("%Y-%m-%dT%H:%M:%S").to_string()
        };
        let mut next = Some(format!(
            "{root}/subscriptions/content?contentType={}&startTime={}&endTime={}&PublisherIdentifier={}",
            kind.as_str(),
            at(DAYS - day),
            at(DAYS - day - 1),
            simulation.tenant.id
        ));
        while let Some(url) = next {
            let answer = client.get(url).bearer_auth(token).send().await.unwrap().error_for_status().unwrap();
            next = answer.headers().get("NextPageUri").map(|value| value.to_str().unwrap().to_owned());
            let page = json(answer).await;
            let items = page.as_array().expect("a page is an array");
            urls.extend(items.iter().map(|item| item["contentUri"].as_str().expect("a content has a URL").to_owned()));
        }
    }
}

async fn json(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}
