//! Who asks, what they may, and how much.
//!
//! [`admission`] judges every request under `/v1` by its key: validity before limits, so that 401
//! comes before 429. [`caller`] is what a handler takes to say which scope it needs.

pub mod admission;
pub mod caller;
pub mod failures;
pub mod rate_headers;
pub mod slots;

pub use admission::{Admission, admit};
pub use caller::{Caller, Need};
pub(in crate::api) use slots::Slot;
