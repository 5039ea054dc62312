//! What breaks on the way, and that nothing is lost by it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forge_dispatch::clock::SystemClock;
use forge_dispatch::domain::ids::SubscriptionId;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::health::Part;
use forge_dispatch::store::intake::{Intake, Permit};
use forge_dispatch::store::postgres::PostgresStore;
use forge_dispatch::store::targets::Target;
use forge_dispatch::store::vault::{MasterKey, Vault};
use forge_dispatch::store::{LeasedDelivery, Maintenance};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Confirmation};
use sqlx::{Connection, PgConnection, SqliteConnection};

use super::rig::{Rig, eventually, settings};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::event;
use crate::harness::proxy::Proxy;
use crate::harness::services::{self, Broker, PostgresServer};

/// Stands still behind the first commit, where only the acknowledgement is missing.
#[derive(Default)]
struct StandStill {
    commits: AtomicUsize,
    go_on: Mutex<bool>,
    changed: Condvar,
}

impl StandStill {
    fn go_on(&self) {
        *self.go_on.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Intake for StandStill {
    fn admit(&self, _target: &Target, _bytes: usize) -> Option<Permit> {
        None
    }

    fn hand_over(&self, _leased: Vec<(LeasedDelivery, Permit)>) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let held = self.go_on.lock().unwrap();
        drop(self.changed.wait_while(held, |go_on| !*go_on).unwrap());
    }

    fn left_waiting(&self, _of: &[SubscriptionId]) {}

    fn something_is_due(&self) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_connection_lost_between_commit_and_acknowledgement_brings_the_events_again_and_stores_none_twice()
 {
    let url = services::amqp_url().await;
    let proxy = Proxy::to(&url).await;
    let db = TestDatabase::new(Kind::Sqlite).await;
    let store = Arc::clone(&db.store);
    let mut rig = Rig::with(settings(&url), db, store).await;
    rig.settings.url = Some(proxy.url().into());
    let intake = Arc::new(StandStill::default());
    rig.intake(Arc::clone(&intake) as Arc<dyn Intake>);
    rig.start().await;
    rig.publish((0..10).map(|_| event().text())).await;
    eventually("a commit", async || {
        intake.commits.load(Ordering::SeqCst) == 1
    })
    .await;
    let stored = rig.stored().await;
    assert!(stored > 0);
    proxy.cut();
    intake.go_on();
    rig.until_stored(10).await;
    eventually("the events come again", async || {
        intake.commits.load(Ordering::SeqCst) >= 2 && rig.waiting().await == 0
    })
    .await;
    assert_eq!(rig.stored().await, 10);
    rig.come_to_rest_and_find_nothing_left().await;
}

#[tokio::test]
async fn what_is_not_committed_is_not_acknowledged() {
    let mut rig = Rig::new().await;
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", rig.db.path().display()))
        .await
        .unwrap();
    rig.start().await;
    sqlx::query("begin immediate")
        .execute(&mut other)
        .await
        .unwrap();
    rig.publish((0..10).map(|_| event().text())).await;
    eventually("all are delivered", async || rig.waiting().await == 0).await;
    rig.crash().await;
    eventually("all are back", async || rig.waiting().await == 10).await;
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    rig.start().await;
    rig.until_stored(10).await;
    rig.come_to_rest_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_consumer_that_crashes_in_mid_flow_loses_nothing() {
    const PUBLISHED: usize = 2_000;
    let mut rig = Rig::new().await;
    rig.start().await;
    rig.stop().await;
    rig.publish((0..PUBLISHED).map(|_| event().text())).await;
    for count in [50, 300, 800] {
        rig.start().await;
        eventually("some are stored", async || rig.stored().await > count).await;
        rig.crash().await;
    }
    rig.start().await;
    rig.until_stored(PUBLISHED).await;
    rig.come_to_rest_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_database_that_is_away_pauses_consumption_and_no_event_is_lost_or_dead_lettered() {
    let mut server = PostgresServer::start().await;
    let key = MasterKey::parse(&STANDARD.encode([7; 32])).unwrap();
    let vault = Vault::new(&key, Entropy::system());
    let url = server.url().into();
    let clock = Arc::new(SystemClock);
    let store = PostgresStore::connect(&url, 5, vault, clock, &Entropy::system()).unwrap();
    store.migrate().await.unwrap();
    // The rig's own database stays empty.
    let db = TestDatabase::new(Kind::Sqlite).await;
    let url = services::amqp_url().await;
    let mut rig = Rig::with(settings(&url), db, Arc::new(store)).await;
    rig.start().await;
    rig.publish((0..50).map(|_| event().text())).await;
    eventually("the first are stored", async || {
        count_events(&server).await == 50
    })
    .await;

    server.stop().await;
    rig.publish((0..900).map(|_| event().text())).await;
    eventually("the absence is told", async || {
        let faults = rig.health.faults();
        faults.iter().any(|(part, _)| *part == Part::Database)
    })
    .await;
    assert!(
        rig.waiting().await >= 400,
        "what is beyond the window stays on the broker"
    );

    server.start_again().await;
    eventually("the rest is stored", async || {
        count_events(&server).await == 950
    })
    .await;
    eventually("all is well", async || rig.health.faults().is_empty()).await;
    rig.come_to_rest_and_find_nothing_left().await;
}

async fn count_events(server: &PostgresServer) -> i64 {
    let mut connection = PgConnection::connect(server.url()).await.unwrap();
    sqlx::query_scalar("select count(*) from event")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_stop_while_the_database_is_away_gives_everything_back() {
    let mut rig = Rig::new().await;
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", rig.db.path().display()))
        .await
        .unwrap();
    rig.start().await;
    sqlx::query("begin immediate")
        .execute(&mut other)
        .await
        .unwrap();
    rig.publish((0..10).map(|_| event().text())).await;
    eventually("the absence is told", async || {
        !rig.health.faults().is_empty()
    })
    .await;
    rig.stop().await;
    eventually("all are back", async || rig.waiting().await == 10).await;
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    rig.start().await;
    rig.until_stored(10).await;
    rig.come_to_rest_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_under_the_consumer_is_made_again() {
    let mut rig = Rig::new().await;
    rig.start().await;
    rig.publish([event().text()]).await;
    rig.until_stored(1).await;
    let channel = rig.broker.channel().await;
    let queue = rig.settings.events_queue.clone();
    channel
        .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let body = event().text();
    eventually("an event finds the queue again", async || {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let sent = channel
            .basic_publish(
                rig.settings.events_exchange.as_str().into(),
                "edition.archived".into(),
                options,
                body.as_bytes(),
                BasicProperties::default(),
            )
            .await
            .unwrap();
        sent.await.unwrap() == Confirmation::Ack(None)
    })
    .await;
    rig.until_stored(2).await;
    rig.come_to_rest_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_broker_that_stops_or_dies_is_found_again_and_every_event_is_stored_once() {
    let mut broker = Broker::start().await;
    let db = TestDatabase::new(Kind::Sqlite).await;
    let store = Arc::clone(&db.store);
    let mut rig = Rig::with(settings(broker.url()), db, store).await;
    rig.start().await;
    for round in 1..=2 {
        rig.publish((0..200).map(|_| event().text())).await;
        match round {
            1 => broker.stop().await,
            _ => broker.kill().await,
        }
        eventually("the absence is told", async || {
            let faults = rig.health.faults();
            faults.iter().any(|(part, _)| *part == Part::Broker)
        })
        .await;
        broker.start_again().await;
        rig.broker = super::rig::Operator::connect(broker.url()).await;
        rig.until_stored(200 * round).await;
    }
    rig.come_to_rest_and_find_nothing_left().await;
}
