//! Outputs: what renderers write, read back by others; where files are kept; what is fetched.

mod bucket;
mod csv;
mod fetching;
mod files;
mod fixture;
mod memory;
pub(crate) mod reading;
mod rendering;
mod xlsx;
