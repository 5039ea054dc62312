//! The outbox: events of our own, on their way to the broker.
//!
//! A row is written by the transaction that the event tells of, so that neither can be without the
//! other; one leader publishes the rows and deletes those that the broker has confirmed. In the same
//! transaction the event's key becomes known, so that an event that comes back to us over the broker
//! is a duplicate like any other.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;

use super::lease::{Lease, Standing};
use super::{Result, StoreError};
use crate::domain::event::Event;
use crate::domain::filter::EventType;
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::wake::Wake;

/// An event that waits to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place: events of one key are published in this order.
    pub seq: i64,
    /// The tenant; keys are told apart by it too.
    pub workspace: WorkspaceId,
    /// The edition that it is about. Without one, it waits for no other.
    pub key: Option<EditionId>,
    /// The envelope's `id`.
    pub message_id: String,
    /// The routing key.
    pub event_type: EventType,
    /// The envelope.
    pub body: String,
}

/// Which events are asked for.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRequest<'a> {
    /// At most so many.
    pub limit: usize,
    /// At most so many bytes of envelopes (at least one event is returned, however large it is).
    pub max_bytes: usize,
    /// These could not be published: they are left out, and with each all others of its key.
    pub failed: &'a [i64],
}

/// How much waits, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OutboxDepth {
    /// How many events, counted up to [`COUNTED`].
    pub waiting: u64,
    /// How long the first of them has been waiting.
    pub oldest: Option<Duration>,
}

/// Up to so many events are counted: counting millions costs more than knowing their number is worth.
pub const COUNTED: i64 = 100_000;

/// Writing to the outbox, and emptying it.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// From now on what is appended is kept, and the bell rings after each commit that held some.
    /// To be called once, by a process whose deployment has a broker; until then nothing is kept,
    /// since nothing would ever empty the outbox.
    fn open_outbox(&self, bell: Arc<Wake>);

    /// Appends events in a transaction of their own: those that tell of no other write.
    async fn publish(&self, events: &[Event]) -> Result<()>;

    /// The next events, in order of their places; `None` if the lease is over, or another's.
    async fn outgoing(
        &self,
        held: &Lease,
        request: OutgoingRequest<'_>,
    ) -> Result<Option<Vec<Outgoing>>>;

    /// Deletes events that the broker has confirmed. Whoever was deposed deletes nothing: the leader
    /// of now publishes them a second time.
    async fn confirm_outgoing(&self, held: &Lease, seqs: &[i64]) -> Result<Standing>;

    /// How much waits.
    async fn outbox_depth(&self) -> Result<OutboxDepth>;
}

/// Whether the outbox is kept at all, and who is told.
#[derive(Debug, Default)]
pub(super) struct Door(OnceLock<Arc<Wake>>);

impl Door {
    pub(super) fn open(&self, bell: Arc<Wake>) {
        if self.0.set(bell).is_err() {
            tracing::warn!("the outbox was opened already; its first bell stays");
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.get().is_some()
    }

    /// What an append of so many events answers with.
    pub(super) fn appended(&self, events: usize) -> Appended {
        let bell = self.0.get().filter(|_| events > 0);
        Appended(bell.map(Arc::clone))
    }
}

/// What was appended by a transaction that is not committed yet.
#[must_use = "the relay is rung after the commit"]
#[derive(Debug)]
pub(crate) struct Appended(Option<Arc<Wake>>);

impl Appended {
    /// To be called once the transaction is committed. (Without it the relay finds the events when it
    /// looks the next time.)
    pub(crate) fn committed(self) {
        if let Some(bell) = self.0 {
            bell.ring();
        }
    }
}

/// The columns of a row, as both databases give them.
pub(super) struct OutgoingRow {
    pub(super) seq: i64,
    pub(super) workspace: String,
    pub(super) key: Option<String>,
    pub(super) message_id: String,
    pub(super) event_type: String,
    pub(super) body: String,
}

impl TryFrom<OutgoingRow> for Outgoing {
    type Error = StoreError;

    fn try_from(row: OutgoingRow) -> Result<Self> {
        let key = row.key.as_deref().map(EditionId::new).transpose();
        Ok(Self {
            seq: row.seq,
            workspace: WorkspaceId::new(&row.workspace).map_err(StoreError::corrupt)?,
            key: key.map_err(StoreError::corrupt)?,
            message_id: row.message_id,
            event_type: row.event_type.parse().map_err(StoreError::corrupt)?,
            body: row.body,
        })
    }
}
