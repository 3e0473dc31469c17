//! The promises, each kept against a real Kafka.
//! Every file is either a promise with its tests or, below, a piece of what the tests stand on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

mod alerts; // each fires for what it is for
mod commit; // the moment of a commit, seen and disturbed on the wire
mod compose; // connector and simulator with the files of docker-compose.yml
mod content; // what is listed and brought by hand
mod crash; // whatever happens to a process, nothing is lost and nothing comes twice
mod dashboards; // every query shows something
mod doctor; // every ailment has its verdict
mod downstream; // what reads the topics behind us
mod filter; // what is dropped, routed and redacted
mod image; // the container image without an engine
mod kubernetes; // what is shipped for it fits the program and Kafka
mod memory; // bounded by settings, not by the size of a blob
mod notifications; // attempts to reach a webhook
mod once; // whatever shape the contents come in
mod outage; // Kafka away
mod reading; // the reader of the tools, on topics full of transactions
mod reconcile; // what is missing is found, by name, and brought back
mod refusal; // what cannot go well is refused at the start
mod replay; // everything once more, on purpose
mod report; // sums of what was offered, from the topics and from the API
mod service; // what the service does to its callers, and must not see of them
mod subscriptions; // shown, started and stopped by the operator
mod tail; // what is committed, as it comes
mod terminal; // the demo for somebody who watches it
mod trace; // one content from its listing to its commit, in spans and in lines
mod webhook; // what the service tells by itself

mod broker; // a real Kafka: one for all tests, or one of your own to break
mod harness; // that the pieces below do what the other tests trust them to do
mod leash; // child processes that cannot outlive the tests
mod process; // the connector as an operator runs it
mod prometheus; // a real one, and promtool
mod proxy; // between the connector and a broker
mod reader; // what a consumer of the topics sees
mod scratch; // directories, ports and names that nobody else has
mod tls; // a host with a certificate of its own
mod verdict; // what a reader sees, held against what was offered
mod wait; // for a condition, never for a while
mod world; // the tenant, the topics and the connector of one test
