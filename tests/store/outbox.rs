//! The outbox: what is appended is kept in order, read by the leader only, and gone once confirmed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::event::Event;
use forge_dispatch::store::{
    AcceptOutcome, Lease, LeaseName, Outgoing, OutgoingRequest, Standing, Store,
};
use forge_dispatch::wake::Wake;
use futures::FutureExt;
use tokio::task::JoinHandle;

use super::fixture::{accept, for_long, for_no_time, owner, subscribe};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{EventBuilder, event};

on_both_databases!(
    nothing_is_kept_before_the_outbox_is_opened,
    what_is_appended_is_read_in_order_and_rings_the_bell,
    a_batch_is_bounded_by_number_and_by_bytes,
    what_failed_is_left_out_and_the_rest_of_its_edition_with_it,
    what_is_confirmed_is_gone_and_the_rest_stays,
    who_was_deposed_reads_and_deletes_nothing,
    an_event_of_our_own_that_comes_back_is_a_duplicate,
    events_of_one_edition_are_seen_in_their_order_however_many_write,
);

fn about(edition: &str) -> EventBuilder {
    event().data(&format!(r#"{{"edition_id":"{edition}"}}"#))
}

async fn publish(store: &Arc<dyn Store>, events: &[EventBuilder]) {
    let events: Vec<Event> = events
        .iter()
        .map(|event| event.build().event().clone())
        .collect();
    store.publish(&events).await.unwrap();
}

fn open(store: &Arc<dyn Store>) -> Arc<Wake> {
    let bell = Arc::new(Wake::default());
    store.open_outbox(Arc::clone(&bell));
    bell
}

async fn lead(store: &Arc<dyn Store>) -> Lease {
    let taken = store.take_lease(LeaseName::OUTBOX, for_long(owner())).await;
    taken.unwrap().expect("nobody else leads")
}

fn request(limit: usize) -> OutgoingRequest<'static> {
    OutgoingRequest {
        limit,
        max_bytes: usize::MAX,
        failed: &[],
    }
}

async fn read(store: &Arc<dyn Store>, held: &Lease) -> Vec<Outgoing> {
    let read = store.outgoing(held, request(1_000)).await.unwrap();
    read.expect("it leads")
}

fn ids(events: &[Outgoing]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event.message_id.as_str())
        .collect()
}

async fn nothing_is_kept_before_the_outbox_is_opened(db: &TestDatabase) {
    publish(&db.store, &[about("ed_1")]).await;
    assert_eq!(db.count("outbox").await, 0);
    assert_eq!(db.count("event_key").await, 0);
}

async fn what_is_appended_is_read_in_order_and_rings_the_bell(db: &TestDatabase) {
    let bell = open(&db.store);
    let first = about("ed_1").id("a").event_type("edition.changed");
    publish(&db.store, &[first, event().id("b").workspace("ws_2")]).await;
    assert!(bell.rung().now_or_never().is_some());
    publish(&db.store, &[about("ed_1").id("c")]).await;
    publish(&db.store, &[]).await;

    let held = lead(&db.store).await;
    let events = read(&db.store, &held).await;
    assert_eq!(ids(&events), ["a", "b", "c"]);
    assert!(events.is_sorted_by(|one, next| one.seq < next.seq));
    let keys: Vec<_> = events
        .iter()
        .map(|event| {
            let key = event.key.as_ref().map(ToString::to_string);
            (event.workspace.to_string(), key, event.event_type.as_str())
        })
        .collect();
    let edition = || Some("ed_1".to_owned());
    assert_eq!(
        keys,
        [
            ("default".to_owned(), edition(), "edition.changed"),
            ("ws_2".to_owned(), None, "edition.archived"),
            ("default".to_owned(), edition(), "edition.archived"),
        ]
    );
    let body: serde_json::Value = serde_json::from_str(&events[0].body).unwrap();
    assert_eq!(body["id"], "a");
}

async fn a_batch_is_bounded_by_number_and_by_bytes(db: &TestDatabase) {
    open(&db.store);
    let events: Vec<_> = (0..5)
        .map(|number| event().id(&number.to_string()))
        .collect();
    let bytes = events[0].text().len();
    publish(&db.store, &events).await;
    let held = lead(&db.store).await;
    let read = async |limit, max_bytes| {
        let request = OutgoingRequest {
            max_bytes,
            ..request(limit)
        };
        let read = db.store.outgoing(&held, request).await.unwrap();
        read.expect("it leads").len()
    };
    assert_eq!(read(3, usize::MAX).await, 3);
    assert_eq!(read(10, 2 * bytes).await, 2);
    assert_eq!(read(10, 1).await, 1, "however large it is");
}

async fn what_failed_is_left_out_and_the_rest_of_its_edition_with_it(db: &TestDatabase) {
    open(&db.store);
    let events = [
        about("ed_1").id("a"),
        event().id("b"),
        about("ed_1").id("c"),
        about("ed_2").id("d"),
        about("ed_1").id("e").workspace("ws_2"),
        event().id("f"),
    ];
    publish(&db.store, &events).await;
    let held = lead(&db.store).await;
    let all = read(&db.store, &held).await;
    let failed = [all[0].seq, all[1].seq];
    let request = OutgoingRequest {
        failed: &failed,
        ..request(100)
    };
    let rest = db.store.outgoing(&held, request).await.unwrap().unwrap();
    assert_eq!(ids(&rest), ["d", "e", "f"]);
}

async fn what_is_confirmed_is_gone_and_the_rest_stays(db: &TestDatabase) {
    open(&db.store);
    publish(&db.store, &["a", "b", "c"].map(|id| event().id(id))).await;
    let held = lead(&db.store).await;
    let all = read(&db.store, &held).await;
    let confirmed = [all[0].seq, all[2].seq];
    for _ in 0..2 {
        let standing = db.store.confirm_outgoing(&held, &confirmed).await.unwrap();
        assert_eq!(standing, Standing::Leads);
    }
    assert_eq!(ids(&read(&db.store, &held).await), ["b"]);
    let depth = db.store.outbox_depth().await.unwrap();
    assert_eq!(depth.waiting, 1);
    assert!(depth.oldest.unwrap() < Duration::from_hours(1));

    let standing = db.store.confirm_outgoing(&held, &[all[1].seq]).await;
    assert_eq!(standing.unwrap(), Standing::Leads);
    let depth = db.store.outbox_depth().await.unwrap();
    assert_eq!((depth.waiting, depth.oldest), (0, None));
    // A place is never given twice.
    publish(&db.store, &[event()]).await;
    assert!(read(&db.store, &held).await[0].seq > all[2].seq);
}

async fn who_was_deposed_reads_and_deletes_nothing(db: &TestDatabase) {
    open(&db.store);
    publish(&db.store, &[event()]).await;
    let brief = for_no_time(owner());
    let first = db.store.take_lease(LeaseName::OUTBOX, brief).await;
    let first = first.unwrap().expect("nobody leads yet");
    let late = db.store.outgoing(&first, request(10)).await.unwrap();
    assert_eq!(late, None, "its time is over");

    let second = lead(&db.replica).await;
    let seqs: Vec<i64> = read(&db.replica, &second)
        .await
        .iter()
        .map(|event| event.seq)
        .collect();
    assert_eq!(db.store.outgoing(&first, request(10)).await.unwrap(), None);
    let standing = db.store.confirm_outgoing(&first, &seqs).await.unwrap();
    assert_eq!(standing, Standing::Deposed);
    assert_eq!(read(&db.replica, &second).await.len(), 1);
}

async fn an_event_of_our_own_that_comes_back_is_a_duplicate(db: &TestDatabase) {
    open(&db.store);
    subscribe(&db.store, &["*"]).await;
    publish(&db.store, &[about("ed_1").id("ours")]).await;
    // As it comes over the broker: under another id of ours.
    let accepted = accept(&db.replica, &[about("ed_1").id("ours").build()]).await;
    assert_eq!(accepted.outcomes, [AcceptOutcome::Duplicate]);
    assert_eq!(accepted.pending, 0);
    assert_eq!(db.count("event").await, 0);
}

async fn events_of_one_edition_are_seen_in_their_order_however_many_write(db: &TestDatabase) {
    const WRITERS: usize = 8;
    const EACH: usize = 60;
    open(&db.store);
    open(&db.replica);
    let writers: Vec<JoinHandle<()>> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(if writer % 2 == 0 {
                &db.store
            } else {
                &db.replica
            });
            tokio::spawn(async move {
                for _ in 0..EACH {
                    publish(&store, &[about("ed_1"), about("ed_2"), event()]).await;
                }
            })
        })
        .collect();
    let held = lead(&db.store).await;
    let mut last: HashMap<String, i64> = HashMap::new();
    let mut seen = 0;
    loop {
        // Looked at before reading: what was written by then is read.
        let all_written = writers.iter().all(JoinHandle::is_finished);
        let events = read(&db.store, &held).await;
        if events.is_empty() && all_written {
            break;
        }
        for event in &events {
            let Some(key) = &event.key else { continue };
            let before = last.insert(key.to_string(), event.seq);
            assert!(before < Some(event.seq), "{before:?} before {}", event.seq);
        }
        let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
        let standing = db.store.confirm_outgoing(&held, &seqs).await.unwrap();
        assert_eq!(standing, Standing::Leads);
        seen += events.len();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen, WRITERS * EACH * 3);
}
