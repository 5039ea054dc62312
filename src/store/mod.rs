//! What is kept, and the only thing that ingest and dispatch share.
//!
//! Traits split by consumer under one [`Store`], used as `Arc<dyn Store>`. **One method is one
//! transaction**: it happened whole, or not at all. Two implementations, [`sqlite`] and
//! [`postgres`], each with native types and SQL; `tests/store` runs every method on both.
//!
//! - `identity`: what events and deliveries are known by.
//! - [`intake`]: what a writer of events must know of the dispatcher (rooms, hand-over).
//! - [`log`] (`search`) and [`stats`]: what came, what was and is delivered, and how it went.
//! - [`feed`]: what came, in the order of the commits, and the bell that tells of more.
//! - [`projects`]: which projects are known.
//! - [`snapshots`] and `projection`: what the core's state and its events change in the read model;
//!   [`editions`]: reading it. `definition`: blueprints as they are kept.
//! - [`writing`] and `edits`: edition data that clients push. `content`: what sections are to hold.
//! - [`output_jobs`] and [`files`]: outputs that are asked for, and the files that come of it;
//!   `output_steps`: what each step makes of an output; `output_shown`: how it is shown meanwhile.
//! - [`access`]: API keys and the audit log.
//! - [`circuits`]: which receivers are left alone. [`replicas`]: how many processes send.
//! - [`subscriptions`]: registering and changing subscriptions.
//! - [`idempotency`]: creating calls and writes that may be repeated.
//! - `operational`: what is told of our own work.
//! - [`outbox`]: events of our own on their way to the broker. [`lease`]: what one process at a time
//!   may do; [`leadership`]: such a lease, kept for as long as it goes well.
//! - [`retention`]: removing what has been kept for long enough.
//! - [`rollups`]: what was attempted and what came of it, by the minute and the hour.
//! - `headers`: custom headers, sealed.
//! - [`test_send`]: a `ping` out of turn.
//! - [`replays`]: deliveries that are sent again because somebody says so.
//! - `unreadable`: deliveries whose events cannot be sent any more.
//! - [`targets`]: the subscriptions held in memory, kept exact by a generation number.
//! - [`vault`]: the master key, and the sealing of secrets under it.
//! - [`open`](mod@open): the store that the configuration names, under its key.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretBox;

use crate::domain::attempt::Attempt;
use crate::domain::delivery::{Lane, Sending, Verdict};
use crate::domain::filter::EventType;
use crate::domain::ids::{DeliveryId, EditionId, EventId, OwnerId, SubscriptionId, WorkspaceId};
use crate::domain::payload::Payload;
use crate::domain::replay::{Replaying, Was};
use crate::wake::Wake;

pub mod access;
pub mod circuits;
mod content;
mod definition;
pub mod editions;
mod edits;
pub mod error;
pub mod feed;
pub mod files;
mod gates;
mod headers;
pub mod idempotency;
mod identity;
pub mod intake;
pub mod leadership;
pub mod lease;
pub mod log;
pub mod open;
mod operational;
pub mod outbox;
pub mod output_jobs;
mod output_shown;
mod output_steps;
pub mod postgres;
mod projection;
pub mod projects;
pub mod replays;
pub mod replicas;
pub mod retention;
pub mod rollups;
mod room;
mod rows_change;
mod search;
pub mod snapshots;
pub mod sqlite;
pub mod stats;
pub mod subscriptions;
pub mod targets;
pub mod test_send;
mod unreadable;
pub mod vault;
mod walk;
pub mod writing;

pub use access::{Admitted, ApiKeys, Audit, AuditFilter, NewApiKey};
pub use circuits::Circuits;
pub use editions::{
    BlueprintRecord, EditionFilter, EditionKey, EditionList, EditionRecord, EditionTag, Editions,
    OutputRecord, RowsPage, SectionData, SectionRecord, SectionTag, Whole, WorkspaceRecord,
};
pub use error::StoreError;
pub use feed::{
    Feed, FeedFilter, FeedHead, FeedItem, FeedPage, FeedPosition, FeedRequest, FeedStart,
};
pub use files::{FileError, FileReferences, FileStream, Files};
use gates::Gate;
pub use idempotency::{Creation, Idempotency};
use intake::{Intake, Permit};
pub use lease::{Lease, LeaseName, Leases, Standing};
pub use log::{
    AttemptRecord, DeliveryFilter, DeliveryLog, DeliveryRecord, EventLog, EventRecord,
    MAX_LOOKED_AT,
};
pub use open::open;
pub use outbox::{Outbox, OutboxDepth, Outgoing, OutgoingRequest};
pub use output_jobs::{
    CoreFiles, JobOutcome, JobSettled, JobShare, OutputAsk, OutputAsked, OutputJob, OutputJobs,
    OutputTask, Telling,
};
pub use projects::{ProjectRecord, Projects};
pub use replays::{
    Cancelled, Candidate, Cursor, NewReplay, ReplayRecord, Replays, Requeued, Running,
};
pub use replicas::Replicas;
pub use retention::{Kept, Removed, Rest, Retention, Swept};
pub use rollups::{AttemptCounts, Counts, Resolution, Rollups};
pub use snapshots::{Applied, Snapshots};
pub use stats::{Point, Series, Stats, SubscriptionStats, Tally, Window};
pub use subscriptions::{NewSubscription, Rotation, Subscriptions};
use targets::Target;
pub use test_send::{TestLog, TestSend, TestSent};
pub use writing::{Edit, EditionWrites, NewEdition, Write, Written};

/// What every method answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The most queue rows that one accept makes, so that one transaction stays short: 500 events for
/// 1,000 subscriptions are done in a hundred steps, not in one.
pub const MAX_FAN_OUT_ROWS: usize = 5_000;

/// Everything that is kept.
pub trait Store:
    EventStore
    + DeliveryQueue
    + Circuits
    + Replicas
    + Subscriptions
    + EventLog
    + Feed
    + DeliveryLog
    + Stats
    + TestLog
    + Replays
    + Outbox
    + Leases
    + Retention
    + Rollups
    + Projects
    + Snapshots
    + Editions
    + EditionWrites
    + OutputJobs
    + FileReferences
    + ApiKeys
    + Audit
    + Maintenance
    + Debug
{
}

impl<T> Store for T where
    T: EventStore
        + DeliveryQueue
        + Circuits
        + Replicas
        + Subscriptions
        + EventLog
        + Feed
        + DeliveryLog
        + Stats
        + TestLog
        + Replays
        + Outbox
        + Leases
        + Retention
        + Rollups
        + Projects
        + Snapshots
        + Editions
        + EditionWrites
        + OutputJobs
        + FileReferences
        + ApiKeys
        + Audit
        + Maintenance
        + Debug
{
}

/// Who takes leases, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Leasing {
    /// The run of the process that will send.
    pub owner: OwnerId,
    /// How long the lease holds, by the database's clock.
    pub lease: Duration,
}

/// A delivery that this process holds the lease of: everything that sending and settling need.
#[derive(Clone, Debug)]
pub struct LeasedDelivery {
    /// Which delivery.
    pub id: DeliveryId,
    /// The lease token: it grows with every lease over the delivery's whole life. A settle that
    /// carries an older one changes no state.
    pub epoch: i32,
    /// Attempts made before this one.
    pub attempts: u32,
    /// Those of them that were made before its schedule began: how far the schedule is follows from
    /// the others.
    pub base: u32,
    /// The edition whose order it keeps, if it keeps one, whatever its subscription says by now.
    pub gate: Option<EditionId>,
    /// Whether this attempt is a replay's, and of what.
    pub replaying: Option<Replaying>,
    /// Leases in a row that ended without an outcome. A delivery that kills its process shows here.
    pub lost_leases: u32,
    /// Which share of the slots it is sent under.
    pub lane: Lane,
    /// What it is sent for.
    pub sending: Sending,
    /// The event and its bodies, shared with the event's other deliveries.
    pub payload: Arc<Payload>,
    /// Where it goes.
    pub target: Arc<Target>,
    /// When the lease ends, on [`crate::clock::Clock::monotonic`], counted from before the request
    /// that took it: never later than the database thinks.
    pub leased_until: Duration,
}

/// What became of one event of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptOutcome {
    /// Kept now, with its deliveries.
    Stored,
    /// Its (`source`, `id`) was known already: nothing changed.
    Duplicate,
}

/// What an accept did.
#[derive(Debug, Default)]
pub struct Accepted {
    /// One outcome for each event taken, in the order given. **May be shorter than the batch**:
    /// a batch that would make more than [`MAX_FAN_OUT_ROWS`] queue rows is taken only in part
    /// (at least one event), and the caller comes again with the rest.
    pub outcomes: Vec<AcceptOutcome>,
    /// Deliveries born leased to the caller, each with the permit that the intake gave for it.
    pub leased: Vec<(LeasedDelivery, Permit)>,
    /// How many deliveries were left for the claim loop of any replica. What waits its turn is not
    /// among them: it becomes due when the one before it is settled.
    pub pending: usize,
    /// Whose these are, each named once.
    pub pending_of: Vec<SubscriptionId>,
}

/// Taking events in.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Keeps a batch of events, in one transaction: dedupe on (`source`, `id`), for each new event
    /// the event itself, its feed position and one delivery for each active subscription that it
    /// matches. Deliveries that `intake` admits are born leased to `leasing.owner`; the others wait
    /// as `pending`. Where the subscription wants order, only the first at each edition's gate may be
    /// leased or due, and the others wait behind it. A project that an event is the first of becomes known with it.
    ///
    /// A second event of the same identity inside the batch is a duplicate of the first. Coming
    /// again with the same ids after an ambiguous failure is safe: an event that was committed
    /// under the id given here counts as `Stored`, and its deliveries that are still leased to the
    /// same owner at epoch 1 are adopted (returned again).
    async fn accept(
        &self,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Accepted>;
}

/// What is due now, and when more will be.
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// Subscriptions with at least one delivery due, active ones only; of those whose circuit is open,
    /// the ones whose probe is due, or of which a single delivery is replayed.
    pub work: Vec<(Arc<Target>, Lane)>,
    /// How long until the next delivery becomes due, where one is known.
    pub next_in: Option<Duration>,
}

/// A request for due deliveries.
#[derive(Clone, Debug)]
pub struct Claim {
    /// For whom.
    pub leasing: Leasing,
    /// How long after its end a lease is left alone before it is taken over.
    pub grace: Duration,
    /// From which lane.
    pub lane: Lane,
    /// At most how many of each subscription, oldest due first.
    pub wants: Vec<(SubscriptionId, usize)>,
    /// At most how many bytes of event text in all (at least one delivery is returned, however
    /// large its event is).
    pub max_bytes: usize,
}

/// What is to be written for one leased delivery. It carries what the lease told of the delivery,
/// so that history can be written without reading the queue's row first: while the lease token
/// still matches, that row is as it was then.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// The event that it carries.
    pub event: EventId,
    /// And that one's type; `None` where the event is not there to tell it. Then nobody is told of a failure.
    pub event_type: Option<EventType>,
    /// Where it goes.
    pub subscription: SubscriptionId,
    /// The version of the subscription that it was sent by. Only of this version an outcome tells
    /// anything: whoever changed it since, in whatever, may have mended what failed.
    pub version: i64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The lease token that it was sent under.
    pub epoch: i32,
    /// Attempts made before this one.
    pub attempts_before: u32,
    /// The edition whose order it keeps, if it keeps one.
    pub gate: Option<EditionId>,
    /// What it was sent for.
    pub sending: Sending,
    /// Whether the attempt was a replay's, and of what.
    pub replaying: Option<Replaying>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// What the attempt met; `None` only for [`Verdict::Released`].
    pub attempt: Option<Attempt>,
}

impl Settlement {
    /// Whether it ends a queue row whose delivery stays in history as it was, but for the number of
    /// its attempts: a replay of what had succeeded.
    pub(crate) fn repeats(&self) -> bool {
        let was = self.replaying.map(|replaying| replaying.was);
        was == Some(Was::Succeeded) && self.verdict.state().is_final()
    }

    /// The gate that it makes way at, if it is done with.
    fn leaves(&self) -> Option<Gate> {
        let edition = self.gate.as_ref()?;
        self.verdict.state().is_final().then(|| Gate {
            subscription: self.subscription,
            edition: edition.clone(),
            workspace: self.workspace.clone(),
        })
    }

    /// What is to be written for this delivery.
    pub fn of(delivery: &LeasedDelivery, verdict: Verdict, attempt: Option<Attempt>) -> Self {
        let event = delivery.payload.event();
        Self {
            delivery: delivery.id,
            event: event.id,
            event_type: Some(event.event_type.clone()),
            subscription: delivery.target.id(),
            version: delivery.target.subscription.version,
            workspace: event.workspace.clone(),
            epoch: delivery.epoch,
            attempts_before: delivery.attempts,
            gate: delivery.gate.clone(),
            sending: delivery.sending,
            replaying: delivery.replaying,
            verdict,
            attempt,
        }
    }
}

/// What a settle found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// The state changed as the verdict says.
    Settled,
    /// The same, and the next delivery of its edition is due by that, in this lane.
    MadeWay(Lane),
    /// The lease was another's by then: the attempt was recorded as such, no state changed.
    LeaseLost,
}

/// How much waits, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueDepth {
    /// Due, waiting for their time or for their turn, unleased.
    pub pending: u64,
    /// Leased.
    pub in_flight: u64,
    /// How long the oldest due and unleased delivery has been waiting of an active subscription whose
    /// circuit is not open: what waits because of its receiver is nobody's backlog.
    pub oldest_due: Option<Duration>,
}

/// The hot queue.
#[async_trait]
pub trait DeliveryQueue: Send + Sync {
    /// Which active subscriptions have due deliveries, per lane. A lease that ended more than
    /// `grace` ago counts as due.
    async fn due(&self, grace: Duration) -> Result<Due>;

    /// Leases due deliveries. Two claims never get the same delivery; subscriptions that are
    /// disabled or deleted by now are passed over, whatever was asked. So are those whose circuit is
    /// open; where a probe is due, one delivery is leased as that ([`Sending::Probe`]), to one claim of
    /// all, and the next probe is due when that lease is over. What is replayed by itself, and not as
    /// one of many, is leased all the same ([`Sending::Asked`]).
    ///
    /// What cannot be sent, because its event is missing or cannot be read, is leased and not answered.
    /// When more than [`MAX_LOST_LEASES`](crate::domain::delivery::MAX_LOST_LEASES) of its leases were
    /// lost, it is settled as failed behind the claim, in a transaction of its own.
    async fn claim(&self, claim: &Claim) -> Result<Vec<LeasedDelivery>>;

    /// Writes outcomes, each under its lease token (`owner`, epoch), in one transaction; or in several,
    /// one behind the other, where more deliveries would have to be made to tell of them than
    /// [`MAX_FAN_OUT_ROWS`]. Answers in the order given. Coming again with the same settlements after an
    /// ambiguous failure is safe: what was committed answers `Settled` again and changes nothing.
    ///
    /// What ends a delivery that keeps its edition's order makes the next one due
    /// ([`SettleOutcome::MadeWay`]).
    ///
    /// [`Verdict::Gone`] also disables the subscription, if that is still of the version that it was
    /// sent by; and of no other version a receiver is judged. What outcomes tell of receivers is noted with
    /// them, once, if the rules were said ([`Circuits::judge_receivers`]); it may disable one too. What
    /// replays of many put into the queue is counted for them as
    /// [`ReplayRecord::done`](replays::ReplayRecord::done) or `failed` here.
    async fn settle(
        &self,
        owner: OwnerId,
        settlements: &[Settlement],
    ) -> Result<Vec<SettleOutcome>>;

    /// Moves up to `limit` deliveries of deleted subscriptions that nobody is sending to history as
    /// `cancelled`; those that were to be sent once more after they succeeded stay as they were. Answers
    /// how many; 0 when nothing is left to do.
    async fn cancel_orphans(&self, grace: Duration, limit: usize) -> Result<usize>;

    /// Counts the queue. Postgres estimates one of more than ten thousand deliveries, `SQLite` counts no
    /// more than the oldest hundred thousand; up to there, and at zero above all, the numbers are exact.
    async fn queue_depth(&self) -> Result<QueueDepth>;
}

/// A page of a list: at most `limit` items behind `after`.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<Key> {
    /// At most this many.
    pub limit: usize,
    /// Begin behind this one; `None` begins at the beginning.
    pub after: Option<Key>,
}

/// One page, and where the next begins.
#[derive(Clone, Debug)]
pub struct Page<Item, Key> {
    /// The items, in the list's order.
    pub items: Vec<Item>,
    /// Pass as `after` to go on; `None` on the last page. Only this tells the end: a list whose
    /// filters no index serves may answer with fewer than were asked for, and go on.
    pub next: Option<Key>,
}

impl<Item, Key> Page<Item, Key> {
    /// Makes a page out of up to `limit + 1` items: the one too many says that there is a next.
    pub fn of(mut items: Vec<Item>, limit: usize, key: impl Fn(&Item) -> Key) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(key) } else { None };
        Self { items, next }
    }

    /// The same of a search that looked no further than `edge`; `None` where it came to the end.
    pub(crate) fn of_search(
        items: Vec<Item>,
        limit: usize,
        edge: Option<Key>,
        key: impl Fn(&Item) -> Key,
    ) -> Self {
        let page = Self::of(items, limit, key);
        let next = page.next.or(edge);
        Self { next, ..page }
    }
}

/// Keeping house.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Which database this is, for logs: `sqlite` or `postgres`.
    fn kind(&self) -> &'static str;

    /// Brings the schema up to this program's version, under a lock, forward only; then checks that
    /// the master key is the one that this database's secrets are sealed under
    /// ([`StoreError::MasterKey`] if it is another). Doing it again does nothing.
    async fn migrate(&self) -> Result<()>;

    /// 32 bytes for one purpose, derived from the master key (HMAC-SHA256): the same in every replica.
    fn derive_key(&self, purpose: &str) -> SecretBox<[u8; 32]>;

    /// Whether the database answers and its schema is the one this program knows.
    async fn ready(&self) -> Result<()>;

    /// Rings when another process may have made work, and the feed's bell when one may have moved a
    /// feed. Returns only when the store is closed.
    async fn listen(&self, wake: Arc<Wake>);

    /// Tells other processes that there may be work; many calls make one notice.
    fn announce(&self);

    /// Closes the connections; on SQLite also folds the write-ahead log back into the file.
    async fn close(&self);
}

/// Subscription rows by id, as both stores load them.
pub type TargetMap = HashMap<SubscriptionId, Arc<Target>>;
