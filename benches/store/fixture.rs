//! What is put through the store.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, Trigger};
use forge_dispatch::domain::event::Event;
use forge_dispatch::domain::headers::CustomHeaders;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::subscription::{BodyFormat, Ordering, SubscriptionSpec, TargetUrl};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::{Intake, Permit};
use forge_dispatch::store::targets::Target;
use forge_dispatch::store::{LeasedDelivery, NewSubscription};

/// A subscription that takes everything.
pub(crate) fn registration(entropy: &Entropy) -> anyhow::Result<NewSubscription> {
    let now = SystemClock.now();
    Ok(NewSubscription {
        id: entropy.id(now),
        workspace: WorkspaceId::default(),
        spec: SubscriptionSpec {
            url: TargetUrl::new("https://receiver.example/hook")?,
            description: String::new(),
            event_types: vec!["*".parse()?],
            project_ids: None,
            format: BodyFormat::Standard,
            headers: CustomHeaders::default(),
            max_concurrency: None,
            rate_limit: None,
            retry_schedule: None,
            ordering: Ordering::default(),
        },
        secret_id: entropy.id(now),
        secret: SigningSecret::generate(entropy.bytes()),
    })
}

/// New events, made as they would be on their way in.
pub(crate) fn events(
    entropy: &Entropy,
    count: usize,
    data_bytes: usize,
) -> anyhow::Result<Vec<Arc<Payload>>> {
    let data = "x".repeat(data_bytes);
    let event = || {
        let now = SystemClock.now();
        let id = u128::from_le_bytes(entropy.bytes());
        let text = format!(
            r#"{{"specversion":"1.0","id":"{id:032x}","source":"/report-forge",
            "type":"edition.archived","time":"2026-05-01T09:00:00Z","projectid":"pr_1",
            "data":{{"text":"{data}"}}}}"#
        );
        let event = Event::decode(text.as_bytes(), entropy.id(now), now)?;
        Ok(Arc::new(Payload::new(event)))
    };
    std::iter::repeat_with(event).take(count).collect()
}

/// How many editions there are, so that half of them are in each batch.
pub(crate) const EDITIONS: usize = 1_000;

/// New events, each of which tells the status of another edition, later than the one before.
pub(crate) fn submissions(entropy: &Entropy, count: usize) -> anyhow::Result<Vec<Arc<Payload>>> {
    let event = |number: usize| {
        let now = SystemClock.now();
        let id = u128::from_le_bytes(entropy.bytes());
        let edition = number * EDITIONS / count + usize::from(id.is_multiple_of(2));
        let time = now.to_rfc3339();
        let text = format!(
            r#"{{"specversion":"1.0","id":"{id:032x}","source":"/report-forge",
            "type":"edition.submitted","time":"{time}","projectid":"pr_1","data":{{
            "edition_id":"ed_{edition}","blueprint_id":"bp_1","project_id":"pr_1",
            "timestamp":"{time}"}}}}"#
        );
        let event = Event::decode(text.as_bytes(), entropy.id(now), now)?;
        Ok(Arc::new(Payload::new(event)))
    };
    (0..count).map(event).collect()
}

/// What an attempt meets where all is well.
pub(crate) fn taken() -> Attempt {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Attempt {
        at: SystemClock.now(),
        duration: Duration::from_millis(12),
        trigger: Trigger::Schedule,
        status: Some(200),
        error: None,
        response_headers: vec![
            header("content-type", "text/plain"),
            header("content-length", "2"),
            header("date", "Fri, 01 May 2026 09:00:00 GMT"),
        ],
        response_excerpt: "ok".to_owned(),
    }
}

/// A dispatcher that always has a permit free.
pub(crate) struct AlwaysFree;

impl Intake for AlwaysFree {
    fn admit(&self, _target: &Target, _bytes: usize) -> Option<Permit> {
        Some(Permit::new(()))
    }

    fn hand_over(&self, _leased: Vec<(LeasedDelivery, Permit)>) {}

    fn left_waiting(&self, _of: &[SubscriptionId]) {}

    fn something_is_due(&self) {}
}
