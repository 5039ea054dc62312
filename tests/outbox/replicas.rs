//! Several relays on one database: one publishes, another takes over.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, ManualClock, SystemClock};

use super::rig::{Core, Relay, check_order, ids, numbered, publish, until_empty};
use crate::harness::databases::TestDatabase;
use crate::harness::queues;

on_both_databases!(
    two_relays_publish_each_event_once_and_the_one_takes_over_from_the_other,
    a_leader_that_was_stopped_and_goes_on_publishes_nothing_before_it_leads_again,
);

async fn two_relays_publish_each_event_once_and_the_one_takes_over_from_the_other(
    db: &TestDatabase,
) {
    const EACH: usize = 100;
    let settings = queues::unique().await;
    let core = Core::all(&settings).await;
    let one = Relay::start(&db.store, &settings);
    let two = Relay::start(&db.replica, &settings);
    let write = async |from: usize| {
        let writers = [
            ("ed_1", &db.store),
            ("ed_2", &db.replica),
            ("ed_3", &db.store),
        ]
        .map(|(edition, store)| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for number in from..from + EACH {
                    publish(&store, &[numbered(edition, number)]).await;
                }
            })
        });
        for writer in writers {
            writer.await.unwrap();
        }
    };
    write(0).await;
    let mut messages = core.take(3 * EACH).await;
    // Whoever leads: the other goes on, without waiting for a lease to end.
    one.stop().await;
    write(EACH).await;
    messages.extend(core.take(3 * EACH).await);
    until_empty(&db.replica).await;
    two.stop().await;
    assert!(core.next().await.is_none(), "more came than was published");
    check_order(&messages);
    let distinct: HashSet<String> = ids(&messages).into_iter().collect();
    assert_eq!((distinct.len(), messages.len()), (6 * EACH, 6 * EACH));
}

async fn a_leader_that_was_stopped_and_goes_on_publishes_nothing_before_it_leads_again(
    db: &TestDatabase,
) {
    let settings = queues::unique().await;
    let core = Core::all(&settings).await;
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let relay = Relay::start_by(&db.store, &settings, Arc::clone(&clock) as Arc<dyn Clock>);
    publish(&db.store, &[numbered("ed_1", 0)]).await;
    assert_eq!(ids(&core.take(1).await), ["ed_1/0"]);
    until_empty(&db.store).await;
    assert_eq!(db.count("lease where fence = 1").await, 1);
    // As after a SIGSTOP: no timer of the process has run out yet.
    clock.advance(Duration::from_hours(1));
    publish(&db.store, &[numbered("ed_1", 1)]).await;
    assert_eq!(ids(&core.take(1).await), ["ed_1/1"]);
    assert_eq!(db.count("lease where fence > 1").await, 1);
    relay.stop().await;
}
