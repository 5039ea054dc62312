//! Editions that are handed in.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::store::intake::{Intake, Permit};
use forge_dispatch::store::targets::Target;
use forge_dispatch::store::{
    AcceptOutcome, Edit, LeaseName, LeasedDelivery, OutgoingRequest, Store, Written,
};
use serde_json::json;

use super::{ask, counts, draft, edit, everything, head, outbox, summary, values_of, version};
use crate::harness::databases::TestDatabase;
use crate::store::fixture::{accept, deliveries, for_long, owner, subscribe};
use crate::store::state::{at, edition, edition_as, repeating, single, stated, tell};

on_both_databases!(
    an_edition_is_handed_in_and_told_of,
    it_goes_to_subscribers_at_once,
    its_event_is_known_when_it_comes_back,
    its_event_moves_nothing_a_second_time_and_is_remembered,
    what_is_missing_is_told_and_nothing_is_handed_in,
    a_clock_behind_the_cores_hands_in_all_the_same,
);

/// A dispatcher that keeps what it is handed.
#[derive(Default)]
struct Dispatcher {
    admits: bool,
    handed: Mutex<Vec<LeasedDelivery>>,
    left: Mutex<usize>,
}

impl Intake for Dispatcher {
    fn admit(&self, _target: &Target, _bytes: usize) -> Option<Permit> {
        self.admits.then(|| Permit::new(()))
    }

    fn hand_over(&self, leased: Vec<(LeasedDelivery, Permit)>) {
        let leased = leased.into_iter().map(|(delivery, _)| delivery);
        self.handed.lock().unwrap().extend(leased);
    }

    fn left_waiting(&self, of: &[SubscriptionId]) {
        *self.left.lock().unwrap() += of.len();
    }

    fn something_is_due(&self) {}
}

async fn an_edition_is_handed_in_and_told_of(db: &TestDatabase) {
    draft(db).await;
    let before = head(&db.store).await;
    assert_eq!(version(ask().submit(&db.store).await), 2);
    let after = head(&db.replica).await;
    assert_eq!(after.edition.status.as_str(), "submitted");
    assert!(after.edition.status_changed_at > before.edition.status_changed_at);
    assert_eq!(after.edition.version, 2);
    assert_eq!(after.revision, before.revision + 1, "it changed once");
    assert!(after.edition.updated_at > before.edition.updated_at);
    let data = json!({
        "edition_id": "ed_1", "blueprint_id": "bp_1", "project_id": "pr_1", "version": 2,
    });
    let expected = [("edition.submitted".to_owned(), data)];
    assert_eq!(outbox(&db.store).await, expected);
    assert_eq!(db.feed(&WorkspaceId::default()).await.len(), 1);

    let again = ask().submit(&db.store).await.unwrap();
    assert!(matches!(again, Written::NotOpen(_)), "{again:?}");
    assert_eq!(outbox(&db.store).await, expected);
    assert_eq!(head(&db.store).await, after);
}

async fn it_goes_to_subscribers_at_once(db: &TestDatabase) {
    draft(db).await;
    subscribe(&db.store, &["edition.submitted"]).await;
    subscribe(&db.store, &["edition.approved"]).await;
    let ready = Dispatcher {
        admits: true,
        ..Dispatcher::default()
    };
    version(ask().submit_to(&db.store, &ready).await);
    let handed = std::mem::take(&mut *ready.handed.lock().unwrap());
    assert_eq!((handed.len(), *ready.left.lock().unwrap()), (1, 0));
    let event = handed[0].payload.event();
    assert_eq!(event.event_type.as_str(), "edition.submitted");
    let feed = db.feed(&event.workspace).await;
    assert_eq!(
        feed.iter().map(|(_, id)| *id).collect::<Vec<_>>(),
        [event.id]
    );
    let made = deliveries(&db.replica, &event.workspace).await;
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].id, made[0].event_id), (handed[0].id, event.id));

    // With no room for it, it waits for anybody.
    let later = head(&db.store).await.edition.status_changed_at + TimeDelta::seconds(1);
    let returned = edition_as("ed_1", 9, stated("changes_requested", later));
    tell(&db.store, &[returned]).await;
    let set = Edit::SetValues(values_of(r#"{"total":1}"#));
    edit(&db.store, &summary(), &set).await;
    let busy = Dispatcher::default();
    version(ask().submit_to(&db.store, &busy).await);
    assert_eq!(busy.handed.lock().unwrap().len(), 0);
    assert_eq!(*busy.left.lock().unwrap(), 1);
    assert_eq!(db.count("delivery_queue where owner is null").await, 1);
}

/// What goes to the broker of the submission, as it comes back from there.
async fn echo(store: &Arc<dyn Store>) -> Arc<Payload> {
    let held = store
        .take_lease(LeaseName::OUTBOX, for_long(owner()))
        .await
        .unwrap()
        .unwrap();
    let request = OutgoingRequest {
        limit: 9,
        max_bytes: usize::MAX,
        failed: &[],
    };
    let events = store.outgoing(&held, request).await.unwrap().unwrap();
    store.release_lease(&held).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!(last.event_type.as_str(), "edition.submitted");
    let id = crate::harness::events::event().build().event().id;
    let payload = Payload::decode(last.body.as_bytes(), id, at(0)).unwrap();
    assert_eq!(payload.event().external_id, last.message_id);
    Arc::new(payload)
}

async fn its_event_is_known_when_it_comes_back(db: &TestDatabase) {
    draft(db).await;
    subscribe(&db.store, &["*"]).await;
    version(ask().submit(&db.store).await);
    let before = (head(&db.store).await, counts(db).await);
    let accepted = accept(&db.replica, &[echo(&db.store).await]).await;
    assert_eq!(accepted.outcomes, [AcceptOutcome::Duplicate]);
    assert_eq!(accepted.pending, 0);
    assert_eq!((head(&db.store).await, counts(db).await), before);
    assert_eq!(before.1[..3], [1, 1, 1]);
}

async fn its_event_moves_nothing_a_second_time_and_is_remembered(db: &TestDatabase) {
    draft(db).await;
    version(ask().submit(&db.store).await);
    // A snapshot of before, with a greater version: the core did not know of the submission yet.
    let renamed = edition_as("ed_1", 9, stated("draft", at(1)));
    tell(&db.store, &[renamed]).await;
    let after = head(&db.replica).await.edition;
    assert_eq!((after.status.as_str(), after.version), ("submitted", 9));
    let closed = after.status_changed_at + TimeDelta::seconds(1);
    tell(
        &db.store,
        &[edition_as("ed_1", 10, stated("closed", closed))],
    )
    .await;
    assert_eq!(head(&db.replica).await.edition.status.as_str(), "closed");
}

async fn what_is_missing_is_told_and_nothing_is_handed_in(db: &TestDatabase) {
    draft(db).await;
    subscribe(&db.store, &["*"]).await;
    for (version, content) in [
        (2, vec![single("summary", r#"{"done":true}"#)]),
        (3, vec![single("summary", r#"{"total":null}"#)]),
        (4, vec![repeating("costs", 2, "x")]),
        // By an earlier blueprint it had rows.
        (5, vec![repeating("summary", 0, "x")]),
        (6, vec![repeating("summary", 2, "x")]),
    ] {
        let incomplete = edition_as("ed_1", version, |state| state.content = content);
        tell(&db.store, &[incomplete]).await;
        let before = (head(&db.store).await, counts(db).await);
        let refused = ask().submit(&db.store).await.unwrap();
        let Written::Invalid(faults) = refused else {
            panic!("{version}: {refused:?}")
        };
        let told: Vec<_> = faults
            .told()
            .iter()
            .map(|one| one.place.to_string())
            .collect();
        assert_eq!(told, ["/sections/summary/values/total"], "{version}");
        assert_eq!((head(&db.store).await, counts(db).await), before);
    }
    let set = Edit::SetValues(values_of(r#"{"total":1}"#));
    edit(&db.store, &summary(), &set).await;
    assert_eq!(version(ask().submit(&db.store).await), 8);
}

async fn a_clock_behind_the_cores_hands_in_all_the_same(db: &TestDatabase) {
    draft(db).await;
    let later = head(&db.store).await.edition.updated_at + TimeDelta::hours(1);
    let ahead = edition_as("ed_1", 2, |state| {
        stated("changes_requested", later)(state);
        state.content = vec![single("summary", r#"{"total":1}"#)];
    });
    tell(&db.store, &[ahead]).await;
    assert_eq!(version(ask().submit(&db.store).await), 3);
    let after = head(&db.replica).await;
    assert_eq!(after.edition.status.as_str(), "submitted");
    assert_eq!(after.edition.status_changed_at, later);
    tell(&db.store, &[edition("ed_1", 4)]).await;
    let after = db.store.edition(&everything(), &after.edition.id).await;
    assert_eq!(after.unwrap().unwrap().edition.status.as_str(), "submitted");
}
