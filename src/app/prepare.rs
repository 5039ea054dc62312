//! The database, before anything works with it.

use crate::health::{Health, Part};
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// Whether the database could be waited for.
pub(super) enum Prepared {
    Ready,
    Stopped,
}

/// Waits for the database and brings its schema up to date.
pub(super) async fn prepare(
    store: &dyn Store,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Prepared, StoreError> {
    let mut reconnect = Reconnect::default();
    loop {
        let migrated = tokio::select! {
            migrated = store.migrate() => migrated,
            () = shutdown.soft.cancelled() => return Ok(Prepared::Stopped),
        };
        match migrated {
            Ok(()) => {
                health.up(Part::Database);
                return Ok(Prepared::Ready);
            }
            Err(error) if error.is_unavailable() => {
                health.down(Part::Database, "does not answer");
                tracing::warn!(%error, "the database does not answer; trying again");
                tokio::select! {
                    () = reconnect.pause() => {}
                    () = shutdown.soft.cancelled() => return Ok(Prepared::Stopped),
                }
            }
            Err(error) => return Err(error),
        }
    }
}
