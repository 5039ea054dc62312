//! The product's own rules, pure: no I/O, no clock, no randomness of its own, no runtime.
//!
//! Everything here can be called from a property test. Time and random numbers come in as
//! parameters; databases, sockets and brokers live elsewhere.
//!
//! - [`ids`]: typed ids, and the core's opaque ones.
//! - [`event`]: an event as we keep it, decoded from the CloudEvents envelope in [`envelope`] and
//!   checked against the [`catalogue`] of known types.
//! - [`subscription`], [`filter`] and [`headers`]: who wants which events, where and how.
//! - [`delivery`] and [`attempt`]: the states of a delivery and what one try produced; [`latency`]: how
//!   long tries took.
//! - [`retry`]: when to try again; [`circuit`]: when to leave a receiver alone. [`replay`] and
//!   [`selection`]: sending because somebody says so, of one delivery or of many.
//! - [`api_key`], [`key_text`], [`reach`] and [`rate`]: who may ask for what, how they show it, of
//!   which projects, and how often.
//! - [`audit`]: who did what.
//! - [`workspace`], [`blueprint`], [`edition`] and [`output`]: the edition data that is read and
//!   pushed; [`values`]: what a section's fields hold; [`snapshot`]: how the core tells of them all;
//!   [`table`]: rows as spreadsheets send and read them; [`mod@file`]: the files of outputs.
//! - [`own_event`]: what this program itself tells of the edition data that it changed, and
//!   [`operational`] of its own work.
//! - [`secret`], [`signature`] and [`payload`]: the exact bytes that go out, and their signatures.
//! - [`hex`]: how digests are written.

pub mod api_key;
pub mod attempt;
mod attributes;
pub mod audit;
pub mod blueprint;
pub mod catalogue;
pub mod circuit;
pub mod delivery;
pub mod edition;
pub mod envelope;
pub mod event;
pub mod file;
pub mod filter;
pub mod headers;
pub mod hex;
pub mod ids;
pub mod key_text;
pub mod latency;
pub mod operational;
pub mod output;
pub mod own_event;
pub mod payload;
pub mod rate;
pub mod reach;
pub mod replay;
pub mod retry;
pub mod secret;
pub mod selection;
pub mod signature;
pub mod snapshot;
pub mod subscription;
pub mod table;
pub mod values;
pub mod workspace;
