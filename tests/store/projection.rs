//! What webhook events change in edition data.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::output::{OutputFile, OutputStatus};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{
    EditionFilter, EditionRecord, EditionTag, OutputRecord, PageRequest, Store,
};

use super::fixture::{accept, accept_leased, deliveries, for_long, owner, subscribe_in};
use super::state::{
    at, deletion, edition, edition_as, edition_id, generated, in_workspace, output, output_as,
    output_id, project_id, stated, tell, told,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{event, reach, spec_for_projects, workspace};

on_both_databases!(
    an_event_later_than_the_status_moves_it,
    of_events_of_one_time_that_of_the_greatest_id_counts,
    an_event_before_its_edition_is_remembered_and_not_seen,
    a_newer_snapshot_states_the_status_anew,
    an_event_about_what_was_deleted_counts_when_it_comes_back,
    a_move_raises_the_revision_and_not_the_version,
    what_tells_nothing_moves_nothing,
    a_duplicate_moves_nothing,
    an_accept_that_fails_moves_nothing,
    an_output_is_generated_when_an_event_says_so_later,
    an_event_without_project_is_of_its_editions,
    replicas_that_move_the_same_editions_both_succeed,
);

fn everything() -> Reach {
    Reach::all(&WorkspaceId::default())
}

async fn head(store: &Arc<dyn Store>) -> EditionRecord {
    let read = store.edition(&everything(), &edition_id("ed_1")).await;
    read.unwrap().expect("the edition is seen")
}

async fn tag(store: &Arc<dyn Store>) -> EditionTag {
    head(store).await.tag()
}

/// The status, and since when.
async fn status(store: &Arc<dyn Store>) -> (String, DateTime<Utc>) {
    let read = head(store).await.edition;
    (read.status.to_string(), read.status_changed_at)
}

fn is(word: &str, since: i64) -> (String, DateTime<Utc>) {
    (word.to_owned(), at(since))
}

async fn an_event_later_than_the_status_moves_it(db: &TestDatabase) {
    let draft = edition_as("ed_1", 1, stated("draft", at(10)));
    tell(&db.store, &[draft, edition("ed_2", 1)]).await;
    for (word, time, expected) in [
        ("submitted", 9, is("draft", 10)),
        // Of one time, the snapshot counts.
        ("submitted", 10, is("draft", 10)),
        ("submitted", 11, is("submitted", 11)),
        ("approved", 20, is("approved", 20)),
        ("changes_requested", 19, is("approved", 20)),
        ("changes_requested", 21, is("changes_requested", 21)),
    ] {
        accept(&db.store, &[told(word, "ed_1", at(time)).build()]).await;
        assert_eq!(status(&db.replica).await, expected, "{word} at {time}");
    }
    // One batch, in any order.
    let batch = [
        told("approved", "ed_1", at(33)).build(),
        told("submitted", "ed_1", at(31)).build(),
        told("changes_requested", "ed_1", at(32)).build(),
    ];
    accept(&db.store, &batch).await;
    assert_eq!(status(&db.replica).await, is("approved", 33));
    let beside = db.store.edition(&everything(), &edition_id("ed_2")).await;
    assert_eq!(beside.unwrap().unwrap().edition.status.as_str(), "draft");
}

async fn of_events_of_one_time_that_of_the_greatest_id_counts(db: &TestDatabase) {
    tell(&db.store, &[edition("ed_1", 1)]).await;
    for (id, word, expected) in [
        ("b", "submitted", "submitted"),
        ("a", "approved", "submitted"),
        ("B", "changes_requested", "submitted"),
        ("c", "approved", "approved"),
        ("ä", "changes_requested", "changes_requested"),
    ] {
        accept(&db.store, &[told(word, "ed_1", at(5)).id(id).build()]).await;
        assert_eq!(status(&db.store).await, is(expected, 5), "{id}");
    }
    // Two sources may use one id.
    let of = |source: &str, word: &str| told(word, "ed_1", at(6)).id("x").source(source).build();
    accept(&db.store, &[of("/b", "submitted"), of("/a", "approved")]).await;
    assert_eq!(status(&db.store).await, is("submitted", 6));
    accept(&db.store, &[of("/c", "approved")]).await;
    assert_eq!(status(&db.store).await, is("submitted", 6));
}

async fn an_event_before_its_edition_is_remembered_and_not_seen(db: &TestDatabase) {
    accept(&db.store, &[told("submitted", "ed_1", at(5)).build()]).await;
    accept(&db.store, &[told("approved", "ed_1", at(7)).build()]).await;
    let read = db.store.edition(&everything(), &edition_id("ed_1")).await;
    assert_eq!(read.unwrap(), None);
    let first = PageRequest {
        limit: 9,
        after: None,
    };
    let list = db
        .store
        .editions(&everything(), &EditionFilter::default(), first)
        .await;
    assert!(list.unwrap().page.items.is_empty());
    tell(&db.store, &[edition("ed_1", 1)]).await;
    assert_eq!(status(&db.replica).await, is("approved", 7));
}

async fn a_newer_snapshot_states_the_status_anew(db: &TestDatabase) {
    tell(&db.store, &[edition("ed_1", 1)]).await;
    accept(&db.store, &[told("submitted", "ed_1", at(5)).build()]).await;
    for (version, word, since, expected) in [
        (2, "draft", 4, is("submitted", 5)),
        (3, "in_review", 5, is("in_review", 5)),
        (4, "closed", 9, is("closed", 9)),
        // The core may take back what it stated; what was told meanwhile counts again.
        (5, "draft", 3, is("submitted", 5)),
    ] {
        tell(
            &db.store,
            &[edition_as("ed_1", version, stated(word, at(since)))],
        )
        .await;
        assert_eq!(status(&db.replica).await, expected, "version {version}");
    }
}

async fn an_event_about_what_was_deleted_counts_when_it_comes_back(db: &TestDatabase) {
    let first = edition("ed_1", 1);
    tell(&db.store, std::slice::from_ref(&first)).await;
    accept(&db.store, &[told("submitted", "ed_1", at(5)).build()]).await;
    tell(&db.store, &[deletion(&first, 2)]).await;
    accept(&db.store, &[told("approved", "ed_1", at(6)).build()]).await;
    let read = db.store.edition(&everything(), &edition_id("ed_1")).await;
    assert_eq!(read.unwrap(), None);
    tell(&db.store, &[edition("ed_1", 3)]).await;
    assert_eq!(status(&db.store).await, is("approved", 6));
}

async fn a_move_raises_the_revision_and_not_the_version(db: &TestDatabase) {
    tell(&db.store, &[edition_as("ed_1", 4, stated("draft", at(3)))]).await;
    let before = tag(&db.store).await;
    let first = PageRequest {
        limit: 9,
        after: None,
    };
    let all = EditionFilter::default();
    let as_of = db.store.editions(&everything(), &all, first).await;
    let since = EditionFilter {
        updated_since: Some(as_of.unwrap().as_of),
        ..EditionFilter::default()
    };
    let changed = || async {
        let first = PageRequest {
            limit: 9,
            after: None,
        };
        let list = db.store.editions(&everything(), &since, first).await;
        list.unwrap().page.items.len()
    };
    // What cannot be seen is no change.
    accept(&db.store, &[told("submitted", "ed_1", at(2)).build()]).await;
    assert_eq!((tag(&db.store).await, changed().await), (before, 0));
    accept(&db.store, &[told("submitted", "ed_1", at(5)).build()]).await;
    let after = tag(&db.store).await;
    assert_eq!(after.version, 4);
    assert!(after.revision > before.revision);
    assert_eq!(changed().await, 1);
}

async fn what_tells_nothing_moves_nothing(db: &TestDatabase) {
    tell(&db.store, &[edition("ed_1", 1)]).await;
    let before = tag(&db.store).await;
    let data = r#"{"edition_id":"ed_1","status":"approved"}"#;
    let other = event().event_type("edition.archived").time(at(9));
    let elsewhere = told("approved", "ed_1", at(9)).workspace("ws_2");
    let no_id = told("approved", &"x".repeat(300), at(9));
    let no_output = generated(&"x".repeat(300), "ed_1", at(9));
    let batch = [
        other.data(data).build(),
        elsewhere.build(),
        no_id.build(),
        no_output.build(),
    ];
    accept(&db.store, &batch).await;
    assert_eq!(tag(&db.store).await, before);
    assert_eq!(status(&db.store).await, is("draft", 0));
    assert_eq!(db.count("output").await, 0);
    // Only that of the other workspace is remembered.
    assert_eq!(db.count("edition").await, 2);
}

async fn a_duplicate_moves_nothing(db: &TestDatabase) {
    tell(&db.store, &[edition("ed_1", 1)]).await;
    let first = told("submitted", "ed_1", at(5)).id("1").build();
    accept(&db.store, &[first]).await;
    let before = tag(&db.store).await;
    // Of one identity, and yet it says something else.
    let second = told("approved", "ed_1", at(9)).id("1").build();
    accept(&db.store, &[second]).await;
    assert_eq!(tag(&db.store).await, before);
    assert_eq!(status(&db.store).await, is("submitted", 5));
}

async fn an_accept_that_fails_moves_nothing(db: &TestDatabase) {
    tell(&db.store, &[edition("ed_1", 1)]).await;
    let came = [told("submitted", "ed_1", at(5)).build()];
    db.tamper("alter table event_feed rename to elsewhere")
        .await;
    let failed = db.store.accept(&came, for_long(owner()), &NoDispatch).await;
    failed.unwrap_err();
    assert_eq!(status(&db.store).await, is("draft", 0));
    db.tamper("alter table elsewhere rename to event_feed")
        .await;
    accept(&db.store, &came).await;
    assert_eq!(status(&db.store).await, is("submitted", 5));
}

async fn read_output(store: &Arc<dyn Store>) -> Option<OutputRecord> {
    store.output(&everything(), &output_id("o")).await.unwrap()
}

async fn an_output_is_generated_when_an_event_says_so_later(db: &TestDatabase) {
    tell(&db.store, &[edition("ed_1", 1)]).await;
    accept(&db.store, &[generated("o", "ed_1", at(5)).build()]).await;
    assert_eq!(read_output(&db.store).await, None, "no snapshot came yet");

    let queued = |version, since| {
        output_as("o", "ed_1", version, move |output| {
            output.status = OutputStatus::Queued;
            output.updated_at = at(since);
        })
    };
    tell(&db.store, &[queued(1, 4)]).await;
    let read = read_output(&db.replica).await.unwrap();
    assert_eq!(read.output.status, OutputStatus::Generated);
    assert_eq!(read.output.updated_at, at(5));
    assert_eq!((&read.output.file, read.output.version), (&None, 1));

    // Of one time, the snapshot counts.
    tell(&db.store, &[queued(2, 5)]).await;
    let before = read_output(&db.store).await.unwrap();
    assert_eq!(before.output.status, OutputStatus::Queued);
    accept(&db.store, &[generated("o", "ed_1", at(3)).build()]).await;
    assert_eq!(read_output(&db.store).await, Some(before.clone()));
    accept(&db.store, &[generated("o", "ed_1", at(6)).build()]).await;
    let after = read_output(&db.store).await.unwrap();
    assert_eq!(after.output.status, OutputStatus::Generated);
    assert_eq!(after.output.version, 2);
    assert!(after.revision > before.revision);

    let file = OutputFile {
        size: 7,
        sha256: "cd".repeat(32),
        generated_at: at(6),
    };
    let made = output_as("o", "ed_1", 3, |output| {
        output.status = OutputStatus::Generated;
        output.updated_at = at(6);
        output.file = Some(file.clone());
    });
    tell(&db.store, &[made]).await;
    let read = read_output(&db.store).await.unwrap();
    assert_eq!(read.output.file, Some(file));
    // A later file, of which only the event has told.
    accept(&db.store, &[generated("o", "ed_1", at(8)).build()]).await;
    let read = read_output(&db.store).await.unwrap();
    assert_eq!((read.output.file, read.output.updated_at), (None, at(8)));
    // Deleted, whatever events say.
    tell(&db.store, &[deletion(&output("o", "ed_1", 1), 4)]).await;
    accept(&db.store, &[generated("o", "ed_1", at(9)).build()]).await;
    assert_eq!(read_output(&db.store).await, None);
}

async fn an_event_without_project_is_of_its_editions(db: &TestDatabase) {
    let of_project = spec_for_projects(&["*"], &["pr_1"]);
    subscribe_in(&db.store, &WorkspaceId::default(), of_project).await;
    let elsewhere = edition_as("ed_2", 1, |state| {
        state.edition.project = project_id("pr_2");
    });
    // Of the same id in another workspace, and so of another project.
    let other = edition_as("ed_2", 1, |_| {});
    let other = in_workspace(&workspace("ws_2"), other);
    tell(&db.store, &[edition("ed_1", 1), elsewhere, other]).await;
    // A stub knows no project.
    accept(&db.store, &[told("approved", "ed_3", at(1)).build()]).await;

    let batch = [
        told("approved", "ed_1", at(5)).build(),
        told("approved", "ed_2", at(5)).build(),
        told("approved", "ed_3", at(5)).build(),
        event().data(r#"{"edition_id":"ed_1"}"#).build(),
        told("approved", "ed_1", at(5)).project("pr_9").build(),
        event().build(),
    ];
    let leased = accept_leased(&db.store, &batch, for_long(owner())).await;
    let sent: Vec<_> = leased
        .iter()
        .map(|delivery| delivery.payload.event().id)
        .collect();
    let expected = [batch[0].event().id, batch[3].event().id];
    assert_eq!(sent, expected, "to a subscription of the project");
    assert!(leased[0].payload.event().project == Some(project_id("pr_1")));
    for (number, project) in [
        Some("pr_1"),
        Some("pr_2"),
        None,
        Some("pr_1"),
        Some("pr_9"),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let id = batch[number].event().id;
        let kept = db.replica.event(&everything(), id).await.unwrap().unwrap();
        assert_eq!(kept.project, project.map(project_id), "number {number}");
    }
    let restricted = reach(&WorkspaceId::default(), &["pr_2"]);
    let kept = db.store.event(&restricted, batch[1].event().id).await;
    assert!(kept.unwrap().is_some());
    assert_eq!(
        deliveries(&db.store, &WorkspaceId::default()).await.len(),
        2
    );
}

async fn replicas_that_move_the_same_editions_both_succeed(db: &TestDatabase) {
    let ids: Vec<String> = (0..20).map(|number| format!("ed_{number}")).collect();
    let writers: Vec<_> = [&db.store, &db.replica]
        .into_iter()
        .enumerate()
        .map(|(number, store)| {
            let (store, ids) = (Arc::clone(store), ids.clone());
            tokio::spawn(async move {
                for round in 1..=15 {
                    let mut told: Vec<_> = ids
                        .iter()
                        .map(|id| told("approved", id, at(round)).build())
                        .collect();
                    let mut snapshots: Vec<_> = ids.iter().map(|id| edition(id, round)).collect();
                    // Each comes with them in another order.
                    if number == 1 {
                        told.reverse();
                        snapshots.reverse();
                    }
                    accept(&store, &told).await;
                    store.apply(&snapshots).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for id in &ids {
        let read = db.store.edition(&everything(), &edition_id(id)).await;
        let read = read.unwrap().unwrap().edition;
        assert_eq!((read.version, read.status.as_str()), (15, "approved"));
        assert_eq!(read.status_changed_at, at(15));
    }
}
