//! The Management Activity API as the rest of the connector sees it.
//! One door: [`Api`]. No URL, header or status code leaves this room.

mod advice; // what a person can do about an error
mod auth; // tokens, renewed before they lapse, one renewal at a time
mod blob; // a content's bytes while they arrive
mod call; // one request: token, permit, answer
mod claims; // what a token says about itself
mod classify; // from a bad answer to what happened
mod client; // list, fetch, subscribe
mod error; // every way a call can end badly
mod limiter; // the tenant's request budget and the pauses the service asks for
mod meter; // this room's metrics
mod minute; // the used part of the budget
mod notice; // what the service tells a webhook
mod origin; // the token goes to the configured host and nowhere else
mod pages; // a listing, page by page
mod proof; // what says who we are
mod reach; // whether a host can be reached at all
mod webhook; // where the service is to send notifications
mod wire; // JSON exactly as sent, turned into our types

#[cfg(test)]
pub(crate) mod stage; // a small service on 127.0.0.1 that the tests script

pub use self::{
    auth::TokenState,
    blob::Blob,
    call::Timeouts,
    claims::Claims,
    client::{Api, TenantApi},
    error::{Answer, ApiError, ApiSetupError, Operation, TokenAnswer},
    notice::Notified,
    pages::Pages,
    reach::{Line, Obstacle, Reached, Unreached, Way, reach},
    webhook::{NewWebhook, NotAWebhook, Webhook},
    wire::{Notification, Subscription},
};
