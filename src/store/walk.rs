//! By what a list of editions is walked, the same in both databases. Each way has an index in the
//! list's order; several projects, or statuses, are walked beside each other and merged. So a page costs
//! what it shows, and what the conditions beside the walk pass over.

use std::collections::BTreeSet;

use super::EditionFilter;
use crate::domain::edition::EditionStatus;
use crate::domain::ids::{BlueprintId, ProjectId};
use crate::domain::reach::Reach;

/// How a list is walked, and what is looked at in each row on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Walk<'a> {
    pub(super) by: By<'a>,
    /// Of these projects only.
    pub(super) projects: Option<Vec<&'a str>>,
    /// Of this period only.
    pub(super) period: Option<&'a str>,
    /// In one of these statuses only.
    pub(super) statuses: Option<Vec<&'a str>>,
}

/// What editions are walked by, from what most likely has the fewest on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum By<'a> {
    Blueprint(&'a str),
    Projects(Vec<&'a str>),
    Period(&'a str),
    Statuses(Vec<&'a str>),
    /// All of the workspace.
    Changes,
}

impl<'a> Walk<'a> {
    pub(super) fn of(reach: &'a Reach, filter: &'a EditionFilter) -> Self {
        let mut walk = Self {
            by: By::Changes,
            projects: wanted_projects(reach, filter),
            period: filter.period.as_deref(),
            statuses: wanted_statuses(filter),
        };
        walk.by = if let Some(blueprint) = &filter.blueprint {
            By::Blueprint(BlueprintId::as_str(blueprint))
        } else if let Some(projects) = walk.projects.take() {
            By::Projects(projects)
        } else if let Some(period) = walk.period.take() {
            By::Period(period)
        } else if let Some(statuses) = walk.statuses.take() {
            By::Statuses(statuses)
        } else {
            By::Changes
        };
        walk
    }
}

/// The projects whose editions are listed, each once; `None` is all.
fn wanted_projects<'a>(reach: &'a Reach, filter: &'a EditionFilter) -> Option<Vec<&'a str>> {
    let within: Option<BTreeSet<&str>> = reach
        .projects
        .as_ref()
        .map(|projects| projects.iter().map(ProjectId::as_str).collect());
    match (&filter.project, within) {
        (None, within) => within.map(|projects| projects.into_iter().collect()),
        (Some(only), Some(within)) if !within.contains(only.as_str()) => Some(Vec::new()),
        (Some(only), _) => Some(vec![only.as_str()]),
    }
}

/// The statuses whose editions are listed, each once; `None` is all.
fn wanted_statuses(filter: &EditionFilter) -> Option<Vec<&str>> {
    let statuses: BTreeSet<&str> = filter.statuses.iter().map(EditionStatus::as_str).collect();
    (!statuses.is_empty()).then(|| statuses.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::WorkspaceId;

    #[test]
    fn what_has_the_fewest_is_walked_and_the_rest_is_looked_at() {
        let project = |id: &str| ProjectId::new(id).unwrap();
        let all = Reach::all(&WorkspaceId::default());
        let some = Reach {
            projects: Some(["b", "a", "b"].map(project).to_vec()),
            ..all.clone()
        };
        let filter = EditionFilter {
            statuses: ["x", "y", "x"]
                .map(|word| EditionStatus::parse(word).unwrap())
                .to_vec(),
            period: Some("Q1".to_owned()),
            ..EditionFilter::default()
        };
        let walk = Walk::of(&some, &filter);
        assert_eq!(walk.by, By::Projects(vec!["a", "b"]));
        assert_eq!(walk.statuses, Some(vec!["x", "y"]));
        assert_eq!((walk.projects, walk.period), (None, Some("Q1")));

        let walk = Walk::of(&all, &filter);
        assert_eq!(walk.by, By::Period("Q1"));
        let filter = EditionFilter {
            period: None,
            ..filter
        };
        assert_eq!(Walk::of(&all, &filter).by, By::Statuses(vec!["x", "y"]));

        let outside = EditionFilter {
            project: Some(project("c")),
            ..EditionFilter::default()
        };
        assert_eq!(Walk::of(&some, &outside).by, By::Projects(vec![]));
        assert_eq!(Walk::of(&all, &outside).by, By::Projects(vec!["c"]));

        let of_blueprint = EditionFilter {
            blueprint: Some(BlueprintId::new("bp").unwrap()),
            ..EditionFilter::default()
        };
        let walk = Walk::of(&some, &of_blueprint);
        assert_eq!(
            (walk.by, walk.projects),
            (By::Blueprint("bp"), Some(vec!["a", "b"]))
        );
        assert_eq!(Walk::of(&all, &EditionFilter::default()).by, By::Changes);
    }
}
