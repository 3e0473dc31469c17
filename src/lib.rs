//! `o365feed` moves every audit record of the Office 365 Management Activity API into Apache Kafka, each exactly once.
//! Three floors, arrows point one way: [`domain`] decides; [`api`], [`kafka`], [`http`] act; [`pipeline`] and [`cli`] arrange.

pub mod api;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod kafka;
pub mod pipeline;
pub mod simulator;
pub mod telemetry;
