//! `forge-dispatch migrate`

use serde::Serialize;

use super::{CliError, Context};

#[derive(Serialize)]
struct Migrated {
    database: &'static str,
    schema: &'static str,
}

/// Brings the schema up to this version, and checks the master key. Doing it again does nothing.
pub async fn run(context: &Context) -> Result<(), CliError> {
    let store = context.open_store().await?;
    store.migrate().await?;
    let migrated = Migrated {
        database: store.kind(),
        schema: "current",
    };
    store.close().await;
    context.output.print(&migrated, |migrated| {
        format!("the {} schema is up to date", migrated.database)
    })
}
