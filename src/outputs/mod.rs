//! What an edition's data is presented in: the renderers, the files that they make, and the files
//! that the core makes.
//!
//! - [`source`]: where a renderer reads an edition, page by page, all of it of one version.
//! - [`render`]: an edition as a file, by [`csv`] or [`xlsx`]; [`cell`] is what stands in one place
//!   of a table, [`number`] tells which numbers a workbook keeps, [`names`] makes the names of
//!   sheets and of files in a zip, [`scratch`] is what a renderer writes to.
//! - [`files`]: keeps files, in a directory or an S3-compatible store.
//! - [`fetch`]: takes a file of the core's, once.
//!
//! - [`runner`]: takes the jobs of outputs out of the store, a few at a time; `job`: does one, and
//!   settles it. [`stored`]: the store's editions, as renderers read them.

pub mod cell;
pub mod csv;
pub mod error;
pub mod fetch;
pub mod files;
mod job;
mod names;
pub mod number;
pub mod render;
pub mod runner;
pub mod scratch;
pub mod source;
pub mod stored;
pub mod xlsx;

pub use error::RenderError;
pub use fetch::{FetchError, Fetcher};
pub use files::FileStore;
pub use render::{Rendered, Renderer};
pub use source::{At, Outline, RowPage, Source, SourceError};
pub use stored::Stored;
