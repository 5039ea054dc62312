//! Edition data pushed by clients (product.md §5, "Writes"). Each request is one transaction: all of it
//! is written, or nothing.
//!
//! - [`create`], [`sections`], [`rows`], [`row`], [`submit`]: the routes.
//! - [`terms`]: what all of them read of a request beside its body.
//! - [`edit`]: what is sent for a section, held against the blueprint.
//! - [`writer`]: from there to the store, and again where the blueprint was changed in between.
//! - [`receipt`]: what is answered, and kept for repeats.

use utoipa_axum::router::OpenApiRouter;

use crate::api::Api;

mod create;
mod edit;
mod receipt;
mod row;
mod rows;
mod sections;
mod submit;
mod terms;
mod writer;

pub use receipt::Receipt;
pub use terms::RepeatHeader;

/// The routes of all writes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(create::routes())
        .merge(sections::routes())
        .merge(rows::routes())
        .merge(row::routes())
        .merge(submit::routes())
}
