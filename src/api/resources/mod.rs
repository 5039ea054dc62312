//! One file a resource: what it looks like outside, and what can be done with it.

pub mod api_keys;
pub mod audit_log;
pub mod deliveries;
pub mod events;
pub mod feed;
pub mod fields;
pub mod projects;
pub mod subscriptions;
