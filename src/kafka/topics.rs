//! The topics: created if missing, checked if there. Exactly-once leans on their settings (docs/exactly-once.md, section 4).
//! Three doors: [`ensure`]; [`expect`] for who creates nothing; [`inspect`], which only looks.

mod check; // found against planned, and the line that mends it
mod cluster; // what a cluster has, and its creation of what it has not
mod plan; // what the topics must be

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use rdkafka::error::KafkaError;
use tokio::time::Instant;

pub use self::check::Problem;
use self::{cluster::Cluster, plan::Planned};
use crate::config::Settings;

/// Makes sure that every topic of these settings exists and is fit for its use.
///
/// Missing ones are created when `kafka.create_topics` allows it; nothing that exists is changed.
///
/// # Errors
/// [`TopicError::Unreachable`] when no broker answers; [`TopicError::Unfit`] with everything that a person must mend.
pub async fn ensure(settings: &Settings) -> Result<(), TopicError> {
    let cluster = Cluster::of(&settings.kafka)?;
    let planned = plan::topics(settings);
    let mut found = cluster.find(&planned).await?;
    let missing: Vec<&Planned> = planned.iter().filter(|topic| !found.contains_key(&topic.name)).collect();
    let mut problems = Vec::new();
    if settings.kafka.create_topics && !missing.is_empty() {
        problems = cluster.create(&missing).await?;
        found = appeared(&cluster, &planned, planned.len() - problems.len()).await?;
    }
    // A topic whose creation was refused is missing too, and has said so already.
    let refused: HashSet<String> = problems.iter().map(|problem| problem.topic().to_owned()).collect();
    let unfit = check::check(&settings.kafka, &planned, &found);
    problems.extend(unfit.into_iter().filter(|problem| !refused.contains(problem.topic())));
    if problems.is_empty() { Ok(()) } else { Err(TopicError::Unfit(problems)) }
}

/// Makes sure that the connector's own topics and these `outputs` exist and are fit for their use. Creates nothing.
///
/// # Errors
/// As [`ensure`]; what is missing comes with the line that creates it.
pub async fn expect(settings: &Settings, outputs: &BTreeSet<String>) -> Result<(), TopicError> {
    let cluster = Cluster::of(&settings.kafka)?;
    let mut planned = plan::topics(settings);
    planned.retain(|topic| topic.role != plan::Role::Output);
    planned.extend(outputs.iter().map(|name| plan::output(&settings.kafka, name.clone())));
    let found = cluster.find(&planned).await?;
    let problems = check::check(&settings.kafka, &planned, &found);
    if problems.is_empty() { Ok(()) } else { Err(TopicError::Unfit(problems)) }
}

/// Everything that [`ensure`] would find wrong, missing topics first of all; creates nothing.
///
/// # Errors
/// [`TopicError::Unreachable`] when no broker answers.
pub async fn inspect(settings: &Settings) -> Result<Vec<Problem>, TopicError> {
    let cluster = Cluster::of(&settings.kafka)?;
    let planned = plan::topics(settings);
    Ok(check::check(&settings.kafka, &planned, &cluster.find(&planned).await?))
}

/// Why the topics cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("could not make a Kafka client of kafka.bootstrap_servers and kafka.properties")]
    Client(#[source] KafkaError),
    #[error("could not ask Kafka at {servers} for its topics; is it running, and does the address reach it?")]
    Unreachable {
        servers: String,
        #[source]
        source: KafkaError,
    },
    #[error("could not use the topics as they are:{}", on_lines(.0))]
    Unfit(Vec<Problem>),
}

/// How long a cluster may take until all its brokers know a topic that was created.
const APPEARANCE: Duration = Duration::from_secs(15);

/// What is found once `expected` topics are there with their settings, or after [`APPEARANCE`].
async fn appeared(cluster: &Cluster, planned: &[Planned], expected: usize) -> Result<check::Topics, TopicError> {
    let deadline = Instant::now() + APPEARANCE;
    loop {
        let found = cluster.find(planned).await?;
        let complete = found.values().filter(|topic| !topic.config.is_empty()).count();
        if complete >= expected || Instant::now() >= deadline {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn on_lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}
