//! A `ping` to one subscription, out of turn: no queue, no lease, no retry.

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::attempt::{self, Message};
use super::outcome::Judge;
use crate::clock::Clock;
use crate::domain::attempt::{Attempt, ErrorClass, Trigger};
use crate::domain::event::Event;
use crate::domain::ids::EventId;
use crate::domain::payload::{Payload, timestamp};
use crate::domain::retry::RetrySchedule;
use crate::egress::WebhookClient;
use crate::entropy::Entropy;
use crate::store::targets::Target;
use crate::store::test_send::EPOCH;
use crate::store::{AttemptRecord, Result, Store, StoreError, TestSend, TestSent};

/// Who sends a `ping`: its envelope's `source`.
const SOURCE: &str = "/forge-dispatch";

/// Sends tests as the dispatcher sends: through the same client, signed and timed alike. It needs no
/// dispatcher, so that a command can send one too.
#[derive(Clone)]
pub struct Tester {
    store: Arc<dyn Store>,
    client: Arc<WebhookClient>,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    /// A test is never tried again.
    once: RetrySchedule,
}

impl fmt::Debug for Tester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tester")
    }
}

impl Tester {
    /// Sends through this client, and keeps what came of it in this store.
    pub fn new(
        store: Arc<dyn Store>,
        client: Arc<WebhookClient>,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Self {
        Self {
            store,
            client,
            clock,
            entropy,
            once: RetrySchedule::none(),
        }
    }

    /// The `ping`: of the subscription's first project, so that a key that is restricted to its
    /// projects sees what became of it.
    fn ping(&self, target: &Target) -> Result<Payload> {
        let now = self.clock.now();
        let id: EventId = self.entropy.id(now);
        let subscription = &target.subscription;
        let mut envelope = json!({
            "specversion": "1.0",
            "id": id.to_string(),
            "source": SOURCE,
            "type": "ping",
            "time": timestamp(now),
            "workspaceid": subscription.workspace.as_str(),
            "data": {"subscription_id": subscription.id.to_string()},
        });
        let projects = subscription.spec.project_ids.as_deref();
        if let Some(project) = projects.and_then(<[_]>::first) {
            envelope["projectid"] = json!(project.as_str());
        }
        let event = Event::decode(envelope.to_string().as_bytes(), id, now);
        Ok(Payload::new(event.map_err(StoreError::corrupt)?))
    }

    async fn attempt(&self, target: &Target, payload: &Payload) -> Attempt {
        let judge = |now| Judge {
            schedule: &self.once,
            attempts_before: 0,
            was: None,
            unit: 0.0,
            now,
        };
        let message = Message {
            payload,
            traceparent: None,
        };
        let sent = attempt::post(&self.client, target, &message, self.clock.now()).await;
        let now = self.clock.now();
        let (attempt, _verdict) = match sent {
            Some(sent) => judge(now).judge(sent),
            None => judge(now).failed(ErrorClass::Internal, now),
        };
        Attempt {
            trigger: Trigger::Test,
            ..attempt
        }
    }
}

#[async_trait]
impl TestSend for Tester {
    async fn send(&self, target: Target) -> Result<TestSent> {
        let tester = self.clone();
        // Whoever asks may not wait for the end: what was sent is kept all the same.
        let sending = tokio::spawn(async move { tester.send_and_keep(&target).await });
        match sending.await {
            Ok(sent) => sent,
            // Nobody aborts it.
            Err(ended) => resume_unwind(ended.into_panic()),
        }
    }
}

impl Tester {
    async fn send_and_keep(&self, target: &Target) -> Result<TestSent> {
        let payload = self.ping(target)?;
        let attempt = self.attempt(target, &payload).await;
        let event = payload.event();
        let delivery = self.store.record_test(event, target.id(), &attempt).await?;
        Ok(TestSent {
            event: event.id,
            delivery,
            attempt: AttemptRecord {
                epoch: EPOCH,
                attempt,
                lease_lost: false,
            },
        })
    }
}
