//! What a large edition costs: its first snapshot, one that changes every row, one that changes none;
//! and what clients' writes of many rows cost.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::blueprint::{
    Blueprint, Bounds, Field, FieldType, Section, SectionKind,
};
use forge_dispatch::domain::edition::{Content, Edition, EditionStatus, Row, SectionContent};
use forge_dispatch::domain::ids::{BlueprintId, EditionId, ProjectId, RowId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::{EditionState, EntityKey, Snapshot, State};
use forge_dispatch::domain::values::Values;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{Applied, Edit, Leasing, Store, Write, Written};

use super::meter::Meter;

/// Rows of the edition.
const ROWS: usize = 50_000;

/// Fields of a row.
const FIELDS: usize = 10;

pub(crate) async fn measure(store: &Arc<dyn Store>) -> anyhow::Result<()> {
    for (version, word, what) in [
        (1, "first", "edition, new"),
        (2, "other", "edition, all rows changed"),
        (3, "other", "edition, no row changed"),
    ] {
        let snapshot = snapshot(version, word)?;
        let mut meter = Meter::default();
        let call = store.apply(std::slice::from_ref(&snapshot));
        let applied = meter.time(call).await?;
        anyhow::ensure!(applied == [Applied::Changed]);
        meter.deliveries = ROWS;
        meter.print(what, row(0, word)?.values.as_str().len());
    }
    writes(store).await
}

/// Rows of one write.
const WRITTEN: usize = 20_000;

/// All rows put anew, the same put again, one changed, as many appended.
async fn writes(store: &Arc<dyn Store>) -> anyhow::Result<()> {
    let blueprint = blueprint()?;
    let section = blueprint.sections[0].clone();
    let told = Snapshot {
        workspace: WorkspaceId::default(),
        key: EntityKey::Blueprint(blueprint.id.clone()),
        version: 1,
        occurred_at: DateTime::UNIX_EPOCH,
        state: State::Blueprint(blueprint),
    };
    store.apply(&[told]).await?;
    let rows = |first: usize, word: &str| -> anyhow::Result<Vec<Row>> {
        (first..first + WRITTEN)
            .map(|number| row(number, word))
            .collect()
    };
    let mut but_one = rows(0, "put")?;
    but_one[WRITTEN / 2] = row(WRITTEN / 2, "other")?;
    for (edit, what) in [
        (Edit::PutRows(rows(0, "put")?), "write, all rows put"),
        (Edit::PutRows(rows(0, "put")?), "write, the same again"),
        (Edit::PutRows(but_one), "write, one row changed"),
        (Edit::AppendRows(rows(WRITTEN, "new")?), "write, appended"),
    ] {
        let mut meter = Meter::default();
        let written = meter.time(write(store, &section, &edit)).await?;
        anyhow::ensure!(matches!(written, Written::Done { .. }), "{written:?}");
        meter.deliveries = WRITTEN;
        meter.print(what, row(0, "put")?.values.as_str().len());
    }
    Ok(())
}

/// Tells of so many editions that hold nothing.
pub(crate) async fn tell(store: &Arc<dyn Store>, count: usize) -> anyhow::Result<()> {
    let snapshots: Vec<Snapshot> = (0..count)
        .map(|number| edition(&format!("ed_{number}"), 1, Vec::new()))
        .collect::<anyhow::Result<_>>()?;
    store.apply(&snapshots).await?;
    Ok(())
}

async fn write(store: &Arc<dyn Store>, section: &Section, edit: &Edit) -> anyhow::Result<Written> {
    let (entropy, now) = (Entropy::system(), SystemClock.now());
    let write = Write {
        reach: &Reach::all(&WorkspaceId::default()),
        versions: None,
        blueprint_version: 1,
        once: None,
        answer: &|_| String::new(),
        event: entropy.id(now),
        trace: None,
        leasing: Leasing {
            owner: entropy.id(now),
            lease: Duration::from_mins(1),
        },
        intake: &NoDispatch,
    };
    let id = EditionId::new("ed_large")?;
    Ok(store.edit_section(&id, section, edit, &write).await?)
}

fn blueprint() -> anyhow::Result<Blueprint> {
    let field = |number: usize| Field {
        name: format!("field_{number}"),
        label: None,
        field_type: FieldType::Text,
        required: false,
        bounds: Bounds::default(),
        pattern: None,
    };
    Ok(Blueprint {
        id: BlueprintId::new("bp_1")?,
        project: ProjectId::new("pr_1")?,
        name: "large".to_owned(),
        sections: vec![Section {
            name: "lines".to_owned(),
            label: None,
            kind: SectionKind::Repeating,
            fields: (0..FIELDS).map(field).collect(),
        }],
        outputs: Vec::new(),
    })
}

fn row(number: usize, word: &str) -> anyhow::Result<Row> {
    let fields: Vec<String> = (0..FIELDS)
        .map(|field| format!(r#""field_{field}":"{word} {number}""#))
        .collect();
    Ok(Row {
        id: RowId::new(&format!("row_{number}"))?,
        values: Values::parse(&format!("{{{}}}", fields.join(",")))?,
    })
}

fn snapshot(version: i64, word: &str) -> anyhow::Result<Snapshot> {
    let rows: Vec<Row> = (0..ROWS)
        .map(|number| row(number, word))
        .collect::<anyhow::Result<_>>()?;
    let content = vec![("lines".to_owned(), SectionContent::Repeating(rows))];
    edition("ed_large", version, content)
}

fn edition(id: &str, version: i64, content: Content) -> anyhow::Result<Snapshot> {
    let id = EditionId::new(id)?;
    let then = DateTime::UNIX_EPOCH;
    let edition = Edition {
        id: id.clone(),
        project: ProjectId::new("pr_1")?,
        blueprint: BlueprintId::new("bp_1")?,
        name: "An edition".to_owned(),
        status: EditionStatus::Draft,
        status_changed_at: then,
        period: None,
        assignee: None,
        version,
        created_at: then,
        updated_at: then,
    };
    Ok(Snapshot {
        workspace: WorkspaceId::default(),
        key: EntityKey::Edition(id),
        version,
        occurred_at: then,
        state: State::Edition(Box::new(EditionState { edition, content })),
    })
}
