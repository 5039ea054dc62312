//! One integration binary: real brokers, real databases, in-process receivers.

#[macro_use]
mod harness;

mod cli;
mod dispatch;
mod egress;
mod faults;
mod imports;
mod ingest;
mod store;
