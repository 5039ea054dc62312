//! The API, asked over the network as its clients do.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

mod admission;
mod api_keys;
mod contract;
mod document;
mod feed;
mod isolation;
mod junk;
mod listener;
pub(crate) mod outputs;
mod polling;
mod reads;
mod replays;
pub(crate) mod rig;
mod scene;
mod stats;
mod subscriptions;
mod tail;
pub(crate) mod told;
mod uses;
mod writes;
