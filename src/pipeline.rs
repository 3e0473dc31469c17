//! The rooms put together: listing, fetching, writing.
//! One door: [`run`]. A *shift* is a member, a producer and a writer that live and end together; trouble that leaves the
//! state of a transaction unknown ends the shift, and the next one restores everything.

mod desk; // what the lister asks the writer
mod fetch; // the bounded pool
mod list; // a tenant's contents into the listings topic
mod notice; // what the webhook was told, into the same topic
mod shift; // member, producer and writer, from start to end
mod spans; // whose fields every line within them carries
mod supervise; // one shift after the other, until told to stop
mod writer; // the one thread that publishes

pub use self::{
    fetch::largest_record,
    supervise::{PipelineError, Topics, run},
};
