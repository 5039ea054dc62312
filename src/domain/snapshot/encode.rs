//! Snapshots written as the core would, for the demo and for tests.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

use super::super::blueprint::{Blueprint, Field, Section, SectionKind};
use super::super::edition::{Content, Edition, Row, SectionContent};
use super::super::output::Output;
use super::super::values::Values;
use super::super::workspace::{Person, Project, Workspace};
use super::{Snapshot, State};

#[derive(Serialize)]
struct Message<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: String,
    time: String,
    workspaceid: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    version: i64,
    #[serde(flatten)]
    state: StateData<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum StateData<'a> {
    Workspace {
        name: &'a str,
        settings: &'a RawValue,
        members: Vec<PersonData<'a>>,
    },
    Project {
        name: &'a str,
        description: Option<&'a str>,
    },
    Blueprint {
        project_id: &'a str,
        name: &'a str,
        sections: Vec<SectionData<'a>>,
        outputs: Vec<OfferData<'a>>,
    },
    Edition {
        project_id: &'a str,
        blueprint_id: &'a str,
        name: &'a str,
        status: &'a str,
        status_changed_at: String,
        period: Option<&'a str>,
        assignee: Option<PersonData<'a>>,
        created_at: String,
        updated_at: String,
        sections: Sections<'a>,
    },
    Output {
        project_id: &'a str,
        edition_id: &'a str,
        name: &'a str,
        format: &'a str,
        status: &'a str,
        file: Option<FileData<'a>>,
        failure: Option<&'a str>,
        updated_at: String,
    },
    Deleted {},
}

#[derive(Serialize)]
struct PersonData<'a> {
    id: &'a str,
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
}

#[derive(Serialize)]
struct SectionData<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    kind: &'static str,
    fields: Vec<FieldData<'a>>,
}

#[derive(Serialize)]
struct FieldData<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    r#type: &'static str,
    required: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    options: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
}

#[derive(Serialize)]
struct OfferData<'a> {
    name: &'a str,
    format: &'a str,
}

#[derive(Serialize)]
struct FileData<'a> {
    size: u64,
    sha256: &'a str,
    generated_at: String,
}

/// The sections of an edition, by their names.
struct Sections<'a>(&'a Content);

#[derive(Serialize)]
#[serde(untagged)]
enum SectionContentData<'a> {
    Single { values: &'a Values },
    Repeating { rows: Vec<RowData<'a>> },
}

#[derive(Serialize)]
struct RowData<'a> {
    id: &'a str,
    values: &'a Values,
}

impl Snapshot {
    /// The message that [`Snapshot::decode`] reads this out of, under this `id` and `source`.
    pub fn to_json(&self, id: &str, source: &str) -> Result<String, serde_json::Error> {
        let what = match self.state {
            State::Deleted => "deleted",
            _ => "snapshot",
        };
        serde_json::to_string(&Message {
            specversion: "1.0",
            id,
            source,
            r#type: format!("{}.{what}", self.key.kind().as_str()),
            time: time(self.occurred_at),
            workspaceid: self.workspace.as_str(),
            data: Data {
                id: self.key.id(),
                version: self.version,
                state: state(&self.state),
            },
        })
    }
}

fn state(state: &State) -> StateData<'_> {
    match state {
        State::Workspace(it) => workspace(it),
        State::Project(Project {
            name, description, ..
        }) => StateData::Project {
            name,
            description: description.as_deref(),
        },
        State::Blueprint(it) => blueprint(it),
        State::Edition(it) => edition(&it.edition, &it.content),
        State::Output(it) => output(it),
        State::Deleted => StateData::Deleted {},
    }
}

fn workspace(it: &Workspace) -> StateData<'_> {
    let members = it.members.iter().map(|member| PersonData {
        email: member.email.as_deref(),
        role: member.role.as_deref(),
        ..person(&member.user)
    });
    StateData::Workspace {
        name: &it.name,
        settings: &it.settings,
        members: members.collect(),
    }
}

fn person(it: &Person) -> PersonData<'_> {
    PersonData {
        id: it.id.as_str(),
        name: it.name.as_deref(),
        email: None,
        role: None,
    }
}

fn blueprint(it: &Blueprint) -> StateData<'_> {
    let offers = it.outputs.iter().map(|offer| OfferData {
        name: &offer.name,
        format: offer.format.as_str(),
    });
    StateData::Blueprint {
        project_id: it.project.as_str(),
        name: &it.name,
        sections: it.sections.iter().map(section).collect(),
        outputs: offers.collect(),
    }
}

fn section(it: &Section) -> SectionData<'_> {
    SectionData {
        name: &it.name,
        label: it.label.as_deref(),
        kind: match it.kind {
            SectionKind::Single => "single",
            SectionKind::Repeating => "repeating",
        },
        fields: it.fields.iter().map(field).collect(),
    }
}

fn field(it: &Field) -> FieldData<'_> {
    FieldData {
        name: &it.name,
        label: it.label.as_deref(),
        r#type: it.field_type.as_str(),
        required: it.required,
        options: it.field_type.options(),
        min: it.bounds.min.as_ref(),
        max: it.bounds.max.as_ref(),
        pattern: it.pattern.as_deref(),
    }
}

fn edition<'a>(it: &'a Edition, content: &'a Content) -> StateData<'a> {
    StateData::Edition {
        project_id: it.project.as_str(),
        blueprint_id: it.blueprint.as_str(),
        name: &it.name,
        status: it.status.as_str(),
        status_changed_at: time(it.status_changed_at),
        period: it.period.as_deref(),
        assignee: it.assignee.as_ref().map(person),
        created_at: time(it.created_at),
        updated_at: time(it.updated_at),
        sections: Sections(content),
    }
}

fn output(it: &Output) -> StateData<'_> {
    StateData::Output {
        project_id: it.project.as_str(),
        edition_id: it.edition.as_str(),
        name: &it.name,
        format: it.format.as_str(),
        status: it.status.as_str(),
        file: it.file.as_ref().map(|file| FileData {
            size: file.size,
            sha256: &file.sha256,
            generated_at: time(file.generated_at),
        }),
        failure: it.failure.as_deref(),
        updated_at: time(it.updated_at),
    }
}

impl Serialize for Sections<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, content) in self.0 {
            map.serialize_entry(name, &section_content(content))?;
        }
        map.end()
    }
}

fn section_content(content: &SectionContent) -> SectionContentData<'_> {
    match content {
        SectionContent::Single(values) => SectionContentData::Single { values },
        SectionContent::Repeating(rows) => SectionContentData::Repeating {
            rows: rows.iter().map(row).collect(),
        },
    }
}

fn row(it: &Row) -> RowData<'_> {
    RowData {
        id: it.id.as_str(),
        values: &it.values,
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
