//! Order per edition, by several processes that are killed, to a receiver that fails at random.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::retry::RetrySchedule;
use forge_dispatch::domain::subscription::{Ordering, SubscriptionSpec, TargetUrl};
use forge_dispatch::entropy::Entropy;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{register, registration, spec};
use crate::harness::program::{Binary, settings};
use crate::harness::publisher::{Message, publish_to};
use crate::harness::queues;
use crate::harness::receiver::{Received, Receiver, Reply};

const PATIENCE: Duration = Duration::from_mins(2);

const EDITIONS: usize = 25;
const EVENTS: usize = 500;
const KILLS: usize = 5;

/// Of what the receiver refuses, and of the processes that are killed.
const SEED: u64 = 11;

/// The edition of which nothing is taken until all else has been.
const HELD: &str = "ed_0";

/// What the receiver took first, in its order: (edition, event).
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
}

/// Refuses a third of all requests, an event twice at most.
fn answer(log: &Mutex<Log>, open: &AtomicBool, random: &Entropy, request: &Received) -> Reply {
    let id = request.webhook_id().to_owned();
    let body = request.json();
    let edition = body["data"]["edition_id"].as_str().unwrap().to_owned();
    let mut log = log.lock().unwrap();
    if edition == HELD && !open.load(SeqCst) {
        return Reply::status(503);
    }
    let refused = log.refused.entry(id.clone()).or_default();
    if *refused < 2 && random.bytes::<1>()[0] < 85 {
        *refused += 1;
        return Reply::status(500);
    }
    if log.seen.insert(id.clone()) {
        log.taken.push((edition, id));
    }
    Reply::status(204)
}

fn edition(number: usize) -> String {
    format!("ed_{}", number % EDITIONS)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editions_events_arrive_in_the_order_of_the_feed_whoever_dies() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    let (log, open) = (
        Arc::new(Mutex::new(Log::default())),
        Arc::new(AtomicBool::new(false)),
    );
    let receiver = {
        let (log, open, random) = (Arc::clone(&log), Arc::clone(&open), Entropy::seeded(SEED));
        Receiver::start(move |request| answer(&log, &open, &random, request))
    };
    // The one that is held outlasts the others by its schedule.
    let quick = [100, 100, 300].map(Duration::from_millis);
    let delays = quick.into_iter().chain([Duration::from_secs(10); 45]);
    let wanted = SubscriptionSpec {
        url: TargetUrl::new(&receiver.url("/ordered")).unwrap(),
        retry_schedule: Some(RetrySchedule::new(delays.collect()).unwrap()),
        ordering: Ordering::ByEdition,
        ..spec(&["*"])
    };
    let new = registration(&WorkspaceId::default(), wanted);
    register(&*database.store, &new).await.unwrap();

    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut replicas = dirs
        .each_ref()
        .map(|dir| Binary::serve(&config, dir.path()));
    for replica in &replicas {
        replica.logged("\"ready\"").await;
    }
    queues::declared(&config.amqp).await;
    let bodies: Vec<Vec<u8>> = (0..EVENTS)
        .map(|number| {
            let envelope = serde_json::json!({
                "specversion": "1.0", "id": number.to_string(), "source": "/ordered",
                "type": "edition.archived", "data": {"edition_id": edition(number)},
            });
            envelope.to_string().into_bytes()
        })
        .collect();
    let amqp = config.amqp.clone();
    let publishing = tokio::spawn(async move {
        let messages = bodies
            .iter()
            .map(|body| ("edition.archived", body.as_slice()));
        let messages: Vec<Message<'_>> = messages.collect();
        publish_to(&amqp, &amqp.events_exchange, &messages).await;
    });

    let others = (0..EVENTS)
        .filter(|number| edition(*number) != HELD)
        .count();
    let taken = |held: bool| log.lock().unwrap().of(held);
    let entropy = Entropy::seeded(SEED);
    for kill in 0..KILLS {
        let share = others * (kill + 1) / (KILLS + 2);
        let met = receiver.wait_for(|_| taken(false) >= share, PATIENCE).await;
        assert!(met.is_ok(), "{} of {share} were taken", taken(false));
        let unlucky = &mut replicas[usize::from(entropy.bytes::<1>()[0]) % 3];
        unlucky.kill();
        unlucky.start_again();
    }
    publishing.await.unwrap();
    let met = receiver
        .wait_for(|_| taken(false) == others, PATIENCE)
        .await;
    assert!(met.is_ok(), "{} of {others} flow on", taken(false));
    assert_eq!(taken(true), 0);
    open.store(true, SeqCst);
    let held = EVENTS - others;
    let met = receiver.wait_for(|_| taken(true) == held, PATIENCE).await;
    assert!(met.is_ok(), "{} of {held} that were held", taken(true));
    queues::drained(&config.amqp, PATIENCE).await;

    let mut editions: HashMap<String, Vec<String>> = HashMap::new();
    for (edition, id) in &log.lock().unwrap().taken {
        editions
            .entry(edition.clone())
            .or_default()
            .push(id.clone());
    }
    let places: BTreeMap<String, usize> = database
        .feed(&WorkspaceId::default())
        .await
        .iter()
        .enumerate()
        .map(|(place, (_, event))| (event.to_string(), place))
        .collect();
    assert_eq!((editions.len(), places.len()), (EDITIONS, EVENTS));
    for (edition, ids) in editions {
        let places: Vec<usize> = ids.iter().map(|id| places[id]).collect();
        assert!(places.is_sorted(), "{edition}: {places:?}");
    }
    crate::harness::eventually(PATIENCE, "nothing is at a gate", async || {
        database.count("order_gate").await == 0 && database.count("delivery_queue").await == 0
    })
    .await;
    for replica in &mut replicas {
        replica.terminate();
        assert!(replica.ended().await.success());
    }
    queues::check_empty(&config.amqp).await;
}
