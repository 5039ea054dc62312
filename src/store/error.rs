//! What can go wrong in a store, told apart by what the caller should do about it.

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, overloaded, full or shutting down: the same call may succeed later.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),

    /// The database refuses the data itself: the same call will never succeed. A batch is to be
    /// taken apart until the culprit stands alone.
    #[error("the database refuses the data: {0}")]
    Rejected(#[source] sqlx::Error),

    /// The row changed since it was read.
    #[error("changed by another meanwhile")]
    Stale,

    /// A row with this id exists already.
    #[error("exists already")]
    AlreadyExists,

    /// The master key is missing, malformed, or not the one this database was made with.
    #[error("master key: {0}")]
    MasterKey(&'static str),

    /// The database holds what this program never writes.
    #[error("the database contradicts itself: {0}")]
    Corrupt(String),

    /// The schema is not the one this program knows.
    #[error("the schema: {0}")]
    Schema(String),

    /// The database's address or file cannot be used at all.
    #[error("{0}")]
    Configuration(String),

    /// Anything else: a fault of this program.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// Whether waiting may help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the data itself is at fault.
    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// A row that cannot be read back as what was written.
    pub fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }
}
