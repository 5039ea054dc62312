//! Order per edition, by several processes that are killed, to receivers that fail at random; and what
//! failed for good there, replayed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::Amqp;
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::retry::RetrySchedule;
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::domain::subscription::{Ordering, SubscriptionSpec, TargetUrl};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{DeliveryFilter, NewReplay, PageRequest, ReplayRecord};

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, register, registration, spec};
use crate::harness::program::{Binary, settings};
use crate::harness::publisher::{Message, publish_to};
use crate::harness::receiver::{Received, Receiver, Reply};
use crate::harness::{eventually, queues, sums};

const PATIENCE: Duration = Duration::from_mins(2);

const EDITIONS: usize = 25;
const EVENTS: usize = 500;
/// And so many beside the replay.
const MORE: usize = 100;
/// And one more under the replay.
const KILLS: usize = 3;

/// Of what the receivers refuse, and of the processes that are killed.
const SEED: u64 = 11;

/// The edition of which the patient one's receiver takes nothing until all else has been taken.
const HELD: &str = "ed_0";

/// What a receiver took first, in its order: (edition, event).
#[derive(Default)]
struct Log {
    taken: Vec<(String, String)>,
    seen: HashSet<String>,
    refused: HashMap<String, u32>,
}

impl Log {
    fn of(&self, held: bool) -> usize {
        let taken = self.taken.iter();
        taken
            .filter(|(edition, _)| (edition == HELD) == held)
            .count()
    }

    fn has_all(&self, events: &BTreeSet<String>) -> bool {
        events.iter().all(|event| self.seen.contains(event))
    }

    /// What came of each edition, but for these, came in the order of the feed.
    fn check_order(&self, feed: &HashMap<String, usize>, but_for: &BTreeSet<String>) {
        let mut editions: HashMap<&str, Vec<usize>> = HashMap::new();
        for (edition, event) in &self.taken {
            if !but_for.contains(event) {
                editions.entry(edition).or_default().push(feed[event]);
            }
        }
        assert_eq!(editions.len(), EDITIONS);
        for (edition, places) in editions {
            assert!(places.is_sorted(), "{edition}: {places:?}");
        }
    }
}

/// A receiver that is shut for some events until it is opened, and refuses a third of the requests of all
/// others, an event twice at most.
struct Hook {
    receiver: Receiver,
    log: Arc<Mutex<Log>>,
    open: Arc<AtomicBool>,
}

impl Hook {
    fn start(seed: u64, is_shut_for: fn(&serde_json::Value) -> bool) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let open = Arc::new(AtomicBool::new(false));
        let random = Entropy::seeded(seed);
        let (noted, is_open) = (Arc::clone(&log), Arc::clone(&open));
        let receiver = Receiver::start(move |request: &Received| {
            let id = request.webhook_id().to_owned();
            let data = &request.json()["data"];
            let mut log = noted.lock().unwrap();
            let is_shut = is_shut_for(data);
            if is_shut && !is_open.load(SeqCst) {
                return Reply::status(503);
            }
            let refused = log.refused.entry(id.clone()).or_default();
            if !is_shut && *refused < 2 && random.bytes::<1>()[0] < 85 {
                *refused += 1;
                return Reply::status(500);
            }
            if log.seen.insert(id.clone()) {
                let edition = data["edition_id"].as_str().unwrap().to_owned();
                log.taken.push((edition, id));
            }
            Reply::status(204)
        });
        Self {
            receiver,
            log,
            open,
        }
    }

    fn open(&self) {
        self.open.store(true, SeqCst);
    }

    async fn subscribe(&self, database: &TestDatabase, delays: Vec<Duration>) -> SubscriptionId {
        let wanted = SubscriptionSpec {
            url: TargetUrl::new(&self.receiver.url("/ordered")).unwrap(),
            retry_schedule: Some(RetrySchedule::new(delays).unwrap()),
            ordering: Ordering::ByEdition,
            ..spec(&["*"])
        };
        let new = registration(&WorkspaceId::default(), wanted);
        register(&*database.store, &new).await.unwrap().id
    }

    async fn wait_until(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        let met = self
            .receiver
            .wait_for(|_| condition(&self.log.lock().unwrap()), PATIENCE)
            .await;
        let taken = self.log.lock().unwrap().taken.len();
        assert!(met.is_ok(), "{what}: {taken} were taken");
    }
}

fn edition(number: usize) -> String {
    format!("ed_{}", number % EDITIONS)
}

/// Every seventh event, some of each edition.
fn is_doomed(number: u64) -> bool {
    number % 7 == 3
}

async fn publish(amqp: &Amqp, numbers: std::ops::Range<usize>) {
    let bodies: Vec<Vec<u8>> = numbers
        .map(|number| {
            let envelope = serde_json::json!({
                "specversion": "1.0", "id": number.to_string(), "source": "/ordered",
                "type": "edition.archived",
                "data": {"edition_id": edition(number), "n": number},
            });
            envelope.to_string().into_bytes()
        })
        .collect();
    let messages = bodies
        .iter()
        .map(|body| ("edition.archived", body.as_slice()));
    let messages: Vec<Message<'_>> = messages.collect();
    publish_to(amqp, &amqp.events_exchange, &messages).await;
}

/// The processes, one of which dies now and then.
struct Replicas {
    programs: [Binary; 3],
    random: Entropy,
}

impl Replicas {
    fn kill_one(&mut self) {
        let draw = usize::from(self.random.bytes::<1>()[0]);
        let unlucky = &mut self.programs[draw % 3];
        unlucky.kill();
        unlucky.start_again();
    }

    async fn stop(&mut self) {
        for program in &mut self.programs {
            program.terminate();
            assert!(program.ended().await.success());
        }
    }
}

/// The events of what failed for good.
async fn failed(database: &TestDatabase, subscription: SubscriptionId) -> BTreeSet<String> {
    let filter = DeliveryFilter {
        state: Some(DeliveryState::Failed),
        ..DeliveryFilter::default()
    };
    let all = PageRequest {
        limit: 10_000,
        after: None,
    };
    let reach = Reach::all(&WorkspaceId::default());
    let page = database.store.deliveries(&reach, &filter, all).await;
    let failed = page.unwrap().items.into_iter();
    failed
        .map(|delivery| {
            assert_eq!(delivery.subscription_id, subscription);
            delivery.event_id.to_string()
        })
        .collect()
}

async fn at_rest(database: &TestDatabase) {
    eventually(PATIENCE, "nothing is under way", async || {
        database.count("order_gate").await == 0 && database.count("delivery_queue").await == 0
    })
    .await;
}

async fn begin_replay(database: &TestDatabase, subscription: SubscriptionId) -> ReplayRecord {
    let new = NewReplay {
        id: Entropy::system().id(SystemClock.now()),
        selection: Selection {
            subscription_id: Some(subscription),
            types: vec!["edition.*".parse().unwrap()],
            ..Selection::default()
        },
        // A few seconds, so that other events come meanwhile.
        rate: 20,
    };
    let reach = Reach::all(&WorkspaceId::default());
    let created = database
        .store
        .create_replay(&reach, &new, &act(), None)
        .await;
    created.unwrap().unwrap().created().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editions_events_arrive_in_the_order_of_the_feed_whoever_dies() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    // What is held outlasts all else by its schedule.
    let patient = Hook::start(SEED, |data| data["edition_id"] == HELD);
    let quick = [100, 100, 300].map(Duration::from_millis);
    let delays = quick.into_iter().chain([Duration::from_secs(10); 45]);
    patient.subscribe(&database, delays.collect()).await;
    // What is doomed fails for good; all else has attempts to spare.
    let hasty = Hook::start(SEED + 1, |data| is_doomed(data["n"].as_u64().unwrap()));
    let delays = vec![Duration::from_millis(50); 6];
    let of_hasty = hasty.subscribe(&database, delays).await;

    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut replicas = Replicas {
        programs: dirs
            .each_ref()
            .map(|dir| Binary::serve(&config, dir.path())),
        random: Entropy::seeded(SEED),
    };
    for program in &replicas.programs {
        program.logged("\"ready\"").await;
    }
    queues::declared(&config.amqp).await;
    let amqp = config.amqp.clone();
    let publishing = tokio::spawn(async move { publish(&amqp, 0..EVENTS).await });

    let others = (0..EVENTS)
        .filter(|number| edition(*number) != HELD)
        .count();
    for kill in 0..KILLS {
        let share = others * (kill + 1) / (KILLS + 2);
        let what = format!("{share} flow on");
        patient
            .wait_until(&what, |log| log.of(false) >= share)
            .await;
        replicas.kill_one();
    }
    publishing.await.unwrap();
    let what = format!("{others} flow on");
    patient
        .wait_until(&what, |log| log.of(false) == others)
        .await;
    assert_eq!(patient.log.lock().unwrap().of(true), 0);
    patient.open();
    let held = EVENTS - others;
    let what = format!("{held} that were held");
    patient.wait_until(&what, |log| log.of(true) == held).await;
    at_rest(&database).await;

    let failed = failed(&database, of_hasty).await;
    let doomed = (0..EVENTS as u64)
        .filter(|number| is_doomed(*number))
        .count();
    assert!(failed.len() >= doomed, "{} failed", failed.len());
    let taken = hasty.log.lock().unwrap().taken.len();
    assert!(
        taken + failed.len() >= EVENTS,
        "what fails holds up nothing for good: {taken} were taken"
    );
    hasty.open();
    let replay = begin_replay(&database, of_hasty).await;
    let amqp = config.amqp.clone();
    let publishing = tokio::spawn(async move { publish(&amqp, EVENTS..EVENTS + MORE).await });
    hasty
        .wait_until("the replay goes on", |log| {
            let replayed = log.taken.iter().filter(|(_, event)| failed.contains(event));
            replayed.count() > failed.len() / 3
        })
        .await;
    replicas.kill_one();
    publishing.await.unwrap();
    let all = EVENTS + MORE;
    for hook in [&patient, &hasty] {
        let what = format!("{all} in the end");
        hook.wait_until(&what, |log| log.taken.len() == all).await;
    }
    eventually(PATIENCE, "the replay is done", async || {
        let now = database.store.replay(&replay.reach, replay.id).await;
        let now = now.unwrap().unwrap();
        now.state == ReplayState::Done
            && (now.total, now.queued) == (failed.len() as u64, failed.len() as u64)
    })
    .await;
    at_rest(&database).await;
    queues::drained(&config.amqp, PATIENCE).await;

    let feed: HashMap<String, usize> = database
        .feed(&WorkspaceId::default())
        .await
        .iter()
        .enumerate()
        .map(|(place, (_, event))| (event.to_string(), place))
        .collect();
    assert_eq!(feed.len(), all);
    let nothing = BTreeSet::new();
    patient.log.lock().unwrap().check_order(&feed, &nothing);
    hasty.log.lock().unwrap().check_order(&feed, &failed);
    let arrived = hasty.log.lock().unwrap().has_all(&failed);
    assert!(arrived, "what is replayed arrives");
    replicas.stop().await;
    sums::equal_attempts(&database).await;
    queues::check_empty(&config.amqp).await;
}
