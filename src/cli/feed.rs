//! The feed as the tools read it: a span is listed, contents are fetched, and passing trouble is waited out.
//! Whoever lists or fetches for a person does it through this door, so that all are patient with the same things.

mod fetch; // a content's records, whatever it takes
mod patience; // how often to try again
mod reach; // how much of a span can be listed
mod survey; // a span of time, listed

pub(super) use self::{
    fetch::{Lost, Part, Unfetched, fetch},
    patience::Patience,
    reach::{cut_to_reach, in_reach, within_reach},
    survey::{Place, Subject, Survey, Unlisted},
};
