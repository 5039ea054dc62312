//! From the outbox to the post, for as long as the leadership lasts.

use std::time::Duration;

use super::post::Post;
use super::{Fault, Parts, traced};
use crate::broker::AmqpError;
use crate::clock::pause;
use crate::health::{Part, Reporter};
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::store::leadership::Leadership;
use crate::store::{
    LeaseName, Leasing, Outgoing, OutgoingRequest, Result as StoreResult, Standing,
};
use crate::telemetry::trace::Period;

/// The most events that are read and sent at once.
const BATCH: usize = 256;

/// The most bytes of them.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// So many events that could not be published are stepped over at most, before all are tried again.
const MOST_FAILED: usize = 1_000;

/// How publishing under one leadership ended.
pub(super) enum Ended {
    /// As it was asked to.
    Stopped,
    /// Another leads.
    Deposed,
}

/// What goes on from one session to the next.
pub(super) struct Relay<'a> {
    parts: &'a Parts,
    shutdown: &'a Shutdown,
    /// Confirmed by the broker and not deleted yet, since the database did not answer: what is published
    /// already is not published again after an outage. At most one batch.
    undeleted: Vec<i64>,
    /// When a graceful stop leaves the rest where it is, on the monotonic clock.
    drain_until: Option<Duration>,
}

impl<'a> Relay<'a> {
    pub(super) fn new(parts: &'a Parts, shutdown: &'a Shutdown) -> Self {
        Self {
            parts,
            shutdown,
            undeleted: Vec::new(),
            drain_until: None,
        }
    }

    /// Resolves when a stop is asked for.
    pub(super) fn stop_asked(&self) -> impl Future<Output = ()> + use<'a> {
        self.shutdown.soft.cancelled()
    }

    /// Waits until this process leads; `None` when it is to stop.
    pub(super) async fn lead(&self, post: &Post) -> Result<Option<Leadership>, Fault> {
        let Parts {
            store,
            clock,
            owner,
            pace,
            ..
        } = self.parts;
        let leasing = Leasing {
            owner: *owner,
            lease: pace.lease,
        };
        while !self.shutdown.soft.is_cancelled() {
            still_open(post)?;
            let taken = Leadership::take(store, clock, LeaseName::OUTBOX, leasing);
            if let Some(leadership) = taken.await? {
                return Ok(Some(leadership));
            }
            tokio::select! {
                () = pause(self.jittered(self.parts.pace.poll)) => {}
                () = self.stop_asked() => {}
            }
        }
        Ok(None)
    }

    /// Publishes what there is and what comes, until a stop is asked for and all is published.
    pub(super) async fn publish(
        &mut self,
        post: &Post,
        leadership: &Leadership,
        reporter: &mut Reporter,
        reconnect: &mut Reconnect,
    ) -> Result<Ended, Fault> {
        if self.delete(leadership).await? == Standing::Deposed {
            return Ok(Ended::Deposed);
        }
        let mut failed = Vec::new();
        let mut patience = Reconnect::default();
        loop {
            let Some(batch) = self.read(leadership, &failed).await? else {
                return Ok(Ended::Deposed);
            };
            if batch.is_empty() {
                if self.shutdown.soft.is_cancelled() {
                    return Ok(Ended::Stopped);
                }
                still_open(post)?;
                reconnect.reset();
                self.wait(&failed, &mut patience).await;
                failed.clear();
                continue;
            }
            let began = self.parts.clock.now();
            let posted = post.publish(&batch, leadership).await;
            let ended = self.parts.clock.now();
            traced::published(self.parts, Period { began, ended }, &batch, &posted);
            self.undeleted = posted.confirmed;
            if !self.undeleted.is_empty() {
                reconnect.reset();
            }
            if self.delete(leadership).await? == Standing::Deposed {
                return Ok(Ended::Deposed);
            }
            if let Some(fault) = posted.fault {
                return Err(fault);
            }
            failed.extend(posted.failed);
            if failed.is_empty() {
                patience.reset();
                reporter.up(Part::Outbox);
            } else {
                reporter.down(Part::Outbox, AmqpError::NotKept.to_string());
            }
            if self.is_drained_enough() {
                return Ok(Ended::Stopped);
            }
        }
    }

    /// The next batch; nothing, where so much failed that all should be tried again.
    async fn read(
        &self,
        leadership: &Leadership,
        failed: &[i64],
    ) -> StoreResult<Option<Vec<Outgoing>>> {
        if failed.len() >= MOST_FAILED {
            return Ok(Some(Vec::new()));
        }
        let request = OutgoingRequest {
            limit: BATCH,
            max_bytes: BATCH_BYTES,
            failed,
        };
        self.parts.store.outgoing(leadership.lease(), request).await
    }

    /// Waits for a reason to look again: a ring or the poll; where something failed, longer each time.
    async fn wait(&self, failed: &[i64], patience: &mut Reconnect) {
        let again = async {
            if failed.is_empty() {
                tokio::select! {
                    () = self.parts.bell.rung() => {}
                    () = pause(self.jittered(self.parts.pace.poll)) => {}
                }
            } else {
                patience.pause().await;
            }
        };
        tokio::select! {
            () = again => {}
            () = self.stop_asked() => {}
        }
    }

    /// Deletes what the broker has.
    async fn delete(&mut self, leadership: &Leadership) -> StoreResult<Standing> {
        if self.undeleted.is_empty() {
            return Ok(Standing::Leads);
        }
        let standing = self
            .parts
            .store
            .confirm_outgoing(leadership.lease(), &self.undeleted)
            .await?;
        if standing == Standing::Leads {
            self.undeleted.clear();
        }
        Ok(standing)
    }

    /// Whether a stop was asked for so long ago that the rest is left where it is: a long backlog must
    /// not use up the whole deadline of the program's drain.
    fn is_drained_enough(&mut self) -> bool {
        if !self.shutdown.soft.is_cancelled() {
            return false;
        }
        let now = self.parts.clock.monotonic();
        let until = self.drain_until.get_or_insert(now + self.parts.pace.drain);
        now >= *until
    }

    /// So that replicas do not come all at once.
    fn jittered(&self, time: Duration) -> Duration {
        time.mul_f64(0.75 + 0.5 * self.parts.entropy.unit())
    }
}

/// A connection that broke while nothing was sent is noticed here.
fn still_open(post: &Post) -> Result<(), AmqpError> {
    if post.is_open() {
        return Ok(());
    }
    let lost = std::io::Error::other("the connection was lost");
    Err(lapin::Error::from(lost).into())
}
