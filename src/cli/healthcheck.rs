//! `o365feed healthcheck`: what a container engine runs to learn whether the connector beside it is well.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use url::Url;

use super::{Exit, Failure, SettingsFrom, exit, output::harmless_lines, print, settings};

/// An answer that takes longer is none. Engines give up on a check themselves, after 30 s unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
#[command(
    after_long_help = exit::with_codes("Examples:\n  o365feed healthcheck --config /etc/o365feed/o365feed.yaml\n  o365feed healthcheck --ready", &[Exit::Unexpected, Exit::Usage])
)]
pub(super) struct HealthcheckArgs {
    #[command(flatten)]
    from: SettingsFrom,
    /// Ask /readyz instead: whether it has started and everything is well.
    #[arg(long)]
    ready: bool,
    /// Ask this address instead, without any settings: for the simulator, which answers on http://127.0.0.1:8366/health.
    #[arg(long, conflicts_with_all = ["config", "ready"])]
    url: Option<Url>,
}

/// Prints what the connector says of itself.
///
/// # Errors
/// [`Exit::Unexpected`] with what it says when it is not well, or when nobody answers; [`Exit::Usage`] for wrong settings.
pub(super) async fn run(args: HealthcheckArgs) -> Result<(), Failure> {
    let url = match args.url {
        Some(url) => url.into(),
        None => page_of(settings(&args.from)?.http.listen, if args.ready { "/readyz" } else { "/livez" }),
    };
    print(&ask(&url).await?)
}

async fn ask(url: &str) -> anyhow::Result<String> {
    // A proxy of the environment is for the world outside.
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().context("could not make a client")?;
    let answer = client.get(url).send().await.with_context(|| format!("no answer from {url}"))?;
    let status = answer.status();
    let said = answer.text().await.with_context(|| format!("no whole answer from {url}"))?;
    let said = harmless_lines(&said);
    if !status.is_success() {
        bail!("{url} answers {}: {}", status.as_u16(), said.trim_end());
    }
    Ok(said)
}

/// Whoever listens on all addresses is reached on this machine's own.
fn page_of(listen: SocketAddr, path: &str) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}{path}", SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        http::{Health, serve},
        telemetry::Metrics,
    };

    #[tokio::test]
    async fn it_tells_the_well_from_the_ill_and_from_those_who_are_not_there() {
        let (health, stop) = (Health::new(), CancellationToken::new());
        let any_port = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let serving = serve(any_port, Metrics::new(), health.clone(), stop.clone()).await.unwrap();
        let root = page_of(serving.address, "");
        let told = async |path: &str| ask(&format!("{root}{path}")).await.map_err(|fault| format!("{fault:#}"));

        assert_eq!(told("/livez").await, Ok("alive\n".to_owned()));
        assert_eq!(told("/readyz").await, Err(format!("{root}/readyz answers 503: start: not finished yet")));
        health.begun();
        assert_eq!(told("/readyz").await, Ok("ready\n".to_owned()));
        health.dead("fenced");
        assert_eq!(told("/livez").await, Err(format!("{root}/livez answers 503: dead: fenced")));

        stop.cancel();
        serving.ended.await.unwrap().unwrap();
        let nobody = told("/livez").await.unwrap_err();
        assert!(nobody.starts_with(&format!("no answer from {root}/livez: ")), "{nobody}");
    }

    #[test]
    fn all_addresses_are_asked_at_home() {
        let page = |listen: &str| page_of(listen.parse().unwrap(), "/livez");
        assert_eq!(page("0.0.0.0:9365"), "http://127.0.0.1:9365/livez");
        assert_eq!(page("[::]:9365"), "http://[::1]:9365/livez");
        assert_eq!(page("192.0.2.7:80"), "http://192.0.2.7:80/livez");
    }
}
