//! `o365feed simulate`: the simulated API on one port, its truth and its levers on another.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use url::Url;
use uuid::Uuid;

use crate::{
    domain::{ContentType, TenantId},
    simulator::{Duplicates, Faults, History, IdModel, Live, Scenario, Simulator, SourceScenario, TenantScenario},
};

/// Serve a simulated Management Activity API, with the truth about it beside.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// Address of the API and of the token endpoint
    #[arg(long, default_value = "127.0.0.1:8365")]
    pub listen: SocketAddr,
    /// Address of the control port: /truth, /counts, /faults, /clock, /health
    #[arg(long, default_value = "127.0.0.1:8366")]
    pub control: SocketAddr,
    /// Root of the URLs in answers, when callers reach the API under another name
    #[arg(long)]
    pub public_url: Option<Url>,
    /// The same seed and clock give the same records
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of tenants
    #[arg(long, default_value_t = 1)]
    pub tenants: u32,
    /// Content types that have contents
    #[arg(long, value_delimiter = ',', default_value = "Audit.SharePoint")]
    pub content_types: Vec<ContentType>,
    /// Contents of each content type that are there at the start
    #[arg(long, default_value_t = 100)]
    pub contents: u64,
    /// How far they reach back
    #[arg(long, default_value = "6h")]
    pub span: SignedDuration,
    /// Contents of each content type that arrive every minute
    #[arg(long, default_value_t = 6.0)]
    pub contents_per_minute: f64,
    /// Records in each content
    #[arg(long, default_value_t = 100)]
    pub records: u32,
    /// About how long a record is
    #[arg(long, default_value_t = 1_500)]
    pub record_bytes: usize,
    /// How contents get their ids
    #[arg(long, value_enum, default_value_t = Ids::Growing)]
    pub ids: Ids,
    /// Share of records (0 to 1) that come again later
    #[arg(long, default_value_t = 0.02)]
    pub duplicates: f64,
    /// Share of records (0 to 1) without an Id
    #[arg(long, default_value_t = 0.0)]
    pub without_id: f64,
    /// Share of contents (0 to 1) that are not listed until `curl -X POST` to /late on the control port
    #[arg(long, default_value_t = 0.0)]
    pub late: f64,
    /// Mix in the composed records, hostile ones included
    #[arg(long)]
    pub samples: bool,
    /// Requests a minute and publisher that each tenant lets through
    #[arg(long, default_value_t = 2_000)]
    pub quota: u32,
    /// Waited before each answer, in milliseconds
    #[arg(long, default_value_t = 0)]
    pub latency_ms: u64,
    /// Leave the subscriptions to be started by the caller
    #[arg(long)]
    pub unsubscribed: bool,
    /// A file of faults, as JSON: what POST /faults takes
    #[arg(long)]
    pub faults: Option<PathBuf>,
}

/// The models of docs/api/contract.md 3.5.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Ids {
    /// One id for ever, as documented
    Stable,
    /// The newest content grows and changes its id, as on the wire
    Growing,
    /// As growing, and a window sees only what lies inside it
    Partial,
}

/// Serves until the process is interrupted.
///
/// # Errors
/// When a port cannot be bound or the faults cannot be read.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let scenario = scenario(&args)?;
    let tenants = scenario.tenants.clone();
    let simulator = Simulator::start(scenario).await?;
    let root = args.public_url.unwrap_or_else(|| simulator.api_root());
    print!("{}", directions(&tenants, &root, &simulator.control_root(), &args.content_types));
    tokio::signal::ctrl_c().await.context("could not wait for the interrupt")?;
    simulator.shutdown().await
}

fn scenario(args: &SimulateArgs) -> anyhow::Result<Scenario> {
    let span = Duration::try_from(args.span).context("could not use a negative --span")?;
    let faults = match &args.faults {
        Some(path) => read_faults(path).with_context(|| format!("could not read faults from {}", path.display()))?,
        None => Faults::default(),
    };
    let source = SourceScenario {
        history: History { arrivals: args.contents, span, records: args.records },
        live: Live { arrivals_per_minute: args.contents_per_minute, records: args.records },
        record_bytes: args.record_bytes,
        id_model: match args.ids {
            Ids::Stable => IdModel::Stable,
            Ids::Growing => IdModel::Growing { arrivals: 8 },
            Ids::Partial => IdModel::Partial { arrivals: 8 },
        },
        duplicates: Duplicates { share: args.duplicates, reordered: true },
        without_id: args.without_id,
        late: args.late,
        samples: args.samples,
        subscribed: !args.unsubscribed,
        ..SourceScenario::default()
    };
    let first = TenantScenario::default();
    let tenants = (0..args.tenants).map(|i| TenantScenario {
        id: TenantId(Uuid::from_u128(first.id.0.as_u128() + u128::from(i))),
        sources: args.content_types.iter().map(|kind| (*kind, source.clone())).collect(),
        quota_per_minute: args.quota,
        latency: Duration::from_millis(args.latency_ms),
        ..first.clone()
    });
    Ok(Scenario {
        seed: args.seed,
        listen: args.listen,
        control: args.control,
        public_url: args.public_url.clone(),
        tenants: tenants.collect(),
        faults,
        ..Scenario::default()
    })
}

fn read_faults(path: &PathBuf) -> anyhow::Result<Faults> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// What to put into a shell and a configuration so that a connector finds this simulator. The secret is invented.
fn directions(tenants: &[TenantScenario], root: &Url, control: &Url, kinds: &[ContentType]) -> String {
    let root = root.as_str().trim_end_matches('/');
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let secret = tenants.first().map_or("", |tenant| tenant.client_secret.expose_secret());
    let mut text = format!("# shell\nexport AZURE_CLIENT_SECRET='{secret}'\n\n# o365feed.yaml\ntenants:\n");
    for tenant in tenants {
        text.push_str(&format!(
            "  - id: {}\n    api_root: {root}\n    authority: {root}\n    audience: {}\n    client_id: {}\n    \
             credential: {{ secret_env: AZURE_CLIENT_SECRET }}\n    content_types: [{}]\n",
            tenant.id,
            tenant.audience,
            tenant.client_id,
            kinds.join(", ")
        ));
    }
    text.push_str(&format!("\n# the truth: {control}truth   what was asked: {control}counts\n"));
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn args(line: &str) -> SimulateArgs {
        Cli::try_parse_from(line.split(' ')).unwrap().args
    }

    #[test]
    fn arguments_become_a_scenario() {
        let args =
            args("simulate --tenants 2 --content-types dlp.all,Audit.Exchange --span 36h --ids partial --seed 7");
        let scenario = scenario(&args).unwrap();
        assert_eq!(scenario.seed, 7);
        let [one, two] = &scenario.tenants[..] else { panic!("two were asked for") };
        assert_ne!(one.id, two.id);
        let (kind, source) = &two.sources[0];
        assert_eq!(*kind, ContentType::Dlp);
        assert_eq!(source.history.span, Duration::from_secs(36 * 3_600));
        assert_eq!(source.id_model, IdModel::Partial { arrivals: 8 });
    }

    #[test]
    fn the_directions_name_every_tenant_and_both_ports() {
        let scenario = scenario(&args("simulate --tenants 3")).unwrap();
        let (root, control) = ("http://127.0.0.1:8365/".parse().unwrap(), "http://127.0.0.1:8366/".parse().unwrap());
        let text = directions(&scenario.tenants, &root, &control, &[ContentType::Exchange]);
        assert_eq!(text.matches("api_root: http://127.0.0.1:8365\n").count(), 3);
        assert!(text.contains("http://127.0.0.1:8366/truth"));
    }
}
