//! A simulated tenant, a real broker and the connector between them. Break something, then ask for the verdict.

use std::{
    cell::Cell,
    net::SocketAddr,
    path::Path,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use o365feed::{
    domain::{ContentType, TenantId},
    simulator::{History, Live, Scenario, Simulator, SourceScenario, TenantScenario, Truth, TruthRecord},
};
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

use crate::{
    broker::Broker,
    process::{Launch, Process},
    scratch::unique,
    verdict::{self, Progress, Verdict},
};

/// A bound for conditions that hold after seconds on an idle machine; never a measure.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The variable that the connector reads the client secret from.
pub const SECRET: &str = "WORLD_CLIENT_SECRET";
/// The shortest that the settings allow.
pub const SESSION: Duration = Duration::from_secs(6);

/// How a command ended, and what it said.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// One test's tenant, topics and group. Processes are started from it and belong to the test.
pub struct World {
    // In the order in which they have to go: servers, then what runs them, then the turn.
    simulator: Simulator,
    runtime: Runtime,
    tenant: TenantScenario,
    /// Where processes find the client secret, as a line of the settings.
    credential: String,
    bootstrap: String,
    prefix: String,
    group: String,
    max_record_bytes: usize,
    settings: Vec<(&'static str, String)>,
    environment: Vec<(&'static str, &'static str)>,
    /// At the end of every file of settings.
    lines: String,
    /// Up to when everything was published; contents may go on coming when nobody fetches them any more.
    complete_to: Cell<Option<Timestamp>>,
    _turn: Turn,
}

impl World {
    /// On the shared broker.
    pub fn new(scenario: Scenario) -> Self {
        Self::on(Broker::shared().bootstrap(), scenario)
    }

    /// On the broker at `bootstrap`, which need not run yet. The scenario has one tenant.
    pub fn on(bootstrap: &str, scenario: Scenario) -> Self {
        let turn = Turn::wait();
        let [tenant] = &scenario.tenants[..] else { panic!("a world has one tenant") };
        let tenant = tenant.clone();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let simulator = runtime.block_on(Simulator::start(scenario)).unwrap();
        Self {
            simulator,
            runtime,
            tenant,
            bootstrap: bootstrap.to_owned(),
            prefix: unique("world"),
            group: unique("group"),
            max_record_bytes: 8_128 * 1_024,
            settings: Vec::new(),
            environment: Vec::new(),
            lines: String::new(),
            credential: format!("secret_env: {SECRET}"),
            complete_to: Cell::new(None),
            _turn: turn,
        }
    }

    /// A setting of all processes started from now on, by its key: `fetch.recheck`, `tenants[0].id`.
    pub fn set(&mut self, key: &'static str, value: impl ToString) {
        self.settings.push((key, value.to_string()));
    }

    /// A variable of all processes started from now on that is no setting.
    pub fn export(&mut self, name: &'static str, value: &'static str) {
        self.environment.push((name, value));
    }

    /// Lines of the settings file, for what has no variable. Whole groups that are not in [`Self::yaml`].
    pub fn write(&mut self, lines: &str) {
        lines.clone_into(&mut self.lines);
    }

    /// Processes prove themselves by this file and not by the client secret in a variable.
    pub fn set_credential(&mut self, key: &str, file: &Path) {
        self.credential = format!("{key}: {}", file.display());
    }

    /// Records that are longer become gaps.
    pub fn set_max_record_bytes(&mut self, bytes: usize) {
        // The limit counts key and headers, so what the tests send must stay clear of it.
        self.max_record_bytes = bytes;
        self.set("kafka.max_record_bytes", format!("{}KiB", bytes / 1_024));
    }

    /// Whether no form of the record fits. Its bytes are made only where a scenario has records so long.
    pub fn is_oversize(&self, record: &TruthRecord) -> bool {
        let big = self.tenant.sources.iter().flat_map(|(_, source)| &source.big);
        let longest = big.map(|big| big.record_bytes).max().unwrap_or(0);
        longest > self.max_record_bytes && record.variants().iter().all(|bytes| bytes.len() > self.max_record_bytes)
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub fn tenant(&self) -> TenantId {
        self.tenant.id
    }

    pub fn truth(&self) -> Truth {
        self.simulator.truth()
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Where the records of `kind` go.
    pub fn output(&self, kind: ContentType) -> String {
        self.topic(&kind.as_str().to_lowercase())
    }

    /// `o365feed run` on this slot.
    pub fn start(&self, slot: &str) -> Process {
        self.start_with(slot, &[])
    }

    /// Like [`Self::start`], with settings that only this process has.
    pub fn start_with(&self, slot: &str, settings: &[(&'static str, String)]) -> Process {
        self.launch_command(&["run"], slot, settings)
    }

    /// A command of the operator's tools, run to its end with the settings of this world.
    pub fn tool(&self, args: &[&str]) -> Ran {
        self.tool_with(args, &[])
    }

    /// Like [`Self::tool`], with settings that only this command has.
    pub fn tool_with(&self, args: &[&str], settings: &[(&'static str, String)]) -> Ran {
        let mut process = self.launch_command(args, "tool", settings);
        let code = process.wait_exit(PATIENCE);
        Ran { code, stdout: process.stdout(), stderr: process.stderr() }
    }

    /// Like [`Self::tool`], for a command that goes on until it is stopped.
    pub fn command(&self, args: &[&str]) -> Process {
        self.launch_command(args, "tool", &[])
    }

    /// The form that gets a token for this world's tenant.
    pub fn login(&self) -> [(&'static str, String); 4] {
        [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", self.tenant.client_id.clone()),
            ("client_secret", self.tenant.client_secret.expose_secret().to_owned()),
            ("scope", format!("{}/.default", self.tenant.audience)),
        ]
    }

    /// Like [`Self::tool`], its output read by a shell's command; the exit code is still the tool's.
    pub fn piped(&self, args: &[&str], reader: &str) -> Ran {
        let script = format!(r#"{{ "$0" "$@"; echo "$?" >code; }} | {reader}; exit "$(cat code)""#);
        let mut launch = Launch::o365feed(args.iter().copied());
        let program = std::mem::replace(&mut launch.program, "sh".into());
        launch.args.splice(0..0, ["-c".into(), script.into(), program.into()]);
        let mut process = self.launch_it(launch, "tool", &[]);
        let code = process.wait_exit(PATIENCE);
        Ran { code, stdout: process.stdout(), stderr: process.stderr() }
    }

    fn launch_command(&self, args: &[&str], slot: &str, settings: &[(&'static str, String)]) -> Process {
        self.launch_it(Launch::o365feed(args.iter().copied()), slot, settings)
    }

    fn launch_it(&self, launch: Launch, slot: &str, settings: &[(&'static str, String)]) -> Process {
        let mut launch = launch.env(SECRET, self.tenant.client_secret.expose_secret());
        for (name, value) in &self.environment {
            launch = launch.env(name, value);
        }
        for (key, value) in self.settings.iter().chain(settings) {
            launch.env.push((variable(key), value.clone()));
        }
        Process::start(launch, &self.yaml(slot))
    }

    /// Waits until every record that is due at this moment is in its topic.
    pub fn complete(&self, processes: &mut [&mut Process]) {
        let now = self.simulator.now();
        let mut progress = Progress::new(self, now);
        let end = Instant::now() + PATIENCE;
        while !progress.is_complete() {
            for process in processes.iter_mut() {
                assert!(!process.has_ended(), "it ended before all was published:\n{}", last_lines(&process.stderr()));
            }
            if Instant::now() > end {
                let logs: Vec<String> = processes.iter().map(|process| last_lines(&process.stderr())).collect();
                panic!("waited {PATIENCE:?} in vain for {progress}\n{}", logs.join("\n----\n"));
            }
            progress.read(Duration::from_millis(500));
        }
        self.complete_to.set(Some(now));
    }

    /// Compares what a `read_committed` reader sees with the truth: what was due at the last [`Self::complete`], or is due
    /// now if there was none, must be there; what was offered since may be.
    pub fn verdict(&self) -> Verdict {
        verdict::reach(self, self.complete_to.get().unwrap_or_else(|| self.simulator.now()))
    }

    fn yaml(&self, slot: &str) -> String {
        let root = self.simulator.api_root();
        let root = root.as_str().trim_end_matches('/');
        let kinds: Vec<&str> = self.kinds().map(ContentType::as_str).collect();
        format!(
            "\
tenants:
  - id: {id}
    name: contoso
    api_root: {root}
    authority: {root}
    client_id: {client}
    credential:
      {credential}
    content_types: [{kinds}]
quota:
  requests_per_minute: {quota}
listing:
  window: 23h
  poll_interval: 1s
kafka:
  bootstrap_servers: {bootstrap}
  topic_prefix: {prefix}
  group: {group}
  slot: {slot}
  partitions: 3
  output_partitions: 3
  replication_factor: 1
  commit_interval: 200ms
  session_timeout: {session}s
log:
  level: o365feed=debug,info
{lines}",
            lines = self.lines,
            credential = self.credential,
            id = self.tenant.id,
            client = self.tenant.client_id,
            kinds = kinds.join(", "),
            quota = self.tenant.quota_per_minute,
            bootstrap = self.bootstrap,
            prefix = self.prefix,
            group = self.group,
            session = SESSION.as_secs(),
        )
    }

    /// The content types that are simulated.
    pub fn kinds(&self) -> impl Iterator<Item = ContentType> + '_ {
        self.tenant.sources.iter().map(|(kind, _)| *kind)
    }
}

/// A scenario of one tenant with a generous quota: the catch-up then takes no longer than its work.
pub fn scenario(sources: Vec<(ContentType, SourceScenario)>) -> Scenario {
    let tenant = TenantScenario { sources, quota_per_minute: 20_000, ..TenantScenario::default() };
    Scenario { tenants: vec![tenant], ..Scenario::default() }
}

/// Contents of the last hour, each with `records`.
pub fn history(arrivals: u64, records: u32) -> SourceScenario {
    let history = History { arrivals, span: Duration::from_secs(3_000), records };
    SourceScenario { history, ..SourceScenario::default() }
}

/// Contents that go on coming while the test runs.
pub fn live(arrivals_per_minute: f64, records: u32) -> Live {
    Live { arrivals_per_minute, records }
}

/// Sum of the metric's lines that hold all of `labels` (`reason="expired"`); 0 when there is none.
pub fn metric(process: &Process, name: &str, labels: &[&str]) -> f64 {
    let page = process.get("/metrics").map(|(_, page)| page).unwrap_or_default();
    let value = |line: &str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        let (found, value) = rest.rsplit_once(' ')?;
        labels.iter().all(|label| found.contains(label)).then(|| value.parse::<f64>().ok())?
    };
    page.lines().filter_map(value).sum()
}

/// Records that this process has committed since its start.
pub fn published(process: &Process) -> f64 {
    metric(process, "o365feed_records_published_total", &[])
}

/// Asks it to stop and waits until it has done so in good order.
pub fn stop(process: &mut Process) {
    process.sigterm();
    let code = process.wait_exit(Duration::from_secs(30));
    assert_eq!(code, 0, "it did not stop in good order:\n{}", last_lines(&process.stderr()));
}

/// Enough of a log to see what it was about.
pub fn last_lines(log: &str) -> String {
    // Of those there is one a second, or some a content.
    let often = ["window listed", "announced", ": fetched", ": settled"];
    let lines: Vec<&str> = log.lines().filter(|line| !often.iter().any(|text| line.contains(text))).collect();
    lines[lines.len().saturating_sub(100)..].join("\n")
}

/// An address of this machine where nobody listens.
pub fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], crate::scratch::free_port()))
}

/// `tenants[0].api_root` as `O365FEED_TENANTS__0__API_ROOT`.
fn variable(key: &str) -> String {
    let path = key.replace('[', "__").replace(']', "").replace('.', "__");
    format!("O365FEED_{}", path.to_uppercase())
}

/// How many worlds may turn at once: each is a process, a simulator and a reader, on two cores with one broker.
const TURNS: usize = 3;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

struct Turn;

impl Turn {
    fn wait() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK.wait_while(taken, |taken| *taken >= TURNS).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}
