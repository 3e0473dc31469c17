//! Kafka as the rest of the connector sees it.

mod client; // how every client is configured
mod partition; // where a tenant lives

pub use self::{
    client::{FRAMING_BYTES, OWNED_PROPERTIES, Role, client_config, transactional_id},
    partition::partition_of,
};
