//! One integration binary: real brokers, real databases, in-process receivers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot do its work ends the test"
)]

#[macro_use]
mod harness;

mod api;
mod cli;
mod dispatch;
mod egress;
mod faults;
mod imports;
mod ingest;
mod maintenance;
mod ops;
mod outbox;
mod outputs;
mod store;
mod telemetry;
