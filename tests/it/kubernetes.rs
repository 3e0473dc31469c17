//! What is shipped for Kubernetes: the program takes its settings, and Strimzi's topics and rights are enough.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use o365feed::{
    domain::ContentType,
    simulator::{BigArrival, SourceScenario},
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, Producer},
};
use saphyr::{LoadableYamlNode, YamlOwned as Yaml};

use crate::{
    broker::{Broker, Options},
    process::{Launch, Process},
    scratch::free_port,
    wait,
    world::{PATIENCE, World, history, metric, scenario, stop},
};

/// All documents of a file below `deploy`.
fn deployed(file: &str) -> Vec<Yaml> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    Yaml::load_from_str(&text).unwrap()
}

fn text(node: &Yaml) -> &str {
    node.as_str().unwrap_or_else(|| panic!("{node:?} is no text"))
}

fn list(node: &Yaml) -> &[Yaml] {
    node.as_vec().unwrap_or_else(|| panic!("{node:?} is no list"))
}

#[test]
fn the_settings_of_every_pod_are_taken() {
    let said = shipped().into_iter().map(|(name, documents)| {
        let pod = Pod::of(&documents);
        (name, checked(pod.settings, pod.env()))
    });
    let well = [
        (
            "kubernetes/o365feed.yaml",
            "ok: 1 tenant, 4 sources, kafka audit-kafka-bootstrap:9093 (group o365feed, slot o365feed-0, exactly once)\n",
        ),
        (
            "kubernetes/sidecar.yaml",
            "ok: 1 tenant, 5 sources, kafka kafka:9092 (group o365feed-sidecar, slot 0, exactly once)\n",
        ),
        (
            "makes a Deployment of settings in the environment",
            "ok: 1 tenant, 5 sources, kafka kafka:9092 (group o365feed, slot o365feed-0, exactly once)\n",
        ),
        (
            "makes a webhook, monitors and a scaler",
            "ok: 3 tenants, 15 sources, kafka kafka-1.example.com:9093,kafka-2.example.com:9094 \
             (group o365feed, slot o365feed-0, exactly once)\n",
        ),
        (
            "makes of the common case what is in deploy/kubernetes",
            "ok: 1 tenant, 4 sources, kafka audit-kafka-bootstrap:9093 (group o365feed, slot o365feed-0, exactly once)\n",
        ),
    ];
    assert_eq!(said.collect::<Vec<_>>(), well.map(|(name, well)| (name.to_owned(), well.to_owned())));
}

#[test]
fn the_arguments_of_every_container_are_taken() {
    for (name, documents) in shipped() {
        for container in Pod::of(&documents).containers().filter(|one| text(&one["image"]).starts_with("o365feed:")) {
            // Help is given for arguments that are known, and nothing is begun.
            let args = list(&container["args"]).iter().map(text).chain(["--help"]);
            let mut process = Process::start(Launch::o365feed(args), "");
            assert_eq!(process.wait_exit(PATIENCE), 0, "{name}: {}", process.stderr());
        }
    }
}

#[test]
fn every_file_that_a_pod_names_is_mounted_and_no_other() {
    for (name, documents) in shipped() {
        let pod = Pod::of(&documents);
        let words = pod.settings.split(|c: char| c.is_whitespace() || "{},".contains(c));
        let mut named: BTreeSet<String> =
            words.filter(|word| word.starts_with("/run/secrets/")).map(str::to_owned).collect();
        named.extend(
            list(&pod.container["args"]).iter().map(text).filter(|word| word.starts_with('/')).map(str::to_owned),
        );
        assert_eq!(named, pod.files(), "{name}");
    }
}

#[test]
fn the_pages_make_the_secret_that_the_pods_mount() {
    let default = deployed("helm/o365feed/values.yaml");
    let secret = text(&default[0]["secretFiles"][0]["secret"]["name"]);
    for page in ["docs/kubernetes.md", "deploy/helm/o365feed/README.md"] {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        assert!(page.contains(&format!("create secret generic {secret} --from-file=secret=client-secret\n")));
    }
    for file in ["kubernetes/o365feed.yaml", "kubernetes/sidecar.yaml"] {
        let documents = deployed(file);
        let volumes = list(&Pod::of(&documents).spec["volumes"]);
        let sources = volumes.iter().find_map(|volume| volume.as_mapping_get("projected"));
        assert_eq!(text(&sources.unwrap()["sources"][0]["secret"]["name"]), secret);
    }
    // Strimzi makes a Secret that is called as the user.
    assert_ne!(text(&deployed("strimzi/user.yaml")[0]["metadata"]["name"]), secret);
}

#[test]
fn the_ports_and_probes_of_every_pod_are_those_of_the_program() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut launch = Launch::o365feed(["run"]).env("O365FEED_KAFKA__BOOTSTRAP_SERVERS", &nobody);
    launch.env.extend(tenant());
    for address in ["API_ROOT", "AUTHORITY"] {
        launch = launch.env(&format!("O365FEED_TENANTS__0__{address}"), &format!("http://{nobody}"));
    }
    let mut process = Process::start(launch, "");
    process.wait_until("it answers", PATIENCE, |process| process.get("/livez").is_ok());
    for (name, documents) in shipped() {
        let pod = Pod::of(&documents);
        let env = pod.env();
        let listens = [("metrics", "O365FEED_HTTP__LISTEN"), ("webhook", "O365FEED_WEBHOOK__LISTEN")];
        let listens = listens.into_iter().filter_map(|(port, variable)| {
            let (_, address) = env.iter().find(|(name, _)| name == variable)?;
            Some((port, i64::from(address.parse::<SocketAddr>().unwrap().port())))
        });
        let ports = list(&pod.container["ports"]).iter();
        let ports = ports.map(|port| (text(&port["name"]), port["containerPort"].as_integer().unwrap()));
        assert_eq!(listens.collect::<Vec<_>>(), ports.collect::<Vec<_>>(), "{name}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let Some(probe) = pod.container.as_mapping_get(probe) else { continue };
            let (port, path) = (text(&probe["httpGet"]["port"]), text(&probe["httpGet"]["path"]));
            let (status, page) = process.get(path).unwrap();
            assert!(port == "metrics" && [200, 503].contains(&status), "{name}: {port} {path}: {status} {page}");
        }
    }
}

/// The manifests, and what the chart makes of each set of values, by where it stands and what it is called there.
fn shipped() -> Vec<(String, Vec<Yaml>)> {
    let mut all: Vec<_> =
        ["kubernetes/o365feed.yaml", "kubernetes/sidecar.yaml"].map(|file| (file.to_owned(), deployed(file))).into();
    let snapshots = &deployed("helm/o365feed/tests/__snapshot__/snapshots_test.yaml.snap")[0];
    for (name, made) in snapshots.as_mapping().unwrap() {
        let documents = made.as_mapping().unwrap().values().flat_map(|made| Yaml::load_from_str(text(made)).unwrap());
        all.push((text(name).to_owned(), documents.collect()));
    }
    all
}

/// A pod of o365feed, as its workload describes it.
struct Pod<'a> {
    config: &'a Yaml,
    settings: &'a str,
    spec: &'a Yaml,
    /// The one that is o365feed.
    container: &'a Yaml,
}

impl<'a> Pod<'a> {
    fn of(documents: &'a [Yaml]) -> Self {
        let of_kind = |kinds: &[&str]| documents.iter().find(|one| kinds.contains(&text(&one["kind"]))).unwrap();
        let (config, workload) = (of_kind(&["ConfigMap"]), of_kind(&["StatefulSet", "Deployment"]));
        let spec = &workload["spec"]["template"]["spec"];
        let container = containers(spec).find(|container| text(&container["name"]) == "o365feed").unwrap();
        Self { config, settings: text(&config["data"]["o365feed.yaml"]), spec, container }
    }

    fn containers(&self) -> impl Iterator<Item = &'a Yaml> {
        containers(self.spec)
    }

    /// As in the first pod of the workload, with a tenant from the Secret that `envFrom` names.
    fn env(&self) -> Vec<(String, String)> {
        let own = list(&self.container["env"]).iter().map(|variable| {
            let value = variable.as_mapping_get("value").map(text).or_else(|| {
                let from = &variable["valueFrom"];
                from.as_mapping_get("fieldRef").map_or(Some("from the Secret"), |field| {
                    (text(&field["fieldPath"]) == "metadata.name").then_some("o365feed-0")
                })
            });
            (text(&variable["name"]).to_owned(), value.unwrap().to_owned())
        });
        own.chain(tenant()).collect()
    }

    /// What is mounted, file by file.
    fn files(&self) -> BTreeSet<String> {
        let volume = |name: &str| list(&self.spec["volumes"]).iter().find(|one| text(&one["name"]) == name).unwrap();
        let mounts = list(&self.container["volumeMounts"]).iter();
        mounts
            .flat_map(|mount| {
                let volume = volume(text(&mount["name"]));
                let names: Vec<&str> = if let Some(from) = volume.as_mapping_get("configMap") {
                    assert_eq!(text(&from["name"]), text(&self.config["metadata"]["name"]));
                    self.config["data"].as_mapping().unwrap().keys().map(text).collect()
                } else {
                    let sources = list(&volume["projected"]["sources"]).iter();
                    sources
                        .flat_map(|source| list(&source["secret"]["items"]))
                        .map(|item| text(&item["path"]))
                        .collect()
                };
                names.into_iter().map(|name| format!("{}/{name}", text(&mount["mountPath"])))
            })
            .collect()
    }
}

fn containers(spec: &Yaml) -> impl Iterator<Item = &Yaml> {
    ["initContainers", "containers"].into_iter().filter_map(|key| spec.as_mapping_get(key)).flat_map(list)
}

/// The variables of one tenant. Where the settings have tenants, they are not looked at.
fn tenant() -> impl Iterator<Item = (String, String)> {
    [
        ("AZURE_TENANT_ID", "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001"),
        ("AZURE_CLIENT_ID", "0c0a17e5-5a0b-4d5e-9c7a-7f3c1f6e0002"),
        ("AZURE_CLIENT_SECRET", "from the Secret"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into_iter()
}

/// What `config check` says of these settings.
fn checked(settings: &str, env: Vec<(String, String)>) -> String {
    let mut launch = Launch::o365feed(["config", "check", "--config", "o365feed.yaml"]);
    launch.env = env;
    let mut process = Process::start(launch, settings);
    process.wait_exit(PATIENCE);
    process.stdout() + &process.stderr()
}

const PASSWORD: &str = "only-for-this-test";

/// A broker with an authorizer, with Strimzi's topics, and with users that have no right yet.
struct Guarded {
    world: World,
    _broker: Broker,
    port: u16,
}

impl Guarded {
    fn new(users: &[&str], sources: Vec<(ContentType, SourceScenario)>) -> Self {
        let port = free_port();
        let login = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let known: String = users.iter().map(|user| format!(" user_{user}=\"{PASSWORD}\"")).collect();
        let properties = vec![
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
            // The tests, and the broker itself.
            ("super.users", "User:ANONYMOUS".to_owned()),
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,PROXIED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
            ),
            ("sasl.enabled.mechanisms", "PLAIN".to_owned()),
            ("listener.name.proxied.plain.sasl.jaas.config", format!("{login} required{known};")),
        ];
        let broker = Broker::own(Options { properties, proxied: Some((port, port)) });
        let mut world = World::on(broker.bootstrap(), scenario(sources));
        let login = [
            ("kafka.bootstrap_servers", format!("127.0.0.1:{port}")),
            ("kafka.properties.security_protocol", "sasl_plaintext".to_owned()),
            ("kafka.properties.sasl_mechanism", "PLAIN".to_owned()),
            ("kafka.properties.sasl_password", PASSWORD.to_owned()),
            ("kafka.create_topics", "false".to_owned()),
            ("kafka.partitions", "12".to_owned()),
        ];
        for (key, value) in login {
            world.set(key, value);
        }
        for topic in deployed("strimzi/topics.yaml") {
            create(&world, &broker, &topic);
        }
        Self { world, _broker: broker, port }
    }

    /// Waits until the broker lets `user` see the ledger.
    fn sees(&self, user: &str) {
        assert!(wait::comes_true(PATIENCE, || sees(&self.world, self.port, user)), "the rights of {user} never came");
    }
}

#[test]
fn topics_and_rights_of_strimzi_are_enough() {
    // One record of each is too long and becomes a gap.
    let big = BigArrival { index: 1, records: 1, record_bytes: 300_000 };
    let sources = ContentType::ALL.map(|kind| (kind, SourceScenario { big: vec![big], ..history(4, 10) }));
    let mut guarded = Guarded::new(&["o365feed"], sources.to_vec());
    guarded.world.set_max_record_bytes(200 * 1_024);
    guarded.world.set("kafka.properties.sasl_username", "o365feed");
    let world = &guarded.world;

    let mut process = world.start("a");
    assert_eq!(process.wait_exit(PATIENCE), 4, "without rights nothing goes:\n{}", process.stderr());

    grant(world, "o365feed", |_| true);
    guarded.sees("o365feed");

    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    process.wait_until("all that is too long is told", PATIENCE, |process| {
        metric(process, "o365feed_gaps_total", &["reason=\"oversize\""]) >= 5.0
    });
    let ran = world.tool(&["reconcile", "--since", "2h"]);
    assert_eq!((ran.code, ran.stdout.contains("oversize")), (7, true), "{}{}", ran.stdout, ran.stderr);
    let ran = world.tool(&["report", "operations", "--since", "2h"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    stop(&mut process);
    let verdict = world.verdict();
    assert_eq!(verdict.oversize.len(), sources.len());
    verdict.is_exactly_once_but_for_gaps();
}

/// Whoever lacks one of the rights is told which, and waits for nothing.
#[test]
fn a_right_that_is_lacking_ends_the_process_with_its_name() {
    let lacking = [
        ("group", "Read", "o365feed", "Group authorization failed"),
        ("transactionalId", "Write", "o365feed/", "Transactional Id authorization failed"),
        ("topic", "Write", "o365.feed.listings", "feed.listings"),
        ("topic", "Write", "o365.feed.ledger", "feed.ledger"),
        ("topic", "Read", "o365.feed.ledger", "feed.ledger"),
        ("topic", "Write", "o365.audit.", "audit."),
    ];
    let users: Vec<String> = (0..lacking.len()).map(|index| format!("lacking{index}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let guarded = Guarded::new(&users, vec![(ContentType::SharePoint, history(4, 10))]);
    for ((kind, operation, name, _), user) in lacking.into_iter().zip(&users) {
        let mut without = 0;
        grant(&guarded.world, user, |right| {
            let lacks = right == (kind, name, operation);
            without += u32::from(lacks);
            !lacks
        });
        assert_eq!(without, 1, "{operation} of {kind} {name} is no right of Strimzi's user");
    }
    for ((_, operation, name, told), user) in lacking.into_iter().zip(&users) {
        guarded.sees(user);
        let mut process = guarded.world.start_with("a", &[("kafka.properties.sasl_username", (*user).to_owned())]);
        let code = process.wait_exit(PATIENCE);
        let said = process.stderr();
        assert_eq!(code, 4, "without {operation} of {name}:\n{said}");
        assert!(
            said.contains("Kafka refuses this user: ") && said.contains(told),
            "without {operation} of {name}:\n{said}"
        );
    }
}

/// A name of the shipped files as it is in this world.
fn here(world: &World, name: &str) -> String {
    match name.strip_prefix("o365.") {
        Some(rest) => world.topic(rest),
        None => name.replace("o365feed", world.group()),
    }
}

/// As Strimzi creates it, but with the one replica that one broker can have.
fn create(world: &World, broker: &Broker, topic: &Yaml) {
    let name = here(world, text(&topic["metadata"]["name"]));
    let partitions = topic["spec"]["partitions"].as_integer().unwrap().try_into().unwrap();
    let config: Vec<(&str, String)> = topic["spec"]["config"].as_mapping().unwrap().iter().map(setting).collect();
    let config: Vec<(&str, &str)> = config.iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert!(config.contains(&("min.insync.replicas", "2")), "{name}: {config:?}");
    let config: Vec<_> = config.into_iter().filter(|(key, _)| *key != "min.insync.replicas").collect();
    world.runtime().block_on(broker.create_topic(&name, partitions, &config));
}

fn setting<'a>((key, value): (&'a Yaml, &Yaml)) -> (&'a str, String) {
    let value = value.as_str().map(str::to_owned).or_else(|| value.as_integer().map(|number| number.to_string()));
    (text(key), value.unwrap())
}

/// Whether the user is shown the ledger.
fn sees(world: &World, port: u16, user: &str) -> bool {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", format!("127.0.0.1:{port}")).set("security.protocol", "sasl_plaintext");
    client.set("sasl.mechanism", "PLAIN").set("sasl.username", user).set("sasl.password", PASSWORD);
    let client: BaseProducer = client.create().unwrap();
    let seen = client.client().fetch_metadata(None, Duration::from_secs(5));
    seen.is_ok_and(|seen| seen.topics().iter().any(|topic| topic.name() == world.topic("feed.listings")))
}

/// Gives `user` those of the rights that Strimzi's user has which are `wanted` by kind, name and operation. rust-rdkafka cannot, so the request is written here.
///
/// Source: Kafka's protocol, `CreateAcls` version 1; the numbers are those of `ResourceType`, `PatternType` and `AclOperation`.
fn grant(world: &World, user: &str, mut wanted: impl FnMut((&str, &str, &str)) -> bool) {
    let [strimzi] = &deployed("strimzi/user.yaml")[..] else { panic!("one user") };
    let mut rights = Vec::new();
    for acl in list(&strimzi["spec"]["authorization"]["acls"]) {
        let resource = &acl["resource"];
        let of = (text(&resource["type"]), resource.as_mapping_get("name").map_or("", text));
        let (kind, name) = match text(&resource["type"]) {
            "topic" => (2, here(world, text(&resource["name"]))),
            "group" => (3, here(world, text(&resource["name"]))),
            "cluster" => (4, "kafka-cluster".to_owned()),
            "transactionalId" => (5, here(world, text(&resource["name"]))),
            other => panic!("{other} is no resource"),
        };
        let pattern = match resource.as_mapping_get("patternType").map_or("literal", text) {
            "literal" => 3,
            "prefix" => 4,
            other => panic!("{other} is no pattern"),
        };
        for operation in list(&acl["operations"]).iter().filter(|operation| wanted((of.0, of.1, text(operation)))) {
            let operation = match text(operation) {
                "Read" => 3,
                "Write" => 4,
                "Describe" => 8,
                "DescribeConfigs" => 10,
                other => panic!("{other} is no operation that o365feed needs"),
            };
            let mut right = vec![kind];
            put(&mut right, &name);
            right.push(pattern);
            put(&mut right, &format!("User:{user}"));
            put(&mut right, "*");
            right.extend([operation, 3]); // allow
            rights.push(right);
        }
    }
    // CreateAcls is 30, its version 1, our number of the request 1.
    let mut request = vec![0, 30, 0, 1, 0, 0, 0, 1];
    put(&mut request, "tests");
    request.extend(i32::try_from(rights.len()).unwrap().to_be_bytes());
    request.extend(rights.concat());
    let mut stream = TcpStream::connect(world.bootstrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&i32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    // Number of the request, time throttled, number of results; each an error code and a text, which is empty when all is well.
    assert_eq!(answer[12..], vec![0; 4 * rights.len()]);
}

/// A text with its length before it.
fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
}
