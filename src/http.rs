//! What is served to the cluster: health and metrics.
//! One door: [`serve`] answers for as long as the process lives, [`Health`] is what it answers from.

mod health; // who is well, and why not
mod serve; // the port and its paths
mod webhook; // notifications, from the world outside

pub use self::{
    health::Health,
    serve::{HttpError, Serving, serve},
    webhook::{Take, Taken, WebhookError, receive},
};
