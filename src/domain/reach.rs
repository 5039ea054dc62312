//! What of a workspace a caller may see: all of it, or some projects.

use super::ids::{ProjectId, WorkspaceId};

/// A workspace, and the part of it that is in reach. Store methods that read tenant data take one,
/// so that nothing out of reach is even read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Only these projects; `None` means all, and what belongs to no project too.
    pub projects: Option<Vec<ProjectId>>,
}

impl Reach {
    /// The whole workspace.
    pub fn all(workspace: &WorkspaceId) -> Self {
        Self {
            workspace: workspace.clone(),
            projects: None,
        }
    }

    /// Whether it ends at some projects.
    pub fn is_restricted(&self) -> bool {
        self.projects.is_some()
    }

    /// Whether what belongs to this project is in reach; `None` belongs to the workspace alone.
    pub fn sees(&self, project: Option<&ProjectId>) -> bool {
        match &self.projects {
            None => true,
            Some(mine) => project.is_some_and(|project| mine.contains(project)),
        }
    }

    /// The part of it that is in one project: nothing where that is out of reach.
    #[must_use]
    pub fn within(self, project: ProjectId) -> Self {
        let projects = self.sees(Some(&project)).then_some(project);
        Self {
            projects: Some(projects.into_iter().collect()),
            ..self
        }
    }

    /// Whether all of these projects are in reach; `None` means the whole workspace.
    pub fn covers(&self, projects: Option<&[ProjectId]>) -> bool {
        match (&self.projects, projects) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => theirs.iter().all(|project| mine.contains(project)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restricted_reach_covers_what_is_within_it_only() {
        let ids = |names: &[&str]| -> Vec<ProjectId> {
            names
                .iter()
                .map(|name| ProjectId::new(name).unwrap())
                .collect()
        };
        let workspace = WorkspaceId::default();
        let all = Reach::all(&workspace);
        let some = Reach {
            projects: Some(ids(&["a", "b"])),
            ..all.clone()
        };
        assert!(all.covers(None) && all.covers(Some(&ids(&["x"]))));
        assert!(some.covers(Some(&ids(&["b"]))));
        assert!(!some.covers(Some(&ids(&["b", "c"]))));
        assert!(!some.covers(None), "the whole workspace is more");
    }

    #[test]
    fn what_belongs_to_no_project_is_seen_by_the_whole_only() {
        let id = |name| ProjectId::new(name).unwrap();
        let all = Reach::all(&WorkspaceId::default());
        let some = Reach {
            projects: Some(vec![id("a"), id("b")]),
            ..all.clone()
        };
        assert!(all.sees(None) && all.sees(Some(&id("x"))));
        assert!(some.sees(Some(&id("b"))));
        assert!(!some.sees(None) && !some.sees(Some(&id("x"))));

        assert_eq!(all.within(id("x")).projects, Some(vec![id("x")]));
        assert_eq!(some.clone().within(id("b")).projects, Some(vec![id("b")]));
        assert_eq!(some.within(id("x")).projects, Some(Vec::new()));
    }
}
