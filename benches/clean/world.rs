//! The simulated API and the connector, each in a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use o365feed::{domain::ContentType, simulator::TenantScenario};
use secrecy::ExposeSecret;

use crate::{
    RECORD_BYTES, RECORDS,
    meter::Usage,
    process::{Launch, Process},
    scratch::{Scratch, free_port},
};

/// Six of the seven days that the API keeps, so that nothing expires during the run.
const SPAN: &str = "144h";
/// No progress for as long is the end of the run.
const STUCK_AFTER: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// What the operator of the connector writes. Each `--set` goes into the environment, which wins.
const SETTINGS: &str = "\
tenants:
  - id: {tenant}
    api_root: {root}
    authority: {root}
    audience: {audience}
    client_id: {client}
    credential: { secret_env: BENCH_CLIENT_SECRET }
quota: { requests_per_minute: 1000000 }
kafka:
  bootstrap_servers: {bootstrap}
  slot: bench
";

/// A simulator with one tenant whose backlog is complete.
pub struct Simulation {
    process: Process,
    pub tenant: TenantScenario,
    pub api_root: String,
    pub control_root: String,
}

impl Simulation {
    /// Returns when it answers.
    pub fn start(contents: u64) -> Self {
        let [api, control] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let kinds = ContentType::ALL.map(|kind| kind.as_str()).join(",");
        let numbers = [contents, RECORDS, RECORD_BYTES].map(|number| number.to_string());
        let arguments = [
            ["--listen", &api],
            ["--control", &control],
            ["--content-types", &kinds],
            ["--contents", &numbers[0]],
            ["--records", &numbers[1]],
            ["--record-bytes", &numbers[2]],
            ["--span", SPAN],
            ["--contents-per-minute", "0"],
            ["--duplicates", "0"],
            ["--ids", "stable"],
            ["--quota", "1000000"],
        ];
        let arguments = ["simulate"].into_iter().chain(arguments.into_iter().flatten());
        let mut process = Process::start(Launch::o365feed(arguments), "");
        process.wait_until("the simulator says where it is", STUCK_AFTER, |process| process.stdout().contains("truth"));
        let [api_root, control_root] = [api, control].map(|address| format!("http://{address}"));
        Self { process, tenant: TenantScenario::default(), api_root, control_root }
    }

    pub fn cpu_seconds(&self) -> f64 {
        self.process.cpu_seconds()
    }
}

/// A connector that reads that tenant.
pub struct Connector {
    process: Process,
    begun: Instant,
    settings: String,
}

impl Connector {
    /// `set` are settings as `NAME=VALUE`, without the prefix of their variables.
    pub fn start(program: &Path, simulation: &Simulation, bootstrap: &str, set: &[String]) -> Self {
        let tenant = &simulation.tenant;
        let settings = SETTINGS
            .replace("{tenant}", &tenant.id.to_string())
            .replace("{root}", &simulation.api_root)
            .replace("{audience}", &tenant.audience)
            .replace("{client}", &tenant.client_id)
            .replace("{bootstrap}", bootstrap);
        let mut launch = Launch { program: program.to_owned(), ..Launch::o365feed(["run"]) }
            .env("BENCH_CLIENT_SECRET", tenant.client_secret.expose_secret());
        for assignment in set {
            let (name, value) = assignment.split_once('=').expect("--set takes NAME=VALUE");
            launch = launch.env(&format!("O365FEED_{name}"), value);
        }
        let begun = Instant::now();
        Self { process: Process::start(launch, &settings), begun, settings }
    }

    /// Waits until `due` records are committed. What was used is counted from the start of the process.
    ///
    /// # Panics
    /// When the connector ends, tells of a gap, or gets no further.
    pub fn publish_all(&mut self, due: u64) -> Usage {
        let (mut published, mut moved) = (0, Instant::now());
        while published < due {
            std::thread::sleep(POLL);
            // Before its listener is bound there is nobody to ask.
            let metrics = self.process.get("/metrics").map(|(_, text)| text).unwrap_or_default();
            assert_eq!(total(&metrics, "o365feed_gaps_total"), 0, "there is a gap:\n{}", self.process.stderr());
            let now = total(&metrics, "o365feed_records_published_total");
            if now != published {
                (published, moved) = (now, Instant::now());
            }
            let stuck = moved.elapsed() > STUCK_AFTER;
            assert!(!stuck, "{published} of {due} records, and no further:\n{}", self.process.stderr());
        }
        Usage {
            seconds: self.begun.elapsed().as_secs_f64(),
            cpu_seconds: self.process.cpu_seconds(),
            peak_bytes: self.process.rss_peak_bytes(),
        }
    }

    /// Ends it as a service manager would.
    pub fn stop(&mut self) {
        self.process.sigterm();
        let code = self.process.wait_exit(Duration::from_secs(60));
        assert_eq!(code, 0, "the connector did not end well:\n{}", self.process.stderr());
    }

    /// Its settings file once more, in `files`.
    pub fn settings(&self, files: &Scratch) -> PathBuf {
        let path = files.path().join("o365feed.yaml");
        fs::write(&path, &self.settings).expect("the directory is ours");
        path
    }
}

/// The sum over all labels of a counter.
fn total(metrics: &str, name: &str) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with('{'));
    samples.map(|rest| rest.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a sample") as u64).sum()
}
