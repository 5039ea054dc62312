//! Who writes what editions hold, and who moves their status meanwhile.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::edition::EditionStatus;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{AcceptOutcome, Applied, Edit, Store, StoreError, Written};
use futures::future::join_all;

use super::fixture::accept;
use super::postgres_editions::tell_of_no_deadlock;
use super::state::{
    apply, at, edition, edition_as, edition_id, project_id, repeating, single, stated, tell, told,
};
use super::writing::{ask, costs, draft, everything, head, row, rows, summary, values_of, version};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::EventBuilder;
use crate::harness::gate::Gate;

on_both_databases!(edits_submits_events_and_snapshots_never_lock_each_other_out,);

/// Writing rows stops at the first.
async fn rows_shut(db: &TestDatabase) -> Gate {
    Gate::before(db, "insert on edition_row", "0").await
}

async fn status(store: &Arc<dyn Store>, edition: &str) -> Option<EditionStatus> {
    let found = store.edition(&everything(), &edition_id(edition)).await;
    found.unwrap().map(|found| found.edition.status)
}

fn status_of(word: &str) -> Option<EditionStatus> {
    EditionStatus::parse(word)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_does_not_wait_for_the_large_state_of_its_edition() {
    let db = TestDatabase::new(Kind::Postgres).await;
    draft(&db).await;
    let mut gate = rows_shut(&db).await;
    let large = [
        edition_as("ed_1", 5, |state| {
            state.content = vec![repeating("costs", 3, "new")];
        }),
        // Neither it nor its project were heard of before.
        edition_as("ed_2", 1, |state| {
            state.edition.project = project_id("pr_2");
            state.content = vec![repeating("costs", 3, "new")];
        }),
    ];
    let store = Arc::clone(&db.replica);
    let applying = tokio::spawn(async move { apply(&store, &large).await });
    gate.until_waiting(1).await;
    let events = [
        told("approved", "ed_1", at(9)).build(),
        told("submitted", "ed_2", at(9)).project("pr_2").build(),
    ];
    let accepted = accept(&db.store, &events).await;
    assert_eq!(accepted.outcomes, [AcceptOutcome::Stored; 2]);
    assert_eq!(status(&db.store, "ed_1").await, status_of("approved"));
    assert_eq!(head(&db.store).await.edition.version, 1);
    assert_eq!(status(&db.store, "ed_2").await, None);
    gate.open().await;
    assert_eq!(applying.await.unwrap(), [Applied::Changed; 2]);
    assert_eq!(head(&db.store).await.edition.version, 5);
    assert_eq!(status(&db.store, "ed_1").await, status_of("approved"));
    assert_eq!(status(&db.store, "ed_2").await, status_of("submitted"));
    db.remove().await;
}

/// An edit of `ed_1` by a client that knows its version 1.
fn put(store: &Arc<dyn Store>, id: &'static str) -> tokio::task::JoinHandle<Outcome> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let mut client = ask();
        client.versions = Some(vec![1]);
        let edit = Edit::PutRows(vec![row(id, "{}")]);
        client.edit(&store, &costs(), &edit).await
    })
}

type Outcome = forge_dispatch::store::Result<Written>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_does_not_wait_for_a_put_which_goes_by_the_status_since_then() {
    let db = TestDatabase::new(Kind::Postgres).await;
    draft(&db).await;
    let before = rows(&db.store).await;
    let mut gate = rows_shut(&db).await;
    let put = async |event, gate: &mut Gate| {
        let first = put(&db.store, "first");
        gate.until_waiting(1).await;
        // The second waits for the first, and knows only then what version there is.
        let second = put(&db.replica, "second");
        gate.until_waiting(2).await;
        accept(&db.replica, &[event]).await;
        gate.open().await;
        let outcomes = (first.await.unwrap(), second.await.unwrap());
        gate.shut().await;
        outcomes
    };

    let closing = told("approved", "ed_1", at(8)).build();
    let (first, second) = put(closing, &mut gate).await;
    for closed in [first, second] {
        assert!(
            matches!(&closed, Ok(Written::NotOpen(status)) if status.as_str() == "approved"),
            "{closed:?}"
        );
    }
    assert_eq!(rows(&db.store).await, before);

    let opening = told("changes_requested", "ed_1", at(9)).build();
    accept(&db.store, &[opening]).await;
    let harmless = told("changes_requested", "ed_1", at(10)).build();
    let (first, second) = put(harmless, &mut gate).await;
    assert_eq!(version(first), 2);
    assert!(matches!(second, Err(StoreError::Stale)), "{second:?}");
    let after = head(&db.store).await.edition;
    assert_eq!(
        (after.status.as_str(), after.status_changed_at),
        ("changes_requested", at(10))
    );
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_waits_for_the_answer_of_an_edit_to_be_kept() {
    let db = TestDatabase::new(Kind::Postgres).await;
    draft(&db).await;
    let mut gate = Gate::before(&db, "update on idempotency_key", "0").await;
    let store = Arc::clone(&db.store);
    let putting = tokio::spawn(async move {
        let caller = Entropy::system().id(SystemClock.now());
        let client = ask().once(caller, "key", 1);
        let edit = Edit::PutRows(vec![row("first", "{}")]);
        client.edit(&store, &costs(), &edit).await
    });
    gate.until_waiting(1).await;
    // All that change editions have one clock.
    tell(&db.replica, &[edition("ed_2", 1)]).await;
    gate.open().await;
    assert_eq!(version(putting.await.unwrap()), 2);
    db.remove().await;
}

/// The editions of the churn.
const EDITIONS: [&str; 4] = ["ed_1", "ed_2", "ed_3", "ed_4"];

/// Later than anything that a client hands in, and later in each round.
fn ahead(round: i64) -> DateTime<Utc> {
    const YEAR_2200: i64 = 7_258_118_400;
    DateTime::from_timestamp(YEAR_2200 + round, 0).unwrap()
}

/// What the core says of all of them in a round, and of one that is new to everybody.
async fn core(store: &Arc<dyn Store>, round: i64, turn: usize) {
    let new = format!("ed_new_{round}");
    let mut snapshots: Vec<_> = EDITIONS
        .into_iter()
        .chain([&*new])
        .map(|id| {
            edition_as(id, 1_000 * round, |state| {
                stated("changes_requested", ahead(round))(state);
                state.content = vec![
                    single("summary", r#"{"total": 1.50}"#),
                    repeating("costs", 5, &format!("v{round}")),
                ];
            })
        })
        .collect();
    snapshots.rotate_left(turn % EDITIONS.len());
    apply(store, &snapshots).await;
}

/// Only the last one is closed by them, so that there is something to write to.
async fn events(store: &Arc<dyn Store>, round: i64, turn: usize) {
    let new = format!("ed_new_{round}");
    let [open @ .., closed] = EDITIONS;
    let opened = open.map(|id| told("changes_requested", id, ahead(round)));
    let closed = [&*new, closed].map(|id| told("approved", id, ahead(round)));
    let mut events: Vec<_> = opened
        .iter()
        .chain(&closed)
        .map(EventBuilder::build)
        .collect();
    events.rotate_left(turn % EDITIONS.len());
    accept(store, &events).await;
}

/// Each edition is written to and handed in; it may be closed at that moment.
async fn client(store: &Arc<dyn Store>, round: i64, turn: usize) -> usize {
    let mut written = 0;
    for step in 0..EDITIONS.len() {
        let edition = EDITIONS[(turn + step) % EDITIONS.len()];
        let new = vec![row(&format!("{round}/{turn}"), "{}")];
        let outcomes = [
            ask()
                .edit_of(store, edition, &costs(), &Edit::PutRows(new))
                .await,
            ask()
                .edit_of(
                    store,
                    edition,
                    &summary(),
                    &Edit::SetValues(values_of(&format!(r#"{{"total":{round}}}"#))),
                )
                .await,
            ask().submit_of(store, edition).await,
        ];
        for outcome in outcomes {
            match outcome.unwrap() {
                Written::Done { .. } => written += 1,
                Written::NotOpen(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    written
}

async fn edits_submits_events_and_snapshots_never_lock_each_other_out(db: &TestDatabase) {
    const ROUNDS: i64 = 12;
    draft(db).await;
    let others: Vec<_> = EDITIONS[1..].iter().map(|id| edition(id, 1)).collect();
    tell(&db.store, &others).await;
    let tasks = (0..6_usize).map(|number| {
        let store = Arc::clone([&db.store, &db.replica][number % 2]);
        tokio::spawn(async move {
            let mut written = 0;
            for round in 1..=ROUNDS {
                match number {
                    0 | 1 => core(&store, round, number).await,
                    2 | 3 => events(&store, round, number).await,
                    _ => written += client(&store, round, number).await,
                }
            }
            written
        })
    });
    let mut written = 0;
    for task in join_all(tasks).await {
        written += task.unwrap();
    }
    assert!(written > 0, "it was closed to every write");
    if db.kind == Kind::Postgres {
        tell_of_no_deadlock(db).await;
    }
}
