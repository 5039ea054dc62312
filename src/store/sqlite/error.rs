//! What `SQLite` says, told apart by what the caller should do about it.

use sqlx::error::ErrorKind;
use sqlx::migrate::MigrateError;

use crate::store::StoreError;

/// Primary result codes (<https://sqlite.org/rescode.html>); the extended ones hold them in their
/// low byte.
mod code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const NOMEM: u32 = 7;
    pub(super) const READONLY: u32 = 8;
    pub(super) const INTERRUPT: u32 = 9;
    pub(super) const IOERR: u32 = 10;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANTOPEN: u32 = 14;
    pub(super) const PROTOCOL: u32 = 15;
    pub(super) const TOOBIG: u32 = 18;
    pub(super) const CONSTRAINT: u32 = 19;
    pub(super) const MISMATCH: u32 = 20;
    pub(super) const NOTADB: u32 = 26;
}

/// Sorts an error of a statement.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        // Every unique key that is not ours to collide on is looked up before it is written.
        sqlx::Error::Database(told) if told.kind() == ErrorKind::UniqueViolation => {
            StoreError::AlreadyExists
        }
        sqlx::Error::Database(told) => {
            let result = told.code().and_then(|text| text.parse::<u32>().ok());
            match result.map(|result| result & 0xff) {
                Some(
                    code::BUSY
                    | code::LOCKED
                    | code::NOMEM
                    | code::READONLY
                    | code::INTERRUPT
                    | code::IOERR
                    | code::FULL
                    | code::CANTOPEN
                    | code::PROTOCOL,
                ) => StoreError::Unavailable(error),
                Some(code::CONSTRAINT | code::TOOBIG | code::MISMATCH) => {
                    StoreError::Rejected(error)
                }
                Some(code::CORRUPT | code::NOTADB) => StoreError::corrupt(told),
                _ => StoreError::Database(error),
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreError::Unavailable(error),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::corrupt(error),
        _ => StoreError::Database(error),
    }
}

/// Sorts an error of the migrator.
pub(super) fn migrate_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            store_error(error)
        }
        MigrateError::VersionMissing(version) => StoreError::Schema(format!(
            "migration {version} was applied by a newer version of this program"
        )),
        other => StoreError::Schema(other.to_string()),
    }
}
