//! Reading an event.

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::ids::{EventId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::entropy::Entropy;

use super::fixture::accept;
use crate::harness::databases::TestDatabase;
use crate::harness::events::{event, reach, workspace};

on_both_databases!(an_event_is_read_as_it_came, an_event_out_of_reach_is_none,);

fn here() -> WorkspaceId {
    WorkspaceId::default()
}

async fn an_event_is_read_as_it_came(db: &TestDatabase) {
    let data = r#"{"z":1.50, "edition_id":"ed_1","a":[true,null],"big":12345678901234567890}"#;
    let before = SystemClock.now();
    let came = event()
        .id("order 1")
        .source("/core")
        .event_type("edition.archived")
        .project("pr_1")
        .data(data)
        .build();
    accept(&db.store, std::slice::from_ref(&came)).await;
    let everything = Reach::all(&here());
    let kept = db.replica.event(&everything, came.event().id);
    let kept = kept.await.unwrap().unwrap();
    assert_eq!(kept.id, came.event().id);
    assert_eq!(kept.event_type.as_str(), "edition.archived");
    assert_eq!((&*kept.source, &*kept.external_id), ("/core", "order 1"));
    assert_eq!(kept.project.unwrap().as_str(), "pr_1");
    assert_eq!(kept.edition.unwrap().as_str(), "ed_1");
    let occurred: DateTime<Utc> = "2026-05-01T09:00:00.25Z".parse().unwrap();
    assert_eq!(kept.occurred_at, occurred);
    assert!((before..=SystemClock.now()).contains(&kept.accepted_at));
    assert_eq!(kept.data, data);

    let bare = event().data("null").build();
    accept(&db.store, std::slice::from_ref(&bare)).await;
    let kept = db.store.event(&everything, bare.event().id);
    let kept = kept.await.unwrap().unwrap();
    assert_eq!((kept.project, kept.edition), (None, None));
    assert_eq!(kept.data, "null");
}

async fn an_event_out_of_reach_is_none(db: &TestDatabase) {
    let of_project = event().project("pr_1").build();
    let of_none = event().build();
    accept(&db.store, &[of_project.clone(), of_none.clone()]).await;
    let (of_project, of_none) = (of_project.event().id, of_none.event().id);
    let unknown: EventId = Entropy::system().id(SystemClock.now());
    let elsewhere = workspace("ws_2");
    for (reach, id, expected) in [
        (Reach::all(&here()), of_project, true),
        (Reach::all(&here()), of_none, true),
        (Reach::all(&here()), unknown, false),
        (Reach::all(&elsewhere), of_project, false),
        (reach(&here(), &["pr_0", "pr_1"]), of_project, true),
        (reach(&here(), &["pr_1"]), of_none, false),
        (reach(&here(), &["pr_2"]), of_project, false),
        (reach(&here(), &[]), of_project, false),
        (reach(&elsewhere, &["pr_1"]), of_project, false),
    ] {
        let found = db.store.event(&reach, id).await.unwrap();
        assert_eq!(found.is_some(), expected, "{reach:?}");
    }
}
