//! Memory does not grow with the edition. What a process took at most is known of whole processes
//! only, so the tests' own program is run once more for each measurement:
//! `ROWS=200000 cargo test outputs::memory -- --ignored --nocapture` measures by hand.

use std::process::Command;

use async_trait::async_trait;
use forge_dispatch::domain::blueprint::{FieldType, SectionKind};
use forge_dispatch::domain::edition::Row;
use forge_dispatch::domain::ids::{EditionId, RowId, WorkspaceId};
use forge_dispatch::domain::values::Values;
use forge_dispatch::outputs::{At, Outline, RowPage, Source, SourceError};

use super::fixture::{Given, Workshop, field, section};

/// How many rows are rendered, and as what.
const ROWS: &str = "ROWS";
const FORMAT: &str = "FORMAT";

/// How much more forty times the rows may take, in KiB. Held in memory, they would take 60 MiB.
const MORE: u64 = 16 * 1024;

/// Makes its rows when they are asked for.
struct Endless {
    head: Given,
    rows: i64,
}

#[async_trait]
impl Source for Endless {
    async fn outline(&self, w: &WorkspaceId, edition: &EditionId) -> Result<Outline, SourceError> {
        self.head.outline(w, edition).await
    }

    async fn single(&self, at: &At, section: &str) -> Result<Values, SourceError> {
        self.head.single(at, section).await
    }

    async fn rows(
        &self,
        _: &At,
        _: &str,
        after: Option<i64>,
        limit: usize,
    ) -> Result<RowPage, SourceError> {
        let from = after.unwrap_or(0);
        let until = self.rows.min(from + i64::try_from(limit).unwrap());
        Ok(RowPage {
            rows: (from..until).map(row).collect(),
            next: (until < self.rows).then_some(until),
        })
    }
}

fn row(number: i64) -> Row {
    let text = |field: i64| format!("text {field} of row {number}, which no other row has");
    let values = serde_json::json!({
        "a": text(1), "b": text(2), "c": text(3), "d": text(4),
        "n": number, "day": "2026-05-01", "yes": number % 2 == 0,
    });
    Row {
        id: RowId::new(&number.to_string()).unwrap(),
        values: Values::parse(&values.to_string()).unwrap(),
    }
}

fn endless(rows: i64) -> Endless {
    let text = |name: &str| field(name, None, FieldType::Text);
    let fields = vec![
        text("a"),
        text("b"),
        text("c"),
        text("d"),
        field("n", None, FieldType::Integer),
        field("day", None, FieldType::Date),
        field("yes", None, FieldType::Boolean),
    ];
    let held = section("rows", None, SectionKind::Repeating, fields, &[]);
    Endless {
        head: Given::new(vec![held]),
        rows,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn one_rendering() {
    let variable = |name: &str| std::env::var(name).ok();
    let rows = variable(ROWS).map_or(200_000, |rows| rows.parse().unwrap());
    let format = variable(FORMAT).unwrap_or_else(|| "xlsx".to_owned());
    let workshop = Workshop::default();
    workshop.render(&endless(rows), &format).await.unwrap();
    println!("peak: {} KiB for {rows} rows as {format}", peak());
}

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.trim().parse().unwrap()
}

fn measured(rows: i64, format: &str) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "outputs::memory::one_rendering",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(ROWS, rows.to_string())
        .env(FORMAT, format)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let peak = told.lines().find_map(|line| line.split_once("peak: "));
    let (_, peak) = peak.unwrap_or_else(|| panic!("{told}"));
    peak.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_edition() {
    for format in ["csv", "xlsx"] {
        let (few, many) = (measured(1_000, format), measured(40_000, format));
        assert!(
            many < few + MORE,
            "{format}: {few} KiB for 1,000 rows, {many} KiB for 40,000"
        );
    }
}
