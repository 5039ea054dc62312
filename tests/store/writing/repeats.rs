//! Requests that come twice.

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::ids::{ApiKeyId, EditionId};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Edit, NewEdition, Result, Written};
use secrecy::ExposeSecret;
use sqlx::{Connection, Executor};

use super::{Ask, ask, costs, counts, draft, edit, head, row, row_id, rows, summary, values_of};
use crate::harness::databases::{Kind, TestDatabase};
use crate::store::state::{blueprint_id, edition_as, output_id, tell};

on_both_databases!(
    an_edit_that_is_repeated_is_answered_the_same_and_done_once,
    what_a_request_was_answered_can_be_asked_for,
    making_and_handing_in_are_done_once_too,
    a_key_says_one_thing_only,
    a_request_that_is_refused_leaves_its_key_unused,
    an_edit_that_changes_nothing_is_answered_the_same_too,
    a_key_of_yesterday_is_forgotten_with_its_answer,
    of_requests_at_once_with_one_key_one_is_done,
);

fn caller() -> ApiKeyId {
    Entropy::system().id(SystemClock.now())
}

/// The answer, and the version.
fn done(written: Result<Written>) -> (String, i64) {
    match written.unwrap() {
        Written::Done { answer, version } => (answer, version),
        other => panic!("it was not written: {other:?}"),
    }
}

fn append(id: &str) -> Edit {
    Edit::AppendRows(vec![row(id, "{}")])
}

async fn an_edit_that_is_repeated_is_answered_the_same_and_done_once(db: &TestDatabase) {
    draft(db).await;
    let ask = ask().once(caller(), "k \u{e9} '1'", 7);
    let first = done(ask.edit(&db.store, &costs(), &append("a")).await);
    assert_eq!(first.1, 2);
    // Another write comes between, and then none is possible any more.
    edit(&db.store, &costs(), &append("b")).await;
    let closed = edition_as("ed_1", 9, |state| {
        state.edition.status = forge_dispatch::domain::edition::EditionStatus::Closed;
    });
    tell(&db.store, &[closed]).await;
    let before = (head(&db.store).await, counts(db).await);
    for store in [&db.store, &db.replica] {
        let again = done(ask.edit(store, &costs(), &append("a")).await);
        assert_eq!(again, first);
    }
    assert_eq!((head(&db.store).await, counts(db).await), before);
}

async fn what_a_request_was_answered_can_be_asked_for(db: &TestDatabase) {
    draft(db).await;
    let (caller, other) = (caller(), caller());
    let once = |caller, body| ask().once(caller, "k", body);
    let answered = async |ask: &Ask| {
        let found = db
            .replica
            .answered(&ask.reach.workspace, ask.once.as_ref().unwrap());
        found.await.unwrap()
    };
    assert!(
        answered(&once(caller, 7)).await.is_none(),
        "nothing was asked"
    );
    let first = done(
        once(caller, 7)
            .edit(&db.store, &costs(), &append("a"))
            .await,
    );
    let found = answered(&once(caller, 7)).await.unwrap();
    assert_eq!(done(Ok(found)), first);
    let found = answered(&once(caller, 8)).await;
    assert!(matches!(found, Some(Written::Conflicting)), "{found:?}");
    assert!(
        answered(&once(other, 7)).await.is_none(),
        "of another caller"
    );
}

async fn making_and_handing_in_are_done_once_too(db: &TestDatabase) {
    draft(db).await;
    let ask = ask().once(caller(), "submit", 7);
    let first = done(ask.submit(&db.store).await);
    let before = (head(&db.store).await, counts(db).await);
    assert_eq!(done(ask.submit(&db.replica).await), first);
    assert_eq!((head(&db.store).await, counts(db).await), before);

    let new = |id: &str| NewEdition {
        id: EditionId::new(id).unwrap(),
        blueprint: blueprint_id("bp_1"),
        name: "New".to_owned(),
        period: None,
        outputs: vec![output_id(&format!("out of {id}"))],
    };
    let ask = ask.once(caller(), "create", 7);
    let first = done(ask.create(&db.store, &new("ed_a")).await);
    // The second request makes ids of its own.
    assert_eq!(done(ask.create(&db.replica, &new("ed_b")).await), first);
    assert!(first.0.starts_with("ed_a v1 "), "{first:?}");
    assert_eq!(db.count("edition").await, 2);
    assert_eq!(db.count("output").await, 1);
}

async fn a_key_says_one_thing_only(db: &TestDatabase) {
    draft(db).await;
    let (one, another) = (caller(), caller());
    let first = done(
        ask()
            .once(one, "k", 7)
            .edit(&db.store, &costs(), &append("a"))
            .await,
    );
    let other = ask()
        .once(one, "k", 8)
        .edit(&db.replica, &costs(), &append("b"))
        .await
        .unwrap();
    assert!(matches!(other, Written::Conflicting), "{other:?}");
    let of_another = ask()
        .once(another, "k", 8)
        .edit(&db.replica, &costs(), &append("b"))
        .await;
    assert_eq!(done(of_another).1, first.1 + 1);
    assert_eq!(rows(&db.store).await.len(), 5);
}

async fn a_request_that_is_refused_leaves_its_key_unused(db: &TestDatabase) {
    draft(db).await;
    let ask = ask().once(caller(), "k", 7);
    let refused = ask.edit(&db.store, &costs(), &append("r0")).await.unwrap();
    assert!(matches!(refused, Written::Invalid(_)), "{refused:?}");
    let refused = ask
        .edit(&db.store, &costs(), &Edit::DeleteRow(row_id("x")))
        .await
        .unwrap();
    assert!(matches!(refused, Written::NotFound), "{refused:?}");
    assert_eq!(db.count("idempotency_key").await, 0);
    assert_eq!(done(ask.edit(&db.store, &costs(), &append("a")).await).1, 2);
}

async fn an_edit_that_changes_nothing_is_answered_the_same_too(db: &TestDatabase) {
    draft(db).await;
    let ask = ask().once(caller(), "k", 7);
    let nothing = Edit::SetValues(values_of("{}"));
    let first = done(ask.edit(&db.store, &summary(), &nothing).await);
    assert_eq!(first.1, 1);
    edit(&db.store, &costs(), &append("b")).await;
    let again = done(ask.edit(&db.replica, &summary(), &nothing).await);
    assert_eq!(again, first);
}

async fn a_key_of_yesterday_is_forgotten_with_its_answer(db: &TestDatabase) {
    draft(db).await;
    let caller = caller();
    let first = ask().once(caller, "k", 7);
    done(first.edit(&db.store, &costs(), &append("a")).await);
    db.tamper(match db.kind {
        Kind::Sqlite => "update idempotency_key set created_at = created_at - 86400001",
        Kind::Postgres => {
            "update idempotency_key set created_at = created_at - interval '86400001 milliseconds'"
        }
    })
    .await;
    let second = ask().once(caller, "k", 8);
    let answer = done(second.edit(&db.store, &costs(), &append("b")).await);
    assert_eq!(answer.1, 3);
    let again = second.edit(&db.replica, &costs(), &append("b")).await;
    assert_eq!(done(again), answer);
}

async fn of_requests_at_once_with_one_key_one_is_done(db: &TestDatabase) {
    draft(db).await;
    let caller = caller();
    for round in 0..10 {
        let ask = ask().once(caller, &round.to_string(), 7);
        let requests: Vec<_> = [&db.store, &db.replica, &db.store, &db.replica]
            .into_iter()
            .map(|store| {
                let (store, ask) = (std::sync::Arc::clone(store), ask.clone());
                let append = append(&format!("round {round}"));
                tokio::spawn(async move { done(ask.edit(&store, &costs(), &append).await) })
            })
            .collect();
        for request in requests {
            let (answer, version) = request.await.unwrap();
            assert_eq!(version, round + 2);
            assert!(answer.starts_with(&format!("ed_1 v{version} ")), "{answer}");
        }
    }
    assert_eq!(rows(&db.store).await.len(), 13);
    assert_eq!(db.count("outbox").await, 10);
}

/// (`SQLite` has one writer: whoever waits for it is in line with all others.)
#[tokio::test]
async fn who_waits_too_long_for_an_earlier_request_on_postgres_is_told_that_it_runs() {
    let db = TestDatabase::new(Kind::Postgres).await;
    draft(&db).await;
    let caller = caller();
    let ask = ask().once(caller, "k", 7);
    let mut other = sqlx::PgConnection::connect(db.url().expose_secret())
        .await
        .unwrap();
    let mut running = other.begin().await.unwrap();
    running
        .execute(
            sqlx::query(
                "insert into idempotency_key (workspace, caller, route, key, fingerprint, object)
                values ('default', $1, $2, 'k', $3, 'ed_1')",
            )
            .bind(caller.uuid())
            .bind(ask.once.as_ref().unwrap().route)
            .bind([7_u8; 32].as_slice()),
        )
        .await
        .unwrap();
    let told = ask.edit(&db.store, &costs(), &append("a")).await.unwrap();
    assert!(matches!(told, Written::Running), "{told:?}");
    running.rollback().await.unwrap();
    let written = ask.edit(&db.store, &costs(), &append("a")).await;
    assert_eq!(done(written).1, 2);
    drop(other);
    db.remove().await;
}
