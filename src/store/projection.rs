//! What webhook events change in the read model (product.md §3): the pure part, the same in both
//! databases.
//!
//! Each edition remembers the latest event that told its status, each output the latest that said it
//! was generated, beside what its newest snapshot states; which of the two counts is read off both.
//! So what is kept is the greatest of what came, by version and by time, and the order in which it
//! came is of no matter.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::domain::edition::EditionStatus;
use crate::domain::event::Event;
use crate::domain::ids::{EditionId, OutputId, ProjectId, WorkspaceId};
use crate::domain::output::OutputFormat;
use crate::domain::own_event::SOURCE;
use crate::domain::payload::Payload;

/// The event that says that an output was made.
const OUTPUT_GENERATED: &str = "output.generated";

/// Which event of an entity told it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told<'a> {
    /// When it happened.
    pub(super) at: DateTime<Utc>,
    /// The event's own id (not ours, which says in what order they came).
    pub(super) by: &'a str,
    /// What it told, where there are several things to tell.
    pub(super) status: Option<EditionStatus>,
    /// Where the file is that it told of, if the core made it.
    pub(super) file: Option<String>,
}

impl Told<'_> {
    /// The later one counts; of one time, that of the greater id; and the word decides between two
    /// sources that use one id.
    fn order(&self) -> (DateTime<Utc>, &str, Option<&str>) {
        let word = self.status.as_ref().map(EditionStatus::as_str);
        (self.at, self.by, word)
    }
}

/// Editions whose status a batch of events tells.
pub(super) type MovedEditions<'a> = BTreeMap<(&'a WorkspaceId, EditionId), Told<'a>>;

/// What a batch of events moves: of each entity by its latest event, in the order in which rows are
/// touched.
#[derive(Debug, Default)]
pub(super) struct Moves<'a> {
    /// Editions whose status is told.
    pub(super) editions: MovedEditions<'a>,
    /// Outputs that were generated.
    pub(super) outputs: BTreeMap<(&'a WorkspaceId, OutputId), Told<'a>>,
}

impl<'a> Moves<'a> {
    /// What these events move.
    pub(super) fn of(events: impl Iterator<Item = &'a Payload>) -> Self {
        let mut moves = Self::default();
        for payload in events {
            let event = payload.event();
            let told = |status, file| Told {
                at: event.occurred_at,
                by: &event.external_id,
                status,
                file,
            };
            let event_type = event.event_type.as_str();
            if let Some(status) = EditionStatus::told_by(event_type) {
                let edition = event.edition.clone();
                moves
                    .editions
                    .tell(&event.workspace, edition, told(Some(status), None));
            } else if event_type == OUTPUT_GENERATED {
                let (output, file) = generated(payload);
                moves
                    .outputs
                    .tell(&event.workspace, output, told(None, file));
            }
        }
        moves
    }

    /// Outputs whose file the core made, and where that is.
    pub(super) fn files(&self) -> impl Iterator<Item = Made<'_>> {
        self.outputs.iter().filter_map(|((workspace, id), told)| {
            Some(Made {
                workspace,
                id,
                told,
                url: told.file.as_deref()?,
            })
        })
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.editions.is_empty() && self.outputs.is_empty()
    }
}

/// An output whose file the core made.
pub(super) struct Made<'m> {
    pub(super) workspace: &'m WorkspaceId,
    pub(super) id: &'m OutputId,
    /// The event that told of it.
    pub(super) told: &'m Told<'m>,
    /// Where the file is.
    pub(super) url: &'m str,
}

trait Tell<'a, Id> {
    fn tell(&mut self, workspace: &'a WorkspaceId, id: Option<Id>, told: Told<'a>);
}

impl<'a, Id: Ord> Tell<'a, Id> for BTreeMap<(&'a WorkspaceId, Id), Told<'a>> {
    /// Keeps the later one. What has no id that can be used moves nothing.
    fn tell(&mut self, workspace: &'a WorkspaceId, id: Option<Id>, told: Told<'a>) {
        let Some(id) = id else { return };
        match self.entry((workspace, id)) {
            Entry::Vacant(first) => {
                first.insert(told);
            }
            Entry::Occupied(mut best) if told.order() > best.get().order() => {
                best.insert(told);
            }
            Entry::Occupied(_) => {}
        }
    }
}

/// The output that an event is about, `None` if what it says there is no id; and where its file is, if
/// it is one of the core's. What we made ourselves is kept here, and what we make is not taken from others.
fn generated(payload: &Payload) -> (Option<OutputId>, Option<String>) {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        output_id: Cow<'a, str>,
        #[serde(borrow)]
        format: Cow<'a, str>,
        #[serde(borrow)]
        download_url: Cow<'a, str>,
    }
    let Ok(data) = serde_json::from_str::<Data<'_>>(payload.data()) else {
        return (None, None);
    };
    let made_here = |format: OutputFormat| format.is_made_here();
    let is_ours =
        payload.event().source == SOURCE || OutputFormat::parse(&data.format).is_none_or(made_here);
    let url = (!is_ours).then(|| data.download_url.into_owned());
    (OutputId::new(&data.output_id).ok(), url)
}

/// An edition, and the workspace that knows it.
pub(super) type EditionOf = (WorkspaceId, EditionId);

/// The editions of events that say no project, in the order of their keys: an event that says none is
/// of its edition's project, where that is known (product.md §3).
pub(super) fn unattributed(events: &[Arc<Payload>]) -> Vec<EditionOf> {
    let editions: BTreeSet<EditionOf> = events.iter().filter_map(|payload| asks(payload)).collect();
    editions.into_iter().collect()
}

fn asks(payload: &Payload) -> Option<EditionOf> {
    let event: &Event = payload.event();
    match (&event.project, &event.edition) {
        (None, Some(edition)) => Some((event.workspace.clone(), edition.clone())),
        _ => None,
    }
}

/// The same events, those that say no project with their edition's.
pub(super) fn attributed(
    events: &[Arc<Payload>],
    known: &HashMap<EditionOf, ProjectId>,
) -> Vec<Arc<Payload>> {
    let attribute = |payload: &Arc<Payload>| {
        let project = asks(payload).and_then(|edition| known.get(&edition));
        match project {
            Some(project) => Arc::new(payload.of_project(project)),
            None => Arc::clone(payload),
        }
    };
    events.iter().map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::new_id;

    fn payload(id: &str, event_type: &str, seconds: i64, data: &str) -> Arc<Payload> {
        let now = DateTime::UNIX_EPOCH;
        let time = DateTime::from_timestamp(seconds, 0).unwrap().to_rfc3339();
        let text = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"{event_type}","time":"{time}",
                "data":{data}}}"#
        );
        let event = Event::decode(text.as_bytes(), new_id(now, [1; 10]), now).unwrap();
        Arc::new(Payload::new(event))
    }

    fn approved(id: &str, seconds: i64, edition: &str) -> Arc<Payload> {
        let data = format!(
            r#"{{"edition_id":"{edition}","approved_by":{{"id":"u","name":"n"}},
                "timestamp":"2026-05-01T09:00:00Z"}}"#
        );
        payload(id, "edition.approved", seconds, &data)
    }

    #[test]
    fn the_latest_event_of_each_entity_moves_it() {
        let made = |id: &str, seconds| {
            let data =
                r#"{"edition_id":"e","output_id":"o\u0031","format":"pdf","download_url":"u"}"#;
            payload(id, "output.generated", seconds, data)
        };
        let events = [
            approved("1", 5, "b"),
            approved("2", 5, "b"),
            approved("0", 5, "b"),
            approved("9", 4, "b"),
            approved("1", 1, "a"),
            made("1", 3),
            made("2", 2),
            payload("1", "edition.archived", 9, r#"{"edition_id":"c"}"#),
        ];
        let moves = Moves::of(events.iter().map(|payload| &**payload));
        let told: Vec<_> = moves
            .editions
            .iter()
            .map(|((_, id), told)| (id.as_str(), told.by, told.at.timestamp()))
            .collect();
        assert_eq!(told, [("a", "1", 1), ("b", "2", 5)]);
        let told: Vec<_> = moves
            .outputs
            .iter()
            .map(|((_, id), told)| (id.as_str(), told.by))
            .collect();
        assert_eq!(told, [("o1", "1")]);
        assert!(Moves::of(events[7..].iter().map(|payload| &**payload)).is_empty());
    }

    #[test]
    fn only_files_of_the_cores_are_somewhere_else() {
        let made = |source: &str, format: &str| {
            let data = format!(
                r#"{{"edition_id":"e","output_id":"o","format":"{format}","download_url":"u"}}"#
            );
            let text = format!(
                r#"{{"specversion":"1.0","id":"1","source":"{source}","type":"output.generated",
                    "time":"2026-05-01T09:00:00Z","data":{data}}}"#
            );
            let now = DateTime::UNIX_EPOCH;
            let payload = Payload::decode(text.as_bytes(), new_id(now, [1; 10]), now).unwrap();
            let moves = Moves::of(std::iter::once(&payload));
            assert_eq!(moves.outputs.len(), 1);
            moves.files().next().map(|file| file.url.to_owned())
        };
        assert_eq!(made("/report-forge", "pdf").as_deref(), Some("u"));
        for (source, format) in [
            ("/report-forge", "csv"),
            ("/report-forge", "excel"),
            ("/report-forge", "no word"),
            (SOURCE, "pdf"),
        ] {
            assert_eq!(made(source, format), None, "{source} {format}");
        }
    }

    #[test]
    fn an_event_without_project_gets_that_of_its_edition() {
        let workspace = WorkspaceId::default();
        let project = ProjectId::new("p").unwrap();
        let of_project = payload("1", "x.y", 1, r#"{"edition_id":"a","project_id":"q"}"#);
        let events = [
            approved("1", 1, "b"),
            approved("2", 1, "a"),
            approved("3", 1, "b"),
            of_project,
            payload("4", "x.y", 1, "{}"),
        ];
        let asked: Vec<_> = unattributed(&events)
            .into_iter()
            .map(|(_, edition)| edition.to_string())
            .collect();
        assert_eq!(asked, ["a", "b"]);
        let known = HashMap::from([((workspace, EditionId::new("a").unwrap()), project)]);
        let projects: Vec<_> = attributed(&events, &known)
            .iter()
            .map(|payload| payload.event().project.as_ref().map(ToString::to_string))
            .collect();
        let expected = [None, Some("p"), None, Some("q"), None];
        assert_eq!(projects, expected.map(|text| text.map(str::to_owned)));
    }
}
