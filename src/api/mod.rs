//! The Report Forge API (product.md §5): HTTP over TLS, for admins, polling clients and operators.
//!
//! A request comes in through the listener, gets a request id and its line in the access log
//! ([`trace`]), shows its key and is counted ([`auth`]), and reaches a handler whose signature says
//! which scope it needs ([`auth::Caller`]). One file a resource under [`resources`]; everything that
//! goes wrong is one of the problems of [`problem_type`].
//!
//! - [`router`](mod@router): the routes, and what lies around them.
//! - [`body`], [`table`], [`query`], [`path`], [`page`], [`etag`], [`accept`], [`trim`], [`idempotency`]: what
//!   resources read and write alike.
//! - [`tail`]: waiting for a feed to move.
//! - [`recorder`]: the uses of keys, on their way to the audit log.
//! - [`openapi`], [`webhooks`], [`docs`]: the description of all this, made from the code.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config;
use crate::domain::rate::RateLimits;
use crate::egress::WebhookClient;
use crate::entropy::Entropy;
use crate::store::intake::Intake;
use crate::store::{Files, Leasing, Store, TestSend};
use crate::telemetry::Tracer;

pub mod accept;
pub mod auth;
pub mod body;
pub mod docs;
pub mod etag;
pub mod idempotency;
pub mod listener;
mod neighbourhood;
pub mod openapi;
pub mod page;
pub mod path;
pub mod problem;
pub mod problem_docs;
pub mod problem_type;
pub mod query;
pub mod recorder;
pub mod resources;
pub mod router;
pub mod table;
pub mod tail;
pub mod trace;
pub mod trim;
pub mod webhooks;

use page::Cursors;
pub use problem::{Problem, Result};
pub use recorder::Recorder;
pub use router::router;
use tail::Tail;

/// What the handlers work with; clones share it.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    parts: Parts,
    cursors: Cursors,
    tail: Tail,
    writes: TaskTracker,
}

/// What an [`Api`] is made of.
pub struct Parts {
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Judges where a subscription may send to.
    pub client: Arc<WebhookClient>,
    /// Sends tests.
    pub tester: Arc<dyn TestSend>,
    /// Leases the deliveries of events that writes make.
    pub leasing: Leasing,
    /// Sends those deliveries.
    pub intake: Arc<dyn Intake>,
    /// Files of outputs, where they are kept and made.
    pub outputs: Option<Outputs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Entropy,
    /// `[api]`.
    pub settings: config::Api,
    /// Ends waiting: the shutdown's soft token.
    pub stop: CancellationToken,
    /// Tells of requests.
    pub tracer: Tracer,
}

/// Files of outputs.
pub struct Outputs {
    /// Where they are read.
    pub files: Arc<dyn Files>,
    /// How long the core has to make what only it can make; `None` where it is not asked.
    pub core_timeout: Option<Duration>,
}

impl Api {
    /// The handlers' parts.
    pub fn new(parts: Parts) -> Self {
        let cursors = Cursors::new(&parts.store.derive_key("api cursors"));
        let tail = Tail::new(
            Arc::clone(&parts.store),
            parts.entropy.clone(),
            parts.stop.clone(),
        );
        Self(Arc::new(Shared {
            parts,
            cursors,
            tail,
            writes: TaskTracker::new(),
        }))
    }

    /// What is kept.
    pub fn store(&self) -> &dyn Store {
        &*self.0.parts.store
    }

    fn clock(&self) -> &dyn Clock {
        &*self.0.parts.clock
    }

    fn entropy(&self) -> &Entropy {
        &self.0.parts.entropy
    }

    fn tracer(&self) -> &Tracer {
        &self.0.parts.tracer
    }

    fn tester(&self) -> &dyn TestSend {
        &*self.0.parts.tester
    }

    fn leasing(&self) -> Leasing {
        self.0.parts.leasing
    }

    fn intake(&self) -> &dyn Intake {
        &*self.0.parts.intake
    }

    fn outputs(&self) -> Option<&Outputs> {
        self.0.parts.outputs.as_ref()
    }

    fn client(&self) -> &WebhookClient {
        &self.0.parts.client
    }

    fn settings(&self) -> &config::Api {
        &self.0.parts.settings
    }

    /// Writes and reads cursors.
    fn cursors(&self) -> &Cursors {
        &self.0.cursors
    }

    /// Where requests wait for a feed to move.
    fn tail(&self) -> &Tail {
        &self.0.tail
    }

    /// The writes under way: they go on when their clients hang up.
    fn writes(&self) -> &TaskTracker {
        &self.0.writes
    }

    /// Waits until the last write has ended. For a stop, once no request comes in any more.
    pub async fn written(&self) {
        self.0.writes.close();
        self.0.writes.wait().await;
    }

    /// What a key may ask for that has no limits of its own.
    fn rate_limits(&self) -> RateLimits {
        RateLimits {
            per_minute: self.settings().requests_per_minute,
            per_hour: self.settings().requests_per_hour,
        }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Api")
    }
}
