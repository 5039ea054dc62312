//! Lists of editions by several filters at once.

use forge_dispatch::domain::edition::{Edition, EditionStatus};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::{Snapshot, State};
use forge_dispatch::store::EditionFilter;

use super::super::state::{at, blueprint_id, edition_as, project_id, stated, tell};
use super::{everything, found_by};
use crate::harness::databases::TestDatabase;
use crate::harness::events::reach;

on_both_databases!(every_combination_of_filters_finds_its_editions_in_order,);

const PROJECTS: [&str; 3] = ["pr_1", "pr_2", "pr_3"];
const STATUSES: [&str; 3] = ["draft", "approved", "on_ice"];

/// Of every project, in every status; blueprints and periods go across.
fn editions() -> Vec<Snapshot> {
    let each = PROJECTS.iter().enumerate().flat_map(|(number, project)| {
        let statuses = STATUSES.iter().enumerate();
        statuses.map(move |(turn, status)| (number, *project, turn, *status))
    });
    let made = each.flat_map(|(number, project, turn, status)| {
        ["a", "b"].map(|word| {
            edition_as(&format!("{word}{turn}{number}"), 1, |state| {
                stated(status, at(0))(state);
                state.edition.project = project_id(project);
                state.edition.blueprint = blueprint_id(&format!("bp_{number}_{word}"));
                state.edition.period = (turn != 1).then(|| format!("Q{}", (number + turn) % 2));
            })
        })
    });
    made.collect()
}

fn head(snapshot: &Snapshot) -> &Edition {
    match &snapshot.state {
        State::Edition(state) => &state.edition,
        _ => unreachable!("it is one of an edition"),
    }
}

fn is_wanted(edition: &Edition, reach: &Reach, filter: &EditionFilter) -> bool {
    let within = reach.projects.as_ref();
    within.is_none_or(|projects| projects.contains(&edition.project))
        && filter
            .project
            .as_ref()
            .is_none_or(|one| *one == edition.project)
        && filter
            .blueprint
            .as_ref()
            .is_none_or(|one| *one == edition.blueprint)
        && (filter.period.is_none() || filter.period == edition.period)
        && (filter.statuses.is_empty() || filter.statuses.contains(&edition.status))
}

/// All filters: a project, a blueprint, a period, and statuses, each or none.
fn filters() -> Vec<EditionFilter> {
    let statuses = |words: &[&str]| -> Vec<EditionStatus> {
        words
            .iter()
            .filter_map(|word| EditionStatus::parse(word))
            .collect()
    };
    let mut filters = Vec::new();
    for project in [None, Some("pr_2"), Some("pr_9")] {
        for blueprint in [None, Some("bp_1_b")] {
            for period in [None, Some("Q0")] {
                for words in [
                    &[][..],
                    &["approved"],
                    &["on_ice", "draft", "on_ice"],
                    &["closed", "approved"],
                ] {
                    filters.push(EditionFilter {
                        project: project.map(project_id),
                        blueprint: blueprint.map(blueprint_id),
                        period: period.map(str::to_owned),
                        statuses: statuses(words),
                        updated_since: None,
                    });
                }
            }
        }
    }
    filters
}

async fn every_combination_of_filters_finds_its_editions_in_order(db: &TestDatabase) {
    let editions = editions();
    // Each in a transaction of its own, so that the order is theirs; projects and statuses take turns.
    let order = (0..editions.len()).map(|number| &editions[number * 7 % editions.len()]);
    let order: Vec<&Snapshot> = order.collect();
    for edition in &order {
        tell(&db.store, std::slice::from_ref(*edition)).await;
    }
    let here = everything().workspace;
    for reach in [
        everything(),
        reach(&here, &[]),
        reach(&here, &["pr_1"]),
        reach(&here, &["pr_3", "pr_1", "pr_3", "pr_8"]),
    ] {
        for filter in filters() {
            let wanted = order.iter().map(|one| head(one));
            let wanted = wanted.filter(|one| is_wanted(one, &reach, &filter));
            let expected: Vec<String> = wanted.map(|one| one.id.to_string()).collect();
            for limit in [2, 50] {
                let found = found_by(&db.replica, &reach, &filter, limit).await;
                assert_eq!(found, expected, "{reach:?} {filter:?} by {limit}");
            }
        }
    }
}
