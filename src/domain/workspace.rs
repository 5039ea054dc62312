//! A tenant as clients see it: its name and settings, its members, its projects.

use serde_json::value::RawValue;

use super::ids::{ProjectId, UserId};

/// What the core tells of a workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its name.
    pub name: String,
    /// Its settings: a JSON object of the core's own, passed on as it came.
    pub settings: Box<RawValue>,
    /// Who belongs to it, in the order of their ids.
    pub members: Vec<Member>,
}

/// Somebody who belongs to a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: Person,
    /// Where mail reaches them.
    pub email: Option<String>,
    /// What they may do there, in the core's own word.
    pub role: Option<String>,
}

/// A person, as named beside what they did or have to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The core's id.
    pub id: UserId,
    /// The name to show; `None` where the core told only the id.
    pub name: Option<String>,
}

/// What the core tells of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
}
