//! Editions that are made here.

use forge_dispatch::domain::edition::{Content, EditionStatus, SectionContent};
use forge_dispatch::domain::ids::{BlueprintId, EditionId, OutputId};
use forge_dispatch::domain::output::OutputStatus;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{
    Edit, LeaseName, NewEdition, OutgoingRequest, PageRequest, StoreError, Whole, Written,
};
use serde_json::json;

use super::{Ask, answer, ask, counts, draft, everything, summary, values_of, version};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{reach, workspace};
use crate::store::fixture::{for_long, owner};
use crate::store::state::{
    blueprint, blueprint_id, deletion, edition, edition_as, output_as, output_id, tell,
};

on_both_databases!(
    an_edition_is_made_with_empty_sections_and_outputs,
    making_one_is_told_of,
    one_that_is_made_can_be_written_and_the_core_adopts_it,
    none_is_made_of_a_blueprint_that_is_not_there,
    none_is_made_twice,
);

fn new() -> NewEdition {
    NewEdition {
        id: EditionId::new("ed_new").unwrap(),
        blueprint: blueprint_id("bp_1"),
        name: "Second quarter".to_owned(),
        period: Some("2026-Q2".to_owned()),
        outputs: vec![output_id("out_new")],
    }
}

async fn an_edition_is_made_with_empty_sections_and_outputs(db: &TestDatabase) {
    draft(db).await;
    let made = ask().create(&db.store, &new()).await.unwrap();
    let whole = db
        .replica
        .content(&everything(), &new().id, usize::MAX)
        .await;
    let Some(Whole::Content(record, content)) = whole.unwrap() else {
        panic!("it is there")
    };
    let Written::Done {
        answer: told,
        version,
    } = made
    else {
        panic!("{made:?}")
    };
    assert_eq!((version, told), (1, answer(&record)));
    let edition = &record.edition;
    assert_eq!(edition.name, "Second quarter");
    assert_eq!(edition.period.as_deref(), Some("2026-Q2"));
    assert_eq!(edition.blueprint, blueprint_id("bp_1"));
    assert_eq!(edition.project.as_str(), "pr_1");
    assert_eq!(edition.status, EditionStatus::Draft);
    assert_eq!(edition.status_changed_at, edition.created_at);
    assert_eq!((edition.assignee.as_ref(), record.revision), (None, 1));
    let empty: Content = vec![
        (
            "summary".to_owned(),
            SectionContent::Single(values_of("{}")),
        ),
        ("costs".to_owned(), SectionContent::Repeating(Vec::new())),
    ];
    assert_eq!(content, empty);

    let all = PageRequest {
        limit: 9,
        after: None,
    };
    let outputs = db.replica.outputs(&everything(), &new().id, all).await;
    let outputs = outputs.unwrap().unwrap().items;
    assert_eq!(outputs.len(), 1);
    let output = &outputs[0].output;
    assert_eq!(output.id, output_id("out_new"));
    assert_eq!((&*output.name, output.format.as_str()), ("report", "pdf"));
    assert_eq!(output.status, OutputStatus::NotGenerated);
    assert_eq!((output.version, outputs[0].revision), (1, 1));
    assert_eq!(output.updated_at, edition.created_at);
}

async fn making_one_is_told_of(db: &TestDatabase) {
    draft(db).await;
    ask().create(&db.store, &new()).await.unwrap();
    let held = db
        .store
        .take_lease(LeaseName::OUTBOX, for_long(owner()))
        .await
        .unwrap()
        .unwrap();
    let request = OutgoingRequest {
        limit: 9,
        max_bytes: usize::MAX,
        failed: &[],
    };
    let events = db.store.outgoing(&held, request).await.unwrap().unwrap();
    assert_eq!(events.len(), 1);
    let mut envelope: serde_json::Value = serde_json::from_str(&events[0].body).unwrap();
    let time = envelope["time"].take();
    let expected = json!({
        "specversion": "1.0",
        "id": events[0].message_id,
        "source": "/forge-dispatch",
        "type": "edition.created",
        "time": null,
        "subject": "ed_new",
        "workspaceid": "default",
        "projectid": "pr_1",
        "data": {
            "edition_id": "ed_new",
            "blueprint_id": "bp_1",
            "project_id": "pr_1",
            "version": 1,
            "name": "Second quarter",
            "period": "2026-Q2",
            "outputs": [{"id": "out_new", "name": "report", "format": "pdf"}],
            "timestamp": time,
        },
    });
    assert_eq!(envelope, expected);
}

async fn one_that_is_made_can_be_written_and_the_core_adopts_it(db: &TestDatabase) {
    draft(db).await;
    let new = NewEdition {
        id: EditionId::new("ed_1").unwrap(),
        ..new()
    };
    tell(&db.store, &[deletion(&edition("ed_1", 1), 2)]).await;
    // What the core deleted is not made anew.
    let refused = ask().create(&db.store, &new).await;
    assert!(
        matches!(refused, Err(StoreError::AlreadyExists)),
        "{refused:?}"
    );

    let new = self::new();
    ask().create(&db.store, &new).await.unwrap();
    let set = Edit::SetValues(values_of(r#"{"total":1}"#));
    let ask = ask();
    let write = ask.write(&NoDispatch);
    let written = db
        .replica
        .edit_section(&new.id, &summary(), &set, &write)
        .await;
    assert_eq!(version(written), 2);
    let adopted = edition_as("ed_new", 3, |state| {
        "Adopted".clone_into(&mut state.edition.name);
    });
    tell(&db.store, &[adopted]).await;
    let adopted = output_as("out_new", "ed_new", 2, |_| {});
    tell(&db.store, &[adopted]).await;
    let found = db.store.edition(&everything(), &new.id).await.unwrap();
    assert_eq!(found.unwrap().edition.name, "Adopted");
}

async fn none_is_made_of_a_blueprint_that_is_not_there(db: &TestDatabase) {
    draft(db).await;
    let before = counts(db).await;
    let here = &ask().reach.workspace;
    let unknown = NewEdition {
        blueprint: BlueprintId::new("bp_2").unwrap(),
        ..new()
    };
    let beyond = |reach| Ask { reach, ..ask() };
    for (ask, new) in [
        (ask(), unknown),
        (beyond(reach(here, &["pr_2"])), new()),
        (beyond(reach(&workspace("ws_2"), &["pr_1"])), new()),
    ] {
        let refused = ask.create(&db.store, &new).await.unwrap();
        assert!(matches!(refused, Written::NotFound), "{refused:?}");
    }
    tell(&db.store, &[blueprint("bp_1", "pr_1", 2, "Report")]).await;
    let refused = ask().create(&db.store, &new()).await.unwrap();
    assert!(matches!(refused, Written::BlueprintChanged), "{refused:?}");
    assert_eq!(counts(db).await, before);
    assert_eq!(db.count("edition").await, 1);
    assert_eq!(db.count("output").await, 0);
}

async fn none_is_made_twice(db: &TestDatabase) {
    draft(db).await;
    assert_eq!(version(ask().create(&db.store, &new()).await), 1);
    let before = counts(db).await;
    let same_output = NewEdition {
        id: EditionId::new("ed_other").unwrap(),
        ..new()
    };
    let same_edition = NewEdition {
        outputs: vec![OutputId::new("out_other").unwrap()],
        ..new()
    };
    for again in [same_edition, same_output] {
        let refused = ask().create(&db.replica, &again).await;
        assert!(
            matches!(refused, Err(StoreError::AlreadyExists)),
            "{refused:?}"
        );
    }
    assert_eq!(counts(db).await, before);
    assert_eq!(db.count("edition").await, 2);
}
