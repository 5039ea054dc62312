//! What both databases must do, in one suite: each scenario is a function over a database, and runs
//! on `SQLite` and on Postgres. A Postgres that is missing fails it; nothing is skipped.
//!
//! Postgres goes by its own clock, so scenarios do not wait for time to pass: leases of no length
//! are over at once, an hour never is.

mod accept;
mod api_keys;
mod audit;
mod bulk_replay;
mod circuits;
mod claim;
mod convergence;
mod core_outputs;
mod deliveries_in_reach;
mod editions;
mod event;
mod feed;
mod fixture;
mod headers;
mod idempotency;
mod keys;
mod lease;
mod left_alone;
mod log;
mod model;
mod operational;
mod ordering;
mod orphans;
mod outbox;
mod output_jobs;
mod polling;
mod postgres;
mod postgres_editions;
mod projection;
mod projects;
mod races;
mod rates;
mod reach;
mod replay;
mod replicas;
mod retention;
mod rollups;
mod schema;
mod search;
mod settle;
mod snapshots;
mod sqlite;
mod state;
mod stats;
mod subscriptions;
mod text;
mod turns;
mod writing;
mod writing_races;
