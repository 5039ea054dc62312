//! The `data` of each sort of snapshot, read straight into what we keep.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::catalogue::DataError;
use super::super::edition::{Edition, EditionStatus};
use super::super::envelope::{self, Object};
use super::super::ids::{BlueprintId, EditionId, OutputId, ProjectId, UserId};
use super::super::output::{Output, OutputFile, OutputFormat, OutputStatus};
use super::super::workspace::{Member, Person, Project, Workspace};
use super::blueprint::BlueprintData;
use super::content::{Sections, check_rows};
use super::text::{self, Digest, Line, List, Size, Text, Time, Version};
use super::{EditionState, EntityKey, EntityKind, State};

/// What the envelope says that the data may leave out.
pub(super) struct Origin<'a> {
    /// The project, where `data.project_id` does not say.
    pub(super) project: Option<&'a ProjectId>,
    /// When it was so.
    pub(super) occurred_at: DateTime<Utc>,
}

impl Origin<'_> {
    fn project(&self, told: Option<ProjectId>) -> Result<ProjectId, DataError> {
        told.or_else(|| self.project.cloned()).ok_or_else(|| {
            wrong(
                "data.project_id",
                "must be there, or `projectid` in the envelope",
            )
        })
    }
}

/// What a message tells: of which entity, at which version.
pub(super) struct Told {
    pub(super) key: EntityKey,
    pub(super) version: i64,
    pub(super) state: State,
}

#[derive(Deserialize)]
struct WorkspaceData<'a> {
    version: Version,
    name: Line,
    #[serde(borrow, default)]
    settings: Option<&'a RawValue>,
    #[serde(default)]
    members: Option<List<Object<MemberData>, 10_000>>,
}

#[derive(Deserialize)]
struct MemberData {
    id: UserId,
    name: Option<Line>,
    email: Option<Line>,
    role: Option<Line>,
}

#[derive(Deserialize)]
struct PersonData {
    id: UserId,
    name: Option<Line>,
}

#[derive(Deserialize)]
struct ProjectData {
    id: ProjectId,
    version: Version,
    name: Line,
    description: Option<Text<10_000>>,
}

#[derive(Deserialize)]
struct EditionData {
    id: EditionId,
    version: Version,
    project_id: Option<ProjectId>,
    blueprint_id: BlueprintId,
    name: Line,
    #[serde(deserialize_with = "text::edition_status")]
    status: EditionStatus,
    status_changed_at: Time,
    period: Option<Line>,
    assignee: Option<Object<PersonData>>,
    created_at: Time,
    updated_at: Option<Time>,
    #[serde(default)]
    sections: Sections,
}

#[derive(Deserialize)]
struct OutputData {
    id: OutputId,
    version: Version,
    edition_id: EditionId,
    project_id: Option<ProjectId>,
    name: Line,
    #[serde(deserialize_with = "text::output_format")]
    format: OutputFormat,
    #[serde(deserialize_with = "text::output_status")]
    status: OutputStatus,
    file: Option<Object<FileData>>,
    failure: Option<Text<2_000>>,
    updated_at: Option<Time>,
}

#[derive(Deserialize)]
struct FileData {
    size: Size,
    sha256: Digest,
    generated_at: Time,
}

#[derive(Deserialize)]
struct DeletedData<Id> {
    id: Id,
    version: Version,
}

/// `workspace.deleted`: the envelope says which.
#[derive(Deserialize)]
struct WorkspaceDeletedData {
    version: Version,
}

/// Reads the data of a snapshot.
pub(super) fn snapshot(
    kind: EntityKind,
    data: &str,
    origin: &Origin<'_>,
) -> Result<Told, DataError> {
    match kind {
        EntityKind::Workspace => workspace(read(data)?),
        EntityKind::Project => Ok(project(read(data)?)),
        EntityKind::Blueprint => blueprint(read(data)?, origin),
        EntityKind::Edition => edition(read(data)?, origin),
        EntityKind::Output => output(read(data)?, origin),
    }
}

/// Reads the data of a deletion.
pub(super) fn deletion(kind: EntityKind, data: &str) -> Result<Told, DataError> {
    let (key, version) = match kind {
        EntityKind::Workspace => {
            let told: WorkspaceDeletedData = read(data)?;
            (EntityKey::Workspace, told.version)
        }
        EntityKind::Project => deleted(data, EntityKey::Project)?,
        EntityKind::Blueprint => deleted(data, EntityKey::Blueprint)?,
        EntityKind::Edition => deleted(data, EntityKey::Edition)?,
        EntityKind::Output => deleted(data, EntityKey::Output)?,
    };
    Ok(Told {
        key,
        version: version.0,
        state: State::Deleted,
    })
}

fn deleted<'a, Id: Deserialize<'a>>(
    data: &'a str,
    key: fn(Id) -> EntityKey,
) -> Result<(EntityKey, Version), DataError> {
    let told: DeletedData<Id> = read(data)?;
    Ok((key(told.id), told.version))
}

fn workspace(told: WorkspaceData<'_>) -> Result<Told, DataError> {
    let mut members: Vec<Member> = told
        .members
        .unwrap_or_default()
        .0
        .into_iter()
        .map(member)
        .collect();
    members.sort_by(|a, b| a.user.id.cmp(&b.user.id));
    if let Some(pair) = members
        .windows(2)
        .find(|pair| pair[0].user.id == pair[1].user.id)
    {
        let reason = format!("`{}` stands there twice", pair[0].user.id);
        return Err(wrong("data.members", &reason));
    }
    Ok(Told {
        key: EntityKey::Workspace,
        version: told.version.0,
        state: State::Workspace(Workspace {
            name: told.name.0,
            settings: text::settings(told.settings)
                .map_err(|reason| wrong("data.settings", &reason))?,
            members,
        }),
    })
}

fn member(Object(told): Object<MemberData>) -> Member {
    Member {
        user: person(Object(PersonData {
            id: told.id,
            name: told.name,
        })),
        email: told.email.map(|text| text.0),
        role: told.role.map(|text| text.0),
    }
}

fn person(Object(told): Object<PersonData>) -> Person {
    Person {
        id: told.id,
        name: told.name.map(|text| text.0),
    }
}

fn project(told: ProjectData) -> Told {
    Told {
        key: EntityKey::Project(told.id.clone()),
        version: told.version.0,
        state: State::Project(Project {
            id: told.id,
            name: told.name.0,
            description: told.description.map(|text| text.0),
        }),
    }
}

fn blueprint(told: BlueprintData, origin: &Origin<'_>) -> Result<Told, DataError> {
    let version = told.version.0;
    let project = origin.project(told.project_id.clone())?;
    let blueprint = told.into_blueprint(project)?;
    Ok(Told {
        key: EntityKey::Blueprint(blueprint.id.clone()),
        version,
        state: State::Blueprint(blueprint),
    })
}

fn edition(told: EditionData, origin: &Origin<'_>) -> Result<Told, DataError> {
    let content = told.sections.0;
    check_rows(&content)?;
    let edition = Edition {
        project: origin.project(told.project_id)?,
        blueprint: told.blueprint_id,
        name: told.name.0,
        status: told.status,
        status_changed_at: told.status_changed_at.0,
        period: told.period.map(|text| text.0),
        assignee: told.assignee.map(person),
        version: told.version.0,
        created_at: told.created_at.0,
        updated_at: told.updated_at.map_or(origin.occurred_at, |time| time.0),
        id: told.id,
    };
    Ok(Told {
        key: EntityKey::Edition(edition.id.clone()),
        version: edition.version,
        state: State::Edition(Box::new(EditionState { edition, content })),
    })
}

fn output(told: OutputData, origin: &Origin<'_>) -> Result<Told, DataError> {
    let output = Output {
        project: origin.project(told.project_id)?,
        edition: told.edition_id,
        name: told.name.0,
        format: told.format,
        status: told.status,
        file: told.file.map(|Object(file)| OutputFile {
            size: file.size.0,
            sha256: file.sha256.0,
            generated_at: file.generated_at.0,
        }),
        failure: told.failure.map(|text| text.0),
        version: told.version.0,
        updated_at: told.updated_at.map_or(origin.occurred_at, |time| time.0),
        id: told.id,
    };
    Ok(Told {
        key: EntityKey::Output(output.id.clone()),
        version: output.version,
        state: State::Output(Box::new(output)),
    })
}

/// Reads an object, and says where it is not as it should be.
fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, DataError> {
    let mut deserializer = serde_json::Deserializer::from_str(data);
    match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
        Ok(Object(told)) => Ok(told),
        Err(error) => {
            let path = match error.path().to_string() {
                path if path == "." => "data".to_owned(),
                path => format!("data.{path}"),
            };
            Err(wrong(&path, &envelope::reason(error.inner())))
        }
    }
}

pub(super) fn wrong(path: &str, reason: &str) -> DataError {
    DataError {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
