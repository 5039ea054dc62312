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
}
