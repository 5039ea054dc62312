//! One integration binary: real brokers, real databases, in-process receivers.

mod cli;
mod dispatch;
mod egress;
mod faults;
mod harness;
mod imports;
mod ingest;
mod ops;
mod store;
