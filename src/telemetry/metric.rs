//! The names of all metrics.

/// Events taken in, by `outcome`: `accepted`, `duplicate`, `dead_lettered`.
pub const EVENTS: &str = "forge_events_total";
/// Snapshots taken in, by `outcome` as events: a `duplicate` was not newer than what is known.
pub const SNAPSHOTS: &str = "forge_snapshots_total";
/// Events of one accept.
pub const ACCEPT_BATCH: &str = "forge_accept_batch_size";
/// Attempts, by `outcome` (`succeeded`, `retried`, `failed`) and error `class`.
pub const ATTEMPTS: &str = "forge_attempts_total";
/// How long attempts took.
pub const ATTEMPT_DURATION: &str = "forge_attempt_duration_seconds";
/// Outcomes of one settle.
pub const SETTLE_BATCH: &str = "forge_settle_batch_size";
/// Outcomes that came after their lease had gone to another.
pub const LOST_LEASES: &str = "forge_lost_leases_total";
/// Deliveries in the queue, by `state`: `pending`, `in_flight`.
pub const QUEUED: &str = "forge_deliveries_queued";
/// How long the oldest due delivery has been waiting.
pub const OLDEST_DUE: &str = "forge_oldest_due_age_seconds";
/// Whether a `queue` of the broker is consumed: 0 or 1.
pub const AMQP_CONNECTED: &str = "forge_amqp_connected";
/// Events of our own given to the broker, by `outcome`: `published`, `unroutable`, `failed`.
pub const OUTBOX_PUBLISHED: &str = "forge_outbox_published_total";
/// Events of our own that wait to be published.
pub const OUTBOX_WAITING: &str = "forge_outbox_waiting";
/// How long the first of them has been waiting.
pub const OUTBOX_OLDEST: &str = "forge_outbox_oldest_age_seconds";
/// Rows that were old and are removed, by `table`.
pub const RETENTION_REMOVED: &str = "forge_retention_removed_total";
/// When all that was old was last found removed, in seconds since 1970.
pub const RETENTION_LAST_RUN: &str = "forge_retention_last_run_timestamp_seconds";
/// How long ago the oldest event came that was kept then.
pub const OLDEST_EVENT: &str = "forge_oldest_event_age_seconds";
/// Jobs of outputs, by `outcome`: `generated`, `failed`, `postponed`, `released` (at a stop),
/// `lease_lost`, `unsettled` (the database was away).
pub const OUTPUTS: &str = "forge_outputs_total";
/// How long they took.
pub const OUTPUT_DURATION: &str = "forge_output_duration_seconds";
/// Requests in flight in this process.
pub const IN_FLIGHT: &str = "forge_in_flight";
/// Subscriptions whose circuit is open.
pub const OPEN_CIRCUITS: &str = "forge_open_circuits";
/// What became of circuits, by where they went (`to`): `opened`, `still_open`, `recovering`,
/// `closed`, `given_up`.
pub const CIRCUIT_TRANSITIONS: &str = "forge_circuit_transitions_total";
/// Whether the database answered when it was last asked for its queue: 0 or 1.
pub const DATABASE_UP: &str = "forge_database_up";
