//! The rooms put together: listing, fetching, writing.

mod desk; // what the lister asks the writer
mod list; // a tenant's contents into the listings topic

pub use self::{
    desk::{Desk, Wanted},
    list::{Append, ListingEnds, TenantLister, follow_tenant},
};
