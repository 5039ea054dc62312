//! From the outbox to the broker: on a real broker, out of real databases.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it should be"
)]

mod faults;
mod relay;
mod replicas;
pub(crate) mod rig;
mod road;
