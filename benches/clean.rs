//! The clean case: five content types, nothing goes wrong, a whole backlog from the API into Kafka, exactly once.
//! The connector runs alone in its process beside the two things it cannot do without: fetching (`curl --parallel`)
//! and producing in transactions (librdkafka), on the same bytes in the same run. Fails unless everything arrived.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on should panic where it stands")]

#[path = "../tests/it/broker.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod broker;
#[path = "clean/curl.rs"]
mod curl; // the floor of fetching
#[path = "../tests/it/leash.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod leash;
#[path = "clean/meter.rs"]
mod meter; // time, processor and memory of a process
#[path = "../tests/it/process.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod process;
#[path = "clean/producer.rs"]
mod producer; // the floor of producing
#[path = "../tests/it/reader.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod reader;
#[path = "../tests/it/scratch.rs"]
mod scratch;
#[path = "clean/table.rs"]
mod table; // the result as people read it
#[path = "clean/verify.rs"]
mod verify; // everything there, once, as sent
#[path = "../tests/it/wait.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod wait;
#[path = "clean/world.rs"]
mod world; // simulator and connector, each a process

use std::path::PathBuf;

use clap::Parser;

use crate::{
    broker::{Broker, Options},
    producer::Sample,
    scratch::Scratch,
    table::{Row, Table},
    world::{Connector, Simulation},
};

/// Records of a content, and bytes of a record.
const RECORDS: u64 = 100;
const RECORD_BYTES: u64 = 1_500;

/// Measure the connector in the clean case beside the floors it stands on.
#[derive(Parser)]
struct Args {
    /// Contents of each of the five content types
    #[arg(long, default_value_t = 2_000)]
    contents: u64,
    /// A setting of the connector, by its variable: KAFKA__HEADERS__OPERATION=false
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Another build of o365feed to measure
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_o365feed"))]
    connector: PathBuf,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if producer::is_asked_for() {
        return producer::produce();
    }
    let args = Args::parse();
    let broker = Broker::own(Options::default());
    let simulation = Simulation::start(args.contents);
    let due = 5 * args.contents * RECORDS;
    eprintln!("{due} records of {RECORD_BYTES} bytes are due; the connector begins");

    let mut connector = Connector::start(&args.connector, &simulation, broker.bootstrap(), &args.set);
    let (simulator_before, broker_before) = (simulation.cpu_seconds(), meter::descendant_cpu_seconds("java"));
    let connected = connector.publish_all(due);
    let simulator = simulation.cpu_seconds() - simulator_before;
    let broker_used = meter::descendant_cpu_seconds("java") - broker_before;
    connector.stop();

    eprintln!("reading everything back");
    let mut sample = Sample::default();
    verify::all_there_once_as_sent(&simulation, broker.bootstrap(), due, &mut sample).await;

    eprintln!("curl fetches the same contents");
    let (fetched, fetched_bytes) = curl::fetch(&simulation, 5 * args.contents).await;
    eprintln!("librdkafka alone produces as much");
    let files = Scratch::new("producer");
    let produced = producer::run(&broker, &connector.settings(&files), &files, &sample, due).await;

    let row = |name, usage| Row { name, records: due, bytes: due * RECORD_BYTES, usage };
    let table = Table {
        connector: row("o365feed, exactly once", connected),
        curl: Row { bytes: fetched_bytes, ..row("curl --parallel, the same contents", fetched) },
        producer: row("librdkafka, transactions of 10,000", produced),
        broker_cpu_seconds: broker_used,
        simulator_cpu_seconds: simulator,
    };
    println!("{table}");
}
