//! The way out: which addresses may be dialled, and the client that dials them.
//!
//! - [`guard`] judges addresses by the table in [`special`] and an operator's rules.
//! - [`lookup`] asks the name server; [`resolver`] hands on the addresses that pass the guard.
//! - [`client`] sends one request and reports what came of it; [`outcome`] holds that report.
//! - [`target`] checks a URL when it is registered.

pub mod client;
pub mod guard;
pub mod lookup;
pub mod outcome;
pub mod resolver;
pub mod special;
pub mod target;

pub use client::WebhookClient;
pub use guard::{Blocked, Guard};
pub use lookup::{Lookup, SystemLookup};
pub use outcome::{Answer, SendError, Sent};
