//! What is shipped for Kubernetes: the program takes its settings, and Strimzi's topics and rights are enough.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
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
fn the_settings_of_the_manifests_are_taken() {
    for file in ["kubernetes/o365feed.yaml", "kubernetes/sidecar.yaml"] {
        let documents = deployed(file);
        let of_kind = |kind| documents.iter().find(|document| text(&document["kind"]) == kind).unwrap();
        let pod = &of_kind("StatefulSet")["spec"]["template"]["spec"];
        let containers = ["initContainers", "containers"].into_iter().filter_map(|key| pod.as_mapping_get(key));
        let container = containers.flat_map(list).find(|container| text(&container["name"]) == "o365feed").unwrap();
        let env = list(&container["env"]).iter().map(|variable| {
            let value = variable.as_mapping_get("value").map_or("o365feed-0", text);
            (text(&variable["name"]).to_owned(), value.to_owned())
        });
        let said = checked(text(&of_kind("ConfigMap")["data"]["o365feed.yaml"]), env.collect());
        assert!(said.starts_with("ok: 1 tenant"), "{file}: {said}");
        let slot = if file.contains("sidecar") { "slot 0," } else { "slot o365feed-0," };
        assert!(said.contains(slot), "{file}: {said}");
        let args: Vec<&str> = list(&container["args"]).iter().map(text).collect();
        assert_eq!(args, ["run", "--config", "/etc/o365feed/o365feed.yaml"]);
    }
}

#[test]
fn the_settings_of_the_sets_of_values_are_taken() {
    let tenant = [
        ("AZURE_TENANT_ID", "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001"),
        ("AZURE_CLIENT_ID", "0c0a17e5-5a0b-4d5e-9c7a-7f3c1f6e0002"),
        ("AZURE_CLIENT_SECRET", "from the Secret"),
    ];
    let password = [("O365FEED_KAFKA__PROPERTIES__SASL_PASSWORD", "from the Secret")];
    let sets = [
        ("kubernetes/values.yaml", &[][..], "ok: 1 tenant, 4 sources"),
        ("helm/o365feed/ci/webhook-values.yaml", &password, "ok: 3 tenants, 15 sources"),
        ("helm/o365feed/ci/deployment-values.yaml", &tenant, "ok: 1 tenant, 5 sources"),
    ];
    for (file, env, well) in sets {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let said = checked(text(&deployed(file)[0]["config"]), env);
        assert!(said.starts_with(well), "{file}: {said}");
    }
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
