//! What can be seen of a cluster and of our group without changing either: for `doctor`. Everything here blocks,
//! on a thread of the runtime that is meant for it.

use std::time::{Duration, Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::{DefaultProducerContext, Producer, ThreadedProducer},
};

use super::client::{Role, client_config};
use crate::config::{Delivery, Kafka};

/// The brokers, as they tell of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brokers {
    /// `host:port`, by id.
    pub addresses: Vec<String>,
    pub version: BrokerVersion,
    /// Settings of one broker that exactly-once leans on, as `name=value`.
    pub settings: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BrokerVersion {
    /// The right DescribeConfigs on the cluster is missing.
    #[default]
    Unknown,
    /// `inter.broker.protocol.version`: 3.x and earlier have it.
    Protocol(String),
    /// A broker without that setting.
    FourOrLater,
}

/// Our consumer group and how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `Stable`, `Empty`, `Dead`, … as Kafka says it.
    pub state: String,
    pub members: usize,
    /// Listings that are not settled: offsets between the committed one and the end, over all partitions.
    pub lag: i64,
    /// Partitions with a committed offset.
    pub committed: usize,
    pub partitions: usize,
}

const SETTINGS: [&str; 5] = [
    "unclean.leader.election.enable",
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "min.insync.replicas",
];
const PROTOCOL_VERSION: &str = "inter.broker.protocol.version";

/// Asks for the brokers; `patience` for each answer.
///
/// # Errors
/// When none answers.
pub fn brokers(settings: &Kafka, patience: Duration) -> KafkaResult<Brokers> {
    let admin: AdminClient<DefaultClientContext> = client_config(settings, Role::Admin).create()?;
    let metadata = admin.inner().fetch_metadata(None, patience)?;
    let mut ids: Vec<_> = metadata.brokers().iter().map(|broker| (broker.id(), broker)).collect();
    ids.sort_by_key(|(id, _)| *id);
    let mut found = Brokers {
        addresses: ids.iter().map(|(_, broker)| format!("{}:{}", broker.host(), broker.port())).collect(),
        ..Brokers::default()
    };
    let Some((id, _)) = ids.first() else { return Ok(found) };
    let options = AdminOptions::new().request_timeout(Some(patience)).operation_timeout(Some(patience));
    let asked = [ResourceSpecifier::Broker(*id)];
    // The admin client is woken by a thread of its own, so waiting here blocks nobody else.
    let described = tokio::runtime::Handle::current().block_on(admin.describe_configs(&asked, &options));
    for resource in described.into_iter().flatten().flatten() {
        if !matches!(resource.specifier, OwnedResourceSpecifier::Broker(_)) || resource.entries.is_empty() {
            continue;
        }
        let value = |name: &str| resource.entries.iter().find(|entry| entry.name == name)?.value.clone();
        found.version = value(PROTOCOL_VERSION).map_or(BrokerVersion::FourOrLater, BrokerVersion::Protocol);
        found.settings = SETTINGS.into_iter().filter_map(|name| Some((name, value(name)?))).collect();
    }
    Ok(found)
}

/// How a transaction with nothing in it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    Aborted {
        took: Duration,
    },
    /// Another doctor on the same slot did the same at the same moment.
    Crossed,
    /// At-least-once has no transactions.
    NotNeeded,
}

/// Opens a transaction and aborts it, with nothing in it.
///
/// The transactional id is group, slot and `doctor`, with slashes, which no slot can have in its name: it fences nobody
/// but another doctor, and the rights on the prefix of the group cover it.
///
/// # Errors
/// Rights that are missing, or a coordinator that does not answer in time.
pub fn rehearse(settings: &Kafka, patience: Duration) -> KafkaResult<Rehearsal> {
    if settings.delivery != Delivery::ExactlyOnce {
        return Ok(Rehearsal::NotNeeded);
    }
    let began = Instant::now();
    let mut config = client_config(settings, Role::Publisher);
    config.set("transactional.id", format!("{}/{}/doctor", settings.group, settings.slot));
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    let steps = producer
        .init_transactions(patience)
        .and_then(|()| producer.begin_transaction())
        .and_then(|()| producer.abort_transaction(patience));
    match steps {
        Ok(()) => Ok(Rehearsal::Aborted { took: began.elapsed() }),
        Err(error) if is_fenced(&error) => Ok(Rehearsal::Crossed),
        Err(error) => Err(error),
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    matches!(error.rdkafka_error_code(), Some(Fenced | ProducerFenced | InvalidProducerEpoch))
}

/// Our group, and its distance from the end of the listings.
///
/// # Errors
/// When the coordinator is not there, or the group may not be read.
pub fn group(settings: &Kafka, patience: Duration) -> KafkaResult<Group> {
    let consumer: BaseConsumer = client_config(settings, Role::Watermarks).create()?;
    let listed = consumer.fetch_group_list(Some(&settings.group), patience)?;
    let mut group = listed
        .groups()
        .iter()
        .find(|group| group.name() == settings.group)
        .map(|group| Group { state: group.state().to_owned(), members: group.members().len(), ..Group::default() })
        .unwrap_or_default();
    let topic = settings.listings_topic();
    let mut asked = TopicPartitionList::new();
    for partition in 0..settings.partitions {
        asked.add_partition(&topic, partition);
    }
    for element in consumer.committed_offsets(asked, patience)?.elements() {
        // A topic that is not there is another line of the same probe.
        let Ok((low, high)) = consumer.fetch_watermarks(&topic, element.partition(), patience) else { continue };
        group.partitions += 1;
        match element.offset() {
            Offset::Offset(at) => {
                group.committed += 1;
                group.lag += (high - at.max(low)).max(0);
            }
            _ => group.lag += high - low,
        }
    }
    Ok(group)
}

/// The library's error without its wrapping, for people.
pub fn plain(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}
