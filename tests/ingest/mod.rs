//! From the broker to the store: on a real broker, into real databases.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it should be"
)]

mod batch;
mod dead_letters;
mod faults;
mod flow;
mod publish;
mod rig;
mod snapshots;
mod state;
mod topology;
