//! Everything that the pipeline meets in a demo: a simulated tenant, a broker, and settings that join them.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};

use super::DemoArgs;
use crate::{
    cli::{Exit, Failure},
    config::{Cloud, Credential, Delivery, Settings, Tenant},
    domain::ContentType,
    kafka::ensure,
    simulator::{Duplicates, History, IdModel, Live, Scenario, Simulator, SourceScenario, TenantScenario},
};

/// A stage that is set. Dropping it ends simulator and mock broker; topics on a real broker stay.
pub struct Stage {
    pub simulator: Simulator,
    pub settings: Settings,
    /// Held for its life: its broker goes with it. None with `--bootstrap`.
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

/// So many that a demo never waits for its budget; the pipeline keeps to it all the same.
const REQUESTS_PER_MINUTE: u32 = 60_000;

/// What is there at the start, of each content type. The mock keeps 5 MiB a partition, and this stays well below.
const HISTORY: History = History { arrivals: 48, span: Duration::from_secs(4 * 3_600), records: 40 };

/// Records in a content that arrives while the demo runs.
const LIVE_RECORDS: u32 = 20;

/// What this demo is, before anything moves.
pub fn introduction(args: &DemoArgs) -> String {
    match &args.bootstrap {
        Some(servers) => {
            format!("A demo: simulated tenant, real pipeline, Kafka at {servers}; delivery is exactly-once.")
        }
        None => "A demo: simulated tenant, real pipeline, mock broker inside this process. The mock keeps no \
                 transactions, so delivery is at-least-once here; exactly-once is shown with --bootstrap HOST:PORT."
            .to_owned(),
    }
}

impl Stage {
    /// Starts the simulator and the mock broker, or makes topics on the real one.
    ///
    /// # Errors
    /// [`Exit::Kafka`] when the real broker does not answer or refuses the topics.
    pub async fn set(args: &DemoArgs) -> Result<Self, Failure> {
        let tenant = tenant(args.records_per_minute);
        let scenario = Scenario { seed: args.seed, tenants: vec![tenant.clone()], ..Scenario::default() };
        let simulator = Simulator::start(scenario).await.context("could not start the simulator")?;
        let mut settings = settings(&tenant, &simulator);
        let mock = match &args.bootstrap {
            Some(servers) => {
                real_broker(&mut settings, servers, Timestamp::now());
                ensure(&settings).await.map_err(|fault| Failure::new(Exit::Kafka, fault))?;
                None
            }
            None => Some(mock_broker(&mut settings)?),
        };
        Ok(Self { simulator, settings, mock })
    }

    /// Where to look while it runs: `metrics` is the address of the pipeline's port.
    pub fn places(&self, metrics: SocketAddr) -> String {
        let places = format!("Metrics: http://{metrics}/metrics\nSimulated API: {}", self.simulator.api_root());
        if self.mock.is_some() {
            return places;
        }
        let prefix = &self.settings.kafka.topic_prefix;
        format!("{places}\nTopics: {prefix}.*, made for this demo; they stay until you delete them.")
    }

    /// Ends the simulator in good order.
    ///
    /// # Errors
    /// When one of its servers had failed.
    pub async fn clear(self) -> anyhow::Result<()> {
        self.simulator.shutdown().await.context("could not end the simulator")
    }
}

fn tenant(records_per_minute: u32) -> TenantScenario {
    let kinds = ContentType::ALL;
    let arrivals_per_minute = f64::from(records_per_minute) / f64::from(LIVE_RECORDS) / kinds.len() as f64;
    let source = SourceScenario {
        history: HISTORY,
        live: Live { arrivals_per_minute, records: LIVE_RECORDS },
        id_model: IdModel::Growing { arrivals: 8 },
        duplicates: Duplicates { share: 0.02, reordered: true },
        without_id: 0.01,
        samples: true,
        ..SourceScenario::default()
    };
    TenantScenario {
        sources: kinds.map(|kind| (kind, source.clone())).into(),
        quota_per_minute: REQUESTS_PER_MINUTE,
        ..TenantScenario::default()
    }
}

/// The defaults, made quick enough to watch.
fn settings(scenario: &TenantScenario, simulator: &Simulator) -> Settings {
    let tenant = Tenant {
        id: scenario.id,
        name: "contoso".to_owned(),
        cloud: Cloud::Worldwide,
        api_root: simulator.api_root(),
        authority: simulator.api_root(),
        audience: scenario.audience.clone(),
        client_id: scenario.client_id.clone(),
        credential: Credential::Secret(scenario.client_secret.clone()),
        content_types: ContentType::ALL.to_vec(),
        publisher_identifier: scenario.id.0,
    };
    let mut settings = Settings::with_defaults(vec![tenant], "demo");
    settings.quota.requests_per_minute = REQUESTS_PER_MINUTE;
    settings.listing.plan.poll_interval = Duration::from_secs(1);
    settings.listing.plan.window = Duration::from_secs(12 * 3_600);
    settings.kafka.commit_interval = Duration::from_millis(500);
    settings.http.listen = ([127, 0, 0, 1], 0).into();
    settings
}

/// A prefix of its own, so that no demo meets another's ledger.
fn real_broker(settings: &mut Settings, servers: &str, now: Timestamp) {
    let kafka = &mut settings.kafka;
    servers.clone_into(&mut kafka.bootstrap_servers);
    kafka.topic_prefix = format!("o365demo-{}", now.as_second());
    kafka.group.clone_from(&kafka.topic_prefix);
    kafka.delivery = Delivery::ExactlyOnce;
    kafka.replication_factor = -1;
}

/// The mock answers no admin calls, so its topics are made from inside. It shows aborted records and stores no
/// transactional offsets, so there are no transactions on it.
fn mock_broker(settings: &mut Settings) -> anyhow::Result<MockCluster<'static, DefaultProducerContext>> {
    let mock = MockCluster::new(1).context("could not start the mock broker")?;
    let (tenant, kafka) = (settings.tenants[0].id, &mut settings.kafka);
    kafka.bootstrap_servers = mock.bootstrap_servers();
    kafka.delivery = Delivery::AtLeastOnce;
    let outputs = ContentType::ALL.map(|kind| (kafka.output_topic(tenant, kind), kafka.output_partitions));
    let internal =
        [(kafka.listings_topic(), kafka.partitions), (kafka.ledger_topic(), kafka.partitions), (kafka.gaps_topic(), 1)];
    for (topic, partitions) in internal.into_iter().chain(outputs) {
        mock.create_topic(&topic, partitions, 1).with_context(|| format!("could not make the topic {topic}"))?;
    }
    Ok(mock)
}
