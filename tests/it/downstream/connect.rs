//! Kafka's own clients with the settings that are shipped: none shows a record of a transaction that was rolled back.
//! Splunk's sink is in no registry; Kafka's file sink stands in for it, under the same worker and the same settings.

use std::{fs, path::Path, process::Command, time::Duration};

use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use reqwest::Client;
use serde_json::{Value, json};

use super::{jars, shipped};
use crate::{
    broker::{Broker, client},
    leash::Leash,
    scratch::{Scratch, free_port, unique},
    wait,
    world::PATIENCE,
};

const ABORTED: &str = r#"{"Id":"rolled back"}"#;
const COMMITTED: &str = r#"{"Id":"committed"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_isolation_level_that_is_shipped_hides_what_was_rolled_back_from_a_java_consumer() {
    let (broker, topic) = (Broker::shared(), unique("isolation"));
    aborted_then_committed(broker, &topic).await;
    let first = |isolation: &str| {
        // The first record decides: what was rolled back lies before what was committed.
        let mut consumer = Command::new("java");
        consumer.args(["-Xmx256m", "-Dorg.apache.logging.log4j.level=ERROR", "-cp"]).arg(jars("kafka"));
        consumer.args(["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", broker.bootstrap()]);
        consumer.args(["--topic", &topic, "--from-beginning", "--max-messages", "1", "--isolation-level", isolation]);
        let ran = consumer.output().expect("java is there");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(first("read_uncommitted"), ABORTED, "this test could not fail");
    let mut levels: Vec<String> = Vec::new();
    for file in ["splunk/splunk-connect.json", "splunk/splunk-connect-raw.json"] {
        let connector: Value = serde_json::from_str(&shipped(&format!("deploy/{file}"))).unwrap();
        levels.push(connector["config"]["consumer.override.isolation.level"].as_str().unwrap().to_owned());
    }
    levels.push(setting("splunk/worker.properties", "consumer.isolation.level", '='));
    levels.push(setting("elastic/logstash.conf", "isolation_level =>", ' '));
    levels.push(setting("elastic/filebeat.yml", "isolation_level:", ' '));
    levels.dedup();
    assert_eq!(levels.len(), 1, "they differ: {levels:?}");
    assert_eq!(first(&levels[0]), COMMITTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_worker_with_the_shipped_settings_hands_its_sink_only_what_was_committed() {
    let (broker, topic, files) = (Broker::shared(), unique("connect"), Scratch::new("connect"));
    aborted_then_committed(broker, &topic).await;
    let worker = Worker::start(broker, files.path());
    let mut careless = connector("splunk-connect", &topic);
    careless["config"]["consumer.override.isolation.level"] = json!("read_uncommitted");
    careless["name"] = json!("careless");
    for (variable, connector) in [
        ("SPLUNK_HEC_URI", connector("splunk-connect", &topic)),
        ("SPLUNK_HEC_TOKEN", connector("splunk-connect-raw", &topic)),
        ("SPLUNK_HEC_CARELESS", careless),
    ] {
        worker.create(connector, variable).await;
    }
    for (variable, expected) in [
        ("SPLUNK_HEC_CARELESS", vec![ABORTED, COMMITTED]), // so this test could fail
        ("SPLUNK_HEC_URI", vec![COMMITTED]),
        ("SPLUNK_HEC_TOKEN", vec![COMMITTED]),
    ] {
        let read = || fs::read_to_string(files.path().join(variable)).unwrap_or_default();
        let came = wait::comes_true(PATIENCE, || read().contains(COMMITTED));
        assert!(came, "{variable} got nothing:\n{}", worker.log());
        assert_eq!(read().lines().collect::<Vec<_>>(), expected, "{variable}");
    }
}

/// The shipped connector, reading `topic` into a file.
fn connector(file: &str, topic: &str) -> Value {
    let mut connector: Value = serde_json::from_str(&shipped(&format!("deploy/splunk/{file}.json"))).unwrap();
    connector["config"]["connector.class"] = json!("org.apache.kafka.connect.file.FileStreamSinkConnector");
    connector["config"]["topics"] = json!(topic);
    connector
}

/// A Connect worker with the shipped settings. Each of its connectors is told its file by a variable of the environment, as
/// Splunk's is told its token.
struct Worker {
    leash: Leash,
    port: u16,
    log: std::path::PathBuf,
}

impl Worker {
    fn start(broker: &Broker, dir: &Path) -> Self {
        let (port, log, settings) = (free_port(), dir.join("worker.log"), dir.join("worker.properties"));
        let mut text = shipped("deploy/splunk/worker.properties");
        // Of a property that is there twice the last one counts.
        text += &format!("\nbootstrap.servers={}\nlisteners=http://127.0.0.1:{port}\n", broker.bootstrap());
        text += &format!("plugin.path={}\nplugin.discovery=only_scan\n", dir.display());
        text += &format!("group.id={}\n", unique("workers"));
        for topic in ["config", "offset", "status"] {
            text += &format!("{topic}.storage.topic={}\n", unique(topic));
        }
        fs::write(&settings, text).unwrap();
        let mut command = Leash::command("java", dir, &log, &log);
        for variable in ["SPLUNK_HEC_URI", "SPLUNK_HEC_TOKEN", "SPLUNK_HEC_CARELESS"] {
            command.env(variable, dir.join(variable));
        }
        command
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-Dorg.apache.logging.log4j.level=WARN", "-cp"])
            .arg(jars("kafka"));
        let leash = Leash::tie(command.arg("org.apache.kafka.connect.cli.ConnectDistributed").arg(&settings));
        Self { leash, port, log }
    }

    /// Waits until the worker takes it.
    async fn create(&self, mut connector: Value, variable: &str) {
        connector["config"]["file"] = json!(format!("${{env:{variable}}}"));
        let url = format!("http://127.0.0.1:{}/connectors", self.port);
        let mut last = String::new();
        for _ in 0..PATIENCE.as_secs() * 2 {
            let sent = Client::new().post(&url).header("content-type", "application/json").body(connector.to_string());
            match sent.send().await {
                Ok(answer) if answer.status() == 201 => return,
                Ok(answer) => last = answer.text().await.unwrap_or_default(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("the worker did not take the connector: {last}\n{}", self.log());
    }

    fn log(&self) -> String {
        format!("process {}\n{}", self.leash.pid(), fs::read_to_string(&self.log).unwrap_or_default())
    }
}

/// The value behind `key` in a shipped file, without quotes.
fn setting(file: &str, key: &str, between: char) -> String {
    let text = shipped(&format!("deploy/{file}"));
    let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(key));
    let line = line.unwrap_or_else(|| panic!("{file} has no {key}"));
    line.trim_start_matches(between).trim_matches('"').to_owned()
}

/// One partition: first a record of a transaction that is rolled back, then one of a transaction that is committed.
async fn aborted_then_committed(broker: &Broker, topic: &str) {
    broker.create_topic(topic, 1, &[]).await;
    let producer: FutureProducer =
        client(broker.bootstrap()).set("transactional.id", unique("producer")).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    for (value, commit) in [(ABORTED, false), (COMMITTED, true)] {
        producer.begin_transaction().unwrap();
        producer.send(FutureRecord::<(), _>::to(topic).payload(value), PATIENCE).await.unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
}
