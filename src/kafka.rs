//! Kafka as the rest of the connector sees it.
