//! Snapshots and events in any order, in batches of any size, over any replica, end as the model says
//! that folds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::domain::blueprint::Blueprint;
use forge_dispatch::domain::edition::{Content, Edition, EditionStatus};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::output::{Output, OutputFile, OutputStatus};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::{EntityKey, Snapshot, State};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{EditionFilter, PageRequest, Store, Whole};

use super::fixture::accept;
use super::state::{
    at, blueprint, blueprint_id, deletion, edition_as, edition_id, generated, in_workspace,
    output_as, output_id, project, project_id, repeating, single, stated, told, workspace_state,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::workspace;

on_both_databases!(
    any_order_ends_the_same_1,
    any_order_ends_the_same_2,
    any_order_ends_the_same_3,
);

/// Histories of one test, each told in some orders, each order in a workspace of its own.
const HISTORIES: u64 = 8;
const ORDERS: u64 = 5;
const LENGTH: usize = 40;

async fn any_order_ends_the_same_1(db: &TestDatabase) {
    run(db, 1).await;
}

async fn any_order_ends_the_same_2(db: &TestDatabase) {
    run(db, 2).await;
}

async fn any_order_ends_the_same_3(db: &TestDatabase) {
    run(db, 3).await;
}

async fn run(db: &TestDatabase, seed: u64) {
    let mut ends = BTreeSet::new();
    for history in 0..HISTORIES {
        let random = Dice(Entropy::seeded(seed * 1_000 + history));
        let told: Vec<Item> = (0..LENGTH).map(|_| Item::any(&random)).collect();
        let expected = fold(&told);
        for order in 0..ORDERS {
            let workspace = workspace(&format!("ws_{history}_{order}"));
            tell(
                db,
                &workspace,
                in_some_order(&told, order, &random),
                &random,
            )
            .await;
            let read = read(&db.store, &workspace).await;
            assert_eq!(read, expected, "seed {seed}, {workspace}: {told:#?}");
        }
        ends.extend(
            expected
                .editions
                .values()
                .map(|(head, _)| head.status.to_string()),
        );
        ends.extend(
            expected
                .outputs
                .values()
                .map(|output| output.status.as_str().to_owned()),
        );
    }
    assert!(ends.len() >= 6, "histories end in many ways: {ends:?}");
}

/// Numbers out of a seed.
struct Dice(Entropy);

impl Dice {
    fn below(&self, end: usize) -> usize {
        let number = u64::from_le_bytes(self.0.bytes());
        usize::try_from(number % u64::try_from(end).unwrap()).unwrap()
    }

    fn small(&self, end: u8) -> u8 {
        u8::try_from(self.below(usize::from(end))).unwrap()
    }

    fn of<T: Copy>(&self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// One message. Two that are equal say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Snapshot {
        of: Of,
        version: u8,
    },
    Told {
        edition: u8,
        word: &'static str,
        time: u8,
        id: u8,
    },
    Generated {
        output: u8,
        time: u8,
        id: u8,
    },
}

/// What a snapshot is of. Edition 2 is of project 1, the others of project 0; output `n` is of
/// edition `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Workspace,
    Project(u8),
    Blueprint,
    Edition(u8),
    Output(u8),
}

/// The times that things happen at are few, so that many are the same.
const TIMES: u8 = 6;

impl Item {
    fn any(dice: &Dice) -> Self {
        let version = dice.small(6);
        match dice.below(12) {
            0 => Self::Snapshot {
                of: Of::Workspace,
                version,
            },
            1 => Self::Snapshot {
                of: Of::Project(dice.small(2)),
                version,
            },
            2 => Self::Snapshot {
                of: Of::Blueprint,
                version,
            },
            3..=5 => Self::Snapshot {
                of: Of::Edition(dice.small(3)),
                version,
            },
            6 | 7 => Self::Snapshot {
                of: Of::Output(dice.small(3)),
                version,
            },
            8..=10 => Self::Told {
                edition: dice.small(3),
                word: dice.of(&["submitted", "approved", "changes_requested"]),
                time: dice.small(TIMES),
                id: dice.small(100),
            },
            _ => Self::Generated {
                output: dice.small(3),
                time: dice.small(TIMES),
                id: dice.small(100),
            },
        }
    }

    /// The event's own id: what is the same event has the same, and only that.
    fn id(&self) -> String {
        match self {
            Self::Told {
                edition,
                word,
                time,
                id,
            } => format!("{id:02} {edition}{word}{time}"),
            Self::Generated { output, time, id } => format!("{id:02} {output}{time}"),
            Self::Snapshot { .. } => String::new(),
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let Self::Snapshot { of, version } = *self else {
            return None;
        };
        let number = i64::from(version);
        let text = format!("v{version}");
        let since = i64::from((version * 5 + 2) % TIMES);
        let snapshot = match of {
            Of::Workspace => workspace_state(number, &text, &[&text, "u1"]),
            Of::Project(id) => project(&format!("pr_{id}"), number, &text),
            Of::Blueprint => blueprint("bp_1", "pr_0", number, &text),
            Of::Edition(id) => edition_as(&format!("ed_{id}"), number, |state| {
                let word = ["draft", "in_review", "closed"][usize::from(version % 3)];
                stated(word, at(since))(state);
                state.edition.project = project_id(project_of(id));
                state.content = vec![
                    single("a", &format!(r#"{{"version": {version}}}"#)),
                    // Some versions have the same rows.
                    repeating("b", usize::from(version % 3), &format!("{}", version / 3)),
                ];
            }),
            Of::Output(id) => {
                output_as(&format!("o_{id}"), &format!("ed_{id}"), number, |output| {
                    output.project = project_id(project_of(id));
                    output.status =
                        OutputStatus::ALL[usize::from(version) % OutputStatus::ALL.len()];
                    output.updated_at = at(since);
                    output.file = (output.status == OutputStatus::Generated).then(|| OutputFile {
                        size: u64::from(version),
                        sha256: "ef".repeat(32),
                        generated_at: at(since),
                    });
                })
            }
        };
        // Some versions are deletions.
        let is_deletion = match of {
            Of::Workspace | Of::Blueprint => version == 3,
            Of::Project(id) => (version, id) == (2, 1),
            Of::Edition(_) | Of::Output(_) => version == 4,
        };
        Some(if is_deletion {
            deletion(&snapshot, number)
        } else {
            snapshot
        })
    }

    fn event(&self, workspace: &WorkspaceId) -> Option<Arc<Payload>> {
        let event = match *self {
            Self::Told {
                edition,
                word,
                time,
                ..
            } => told(word, &format!("ed_{edition}"), at(time.into())),
            Self::Generated { output, time, .. } => generated(
                &format!("o_{output}"),
                &format!("ed_{output}"),
                at(time.into()),
            ),
            Self::Snapshot { .. } => return None,
        };
        // One event has one id everywhere, so its source says where.
        let source = format!("/{workspace}");
        let event = event.id(&self.id()).source(&source);
        Some(event.workspace(workspace.as_str()).build())
    }
}

fn project_of(edition: u8) -> &'static str {
    if edition == 2 { "pr_1" } else { "pr_0" }
}

/// The items in another order; some come twice.
fn in_some_order(told: &[Item], order: u64, dice: &Dice) -> Vec<Item> {
    let mut items = told.to_vec();
    if order == 0 {
        return items;
    }
    for _ in 0..LENGTH / 4 {
        items.push(dice.of(told));
    }
    for place in (1..items.len()).rev() {
        items.swap(place, dice.below(place + 1));
    }
    items
}

/// Sends them: runs of one sort as a batch, each over some replica.
async fn tell(db: &TestDatabase, workspace: &WorkspaceId, items: Vec<Item>, dice: &Dice) {
    let mut rest = items.as_slice();
    while let Some(first) = rest.first() {
        let is_event = first.snapshot().is_none();
        let run = rest
            .iter()
            .take_while(|item| item.snapshot().is_none() == is_event)
            .count();
        let (batch, others) = rest.split_at(1 + dice.below(run));
        rest = others;
        let store = dice.of(&[&db.store, &db.replica]);
        if is_event {
            let events: Vec<_> = batch
                .iter()
                .filter_map(|item| item.event(workspace))
                .collect();
            accept(store, &events).await;
        } else {
            let snapshots = batch.iter().filter_map(Item::snapshot);
            let snapshots: Vec<_> = snapshots.map(|one| in_workspace(workspace, one)).collect();
            store.apply(&snapshots).await.unwrap();
        }
    }
}

/// All that is seen, by its ids, without what depends on the order (revisions, times of changes).
#[derive(Debug, Default, PartialEq)]
struct Seen {
    workspace: Option<(i64, String)>,
    members: Vec<String>,
    projects: BTreeMap<String, (String, Option<String>)>,
    blueprints: BTreeMap<String, Blueprint>,
    editions: BTreeMap<String, (Edition, Content)>,
    outputs: BTreeMap<String, Output>,
}

fn all<Key>() -> PageRequest<Key> {
    PageRequest {
        limit: 100,
        after: None,
    }
}

async fn read(store: &Arc<dyn Store>, workspace: &WorkspaceId) -> Seen {
    let reach = Reach::all(workspace);
    let mut seen = Seen::default();
    let read = store.workspace(workspace).await.unwrap();
    seen.workspace = read.map(|record| (record.version, record.name));
    let members = store.members(workspace, all()).await.unwrap().items;
    seen.members = members.iter().map(|one| one.user.id.to_string()).collect();
    for record in store.projects(&reach, all()).await.unwrap().items {
        // One without a name is known by what belongs to it, or by an event.
        if let Some(name) = record.name {
            let told = (name, record.description);
            seen.projects.insert(record.id.to_string(), told);
        }
    }
    if let Some(record) = store
        .blueprint(&reach, &blueprint_id("bp_1"))
        .await
        .unwrap()
    {
        seen.blueprints.insert("bp_1".to_owned(), record.blueprint);
    }
    let list = store
        .editions(&reach, &EditionFilter::default(), all())
        .await;
    let listed = list.unwrap().page.items;
    for id in ["ed_0", "ed_1", "ed_2"] {
        let read = store.content(&reach, &edition_id(id), usize::MAX).await;
        if let Some(Whole::Content(head, content)) = read.unwrap() {
            let head = *head;
            assert!(listed.contains(&head), "{id} is listed as it is read");
            seen.editions
                .insert(id.to_owned(), (timeless(head.edition), content));
        }
    }
    assert_eq!(listed.len(), seen.editions.len());
    for id in ["o_0", "o_1", "o_2"] {
        if let Some(record) = store.output(&reach, &output_id(id)).await.unwrap() {
            seen.outputs.insert(id.to_owned(), record.output);
        }
    }
    seen
}

/// Without the time of its last change here.
fn timeless(edition: Edition) -> Edition {
    Edition {
        updated_at: at(0),
        ..edition
    }
}

/// The model: of each entity the greatest version, of each edition and output the latest event.
fn fold(told: &[Item]) -> Seen {
    let mut newest: BTreeMap<EntityKey, Snapshot> = BTreeMap::new();
    for snapshot in told.iter().filter_map(Item::snapshot) {
        let best = newest
            .entry(snapshot.key.clone())
            .or_insert_with(|| snapshot.clone());
        if snapshot.version > best.version {
            *best = snapshot;
        }
    }
    let gone = |id: &str| {
        let key = EntityKey::Project(project_id(id));
        matches!(
            newest.get(&key),
            Some(Snapshot {
                state: State::Deleted,
                ..
            })
        )
    };
    let mut seen = Seen::default();
    for snapshot in newest.values() {
        let id = snapshot.key.id().to_owned();
        match &snapshot.state {
            State::Workspace(state) => {
                seen.workspace = Some((snapshot.version, state.name.clone()));
                let members = state.members.iter().map(|one| one.user.id.to_string());
                seen.members = members.collect::<BTreeSet<_>>().into_iter().collect();
            }
            State::Project(state) => {
                let told = (state.name.clone(), state.description.clone());
                seen.projects.insert(id, told);
            }
            State::Blueprint(state) if !gone(state.project.as_str()) => {
                seen.blueprints.insert(id, state.clone());
            }
            State::Edition(state) if !gone(state.edition.project.as_str()) => {
                let head = timeless(moved(&state.edition, told));
                seen.editions.insert(id, (head, state.content.clone()));
            }
            State::Output(state) if seen.editions.contains_key(state.edition.as_str()) => {
                seen.outputs.insert(id, marked(state, told));
            }
            _ => {}
        }
    }
    seen
}

/// The head after the latest event about it.
fn moved(head: &Edition, told: &[Item]) -> Edition {
    let latest = told
        .iter()
        .filter_map(|item| match *item {
            Item::Told {
                edition,
                word,
                time,
                ..
            } if head.id == edition_id(&format!("ed_{edition}")) => {
                Some((at(time.into()), item.id(), word))
            }
            _ => None,
        })
        .max();
    let mut head = head.clone();
    if let Some((time, _, word)) = latest
        && time > head.status_changed_at
    {
        head.status = EditionStatus::parse(word).unwrap();
        head.status_changed_at = time;
    }
    head
}

/// The output after the latest event about it.
fn marked(output: &Output, told: &[Item]) -> Output {
    let latest: Option<DateTime<Utc>> = told
        .iter()
        .filter_map(|item| match *item {
            Item::Generated {
                output: number,
                time,
                ..
            } if output.id == output_id(&format!("o_{number}")) => Some(at(time.into())),
            _ => None,
        })
        .max();
    match latest {
        Some(time) if time > output.updated_at => Output {
            status: OutputStatus::Generated,
            file: None,
            failure: None,
            updated_at: time,
            ..output.clone()
        },
        _ => output.clone(),
    }
}
