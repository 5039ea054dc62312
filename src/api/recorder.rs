//! The uses of keys, on their way to the audit log: written in batches, beside the requests.
//!
//! What waits is bounded. When the database cannot keep up, or is away, requests wait for room
//! before they are answered, rather than go unrecorded. A graceful stop writes what waits; a crash
//! loses at most what one batch waits for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use tokio::sync::mpsc;

use super::Api;
use super::trace::{self, Traced};
use crate::clock::pause;
use crate::domain::api_key::ApiKey;
use crate::domain::audit::{self, Action, Actor, AuditEntry};
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// How many entries wait.
const ROOM: usize = 4_096;

/// The most entries of one transaction.
const BATCH: usize = 500;

/// How long an entry waits for others.
const LINGER: Duration = Duration::from_millis(200);

/// Where uses of keys are handed over; clones share it.
#[derive(Clone, Debug)]
pub struct Recorder(mpsc::Sender<AuditEntry>);

/// The other end: writes them.
#[derive(Debug)]
pub struct Recording(mpsc::Receiver<AuditEntry>);

impl Recorder {
    /// Both ends.
    pub fn new() -> (Self, Recording) {
        let (sender, receiver) = mpsc::channel(ROOM);
        (Self(sender), Recording(receiver))
    }

    /// What is to be written of a request, before it is known how it ends.
    pub(super) fn entry(key: &ApiKey, request: &Request, traced: &Traced, api: &Api) -> AuditEntry {
        AuditEntry {
            workspace: key.workspace.clone(),
            id: api.entropy().id(api.clock().now()),
            actor: Actor::Key(key.id),
            action: Action::Request,
            object: None,
            address: Some(traced.address),
            request_id: Some(traced.request_id.clone()),
            request: Some(audit::Request {
                method: request.method().to_string(),
                route: trace::route(request),
                status: 0,
            }),
            before: None,
            after: None,
        }
    }

    /// Hands it over with its status.
    pub(super) async fn record(&self, mut entry: AuditEntry, status: StatusCode) {
        if let Some(request) = &mut entry.request {
            request.status = status.as_u16();
        }
        if self.0.send(entry).await.is_err() {
            tracing::error!("a use of a key goes unrecorded: the recorder has ended");
        }
    }
}

impl Recording {
    /// Writes until every [`Recorder`] is gone and nothing waits; `hard` ends at once.
    pub async fn run(mut self, store: Arc<dyn Store>, shutdown: Shutdown) {
        let hard = shutdown.hard.clone();
        let work = async {
            let mut batch = Vec::new();
            while self.0.recv_many(&mut batch, BATCH).await > 0 {
                self.linger(&mut batch, &shutdown).await;
                write(&*store, &batch).await;
                batch.clear();
            }
        };
        tokio::select! {
            () = work => {}
            () = hard.cancelled() => tracing::warn!("uses of keys may go unrecorded"),
        }
    }

    /// Waits for more, unless the program is about to end.
    async fn linger(&mut self, batch: &mut Vec<AuditEntry>, shutdown: &Shutdown) {
        let gather = async {
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if self.0.recv_many(batch, room).await == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            () = gather => {}
            () = pause(LINGER) => {}
            () = shutdown.soft.cancelled() => {}
        }
    }
}

/// Writes a batch, again and again while the database is away: writing the same entries twice is
/// safe.
async fn write(store: &dyn Store, batch: &[AuditEntry]) {
    let mut reconnect = Reconnect::default();
    while let Err(error) = store.append_audit(batch).await {
        if !error.is_unavailable() {
            lost(batch.len(), &error);
            return;
        }
        tracing::warn!(%error, "the database does not answer; uses of keys wait");
        reconnect.pause().await;
    }
}

fn lost(entries: usize, error: &StoreError) {
    tracing::error!(entries, %error, "uses of keys go unrecorded");
}
