//! What only Postgres has to be asked of edition data.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::edition::EditionStatus;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{Applied, EditionFilter, PageRequest};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};

use super::fixture::accept;
use super::polling::churn;
use super::state::{
    apply, at, blueprint_id, edition, edition_as, edition_id, project_id, repeating, single, tell,
    told, workspace_state,
};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::reach;
use crate::harness::eventually;

/// A large snapshot may hold its edition for longer than the three seconds that a statement waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_too_long_for_an_edition_tries_again() {
    let db = TestDatabase::new(Kind::Postgres).await;
    tell(&db.store, &[edition("ed_1", 1)]).await;
    let mut holder = PgConnection::connect(db.url().expose_secret())
        .await
        .unwrap();
    sqlx::raw_sql("begin; select 1 from edition where id = 'ed_1' for update")
        .execute(&mut holder)
        .await
        .unwrap();
    let store = Arc::clone(&db.store);
    let telling = tokio::spawn(async move { tell(&store, &[edition("ed_1", 2)]).await });
    // Of a transaction that began when the first one had given up.
    let again = "pg_stat_activity as waiting
        join pg_stat_activity as holder using (datname)
        where datname = current_database() and waiting.wait_event_type = 'Lock'
          and holder.state = 'idle in transaction'
          and waiting.xact_start > holder.xact_start + interval '3 seconds'";
    eventually(
        Duration::from_secs(20),
        "a second transaction waits",
        async || db.count(again).await == 1,
    )
    .await;
    holder.close().await.unwrap();
    telling.await.unwrap();
    let tag = db
        .store
        .edition_tag(&Reach::all(&WorkspaceId::default()), &edition_id("ed_1"))
        .await;
    assert_eq!(tag.unwrap().unwrap().version, 2);
    db.remove().await;
}

/// Closes the store, and waits until its connections have told what they counted.
async fn tell_statistics(db: &TestDatabase) {
    db.store.close().await;
    db.replica.close().await;
    let open = "pg_stat_activity
        where datname = current_database() and application_name = 'forge-dispatch'";
    eventually(
        Duration::from_secs(20),
        "no connection is left",
        async || db.count(open).await == 0,
    )
    .await;
}

/// Closes the store, whose transactions never locked each other out. (They would have been run again,
/// and nobody else sees anything of it.)
pub(super) async fn tell_of_no_deadlock(db: &TestDatabase) {
    tell_statistics(db).await;
    let deadlocks = "pg_stat_database where datname = current_database() and deadlocks > 0";
    assert_eq!(db.count(deadlocks).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_write_the_same_entities_never_lock_each_other_out() {
    let db = TestDatabase::new(Kind::Postgres).await;
    churn(&db).await;
    tell_of_no_deadlock(&db).await;
    db.remove().await;
}

#[tokio::test]
async fn what_postgres_cannot_keep_is_refused_and_the_rest_is_not() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let poison = [
        edition_as("ed_2", 1, |state| state.edition.name = "a\0b".to_owned()),
        edition_as("ed_2", 1, |state| {
            // More than an index takes, also when it is compressed.
            let noise = (0..9_000_u32).map(|n| char::from_u32(0x4e00 + n * 7919 % 20_000).unwrap());
            state.edition.period = Some(noise.collect());
        }),
        edition_as("ed_2", 1, |state| {
            state.content = vec![single("a\0b", "{}")];
        }),
        workspace_state(1, "a\0b", &[]),
    ];
    for (number, poison) in poison.into_iter().enumerate() {
        let batch = [edition(&format!("beside_{number}"), 1), poison];
        let error = db.store.apply(&batch).await.unwrap_err();
        assert!(error.is_rejected(), "{number}: {error:?}");
        let alone = apply(&db.store, &batch[..1]).await;
        assert_eq!(
            alone,
            [Applied::Changed],
            "{number}: nothing was left of it"
        );
    }
    db.remove().await;
}

/// A vacuum that finds bloated tables nearly empty, and then ten thousand times what is there: the
/// planner takes each for a few rows, until the next analyze.
async fn grow_unnoticed(db: &TestDatabase) {
    for (table, kept, others, values, copies) in [
        (
            "edition",
            "workspace, version, revision, name, created_at, stated_at",
            "id, changed_at, project, blueprint, stated_status, period",
            "'ed_' || n, changed_at - n * interval '1 millisecond', 'pr_' || n, 'bp_' || n,
                'approved', n::text",
            "id <> 'ed_1'",
        ),
        (
            "edition_section",
            "workspace, name, ord, content, digest",
            "edition",
            "'ed_' || n",
            "edition <> 'ed_1'",
        ),
        (
            "edition_row",
            "workspace, section, ord, id, content",
            "edition",
            "'ed_' || n",
            "edition <> 'ed_1'",
        ),
        (
            "project",
            "workspace, name",
            "id",
            "'pr_' || n",
            "id <> 'pr_1'",
        ),
    ] {
        let many = format!(
            "insert into {table} ({kept}, {others})
            select {kept}, {values}
            from {table}
            cross join generate_series(2, 10000) as copy (n)
            where not ({copies})"
        );
        for sql in [
            format!("alter table {table} set (autovacuum_enabled = false)"),
            many.clone(),
            format!("delete from {table} where {copies}"),
            format!("vacuum (analyze, truncate off) {table}"),
            many,
        ] {
            db.tamper(&sql).await;
        }
    }
}

#[tokio::test]
async fn edition_data_is_found_by_its_indexes_whatever_the_statistics_say() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let full = |version, word: &str| {
        edition_as("ed_1", version, |state| {
            state.content = vec![single("a", "{}"), repeating("b", 3, word)];
            state.edition.period = Some("2026-Q1".to_owned());
        })
    };
    tell(&db.store, &[full(1, "one")]).await;
    accept(&db.store, &[told("submitted", "ed_1", at(1)).build()]).await;
    grow_unnoticed(&db).await;

    let everything = Reach::all(&WorkspaceId::default());
    let only = reach(&WorkspaceId::default(), &["pr_1", "pr_7", "pr_8"]);
    let project = EditionFilter {
        project: Some(project_id("pr_9")),
        ..EditionFilter::default()
    };
    let blueprint = EditionFilter {
        blueprint: Some(blueprint_id("bp_9")),
        ..EditionFilter::default()
    };
    let status = EditionFilter {
        statuses: EditionStatus::parse("submitted").into_iter().collect(),
        ..EditionFilter::default()
    };
    let period = EditionFilter {
        period: Some("2026-Q1".to_owned()),
        ..EditionFilter::default()
    };
    let statuses = EditionFilter {
        statuses: ["submitted", "closed"]
            .into_iter()
            .filter_map(EditionStatus::parse)
            .collect(),
        ..EditionFilter::default()
    };
    for (reach, filter, expected) in [
        (&everything, &statuses, 1),
        (&only, &statuses, 1),
        (&everything, &EditionFilter::default(), 5),
        (&everything, &project, 1),
        (&everything, &blueprint, 1),
        (&everything, &status, 1),
        (&everything, &period, 1),
        (&only, &EditionFilter::default(), 3),
    ] {
        let page = PageRequest {
            limit: 5,
            after: None,
        };
        let list = db.store.editions(reach, filter, page).await.unwrap();
        assert_eq!(list.page.items.len(), expected, "{filter:?}");
    }
    let first = edition_id("ed_1");
    let tag = db.store.edition_tag(&only, &first).await.unwrap();
    assert_eq!(tag.unwrap().version, 1);
    let everywhere = usize::MAX;
    assert!(
        db.store
            .content(&only, &first, everywhere)
            .await
            .unwrap()
            .is_some()
    );
    tell(&db.store, &[full(2, "two")]).await;
    let events = ["ed_1", "ed_5", "ed_unknown"].map(|id| told("approved", id, at(9)).build());
    accept(&db.store, &events).await;

    tell_statistics(&db).await;
    let many =
        "pg_stat_user_tables where idx_tup_fetch > 4000 or relname = 'edition' and idx_scan = 0";
    assert_eq!(db.count(many).await, 0);
    db.remove().await;
}
