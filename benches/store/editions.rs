//! What a large edition costs: its first snapshot, one that changes every row, one that changes none.

use std::sync::Arc;

use chrono::DateTime;
use forge_dispatch::domain::edition::{Content, Edition, EditionStatus, Row, SectionContent};
use forge_dispatch::domain::ids::{BlueprintId, EditionId, ProjectId, RowId, WorkspaceId};
use forge_dispatch::domain::snapshot::{EditionState, EntityKey, Snapshot, State};
use forge_dispatch::domain::values::Values;
use forge_dispatch::store::{Applied, Store};

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
