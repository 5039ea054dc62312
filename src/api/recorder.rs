//! The uses of keys, on their way to the audit log: written in batches, beside the requests.
//!
//! What waits is bounded. When the database cannot keep up, or is away, requests wait for room
//! before they are judged, rather than go unrecorded. A graceful stop writes what waits; a crash
//! loses at most what one batch waits for.
//!
//! A use is written however it ends: with the status of its answer, or without one where the client
//! closed its connection before the answer began. The room for it is taken before, since whoever is
//! dropped cannot wait.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::timeout;

use super::trace::{self, Traced};
use super::{Api, Problem, Result};
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

/// How long a request waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an entry waits for others.
const LINGER: Duration = Duration::from_millis(200);

/// Where uses of keys are handed over; clones share it.
#[derive(Clone, Debug)]
pub struct Recorder(mpsc::Sender<AuditEntry>);

/// The right to hand one over.
#[derive(Debug)]
pub(super) struct Room(OwnedPermit<AuditEntry>);

/// A use of a key whose end is not known yet. Dropped, it is handed over as it stands.
#[derive(Debug)]
pub(super) struct UnderWay(Option<(OwnedPermit<AuditEntry>, AuditEntry)>);

/// The other end: writes them.
#[derive(Debug)]
pub struct Recording(mpsc::Receiver<AuditEntry>);

impl Recorder {
    /// Both ends.
    pub fn new() -> (Self, Recording) {
        let (sender, receiver) = mpsc::channel(ROOM);
        (Self(sender), Recording(receiver))
    }

    /// Room for one use. Where there is none, keys cannot be used for now.
    pub(super) async fn room(&self) -> Result<Room> {
        let room = timeout(PATIENCE, self.0.clone().reserve_owned()).await;
        if let Ok(Ok(room)) = room {
            Ok(Room(room))
        } else {
            tracing::error!("uses of keys are not written: no key can be used");
            Err(Problem::unavailable())
        }
    }
}

impl Room {
    /// A valid key is used from here on.
    pub(super) fn begin(
        self,
        key: &ApiKey,
        request: &Request,
        traced: &Traced,
        api: &Api,
    ) -> UnderWay {
        let entry = AuditEntry {
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
                status: None,
            }),
            before: None,
            after: None,
        };
        UnderWay(Some((self.0, entry)))
    }
}

impl UnderWay {
    /// It was answered.
    pub(super) fn answered(mut self, status: StatusCode) {
        if let Some((_, entry)) = &mut self.0
            && let Some(request) = &mut entry.request
        {
            request.status = Some(status.as_u16());
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some((room, entry)) = self.0.take() {
            room.send(entry);
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
