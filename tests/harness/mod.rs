//! What the tests stand on: real servers, started and ended by the tests themselves.

pub(crate) mod databases;
pub(crate) mod events;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod services;
