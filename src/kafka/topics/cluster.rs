//! What a cluster has, and its creation of what it has not.

use std::{collections::HashSet, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    TopicError,
    check::{Found, Problem, Topics},
    plan::Planned,
};
use crate::{
    config::Kafka,
    kafka::client::{Role, client_config},
};

/// The admin's view of a cluster.
pub(super) struct Cluster {
    admin: Arc<AdminClient<DefaultClientContext>>,
    servers: String,
    replication: i32,
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// Topics described in one request: with a topic for each tenant there may be tens of thousands.
const AT_ONCE: usize = 500;

impl Cluster {
    pub(super) fn of(settings: &Kafka) -> Result<Self, TopicError> {
        let admin = client_config(settings, Role::Admin).create().map_err(TopicError::Client)?;
        let servers = settings.bootstrap_servers.clone();
        Ok(Self { admin: Arc::new(admin), servers, replication: settings.replication_factor })
    }

    /// Those of the planned topics that exist. One whose settings may not be read has none.
    pub(super) async fn find(&self, planned: &[Planned]) -> Result<Topics, TopicError> {
        let mut found = self.partitions(planned).await?;
        let names: Vec<_> = found.keys().cloned().collect();
        for some in names.chunks(AT_ONCE) {
            let resources: Vec<_> = some.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
            let described = self.admin.describe_configs(&resources, &options()).await;
            // The client drops a topic's own error, so a refusal shows as a topic without settings.
            for resource in described.map_err(|error| self.unreachable(error))?.into_iter().flatten() {
                let OwnedResourceSpecifier::Topic(name) = resource.specifier else { continue };
                let entries = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                if let Some(topic) = found.get_mut(&name) {
                    topic.config = entries.collect();
                }
            }
        }
        Ok(found)
    }

    /// Creates topics; what is refused is a problem. One that somebody else created meanwhile is none.
    pub(super) async fn create(&self, missing: &[&Planned]) -> Result<Vec<Problem>, TopicError> {
        let mut problems = Vec::new();
        for some in missing.chunks(AT_ONCE) {
            let topics: Vec<_> = some.iter().map(|topic| self.new_topic(topic)).collect();
            let outcomes = self.admin.create_topics(&topics, &options()).await;
            for outcome in outcomes.map_err(|error| self.unreachable(error))? {
                match outcome {
                    Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((topic, code)) => problems.push(Problem::NotCreated { topic, reason: code }),
                }
            }
        }
        Ok(problems)
    }

    fn new_topic<'a>(&self, topic: &'a Planned) -> NewTopic<'a> {
        let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(self.replication));
        topic.config.iter().fold(new, |new, (key, value)| new.set(key, value))
    }

    /// Asks for all topics rather than for these: to ask for one by name may create it, with the broker's settings.
    async fn partitions(&self, planned: &[Planned]) -> Result<Topics, TopicError> {
        let wanted: HashSet<String> = planned.iter().map(|topic| topic.name.clone()).collect();
        let admin = Arc::clone(&self.admin);
        let read = move || {
            let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
            let there =
                metadata.topics().iter().filter(|topic| topic.error().is_none() && wanted.contains(topic.name()));
            Ok(there
                .map(|topic| {
                    (topic.name().to_owned(), Found { partitions: topic.partitions().len(), ..Found::default() })
                })
                .collect())
        };
        let read = tokio::task::spawn_blocking(read).await.unwrap_or(Err(KafkaError::Canceled));
        read.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, source: KafkaError) -> TopicError {
        TopicError::Unreachable { servers: self.servers.clone(), source }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}
