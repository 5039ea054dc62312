//! What the demo's workspace is made of: `workspace.json`. Its blueprints are told as they stand
//! there; beside them it says how many rows a section has, and of what its texts are picked.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::entropy::Entropy;

/// The project that one subscription wants alone.
pub(super) const HARBOUR: &str = "pr_harbour";

/// A workspace and its projects.
#[derive(Deserialize)]
pub(super) struct Plan {
    /// The data of its snapshot.
    pub(super) workspace: Value,
    /// One blueprint each.
    pub(super) projects: Vec<Project>,
}

/// A project, which reports on each of its lots.
#[derive(Deserialize)]
pub(super) struct Project {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) lots: Vec<String>,
    pub(super) blueprint: Value,
}

#[derive(Deserialize)]
struct Section {
    name: String,
    /// Of a repeating one.
    rows: Option<usize>,
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    examples: Vec<String>,
    #[serde(default)]
    min: i64,
    #[serde(default)]
    max: i64,
}

impl Plan {
    pub(super) fn load() -> serde_json::Result<Self> {
        serde_json::from_str(include_str!("workspace.json"))
    }

    /// A member of the workspace, with id and name.
    pub(super) fn member(&self, luck: &Luck) -> Value {
        let members = self.workspace["members"].as_array();
        let Some(member) = members.and_then(|members| luck.of(members)) else {
            return Value::Null;
        };
        json!({ "id": member["id"], "name": member["name"] })
    }

    /// What the sections of an edition of this project hold, with dates in this month: the same for
    /// the same luck.
    pub(super) fn sections(
        &self,
        project: &Project,
        month: &str,
        luck: &Luck,
    ) -> serde_json::Result<Value> {
        let sections = Vec::<Section>::deserialize(&project.blueprint["sections"])?;
        let values = |section: &Section, row: usize| -> Value {
            let value = |field: &Field| (field.name.clone(), self.value(field, row, month, luck));
            section.fields.iter().map(value).collect()
        };
        let content = |section: &Section| match section.rows {
            None => json!({ "values": values(section, 0) }),
            Some(rows) => {
                let row = |row| json!({ "id": format!("r{row}"), "values": values(section, row) });
                json!({ "rows": (1..=rows).map(row).collect::<Vec<_>>() })
            }
        };
        Ok(sections
            .iter()
            .map(|section| (section.name.clone(), content(section)))
            .collect())
    }

    /// Texts stay those of their row; the rest is luck.
    fn value(&self, field: &Field, row: usize, month: &str, luck: &Luck) -> Value {
        let span = field.max.saturating_sub(field.min).unsigned_abs();
        let whole = field.min.saturating_add_unsigned(luck.below(span + 1));
        let day = luck.below(28) + 1;
        match field.kind.as_str() {
            "text" | "long_text" => json!(field.examples.iter().cycle().nth(row.saturating_sub(1))),
            "integer" | "number" | "calculated" => json!(whole),
            "date" => json!(format!("{month}-{day:02}")),
            "datetime" => json!(format!("{month}-{day:02}T{:02}:30:00Z", luck.below(24))),
            "boolean" => json!(luck.below(2) == 0),
            "select" => json!(luck.of(&field.options)),
            "multi_select" => json!(field.options[luck.index(field.options.len())..]),
            "rag" => json!(luck.of(&["green", "green", "amber", "green", "red"])),
            "user" => self.member(luck)["id"].clone(),
            "file" => json!({ "name": format!("site-{:04}.jpg", luck.below(10_000)) }),
            _ => Value::Null,
        }
    }
}

/// Picks, the same ones for the same seed.
pub(super) struct Luck(Entropy);

impl Luck {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(Entropy::seeded(seed))
    }

    /// A number from 0 on; 0 where there is none below.
    pub(super) fn below(&self, end: u64) -> u64 {
        u64::from_le_bytes(self.0.bytes()) % end.max(1)
    }

    /// An index into so many.
    pub(super) fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of these.
    pub(super) fn of<'a, T>(&self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.index(list.len()))
    }
}
