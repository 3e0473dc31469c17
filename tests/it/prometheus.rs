//! A real Prometheus that looks at the connector each second, with the rules that are told it; and promtool.
//! `O365FEED_PROMETHEUS` names the folder that has both; otherwise they are fetched by `./x prometheus`.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use crate::{
    leash::Leash,
    process::{Process, get},
    scratch::{Scratch, free_port},
    wait,
};

const START_WITHIN: Duration = Duration::from_secs(60);

/// A running Prometheus, gone when dropped.
pub struct Prometheus {
    leash: Leash, // before `files`: the process ends first
    files: Scratch,
    address: SocketAddr,
}

/// One series of an answer.
#[derive(Debug)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Prometheus {
    /// With the settings of `deploy/prometheus/prometheus.yml`, but that it scrapes each second, and with these rules.
    pub fn start(rules: &str) -> Self {
        let (files, address) = (Scratch::new("prometheus"), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let dir = files.path();
        fs::write(dir.join("alerts.yaml"), rules).unwrap();
        fs::write(dir.join("prometheus.yml"), settings(&[])).unwrap();
        let log = dir.join("log");
        let mut command = Leash::command(folder().join("prometheus"), dir, &log, &log);
        command.current_dir(dir).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        let mut leash = Leash::tie(command.arg(format!("--web.listen-address={address}")));
        let is_ready = || get(address, "/-/ready").is_ok_and(|(status, _)| status == 200);
        let came = wait::comes_true(START_WITHIN, || leash.exit_code().is_some() || is_ready());
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert!(came && leash.exit_code().is_none(), "Prometheus does not run:\n{}", log());
        Self { leash, files, address }
    }

    /// Scrapes these and no others from now on.
    pub fn watch(&mut self, processes: &[&Process]) {
        let targets: Vec<_> = processes.iter().map(|process| process.listen().to_string()).collect();
        fs::write(self.files.path().join("prometheus.yml"), settings(&targets)).unwrap();
        self.leash.signal("HUP");
        let found = || self.api("/api/v1/targets?state=active")["activeTargets"].as_array().map_or(0, Vec::len);
        wait::until("the targets are known", START_WITHIN, || found() == targets.len());
    }

    /// What the expression gives now; a scalar has no labels.
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        let encoded: String = byte_serialize(expression.as_bytes()).collect();
        let answer = self.api(&format!("/api/v1/query?query={encoded}"));
        let sample = |series: &Value| Sample {
            labels: serde_json::from_value(series["metric"].clone()).unwrap(),
            value: series["value"][1].as_str().unwrap().parse().unwrap(),
        };
        assert_eq!(answer["resultType"], "vector", "{expression}");
        answer["result"].as_array().unwrap().iter().map(sample).collect()
    }

    /// `data` of an answer. Panics with what Prometheus says when it refuses.
    pub fn api(&self, path: &str) -> Value {
        let (status, body) = get(self.address, path).unwrap();
        let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {status} {body}"));
        assert_eq!(answer["status"], "success", "{path}: {body}");
        answer["data"].take()
    }
}

/// `deploy/prometheus`.
pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus")
}

fn settings(targets: &[String]) -> String {
    let text = fs::read_to_string(shipped().join("prometheus.yml")).unwrap();
    let quicker = text.replace("interval: 15s", "interval: 1s");
    let ours = quicker.replace(r#"["o365feed:9365"]"#, &format!("{targets:?}"));
    assert!(quicker != text && ours != quicker, "the settings have changed, and the tests must follow:\n{text}");
    ours
}

/// Where `prometheus` and `promtool` are.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let given = env::var_os("O365FEED_PROMETHEUS").map(PathBuf::from);
        let folder = given.unwrap_or_else(|| root.join(".x/tools/prometheus/usr/bin"));
        if !folder.join("promtool").exists() {
            let fetched = Command::new("bash").args(["./x", "prometheus"]).current_dir(root).output();
            let fetched = fetched.expect("could not run ./x prometheus: install bash");
            let why = String::from_utf8_lossy(&fetched.stderr);
            assert!(fetched.status.success(), "`./x prometheus` could not fetch it:\n{why}");
        }
        let in_path = || {
            let paths = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&paths).find(|path| path.join("promtool").exists())
        };
        if folder.join("promtool").exists() { folder } else { in_path().expect("./x found it in PATH") }
    })
}
