//! `docker-compose.yml`: what it mounts is there, who waits for whom, and the pair of connector and simulator works with the files
//! it gives them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use saphyr::{LoadableYamlNode, Yaml};

use crate::{
    broker::Broker,
    image::of_project,
    process::{Launch, Process},
    scratch::{free_port, unique},
    world::{PATIENCE, metric, published, stop},
};

const SETTINGS: &str = "deploy/compose/o365feed.yaml";

#[test]
fn everything_that_is_mounted_is_there() {
    let text = text();
    let compose = parsed(&text);
    let mut mounted: Vec<&str> = Vec::new();
    for (name, service) in compose["services"].as_mapping().unwrap() {
        let volumes = service.as_mapping_get("volumes").map(strings).unwrap_or_default();
        let before = mounted.len();
        // Without a dot it is a volume of the engine's.
        mounted.extend(volumes.into_iter().map(outside).filter(|path| path.starts_with("./")));
        let is_ours_to_give =
            ["o365feed", "prometheus", "grafana", "logstash", "connect"].contains(&name.as_str().unwrap());
        assert!(!is_ours_to_give || mounted.len() > before, "nothing is mounted by {name:?}");
    }
    mounted.extend(
        compose["secrets"].as_mapping().unwrap().values().map(|secret| outside(secret["file"].as_str().unwrap())),
    );
    assert!(mounted.len() > 8, "{mounted:?}");
    let missing: Vec<_> = mounted.into_iter().filter(|path| !of_project(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?} are not there");

    // Prometheus calls the connector by the name that it has in compose, and the place of the dashboards is told twice.
    let asked = read("deploy/prometheus/prometheus.yml");
    let listen = read(SETTINGS);
    assert!(asked.contains("[\"o365feed:9365\"]") && listen.contains("listen: 0.0.0.0:9365\n"), "{asked}");
    let provider = read("deploy/grafana/provisioning/dashboards/o365feed.yaml");
    assert!(provider.contains("path: /var/lib/grafana/dashboards\n"), "{provider}");
}

#[test]
fn each_service_waits_for_those_that_it_needs() {
    let text = text();
    let compose = parsed(&text);
    let services: BTreeMap<&str, &Yaml<'_>> = compose["services"]
        .as_mapping()
        .unwrap()
        .iter()
        .map(|(name, service)| (name.as_str().unwrap(), service))
        .collect();
    let mut edges = BTreeSet::new();
    for (&name, &service) in &services {
        for (other, until) in awaited(service) {
            // What the service says itself, or else what it has in common with others.
            let own = services.get(other).unwrap_or_else(|| panic!("{name} waits for {other}, which is no service"));
            let says = |key: &str| own.as_mapping_get(key).or_else(|| own.as_mapping_get("<<")?.as_mapping_get(key));
            let is_asked =
                own.as_mapping_get("healthcheck").is_some_and(|check| check.as_mapping_get("test").is_some());
            let is_begun_again =
                says("restart").is_some_and(|when| ["always", "unless-stopped"].contains(&when.as_str().unwrap()));
            match until {
                "service_healthy" => assert!(is_asked, "{name} waits for {other}, whose health nobody looks at"),
                "service_completed_successfully" => {
                    assert!(!is_begun_again, "{name} waits for the end of {other}, which has none");
                }
                "service_started" => {}
                other => panic!("{name} waits until {other}"),
            }
            edges.insert((name, other, until));
        }
    }
    let is_always_there = |name: &str| services[name].as_mapping_get("profiles").is_none();
    let always: Vec<_> = edges.iter().copied().filter(|(name, ..)| is_always_there(name)).collect();
    assert_eq!(
        always,
        [
            ("grafana", "prometheus", "service_healthy"),
            ("o365feed", "kafka", "service_healthy"),
            ("o365feed", "simulator", "service_healthy"),
            // It has to see a connector that is not well.
            ("prometheus", "o365feed", "service_started"),
            ("tail", "o365feed", "service_healthy"),
        ]
    );
    for reader in ["logstash", "connect"] {
        let awaits_topics = edges.contains(&(reader, "o365feed", "service_healthy"));
        assert!(awaits_topics, "{reader} may start before its topics are there");
    }
}

#[test]
fn the_worker_for_splunk_reads_as_the_one_that_is_shipped() {
    let (here, shipped) =
        (properties("deploy/compose/connect.properties"), properties("deploy/splunk/worker.properties"));
    for key in ["key.converter", "value.converter", "consumer.isolation.level", "config.providers"] {
        assert!(here.contains_key(key), "{key} is not set");
    }
    assert_eq!(here["consumer.isolation.level"], "read_committed");
    for (key, value) in here.iter().filter(|(key, _)| !["bootstrap.servers", "plugin.path"].contains(&key.as_str())) {
        let as_shipped = shipped.get(key).is_none_or(|other| other == value);
        assert!(as_shipped, "{key}: {value} here, {} there", shipped[key]);
    }
    let only_here: Vec<_> = here.keys().filter(|key| !shipped.contains_key(*key)).collect();
    assert_eq!(only_here, ["offset.storage.file.filename"], "what is set here only");

    let (text, splunk) = (text(), read("deploy/compose/splunk.yml"));
    let (compose, splunk) = (parsed(&text), parsed(&splunk));
    let inputs =
        splunk["splunk"]["conf"].as_sequence().unwrap().iter().find(|part| part["key"].as_str() == Some("inputs"));
    let input = &inputs.unwrap()["value"]["content"]["http://o365feed"];
    let environment = &compose["services"]["connect"]["environment"];
    assert_eq!(environment["SPLUNK_HEC_TOKEN"].as_str(), input["token"].as_str(), "the token that Splunk takes");
    let connector: serde_json::Value = serde_json::from_str(&read("deploy/splunk/splunk-connect.json")).unwrap();
    assert_eq!(
        connector["config"]["splunk.indexes"].as_str(),
        input["index"].as_str(),
        "the index that the token may write to"
    );
}

/// As docs/deploy.md says it: take away what is the simulator's, and the rest is for a tenant of one's own.
#[test]
fn the_settings_of_compose_serve_a_tenant_of_ones_own() {
    let (settings, text) = (read(SETTINGS), text());
    let is_simulators = |line: &str| ["api_root:", "authority:", "allow_http:"].iter().any(|key| line.contains(key));
    let own: Vec<&str> = settings.lines().filter(|line| !is_simulators(line)).collect();
    assert_eq!(settings.lines().count() - own.len(), 3);
    let secret = secret(&parsed(&text));
    let check = Launch::o365feed(["config", "check"])
        .env("O365FEED_TENANTS__0__CREDENTIAL__SECRET_FILE", secret.to_str().unwrap());
    let mut check = Process::start(check, &own.join("\n"));
    assert_eq!(check.wait_exit(PATIENCE), 0, "{}", check.stderr());
    assert!(check.stdout().starts_with("ok: 1 tenant, 5 sources, kafka kafka:9092"), "{}", check.stdout());
}

#[test]
fn connector_and_simulator_work_together_with_the_files_of_compose() {
    let text = text();
    let compose = parsed(&text);
    let (api, control) = (free_port(), free_port());
    // Only the addresses are others: here both are on one machine.
    let here = |argument: &str| {
        let argument = argument.replace("0.0.0.0:8365", &format!("127.0.0.1:{api}"));
        let argument = argument.replace("simulator:8365", &format!("127.0.0.1:{api}"));
        argument.replace("127.0.0.1:8366", &format!("127.0.0.1:{control}"))
    };
    let simulate = strings(&compose["services"]["simulator"]["command"]);
    let mut simulator = Process::start(Launch::o365feed(simulate.iter().map(|argument| here(argument))), "");
    let asked = strings(&compose["services"]["simulator"]["healthcheck"]["test"]);
    assert_eq!(asked[..2], ["CMD", "/usr/bin/o365feed"]);
    simulator.wait_until("its health check is content", PATIENCE, |_| {
        let mut check = Process::start(Launch::o365feed(asked[2..].iter().map(|argument| here(argument))), "");
        check.wait_exit(PATIENCE) == 0
    });

    let names = [("KAFKA__TOPIC_PREFIX", unique("compose")), ("KAFKA__GROUP", unique("compose"))];
    let launch = |args: &[&str]| {
        let settings = of_project(SETTINGS).to_str().unwrap().to_owned();
        let args = args.iter().map(|argument| argument.replace("/etc/o365feed/o365feed.yaml", &settings));
        let root = here("http://simulator:8365");
        let secret = secret(&compose);
        Launch::o365feed(args)
            .env("O365FEED_TENANTS__0__API_ROOT", &root)
            .env("O365FEED_TENANTS__0__AUTHORITY", &root)
            .env("O365FEED_TENANTS__0__CREDENTIAL__SECRET_FILE", secret.to_str().unwrap())
            .env("O365FEED_KAFKA__BOOTSTRAP_SERVERS", Broker::shared().bootstrap())
            .env(&format!("O365FEED_{}", names[0].0), &names[0].1)
            .env(&format!("O365FEED_{}", names[1].0), &names[1].1)
    };
    let mut connector = Process::start(launch(&strings(&compose["services"]["o365feed"]["command"])), "");
    let ready = strings(&compose["services"]["o365feed"]["healthcheck"]["test"]);
    let address = connector.listen().to_string();
    connector.wait_until("its health check is content", PATIENCE, |_| {
        // In its container it finds the file in the working directory.
        let args = [&ready[2..], &["--config", "/etc/o365feed/o365feed.yaml"]].concat();
        let check = launch(&args).env("O365FEED_HTTP__LISTEN", &address);
        Process::start(check, "").wait_exit(PATIENCE) == 0
    });
    connector.wait_until("all that waits is published", PATIENCE, |connector| {
        published(connector) >= 5_000.0 && metric(connector, "o365feed_backlog_contents", &[]) == 0.0
    });
    let tail = strings(&compose["services"]["tail"]["command"]);
    let mut tail = Process::start(launch(&[&tail[..], &["--no-follow"]].concat()), "");
    assert_eq!(tail.wait_exit(PATIENCE), 0, "{}", tail.stderr());
    assert!(tail.stdout().lines().count() >= 5_000, "{}", tail.stderr());

    stop(&mut connector);
    assert_eq!(compose["services"]["simulator"]["stop_signal"].as_str(), Some("SIGINT"));
    simulator.interrupt();
    assert_eq!(simulator.wait_exit(PATIENCE), 0, "{}", simulator.stderr());
}

/// The file of the secret, which the settings look for where the engine puts it.
fn secret(compose: &Yaml<'_>) -> PathBuf {
    let settings = read(SETTINGS);
    let [name] = strings(&compose["services"]["o365feed"]["secrets"])[..] else { panic!("one secret") };
    assert!(settings.contains(&format!("secret_file: /run/secrets/{name} ")), "the settings look elsewhere");
    of_project(outside(compose["secrets"][name]["file"].as_str().unwrap()))
}

/// `./here` of `./here:/there:ro`, `${VARIABLE:-./here}:/there:ro` and `${VARIABLE:-./here}`.
fn outside(mounted: &str) -> &str {
    let path = mounted.split_once(":-").map_or(mounted, |(_, fallback)| fallback);
    path.split([':', '}']).next().unwrap()
}

/// Who waits for whom until when: `depends_on` of `service`.
fn awaited<'a>(service: &'a Yaml<'_>) -> Vec<(&'a str, &'a str)> {
    let edges = service.as_mapping_get("depends_on").map(|edges| edges.as_mapping().unwrap());
    let edges = edges.into_iter().flatten();
    edges.map(|(name, edge)| (name.as_str().unwrap(), edge["condition"].as_str().unwrap())).collect()
}

/// The keys and values of a file of Java's properties.
fn properties(path: &str) -> BTreeMap<String, String> {
    let text = read(path);
    let lines = text.lines().filter_map(|line| line.split_once('=').filter(|_| !line.starts_with('#')));
    lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn strings<'a>(sequence: &'a Yaml<'_>) -> Vec<&'a str> {
    sequence.as_sequence().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

fn text() -> String {
    read("docker-compose.yml")
}

fn read(path: &str) -> String {
    fs::read_to_string(of_project(path)).unwrap()
}

fn parsed(text: &str) -> Yaml<'_> {
    Yaml::load_from_str(text).unwrap().remove(0)
}
