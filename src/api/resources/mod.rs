//! One file a resource: what it looks like outside, and what can be done with it.

pub mod api_keys;
pub mod audit_log;
pub mod blueprints;
pub mod deliveries;
pub mod editions;
pub mod events;
pub mod feed;
pub mod fields;
pub mod outputs;
pub mod projects;
pub mod replays;
pub mod rows;
pub mod sections;
pub mod stats;
pub mod subscriptions;
pub mod workspace;
pub mod writes;
