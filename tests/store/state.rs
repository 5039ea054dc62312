//! Snapshots for tests, with as little to say as possible.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::domain::blueprint::{
    Blueprint, Bounds, Field, FieldType, OutputOffer, Section, SectionKind,
};
use forge_dispatch::domain::edition::{Content, Edition, EditionStatus, Row, SectionContent};
use forge_dispatch::domain::ids::{
    BlueprintId, EditionId, OutputId, ProjectId, RowId, UserId, WorkspaceId,
};
use forge_dispatch::domain::output::{Output, OutputFormat, OutputStatus};
use forge_dispatch::domain::snapshot::{EditionState, EntityKey, Snapshot, State};
use forge_dispatch::domain::values::Values;
use forge_dispatch::domain::workspace::{Member, Person, Project, Workspace};
use forge_dispatch::store::{Applied, Store};
use serde_json::value::RawValue;

use crate::harness::events::{EventBuilder, event};

/// So many seconds after some instant.
pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_777_000_000 + seconds, 0).unwrap()
}

pub(super) fn project_id(id: &str) -> ProjectId {
    ProjectId::new(id).unwrap()
}

pub(super) fn edition_id(id: &str) -> EditionId {
    EditionId::new(id).unwrap()
}

pub(super) fn output_id(id: &str) -> OutputId {
    OutputId::new(id).unwrap()
}

pub(super) fn blueprint_id(id: &str) -> BlueprintId {
    BlueprintId::new(id).unwrap()
}

fn snapshot(key: EntityKey, version: i64, state: State) -> Snapshot {
    Snapshot {
        workspace: WorkspaceId::default(),
        key,
        version,
        occurred_at: at(version),
        state,
    }
}

/// Of workspace `default`; members are named by their ids.
pub(super) fn workspace_state(version: i64, name: &str, members: &[&str]) -> Snapshot {
    let member = |id: &&str| Member {
        user: Person {
            id: UserId::new(id).unwrap(),
            name: Some(format!("{id} by name")),
        },
        email: Some(format!("{id}@example.org")),
        role: None,
    };
    let state = Workspace {
        name: name.to_owned(),
        settings: RawValue::from_string(r#"{"b": 1.50, "a": null}"#.to_owned()).unwrap(),
        members: members.iter().map(member).collect(),
    };
    snapshot(EntityKey::Workspace, version, State::Workspace(state))
}

pub(super) fn project(id: &str, version: i64, name: &str) -> Snapshot {
    let state = Project {
        id: project_id(id),
        name: name.to_owned(),
        description: Some(format!("about {name}")),
    };
    snapshot(
        EntityKey::Project(project_id(id)),
        version,
        State::Project(state),
    )
}

/// One section of each kind, one field of each type with options.
pub(super) fn blueprint(id: &str, project: &str, version: i64, name: &str) -> Snapshot {
    let field = |name: &str, field_type| Field {
        name: name.to_owned(),
        label: None,
        field_type,
        required: name == "total",
        bounds: Bounds::default(),
        pattern: None,
    };
    let options = || vec!["north".to_owned(), "south".to_owned()];
    let mut total = field("total", FieldType::Number);
    total.label = Some("Grand total".to_owned());
    total.bounds = serde_bounds();
    let state = Blueprint {
        id: blueprint_id(id),
        project: project_id(project),
        name: name.to_owned(),
        sections: vec![
            Section {
                name: "summary".to_owned(),
                label: Some("Summary".to_owned()),
                kind: SectionKind::Single,
                fields: vec![total, field("done", FieldType::Boolean)],
            },
            Section {
                name: "costs".to_owned(),
                label: None,
                kind: SectionKind::Repeating,
                fields: vec![
                    field("region", FieldType::Select(options())),
                    field("tags", FieldType::MultiSelect(options())),
                ],
            },
        ],
        outputs: vec![OutputOffer {
            name: "report".to_owned(),
            format: OutputFormat::parse("pdf").unwrap(),
        }],
    };
    snapshot(
        EntityKey::Blueprint(blueprint_id(id)),
        version,
        State::Blueprint(state),
    )
}

fn serde_bounds() -> Bounds {
    Bounds {
        min: serde_json::from_str("0.5").ok(),
        max: serde_json::from_str("1000000000000").ok(),
    }
}

/// A draft of blueprint `bp_1` in project `pr_1`, since `at(0)`, that holds nothing.
pub(super) fn edition(id: &str, version: i64) -> Snapshot {
    edition_as(id, version, |_| {})
}

/// The same, changed in what matters.
pub(super) fn edition_as(
    id: &str,
    version: i64,
    change: impl FnOnce(&mut EditionState),
) -> Snapshot {
    let mut state = EditionState {
        edition: Edition {
            id: edition_id(id),
            project: project_id("pr_1"),
            blueprint: blueprint_id("bp_1"),
            name: format!("{id} v{version}"),
            status: EditionStatus::Draft,
            status_changed_at: at(0),
            period: None,
            assignee: None,
            version,
            created_at: at(0),
            updated_at: at(version),
        },
        content: Content::new(),
    };
    change(&mut state);
    snapshot(
        EntityKey::Edition(edition_id(id)),
        version,
        State::Edition(Box::new(state)),
    )
}

/// In a status since then.
pub(super) fn stated(status: &str, since: DateTime<Utc>) -> impl FnOnce(&mut EditionState) {
    let status = EditionStatus::parse(status).unwrap();
    move |state| {
        state.edition.status = status;
        state.edition.status_changed_at = since;
    }
}

/// A single section.
pub(super) fn single(name: &str, values: &str) -> (String, SectionContent) {
    let values = Values::parse(values).unwrap();
    (name.to_owned(), SectionContent::Single(values))
}

/// A repeating section of so many rows, whose values say this.
pub(super) fn repeating(name: &str, rows: usize, word: &str) -> (String, SectionContent) {
    let row = |number: usize| Row {
        id: RowId::new(&format!("r{number}")).unwrap(),
        values: Values::parse(&format!(r#"{{"n": {number}.0, "word": "{word}"}}"#)).unwrap(),
    };
    let rows = (0..rows).map(row).collect();
    (name.to_owned(), SectionContent::Repeating(rows))
}

/// A PDF of an edition that nobody asked for yet, as of `at(0)`.
pub(super) fn output(id: &str, edition: &str, version: i64) -> Snapshot {
    output_as(id, edition, version, |_| {})
}

/// The same, changed in what matters.
pub(super) fn output_as(
    id: &str,
    edition: &str,
    version: i64,
    change: impl FnOnce(&mut Output),
) -> Snapshot {
    let mut state = Output {
        id: output_id(id),
        edition: edition_id(edition),
        project: project_id("pr_1"),
        name: "report".to_owned(),
        format: OutputFormat::parse("pdf").unwrap(),
        status: OutputStatus::NotGenerated,
        file: None,
        failure: None,
        version,
        updated_at: at(0),
    };
    change(&mut state);
    snapshot(
        EntityKey::Output(output_id(id)),
        version,
        State::Output(Box::new(state)),
    )
}

/// The deletion of what another snapshot is about, at this version.
pub(super) fn deletion(of: &Snapshot, version: i64) -> Snapshot {
    Snapshot {
        version,
        occurred_at: at(version),
        state: State::Deleted,
        ..of.clone()
    }
}

/// The same in another workspace.
pub(super) fn in_workspace(workspace: &WorkspaceId, of: Snapshot) -> Snapshot {
    Snapshot {
        workspace: workspace.clone(),
        ..of
    }
}

pub(super) async fn apply(store: &Arc<dyn Store>, snapshots: &[Snapshot]) -> Vec<Applied> {
    store.apply(snapshots).await.unwrap()
}

/// Takes them in, and each of them must be news.
pub(super) async fn tell(store: &Arc<dyn Store>, snapshots: &[Snapshot]) {
    let applied = apply(store, snapshots).await;
    assert!(
        applied.iter().all(|one| *one == Applied::Changed),
        "{applied:?}"
    );
}

/// `edition.submitted`, `edition.approved` or `edition.changes_requested`, which tells the status of
/// an edition; it says its project in `data`, where it must.
pub(super) fn told(word: &str, edition: &str, time: DateTime<Utc>) -> EventBuilder {
    let time_text = time.to_rfc3339();
    let more = match word {
        "submitted" => r#""blueprint_id":"bp_1","project_id":"pr_1","#,
        "approved" => r#""approved_by":{"id":"u1","name":"Ann"},"#,
        _ => r#""comment_count":2,"#,
    };
    event()
        .event_type(&format!("edition.{word}"))
        .time(time)
        .data(&format!(
            r#"{{"edition_id":"{edition}",{more}"timestamp":"{time_text}"}}"#
        ))
}

/// `output.generated`.
pub(super) fn generated(output: &str, edition: &str, time: DateTime<Utc>) -> EventBuilder {
    event()
        .event_type("output.generated")
        .time(time)
        .data(&format!(
            r#"{{"edition_id":"{edition}","output_id":"{output}","format":"pdf",
                "download_url":"https://core.example/file"}}"#
        ))
}
