//! A flow of events through the whole program, and the account of it: what was published, what
//! each hook of a receiver should get of it, and what it got.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::headers::CustomHeaders;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::subscription::{BodyFormat, Ordering, SubscriptionSpec, TargetUrl};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{DeliveryFilter, NewSubscription, PageRequest, Store};

use super::events::register;
use super::receiver::{Received, Receiver, Reply};

const TYPES: [&str; 5] = [
    "edition.submitted",
    "edition.approved",
    "edition.section.changed",
    "output.generated",
    "output.deleted.late",
];
const PROJECTS: [Option<&str>; 3] = [Some("pr_1"), Some("pr_2"), None];

/// One event of the flow. Its number travels in `data.n`.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) number: usize,
    pub(crate) event_type: &'static str,
    project: Option<&'static str>,
    pub(crate) body: Vec<u8>,
}

impl Planned {
    fn new(flow: &str, number: usize) -> Self {
        let event_type = TYPES[number % TYPES.len()];
        let project = PROJECTS[(number / TYPES.len()) % PROJECTS.len()];
        let mut data = serde_json::json!({
            "n": number, "edition_id": format!("ed_{}", number % 97), "blueprint_id": "bp_1",
            "timestamp": "2026-05-01T09:00:00Z", "approved_by": {"id": "u", "name": "N"},
            "output_id": "out_1", "format": "pdf", "download_url": "https://core.example/1",
        });
        // The one documented type that must name its project in the data.
        if event_type == "edition.submitted" {
            data["project_id"] = project.unwrap_or("pr_9").into();
        }
        let mut envelope = serde_json::json!({
            "specversion": "1.0", "id": number.to_string(), "source": format!("/{flow}"),
            "type": event_type, "workspaceid": flow, "data": data,
        });
        if let Some(project) = project {
            envelope["projectid"] = project.into();
        }
        Self {
            number,
            event_type,
            project,
            body: envelope.to_string().into_bytes(),
        }
    }
}

/// One hook: its subscription, and by which rule of its own the test knows what belongs to it.
struct Hook {
    path: &'static str,
    filter: &'static str,
    project: Option<&'static str>,
    format: BodyFormat,
    belongs: fn(&Planned) -> bool,
}

/// All types; `edition.*`; one project. Each with another body.
const HOOKS: [Hook; 3] = [
    Hook {
        path: "/all",
        filter: "*",
        project: None,
        format: BodyFormat::Standard,
        belongs: |_| true,
    },
    Hook {
        path: "/editions",
        filter: "edition.*",
        project: None,
        format: BodyFormat::Kazinex,
        belongs: |event| event.event_type.starts_with("edition."),
    },
    Hook {
        path: "/project",
        filter: "*",
        project: Some("pr_1"),
        format: BodyFormat::CloudEvents,
        belongs: |event| event.project == Some("pr_1"),
    },
];

/// What the receiver knows of one delivery.
#[derive(Clone, Copy, Default)]
struct Receipt {
    refused: u32,
    taken: u32,
}

type Receipts = Arc<Mutex<HashMap<(String, String), Receipt>>>;

/// A flow.
pub(crate) struct Flow {
    name: String,
    pub(crate) events: Vec<Planned>,
    pub(crate) receiver: Receiver,
    receipts: Receipts,
    secrets: BTreeMap<&'static str, SigningSecret>,
}

impl Flow {
    /// A flow of so many events, in a workspace of its own, to a receiver that fails a third of
    /// first attempts.
    pub(crate) fn new(events: usize) -> Self {
        let entropy = Entropy::system();
        let id: SubscriptionId = entropy.id(SystemClock.now());
        let name = format!("flow_{id}");
        let receipts = Receipts::default();
        let seen = Arc::clone(&receipts);
        let receiver = Receiver::start(move |request| answer(&seen, request));
        Self {
            events: (0..events)
                .map(|number| Planned::new(&name, number))
                .collect(),
            name,
            receiver,
            receipts,
            secrets: HOOKS
                .iter()
                .map(|hook| (hook.path, SigningSecret::generate(entropy.bytes())))
                .collect(),
        }
    }

    pub(crate) fn workspace(&self) -> WorkspaceId {
        WorkspaceId::new(&self.name).expect("a flow's name is an id")
    }

    /// Registers the hooks.
    pub(crate) async fn subscribe(&self, store: &dyn Store) -> Vec<SubscriptionId> {
        let entropy = Entropy::system();
        let mut ids = Vec::new();
        for hook in &HOOKS {
            let now = SystemClock.now();
            let new = NewSubscription {
                id: entropy.id(now),
                workspace: self.workspace(),
                spec: SubscriptionSpec {
                    url: TargetUrl::new(&self.receiver.url(hook.path)).expect("a good URL"),
                    description: String::new(),
                    event_types: vec![hook.filter.parse().expect("a good filter")],
                    project_ids: hook.project.map(|id| vec![id.parse().expect("a good id")]),
                    format: hook.format,
                    headers: CustomHeaders::default(),
                    max_concurrency: None,
                    rate_limit: None,
                    retry_schedule: None,
                    ordering: Ordering::default(),
                },
                secret_id: entropy.id(now),
                secret: self.secrets[hook.path].clone(),
            };
            let created = register(store, &new).await;
            ids.push(created.expect("the subscription is made").id);
        }
        ids
    }

    /// How many deliveries the whole flow makes.
    pub(crate) fn deliveries(&self) -> usize {
        HOOKS.iter().map(|hook| self.expected(hook).len()).sum()
    }

    /// How many (hook, event) pairs were taken so far.
    pub(crate) fn taken(&self) -> usize {
        let receipts = lock(&self.receipts);
        receipts
            .values()
            .filter(|receipt| receipt.taken > 0)
            .count()
    }

    /// Waits until so many pairs were taken.
    pub(crate) async fn wait_until_taken(&self, count: usize, deadline: Duration) {
        let met = self
            .receiver
            .wait_for(|_| self.taken() >= count, deadline)
            .await;
        assert!(
            met.is_ok(),
            "{} of {count} deliveries were taken within {deadline:?}; {} requests came",
            self.taken(),
            self.receiver.count()
        );
    }

    /// Waits until everything was taken at least once.
    pub(crate) async fn wait_for_all(&self, deadline: Duration) {
        self.wait_until_taken(self.deliveries(), deadline).await;
    }

    /// The account: every matching pair was taken, nothing else came, every signature verifies
    /// with the published library, and at most `extra` deliveries were taken more than once.
    pub(crate) fn check(&self, extra: usize) {
        let requests = self.receiver.received();
        for request in &requests {
            let secret = self.secrets[&*request.path].expose();
            request.verify(secret).unwrap_or_else(|error| {
                panic!("{} {}: {error}", request.path, request.webhook_id())
            });
        }
        for hook in &HOOKS {
            let got: BTreeSet<usize> = requests
                .iter()
                .filter(|request| request.path == hook.path)
                .map(|request| number(request))
                .collect();
            let expected = self.expected(hook);
            let missing: Vec<_> = expected.difference(&got).take(10).collect();
            let foreign: Vec<_> = got.difference(&expected).take(10).collect();
            assert!(missing.is_empty(), "{}: missing {missing:?}", hook.path);
            assert!(
                foreign.is_empty(),
                "{}: should not have {foreign:?}",
                hook.path
            );
        }
        let receipts = lock(&self.receipts);
        let untaken = receipts
            .values()
            .filter(|receipt| receipt.taken == 0)
            .count();
        assert_eq!(untaken, 0, "deliveries were refused and never taken");
        let refused = receipts
            .values()
            .filter(|receipt| receipt.refused > 0)
            .count();
        assert!(
            refused > receipts.len() / 5,
            "the receiver should have refused a third"
        );
        let again: usize = receipts
            .values()
            .map(|receipt| receipt.taken.saturating_sub(1) as usize)
            .sum();
        assert!(
            again <= extra,
            "{again} second receipts, at most {extra} may be"
        );
    }

    /// The store's side of the account: every matching pair is there once, and succeeded.
    pub(crate) async fn check_store(&self, store: &dyn Store, deadline: Duration) {
        super::eventually(deadline, "the queue is empty", async || {
            let depth = store.queue_depth().await.expect("the queue is counted");
            depth.pending + depth.in_flight == 0
        })
        .await;
        let reach = Reach::all(&self.workspace());
        let mut pairs = BTreeSet::new();
        let (mut listed, mut attempts, mut after) = (0, 0, None);
        loop {
            let request = PageRequest { limit: 500, after };
            let page = store
                .deliveries(&reach, &DeliveryFilter::default(), request)
                .await
                .expect("the log is read");
            for delivery in &page.items {
                assert_eq!(delivery.state, DeliveryState::Succeeded, "{}", delivery.id);
                pairs.insert((delivery.subscription_id, delivery.event_id));
                listed += 1;
                attempts += delivery.attempts as usize;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pairs.len(), listed, "a pair is listed twice");
        assert_eq!(listed, self.deliveries());
        let requests = self.receiver.count();
        assert!(
            attempts <= requests,
            "{attempts} attempts are kept, but only {requests} requests came"
        );
    }

    fn expected(&self, hook: &Hook) -> BTreeSet<usize> {
        self.events
            .iter()
            .filter(|event| (hook.belongs)(event))
            .map(|event| event.number)
            .collect()
    }
}

/// Fails a third of first attempts; which third is a property of the id.
fn answer(receipts: &Receipts, request: &Received) -> Reply {
    let key = (request.path.clone(), request.webhook_id().to_owned());
    let unlucky = key.1.bytes().map(u32::from).sum::<u32>() % 3 == 0;
    let mut receipts = lock(receipts);
    let receipt = receipts.entry(key).or_default();
    if unlucky && receipt.refused == 0 {
        receipt.refused += 1;
        Reply::status(503)
    } else {
        receipt.taken += 1;
        Reply::status(204)
    }
}

fn number(request: &Received) -> usize {
    let number = request.json()["data"]["n"].as_u64();
    usize::try_from(number.expect("every event has a number")).expect("which is small")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
