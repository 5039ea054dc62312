use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::*;
use crate::domain::blueprint::{Blueprint, Section};
use crate::domain::edition::SectionContent;
use crate::domain::event::Event;
use crate::domain::snapshot::State;
use crate::domain::values::{Checker, Place, ValueFaults, Values, check_complete};
use crate::entropy::Entropy;

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_777_000_000_000).unwrap()
}

fn story() -> Story {
    Story::new(WorkspaceId::default(), at()).unwrap()
}

#[test]
fn every_event_of_the_story_is_one_that_would_be_accepted() {
    let mut types = HashSet::new();
    let mut ids = HashSet::new();
    let batch = story().batch(500, at()).unwrap();
    assert_eq!(batch.events.len(), 500);
    for event in batch.events {
        let event = Event::decode(&event, Entropy::seeded(3).id(at()), at()).unwrap();
        assert!(event.project.is_some() && event.edition.is_some());
        types.insert(event.event_type.to_string());
        assert!(ids.insert(event.external_id));
    }
    assert_eq!(types.len(), 4, "{types:?}");
}

#[test]
fn behind_an_event_its_edition_stands_where_it_tells() {
    let mut story = story();
    for _ in 0..100 {
        let batch = story.batch(1, at()).unwrap();
        let event = Event::decode(&batch.events[0], Entropy::seeded(3).id(at()), at()).unwrap();
        let edition = batch.snapshots.iter().find_map(|told| match &told.state {
            State::Edition(state) if Some(&state.edition.id) == event.edition.as_ref() => {
                Some(&state.edition)
            }
            _ => None,
        });
        let edition = edition.expect("the core tells how it stands");
        // Outputs are those of an approved edition.
        let status = EditionStatus::told_by(event.event_type.as_str());
        assert_eq!(edition.status, status.unwrap_or(EditionStatus::Approved));
        assert_eq!(edition.status_changed_at, event.occurred_at);
    }
}

#[test]
fn the_story_is_the_same_each_time() {
    let told = |story: &mut Story| {
        let (seed, batch) = (story.seed(at()).unwrap(), story.batch(60, at()).unwrap());
        format!("{seed:?} {:?} {:?}", batch.events, batch.snapshots)
    };
    assert_eq!(told(&mut story()), told(&mut story()));
}

/// Whether the values are what a client could have written, but for those that only the core writes.
fn fits(section: &Section, content: &SectionContent) {
    let checker = Checker::new(section);
    let rows: Vec<&Values> = match content {
        SectionContent::Single(values) => vec![values],
        SectionContent::Repeating(rows) => rows.iter().map(|row| &row.values).collect(),
    };
    let mut faults = ValueFaults::default();
    for values in rows {
        let written: Values = values
            .entries()
            .unwrap()
            .into_iter()
            .filter(|(name, _)| {
                let field = section.fields.iter().find(|field| *field.name == **name);
                !field.unwrap().is_read_only()
            })
            .map(|(name, value)| (name.into_owned(), value.to_owned()))
            .collect();
        checker.check(&written, &mut faults, |name| {
            Place::Pointer(name.to_owned())
        });
    }
    assert!(faults.is_empty(), "{}: {faults:?}", section.name);
}

#[test]
fn the_seed_is_a_dozen_editions_in_two_periods_that_fit_their_blueprints() {
    let seed = story().seed(at()).unwrap();
    let mut blueprints: BTreeMap<String, Blueprint> = BTreeMap::new();
    let (mut periods, mut statuses, mut outputs) =
        (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut types = BTreeSet::new();
    for snapshot in seed {
        match snapshot.state {
            State::Blueprint(blueprint) => {
                let fields = blueprint
                    .sections
                    .iter()
                    .flat_map(|section| &section.fields);
                types.extend(fields.map(|field| field.field_type.as_str()));
                blueprints.insert(blueprint.id.to_string(), blueprint);
            }
            State::Edition(state) => {
                let edition = &state.edition;
                *periods.entry(edition.period.clone().unwrap()).or_insert(0) += 1;
                statuses.insert(edition.status.to_string());
                let blueprint = &blueprints[edition.blueprint.as_str()];
                let faults = check_complete(blueprint, &state.content);
                assert!(faults.is_empty(), "{}: {faults:?}", edition.id);
                assert_eq!(state.content.len(), blueprint.sections.len());
                for (name, content) in &state.content {
                    let section = blueprint.sections.iter().find(|one| one.name == *name);
                    fits(section.unwrap(), content);
                }
            }
            State::Output(output) => {
                outputs.insert((output.format.to_string(), output.status.as_str()));
            }
            _ => {}
        }
    }
    assert_eq!(types.len(), 13, "every type of field: {types:?}");
    assert_eq!(periods.into_values().collect::<Vec<_>>(), [6, 6]);
    assert_eq!(statuses.len(), 6, "{statuses:?}");
    let formats: BTreeSet<_> = outputs.iter().map(|(format, _)| format.as_str()).collect();
    assert_eq!(
        formats.into_iter().collect::<Vec<_>>(),
        ["csv", "pdf", "xlsx"]
    );
    let progress: BTreeSet<_> = outputs.iter().map(|(_, status)| status).collect();
    assert_eq!(progress.len(), 5, "{progress:?}");
}
