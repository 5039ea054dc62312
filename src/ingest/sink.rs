//! What the messages of a queue become.

use async_trait::async_trait;

use crate::store;

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Kept now, with all that comes of it.
    Stored,
    /// It was known already, or newer was: nothing changed.
    Duplicate,
    /// The database refuses it, for this reason, and always will.
    Refused(String),
}

/// A message, as far as it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What it holds.
    pub bytes: &'a [u8],
    /// The trace that its header names, for what names none itself.
    pub traceparent: Option<&'a str>,
}

/// Reads messages and keeps what they hold. A consumer works for one.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// What one message holds.
    type Item: Send + Sync + 'static;

    /// Reads a message, or says why it is none: a dead letter's reason.
    fn decode(&self, message: Message<'_>) -> Result<Self::Item, String>;

    /// Keeps items in one transaction, and answers what became of each, in the order given. It may
    /// take only the first of them (at least one): the rest is offered again.
    ///
    /// [`store::StoreError::Rejected`] takes the batch apart until the culprit stands alone; after
    /// [`store::StoreError::Unavailable`] the same items are offered again, so that coming twice must
    /// be safe.
    async fn keep(&self, items: &[Self::Item]) -> store::Result<Vec<Outcome>>;

    /// Whether the database can be used at all.
    async fn ready(&self) -> store::Result<()>;
}
