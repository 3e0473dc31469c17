//! Kafka as the rest of the connector sees it.

mod client; // how every client is configured
mod entry; // a ledger entry as bytes
mod gaps; // a gap as JSON
mod listings; // a listing as a message
mod partition; // where a tenant lives
mod topics; // created if missing, checked if there

pub use self::{
    client::{OWNED_PROPERTIES, Role, client_config, transactional_id},
    entry::{Entry, EntryKind, NotAnEntry},
    gaps::{Gap, MissingListings, MissingRecord, Unreadable},
    listings::{ListingsWriter, NotAListing, decode as decode_listing, message_parts as listing_parts},
    partition::partition_of,
    topics::{Problem, TopicError, ensure},
};
