//! A real Apache Kafka (KRaft, one node) on 127.0.0.1.
//! `O365FEED_TEST_KAFKA=host:port` names a running one for [`Broker::shared`]; otherwise, and always for
//! [`Broker::own`], it is started from the jars that `tests/kafka/pom.xml` names.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, Producer},
};

use crate::{
    leash::Leash,
    scratch::{Scratch, free_port},
    wait,
};

/// More than a start takes on a busy machine with two cores.
const START_WITHIN: Duration = Duration::from_secs(90);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// The broker of a test. Whoever holds it by `&mut` may break it, so nobody can break the shared one.
pub struct Broker {
    bootstrap: String,
    /// `None` for one that somebody else runs.
    node: Option<Node>,
}

/// How a broker of one's own differs from the shared one.
#[derive(Default)]
pub struct Options {
    /// Lines of `server.properties`, after ours and thus stronger.
    pub properties: Vec<(&'static str, String)>,
    /// A second listener, and the port that it tells its clients to use instead.
    pub proxied: Option<(u16, u16)>,
}

impl Broker {
    /// The one broker of all tests that leave it alone, started by the first. Use [`crate::scratch::unique`] names on it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| match env::var("O365FEED_TEST_KAFKA") {
            Ok(bootstrap) => {
                assert!(wait::comes_true(START_WITHIN, || answers(&bootstrap)), "no broker answers at {bootstrap}");
                Self { bootstrap, node: None }
            }
            Err(_) => Self::own(Options::default()),
        })
    }

    /// A broker for one test, gone when dropped. Returns when it answers.
    pub fn own(options: Options) -> Self {
        let node = Node::format(&options);
        let mut broker = Self { bootstrap: format!("127.0.0.1:{}", node.port), node: Some(node) };
        broker.start();
        broker
    }

    /// `host:port`, the same after a restart.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Starts it again after [`Broker::stop`] or [`Broker::kill`], with the data it had. Returns when it answers.
    pub fn start(&mut self) {
        let bootstrap = self.bootstrap.clone();
        self.node().start(&bootstrap);
    }

    /// Ends it in good order (SIGTERM). Not while paused.
    pub fn stop(&mut self) {
        self.node().end("TERM");
    }

    /// Ends it as a power cut would (SIGKILL); what the operating system was given stays written.
    pub fn kill(&mut self) {
        self.node().end("KILL");
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.node().running().signal("STOP");
    }

    pub fn resume(&mut self) {
        self.node().running().signal("CONT");
    }

    /// Creates a topic with one replica. `config` as in `kafka-configs`, e.g. `("max.message.bytes", "1048576")`.
    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> =
            client(&self.bootstrap).create().expect("the settings are sound");
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let created = admin.create_topics([&topic], &options).await;
        created.expect("the broker answers")[0].as_ref().unwrap_or_else(|e| panic!("could not create {name}: {e:?}"));
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("only `own` brokers are had by `&mut`, and each has a node")
    }
}

/// Settings of any client of the broker at `bootstrap`, quick to notice that it is back.
pub fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "200");
    config
}

fn answers(bootstrap: &str) -> bool {
    let client: BaseProducer = client(bootstrap).create().expect("the settings are sound");
    let metadata = client.client().fetch_metadata(None, Duration::from_secs(2));
    metadata.is_ok_and(|m| !m.brokers().is_empty())
}

/// The files of a broker of ours and, while it runs, its process.
struct Node {
    running: Option<Leash>, // before `files`: the process ends first
    files: Scratch,
    port: u16,
}

impl Node {
    fn format(options: &Options) -> Self {
        let (files, port) = (Scratch::new("broker"), free_port());
        let settings = files.path().join("server.properties");
        fs::write(&settings, properties(files.path(), port, options)).expect("the directory is ours");
        let mut format = java(Command::new("java"), "kafka.tools.StorageTool");
        format.args(["format", "-t", "bzM2NWZlZWQtdGVzdHMtMQ", "-c"]).arg(&settings);
        let done = format.output().expect("could not run java: install a Java 17 runtime");
        assert!(
            done.status.success(),
            "could not format the broker's directory: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Self { running: None, files, port }
    }

    fn start(&mut self, bootstrap: &str) {
        assert!(self.running.is_none(), "the broker runs already");
        let (dir, log) = (self.files.path(), self.log());
        let mut command = java(Leash::command("java", dir, &log, &log), "kafka.Kafka");
        let mut leash = Leash::tie(command.arg(dir.join("server.properties")));
        let came = wait::comes_true(START_WITHIN, || leash.exit_code().is_some() || answers(bootstrap));
        let log = || fs::read_to_string(self.log()).unwrap_or_default();
        assert_eq!(leash.exit_code(), None, "the broker has ended:\n{}", log());
        assert!(came, "the broker does not answer:\n{}", log());
        self.running = Some(leash);
    }

    fn end(&mut self, signal: &str) {
        let mut leash = self.running.take().expect("the broker runs");
        leash.signal(signal);
        assert!(leash.wait_exit(STOP_WITHIN).is_some(), "the broker did not end on SIG{signal}");
    }

    fn running(&mut self) -> &mut Leash {
        self.running.as_mut().expect("the broker runs")
    }

    fn log(&self) -> PathBuf {
        self.files.path().join("broker.log")
    }
}

fn java(mut command: Command, class: &str) -> Command {
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-Dorg.apache.logging.log4j.level=WARN", "-cp"]);
    command.arg(jars().join("*")).arg(class);
    command
}

/// Where the jars are. Fetched when they are not there yet; with no way to do so the tests fail.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let given = env::var_os("O365FEED_KAFKA_JARS").map(PathBuf::from);
        let dir = given.unwrap_or_else(|| root.join(".x/kafka-4.2.0"));
        if !dir.join("kafka_2.13-4.2.0.jar").exists() {
            let fetched = Command::new("bash").args(["./x", "jars"]).arg(&dir).current_dir(root).output();
            let fetched = fetched.expect("could not run ./x jars: install bash");
            let why = String::from_utf8_lossy(&fetched.stderr);
            assert!(fetched.status.success(), "the tests need a real Kafka, and `./x jars` could not fetch it:\n{why}");
        }
        dir
    })
}

fn properties(dir: &Path, port: u16, options: &Options) -> String {
    let (data, controller) = (dir.join("data"), free_port());
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}
{SETTINGS}",
        data.display()
    );
    if let Some((inner, outer)) = options.proxied {
        // Of a property that is there twice the last one counts.
        text += &format!(
            "listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{outer}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
"
        );
    }
    for (key, value) in &options.properties {
        text += &format!("{key}={value}\n");
    }
    text
}

/// One replica of everything, few internal partitions, and no waiting that only helps large clusters.
const SETTINGS: &str = "\
auto.create.topics.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
message.max.bytes=10485760
offsets.topic.num.partitions=5
offsets.topic.replication.factor=1
replica.fetch.max.bytes=10485760
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.replication.factor=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor=1
";
