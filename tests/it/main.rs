//! The promises, each kept against a real Kafka.
//! Every file is either a promise with its tests or, below, a piece of what the tests stand on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

mod broker; // a real Kafka: one for all tests, or one of your own to break
mod harness; // that the pieces below do what the other tests trust them to do
mod leash; // child processes that cannot outlive the tests
mod process; // the connector as an operator runs it
mod reader; // what a consumer of the topics sees
mod scratch; // directories, ports and names that nobody else has
mod wait; // for a condition, never for a while
