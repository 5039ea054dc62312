//! The Report Forge API over HTTP.
//!
//! - [`listener`]: TLS, trusted proxies, and clients that take their time.

pub mod listener;
