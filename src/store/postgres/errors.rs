//! What the database says, told apart by what the caller should do about it.

use std::fmt::Display;
use std::time::Duration;

use sqlx::migrate::MigrateError;

use super::{Result, StoreError};

/// Constraints that two rows of one id break; every other one guards what this program writes.
const IDS: [&str; 5] = [
    "api_key_pk",
    "subscription_pk",
    "subscription_secret_pk",
    "edition_pk",
    "output_pk",
];

/// The constraint that an event breaks which another accept kept since this one looked: as good as a
/// clash that the database resolved against us.
const EVENT_KEY: &str = "event_key_pk";

/// How often one call runs its transaction when the database asks for that.
const TRIES: usize = 4;

/// How long one transaction may take before the database counts as away: a connection whose other
/// side vanished says nothing for a quarter of an hour.
const DEADLINE: Duration = Duration::from_secs(30);

/// A driver's error as one of ours.
pub(super) fn from_sqlx(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(cause) => {
            let code = cause.code().unwrap_or_default().into_owned();
            if code == "23505" && cause.constraint().is_some_and(|name| IDS.contains(&name)) {
                return StoreError::AlreadyExists;
            }
            if breaks(&error, EVENT_KEY) {
                return StoreError::Unavailable(error);
            }
            let said = cause.message().to_owned();
            by_code(&code, said, error)
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::BeginFailed => StoreError::Unavailable(error),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
            StoreError::corrupt(error)
        }
        _ => StoreError::Database(error),
    }
}

/// By SQLSTATE, mostly by its class (Postgres documentation, appendix A).
fn by_code(code: &str, said: String, error: sqlx::Error) -> StoreError {
    match (code, code.get(..2).unwrap_or_default()) {
        // A table or a column that is not there.
        ("42P01" | "42703", _) => StoreError::Schema(said),
        (_, "21" | "22" | "23" | "54") => StoreError::Rejected(error),
        // By their numbers: a transaction that idled for too long, a standby that is not promoted.
        ("25P03" | "25006", _) | (_, "08" | "40" | "53" | "55" | "57" | "58") => {
            StoreError::Unavailable(error)
        }
        // No such user, password or database.
        (_, "28" | "3D") => StoreError::Configuration(format!("the database says: {said}")),
        _ => StoreError::Database(error),
    }
}

/// Whether the database refused a row for this constraint.
pub(super) fn breaks(error: &sqlx::Error, constraint: &str) -> bool {
    matches!(error, sqlx::Error::Database(cause) if cause.constraint() == Some(constraint))
}

/// A migrator's error as one of ours.
pub(super) fn from_migrate(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => from_sqlx(cause),
        MigrateError::VersionMissing(version) => StoreError::Schema(format!(
            "holds migration {version}, which this program does not know: a newer one made it"
        )),
        other => StoreError::Schema(other.to_string()),
    }
}

/// Whether a lock was not to be had in time.
pub(super) fn waited_too_long(error: &StoreError) -> bool {
    let StoreError::Unavailable(sqlx::Error::Database(cause)) = error else {
        return false;
    };
    cause.code().as_deref() == Some("55P03")
}

/// Whether the same transaction may work when it is run again at once: a deadlock or a clash that
/// the database resolved against us, or a lock waited for too long.
fn asks_to_try_again(error: &StoreError) -> bool {
    let StoreError::Unavailable(sqlx::Error::Database(cause)) = error else {
        return false;
    };
    cause.constraint() == Some(EVENT_KEY)
        || matches!(cause.code().as_deref(), Some("40001" | "40P01" | "55P03"))
}

/// Runs a transaction, and again from its start where the database asks for that.
pub(super) async fn retrying<T, F>(mut transaction: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for _ in 1..TRIES {
        match within(DEADLINE, transaction()).await {
            Err(error) if asks_to_try_again(&error) => {
                tracing::debug!(%error, "running a transaction again");
            }
            outcome => return outcome,
        }
    }
    within(DEADLINE, transaction()).await
}

/// Reads, with the same deadline as a transaction.
pub(super) async fn reading<T>(read: impl Future<Output = Result<T>>) -> Result<T> {
    within(DEADLINE, read).await
}

/// Gives up on a database that does not answer.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let silent = std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        );
        Err(StoreError::Unavailable(sqlx::Error::Io(silent)))
    })
}

/// Asserts that a write did what it must have done.
pub(super) fn expect_rows<N>(table: &str, expected: usize, found: N) -> Result<()>
where
    N: Copy + Display,
    usize: TryFrom<N>,
{
    if usize::try_from(found).ok() == Some(expected) {
        Ok(())
    } else {
        Err(StoreError::Corrupt(format!(
            "{table}: {found} rows where {expected} were written"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_refusal_says_what_to_do() {
        let told = |code| by_code(code, String::new(), sqlx::Error::RowNotFound);
        for code in ["21000", "22P05", "22003", "23505", "23514", "54000"] {
            assert!(told(code).is_rejected(), "{code}");
        }
        for code in [
            "08006", "25006", "25P03", "40001", "40P01", "53300", "53100", "55P03", "57P01",
            "57P03", "58030",
        ] {
            assert!(told(code).is_unavailable(), "{code}");
        }
        assert!(matches!(told("42P01"), StoreError::Schema(_)));
        assert!(matches!(told("28P01"), StoreError::Configuration(_)));
        assert!(matches!(told("3D000"), StoreError::Configuration(_)));
        assert!(matches!(told("42601"), StoreError::Database(_)));
        assert!(matches!(told(""), StoreError::Database(_)));
    }

    #[tokio::test]
    async fn a_silent_database_is_away() {
        let silent = within::<()>(Duration::from_millis(1), std::future::pending()).await;
        assert!(silent.unwrap_err().is_unavailable());
    }

    #[test]
    fn a_write_that_missed_rows_is_noticed() {
        assert!(expect_rows("event", 2, 2_i64).is_ok());
        assert!(expect_rows("event", 2, 1_u64).is_err());
        assert!(expect_rows("event", 0, -1_i64).is_err());
    }
}
