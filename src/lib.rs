//! forge-dispatch: events from RabbitMQ, kept in SQLite or Postgres, out as signed webhooks.
//!
//! One straight road (docs/ARCHITECTURE.md draws it): [`ingest`] takes messages in and commits
//! them through [`store`]; [`dispatch`] takes leased deliveries from there, sends them through
//! [`egress`] and settles what came of it. Rows are the only thing the two share, so either can
//! die at any line and the next start goes on from what was committed.
//!
//! - [`domain`]: the product's rules, pure.
//! - [`store`]: what is kept; one trait per consumer, two databases.
//! - [`broker`]: RabbitMQ, for those who take from it and those who give to it.
//! - [`ingest`]: from AMQP to a commit, and only then an acknowledgement.
//! - [`dispatch`]: permits, attempts, outcomes, settling.
//! - [`egress`]: which addresses may be dialled, and the client that dials them.
//! - [`outputs`]: editions rendered as files, and where files are kept.
//! - [`outbox`]: what this program originates, out to the broker.
//! - [`replay`]: replays of many deliveries, taken forward in the background.
//! - [`api`]: the Report Forge API, over TLS.
//! - [`ops`]: health and metrics for operators.
//! - [`app`]: builds the parts, starts them, drains them.
//! - [`cli`]: the command line.
//! - Leaves: [`config`], [`telemetry`], [`health`], [`shutdown`], [`clock`], [`entropy`],
//!   [`wake`], [`reconnect`], [`heavy`].

pub mod api;
pub mod app;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod domain;
pub mod egress;
pub mod entropy;
pub mod health;
pub mod heavy;
pub mod ingest;
pub mod ops;
pub mod outbox;
pub mod outputs;
pub mod reconnect;
pub mod replay;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod wake;
