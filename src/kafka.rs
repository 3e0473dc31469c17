//! Kafka as the rest of the connector sees it.

mod checkup; // what a cluster and our group look like
mod client; // how every client is configured
mod entry; // a ledger entry as bytes
mod frame; // a record as a message
mod gaps; // a gap as JSON
mod ledger; // the ledger topic, entry by entry
mod listings; // a listing as a message
mod member; // our place in the consumer group
mod partition; // where a tenant lives
mod publisher; // records in transactions
mod reader; // what a tool reads
mod restore; // what a partition's new owner must know
mod stuck; // a member that hears no more
mod survey; // what the topics know, for a comparison with the service
mod topics; // created if missing, checked if there

pub use self::{
    checkup::{BrokerVersion, Brokers, Group, Rehearsal, brokers, group, plain, rehearse},
    client::{OWNED_PROPERTIES, Role, client_config, refuses, transactional_id},
    entry::{Entry, EntryKind, NotAnEntry, ReplayStep},
    frame::{Frame, LONGEST_HEADER},
    gaps::{Gap, MissingListings, MissingRecord, UnlistedSpan, Unreadable},
    listings::{ListingsWriter, NotAListing, decode as decode_listing, message_parts as listing_parts},
    member::{Member, MemberEvent},
    partition::partition_of,
    publisher::{Message, Publisher, TransactionError},
    reader::{Next, ReadError, ReadFrom, ReadTo, TopicReader},
    restore::{RestoreError, Restored, restore},
    survey::{Survey, SurveyError},
    topics::{Problem, TopicError, ensure, expect as expect_topics, inspect},
};
