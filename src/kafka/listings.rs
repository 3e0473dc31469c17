//! A listing as a message of the listings topic: written by whoever finds a content, read by whoever owns its partition.
//! The times of a content travel in headers, as they were read from the API, so that no second reading can differ.

use std::{
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};
use serde::Deserialize;
use tokio::{sync::SetOnce, time::sleep};
use uuid::Uuid;

use super::{Role, client_config, partition_of, refuses};
use crate::{
    config,
    domain::{ContentType, Listed, Listing, Origin, Source, TenantId},
};

/// Appends listings to their topic, outside of any transaction (docs/exactly-once.md, rule 18). One per process.
pub struct ListingsWriter {
    settings: config::Kafka,
    producer: Mutex<FutureProducer>,
    refused: SetOnce<KafkaError>,
    topic: String,
    /// As configured, never as the cluster says (rule 17).
    partitions: i32,
}

/// How long a full queue is left alone when nothing in it is ours.
const QUEUE_REST: Duration = Duration::from_millis(50);

impl ListingsWriter {
    /// Connects in the background.
    ///
    /// # Errors
    /// When librdkafka does not take the configuration.
    pub fn new(settings: &config::Kafka) -> Result<Self, KafkaError> {
        Ok(Self {
            producer: Mutex::new(client_config(settings, Role::ListingsProducer).create()?),
            refused: SetOnce::new(),
            settings: settings.clone(),
            topic: settings.listings_topic(),
            partitions: settings.partitions,
        })
    }

    /// Appends the contents in their order and waits until every one is acknowledged by all replicas.
    ///
    /// # Errors
    /// When one was not acknowledged: each of them may then be in the topic or not. Appending them again does no harm,
    /// because a listing is a hint.
    pub async fn append(&self, contents: &[Arc<Listed>], origin: Origin) -> Result<(), KafkaError> {
        let producer = self.current().clone();
        let outcome = self.append_by(&producer, contents, origin).await;
        if let Err(error) = &outcome {
            if refuses(error) {
                // The first one is enough to know.
                let _ = self.refused.set(error.clone());
            }
            self.replace(&producer)?;
        }
        outcome
    }

    /// Waits until the broker said that this user may not append.
    pub async fn refused(&self) -> &KafkaError {
        self.refused.wait().await
    }

    fn current(&self) -> MutexGuard<'_, FutureProducer> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next append is another producer's. One that met a fatal error takes nothing any more; one whose messages timed
    /// out may have lost a partition's leader for good (docs/exactly-once.md, rule 26).
    fn replace(&self, failed: &FutureProducer) -> Result<(), KafkaError> {
        let mut current = self.current();
        // Appends that fail together replace it once.
        if current.client().native_ptr() == failed.client().native_ptr() {
            *current = client_config(&self.settings, Role::ListingsProducer).create()?;
        }
        Ok(())
    }

    async fn append_by(
        &self,
        producer: &FutureProducer,
        contents: &[Arc<Listed>],
        origin: Origin,
    ) -> Result<(), KafkaError> {
        let now = Timestamp::now();
        let mut sent = Vec::with_capacity(contents.len());
        let mut acknowledged = 0;
        for content in contents {
            let listing =
                Listing { content: Arc::clone(content), origin, first_listed: now, appended: now, attempts: 0 };
            let (key, value, headers) = message_parts(&listing);
            let mut record = FutureRecord::to(&self.topic)
                .partition(partition_of(content.source.tenant, self.partitions))
                .key(&key)
                .payload(&value[..])
                .headers(headers);
            while let Err((error, refused)) = producer.send_result(record).map(|delivery| sent.push(delivery)) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error);
                }
                record = refused;
                // Room comes with the next acknowledgement: the oldest of ours, or of somebody else's.
                match sent.get_mut(acknowledged) {
                    Some(oldest) => delivered(oldest).await?,
                    None => sleep(QUEUE_REST).await,
                }
                acknowledged = sent.len().min(acknowledged + 1);
            }
        }
        for delivery in &mut sent[acknowledged..] {
            delivered(delivery).await?;
        }
        Ok(())
    }
}

async fn delivered(delivery: &mut DeliveryFuture) -> Result<(), KafkaError> {
    match delivery.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(error),
        Err(_) => Err(KafkaError::Canceled),
    }
}

const TENANT_ID: &str = "tenant_id";
const CONTENT_TYPE: &str = "content_type";
const ORIGIN: &str = "origin";
const CREATED: &str = "created";
const EXPIRES: &str = "expires";
const FIRST_LISTED: &str = "first_listed";
const ATTEMPTS: &str = "attempts";

/// Key, value and headers of a listing's message; a listing that moves keeps `first_listed` and `attempts`.
///
/// Shape: the key is the tenant's id, lower case with hyphens; the value is the JSON object as the API sent it; the
/// headers are texts: `tenant_id`, `content_type`, `origin`, `created`, `expires`, `first_listed` (RFC 3339, UTC) and
/// `attempts` (decimal). The partition is [`partition_of`] the tenant: the caller names it.
pub fn message_parts(listing: &Listing) -> (String, Bytes, OwnedHeaders) {
    let content = &listing.content;
    let tenant = content.source.tenant.to_string();
    let (created, expires) = (content.created.to_string(), content.expires.to_string());
    let (first_listed, attempts) = (listing.first_listed.to_string(), listing.attempts.to_string());
    let texts = [
        (TENANT_ID, tenant.as_str()),
        (CONTENT_TYPE, content.source.content_type.as_str()),
        (ORIGIN, listing.origin.as_str()),
        (CREATED, &created),
        (EXPIRES, &expires),
        (FIRST_LISTED, &first_listed),
        (ATTEMPTS, &attempts),
    ];
    let headers = OwnedHeaders::new_with_capacity(texts.len());
    let headers = texts.into_iter().fold(headers, |all, (key, value)| all.insert(Header { key, value: Some(value) }));
    (tenant, content.raw.clone(), headers)
}

/// Why a message of the listings topic cannot be used. Nothing of the message is in it but the name of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAListing {
    #[error("it has no {0}")]
    Lacks(&'static str),
    #[error("its {0} cannot be read")]
    Unreadable(&'static str),
    #[error("its {0} does not fit the headers")]
    Contradicts(&'static str),
}

/// Reads back what [`message_parts`] made. `timestamp_ms`: the message's own, when it was appended; the broker sets it.
///
/// # Errors
/// [`NotAListing`] names the part that is missing, unreadable or at odds with another.
pub fn decode<H: Headers>(
    key: Option<&[u8]>,
    payload: Option<&[u8]>,
    headers: Option<&H>,
    timestamp_ms: Option<i64>,
) -> Result<Listing, NotAListing> {
    let headers = headers.ok_or(NotAListing::Lacks("headers"))?;
    let tenant = TenantId(read::<_, Uuid>(headers, TENANT_ID)?);
    let content_type: ContentType = read(headers, CONTENT_TYPE)?;
    if key.ok_or(NotAListing::Lacks("key"))? != tenant.to_string().as_bytes() {
        return Err(NotAListing::Contradicts("key"));
    }
    let origin = text(headers, ORIGIN)?;
    let origin = Origin::ALL.into_iter().find(|known| known.as_str() == origin);
    let appended_ms = timestamp_ms.ok_or(NotAListing::Lacks("timestamp"))?;
    let raw = payload.ok_or(NotAListing::Lacks("value"))?;
    let item: Item = serde_json::from_slice(raw).map_err(|_| NotAListing::Unreadable("value"))?;
    if item.content_type.parse() != Ok(content_type) {
        return Err(NotAListing::Contradicts("contentType"));
    }
    let content = Listed {
        source: Source { tenant, content_type },
        content_id: item.content_id,
        content_uri: item.content_uri,
        created: read(headers, CREATED)?,
        expires: read(headers, EXPIRES)?,
        raw: Bytes::copy_from_slice(raw),
    };
    Ok(Listing {
        content: Arc::new(content),
        origin: origin.ok_or(NotAListing::Unreadable(ORIGIN))?,
        first_listed: read(headers, FIRST_LISTED)?,
        appended: Timestamp::from_millisecond(appended_ms).map_err(|_| NotAListing::Unreadable("timestamp"))?,
        attempts: read(headers, ATTEMPTS)?,
    })
}

/// What of the API's JSON is not in the headers, and the type, to see that both speak of one thing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    content_type: String,
    content_id: String,
    content_uri: String,
}

fn read<H: Headers, T: FromStr>(headers: &H, name: &'static str) -> Result<T, NotAListing> {
    text(headers, name)?.parse().map_err(|_| NotAListing::Unreadable(name))
}

fn text<'a, H: Headers>(headers: &'a H, name: &'static str) -> Result<&'a str, NotAListing> {
    let header = headers.iter().find(|header| header.key == name);
    let value = header.and_then(|header| header.value).ok_or(NotAListing::Lacks(name))?;
    std::str::from_utf8(value).map_err(|_| NotAListing::Unreadable(name))
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        Message, Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer},
        mocking::MockCluster,
    };

    use super::*;
    use crate::kafka::client::tests::settings;

    const RAW: &[u8] =
        br#"{"contentType":"audit.GENERAL", "contentId":"1$2$na0022","contentUri":"https://h/audit/1$2$na0022",
        "contentCreated":"2026-08-29T07:51:21.886","contentExpiration":"2026-09-12T07:48:32.071Z","new":[1e99]}"#;

    fn listing() -> Listing {
        let content = Listed {
            source: Source { tenant: TenantId(Uuid::from_u128(0xAB)), content_type: ContentType::General },
            content_id: "1$2$na0022".to_owned(),
            content_uri: "https://h/audit/1$2$na0022".to_owned(),
            created: "2026-08-29T07:51:21.886Z".parse().unwrap(),
            expires: "2026-09-12T07:48:32.071Z".parse().unwrap(),
            raw: Bytes::from_static(RAW),
        };
        Listing {
            content: Arc::new(content),
            origin: Origin::Sweep,
            first_listed: "2026-08-30T00:00:00.123456789Z".parse().unwrap(),
            appended: "2026-08-31T00:00:00.5Z".parse().unwrap(),
            attempts: 7,
        }
    }

    fn with(name: &str, value: Option<&str>) -> OwnedHeaders {
        let (_, _, all) = message_parts(&listing());
        all.iter().fold(OwnedHeaders::new(), |kept, header| {
            let text = header.value.map(|value| std::str::from_utf8(value).unwrap());
            match (header.key == name, value) {
                (true, None) => kept,
                (true, value) => kept.insert(Header { key: name, value }),
                (false, _) => kept.insert(Header { key: header.key, value: text }),
            }
        })
    }

    #[test]
    fn a_message_is_read_back_as_it_was() {
        let listing = listing();
        let appended_ms = Some(listing.appended.as_millisecond());
        for origin in Origin::ALL {
            let listing = Listing { origin, ..listing.clone() };
            let (key, value, headers) = message_parts(&listing);
            assert_eq!(value, RAW);
            assert_eq!(decode(Some(key.as_bytes()), Some(&value), Some(&headers), appended_ms), Ok(listing));
        }
    }

    #[test]
    fn a_part_that_is_missing_or_wrong_is_named() {
        let (key, value, headers) = message_parts(&listing());
        let good = (Some(key.as_bytes()), Some(&value[..]), Some(&headers), Some(0));
        type Parts<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, Option<&'a OwnedHeaders>, Option<i64>);
        fn of((key, payload, headers, ms): Parts<'_>) -> NotAListing {
            decode(key, payload, headers, ms).unwrap_err()
        }
        assert_eq!(of((None, good.1, good.2, good.3)), NotAListing::Lacks("key"));
        assert_eq!(of((Some(b"x"), good.1, good.2, good.3)), NotAListing::Contradicts("key"));
        assert_eq!(of((good.0, None, good.2, good.3)), NotAListing::Lacks("value"));
        assert_eq!(of((good.0, Some(b"{\xFF}"), good.2, good.3)), NotAListing::Unreadable("value"));
        assert_eq!(of((good.0, good.1, None, good.3)), NotAListing::Lacks("headers"));
        assert_eq!(of((good.0, good.1, good.2, None)), NotAListing::Lacks("timestamp"));
        assert_eq!(of((good.0, good.1, good.2, Some(i64::MAX))), NotAListing::Unreadable("timestamp"));
        for name in [TENANT_ID, CONTENT_TYPE, ORIGIN, CREATED, EXPIRES, FIRST_LISTED, ATTEMPTS] {
            assert_eq!(of((good.0, good.1, Some(&with(name, None)), good.3)), NotAListing::Lacks(name));
            assert_eq!(of((good.0, good.1, Some(&with(name, Some("-1 ü"))), good.3)), NotAListing::Unreadable(name));
        }
        let other = with(CONTENT_TYPE, Some("DLP.All"));
        assert_eq!(of((good.0, good.1, Some(&other), good.3)), NotAListing::Contradicts("contentType"));
    }

    #[test]
    fn json_of_any_depth_around_what_we_need_is_passed_over() {
        let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
        let raw = String::from_utf8(RAW.to_vec()).unwrap().replace("[1e99]", &deep);
        let (key, _, headers) = message_parts(&listing());
        assert!(decode(Some(key.as_bytes()), Some(raw.as_bytes()), Some(&headers), Some(0)).is_ok());
    }

    /// The in-process broker shows where a message lands and what it looks like; acknowledgements are the real broker's to prove.
    #[tokio::test]
    async fn contents_land_in_their_order_in_their_tenants_partition() {
        let cluster = MockCluster::new(1).unwrap();
        let settings = config::Kafka { bootstrap_servers: cluster.bootstrap_servers(), ..settings() };
        cluster.create_topic(&settings.listings_topic(), settings.partitions, 1).unwrap();
        let content = listing().content;
        let later = Arc::new(Listed { expires: Timestamp::MAX, ..(*content).clone() });
        let contents = [content, later];
        ListingsWriter::new(&settings).unwrap().append(&contents, Origin::Follow).await.unwrap();

        let consumer: BaseConsumer = client_config(&settings, Role::CommittedReader).create().unwrap();
        let partition = partition_of(contents[0].source.tenant, settings.partitions);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&settings.listings_topic(), partition, Offset::Beginning).unwrap();
        consumer.assign(&place).unwrap();
        for expected in &contents {
            let message = consumer.poll(Duration::from_secs(30)).expect("it comes").unwrap();
            let appended_ms = message.timestamp().to_millis();
            let read = decode(message.key(), message.payload(), message.headers(), appended_ms).unwrap();
            assert_eq!((&read.content, read.origin, read.attempts), (expected, Origin::Follow, 0));
        }
    }

    #[tokio::test]
    async fn a_producer_that_failed_is_replaced_and_only_once() {
        let writer = ListingsWriter::new(&settings()).unwrap();
        let first = writer.current().clone();
        let content = [listing().content];
        let together = tokio::join!(writer.append(&content, Origin::Follow), writer.append(&content, Origin::Webhook));
        for outcome in [together.0, together.1] {
            assert_eq!(outcome.unwrap_err().rdkafka_error_code(), Some(RDKafkaErrorCode::MessageTimedOut));
        }
        let second = writer.current().clone();
        assert_ne!(first.client().native_ptr(), second.client().native_ptr());
        writer.replace(&first).unwrap();
        assert_eq!(writer.current().client().native_ptr(), second.client().native_ptr());
    }

    #[tokio::test]
    async fn nothing_to_append_needs_no_broker() {
        let writer = ListingsWriter::new(&settings()).unwrap();
        assert_eq!(writer.append(&[], Origin::Follow).await, Ok(()));
    }
}
