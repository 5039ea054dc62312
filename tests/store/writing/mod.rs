//! Writes of edition data.

mod crashes;
mod edits;
mod making;
mod refusals;
mod repeats;
mod submitting;

use std::sync::Arc;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::blueprint::{Blueprint, Section};
use forge_dispatch::domain::edition::Row;
use forge_dispatch::domain::ids::{ApiKeyId, RowId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::State;
use forge_dispatch::domain::values::Values;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::{Intake, NoDispatch};
use forge_dispatch::store::{
    Edit, EditionRecord, Idempotency, LeaseName, NewEdition, OutgoingRequest, PageRequest, Result,
    SectionData, Store, Write, Written,
};
use forge_dispatch::wake::Wake;

use super::fixture::{for_long, owner};
use super::state::{blueprint, edition_as, edition_id, repeating, single, tell};
use crate::harness::databases::TestDatabase;

/// A request of a client's: nothing special, if not said otherwise.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) reach: Reach,
    pub(super) versions: Option<Vec<i64>>,
    pub(super) blueprint_version: i64,
    pub(super) once: Option<Idempotency>,
}

pub(super) fn ask() -> Ask {
    Ask {
        reach: everything(),
        versions: None,
        blueprint_version: 1,
        once: None,
    }
}

pub(super) fn everything() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// What is answered: all that a client could want to know of the edition.
fn answer(written: &EditionRecord) -> String {
    let edition = &written.edition;
    format!(
        "{} v{} r{} {} {}",
        edition.id, edition.version, written.revision, edition.status, edition.updated_at
    )
}

impl Ask {
    /// The same request under a key, with this fingerprint.
    pub(super) fn once(self, caller: ApiKeyId, key: &str, fingerprint: u8) -> Self {
        let once = Idempotency {
            caller,
            route: "PATCH /v1/editions/{id}/sections/{name}",
            key: key.to_owned(),
            fingerprint: [fingerprint; 32],
        };
        Self {
            once: Some(once),
            ..self
        }
    }

    fn write<'a>(&'a self, intake: &'a dyn Intake) -> Write<'a> {
        Write {
            reach: &self.reach,
            versions: self.versions.as_deref(),
            blueprint_version: self.blueprint_version,
            once: self.once.as_ref(),
            answer: &answer,
            event: Entropy::system().id(SystemClock.now()),
            trace: None,
            leasing: for_long(owner()),
            intake,
        }
    }

    pub(super) async fn edit(
        &self,
        store: &Arc<dyn Store>,
        section: &Section,
        edit: &Edit,
    ) -> Result<Written> {
        self.edit_of(store, "ed_1", section, edit).await
    }

    pub(super) async fn edit_of(
        &self,
        store: &Arc<dyn Store>,
        edition: &str,
        section: &Section,
        edit: &Edit,
    ) -> Result<Written> {
        let write = self.write(&NoDispatch);
        store
            .edit_section(&edition_id(edition), section, edit, &write)
            .await
    }

    pub(super) async fn submit(&self, store: &Arc<dyn Store>) -> Result<Written> {
        self.submit_to(store, &NoDispatch).await
    }

    pub(super) async fn submit_of(&self, store: &Arc<dyn Store>, edition: &str) -> Result<Written> {
        let write = self.write(&NoDispatch);
        store.submit_edition(&edition_id(edition), &write).await
    }

    pub(super) async fn submit_to(
        &self,
        store: &Arc<dyn Store>,
        intake: &dyn Intake,
    ) -> Result<Written> {
        let write = self.write(intake);
        store.submit_edition(&edition_id("ed_1"), &write).await
    }

    pub(super) async fn create(&self, store: &Arc<dyn Store>, new: &NewEdition) -> Result<Written> {
        store.create_edition(new, &self.write(&NoDispatch)).await
    }
}

/// The version that it was written as.
pub(super) fn version(written: Result<Written>) -> i64 {
    match written.unwrap() {
        Written::Done { version, .. } => version,
        other => panic!("it was not written: {other:?}"),
    }
}

/// Edits as anybody may, and answers the version.
pub(super) async fn edit(store: &Arc<dyn Store>, section: &Section, edit: &Edit) -> i64 {
    version(ask().edit(store, section, edit).await)
}

pub(super) fn row(id: &str, values: &str) -> Row {
    Row {
        id: row_id(id),
        values: values_of(values),
    }
}

pub(super) fn row_id(id: &str) -> RowId {
    RowId::new(id).unwrap()
}

pub(super) fn values_of(text: &str) -> Values {
    Values::parse(text).unwrap()
}

/// The blueprint of the edition that is written to: `summary` is filled once, its `total` required;
/// `costs` row by row.
pub(super) fn plan() -> Blueprint {
    let State::Blueprint(blueprint) = blueprint("bp_1", "pr_1", 1, "Report").state else {
        unreachable!()
    };
    blueprint
}

pub(super) fn summary() -> Section {
    plan().section("summary").unwrap().clone()
}

pub(super) fn costs() -> Section {
    plan().section("costs").unwrap().clone()
}

/// The blueprint, and a draft `ed_1` of it, version 1, with three rows of costs. What is told goes to
/// the outbox.
pub(super) async fn draft(db: &TestDatabase) {
    for store in [&db.store, &db.replica] {
        store.open_outbox(Arc::new(Wake::default()));
    }
    let edition = edition_as("ed_1", 1, |state| {
        state.content = vec![
            single("summary", r#"{"total": 1.50}"#),
            repeating("costs", 3, "old"),
        ];
    });
    tell(
        &db.store,
        &[blueprint("bp_1", "pr_1", 1, "Report"), edition],
    )
    .await;
}

pub(super) async fn head(store: &Arc<dyn Store>) -> EditionRecord {
    let found = store.edition(&everything(), &edition_id("ed_1")).await;
    found.unwrap().expect("the edition is seen")
}

/// What the single section holds; `None` where it is not one.
pub(super) async fn values(store: &Arc<dyn Store>) -> Option<String> {
    let id = edition_id("ed_1");
    let found = store.section(&everything(), &id, "summary").await;
    match found.unwrap().unwrap().data {
        SectionData::Single(values) => Some(values.as_str().to_owned()),
        SectionData::Empty | SectionData::Repeating => None,
    }
}

/// The rows of `costs`: ids and values.
pub(super) async fn rows(store: &Arc<dyn Store>) -> Vec<(String, String)> {
    let everything_of = PageRequest {
        limit: 100_000,
        after: None,
    };
    let id = edition_id("ed_1");
    let found = store
        .rows(&everything(), &id, "costs", everything_of, usize::MAX)
        .await;
    let page = found.unwrap().unwrap().page;
    let told = |row: &Row| (row.id.to_string(), row.values.as_str().to_owned());
    page.items.iter().map(told).collect()
}

pub(super) fn told(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    let told = |(id, values): &(&str, &str)| ((*id).to_owned(), (*values).to_owned());
    rows.iter().map(told).collect()
}

/// What waits in the outbox, in order: types, and `data` without its timestamp.
pub(super) async fn outbox(store: &Arc<dyn Store>) -> Vec<(String, serde_json::Value)> {
    let held = store
        .take_lease(LeaseName::OUTBOX, for_long(owner()))
        .await
        .unwrap()
        .expect("nobody else leads");
    let request = OutgoingRequest {
        limit: 10_000,
        max_bytes: usize::MAX,
        failed: &[],
    };
    let events = store.outgoing(&held, request).await.unwrap().unwrap();
    store.release_lease(&held).await.unwrap();
    let read = |body: &str| {
        let mut envelope: serde_json::Value = serde_json::from_str(body).unwrap();
        let mut data = envelope["data"].take();
        let time = data.as_object_mut().unwrap().remove("timestamp");
        assert_eq!(time.as_ref(), Some(&envelope["time"]));
        data
    };
    events
        .iter()
        .map(|event| {
            assert_eq!(event.key, Some(edition_id("ed_1")));
            (event.event_type.to_string(), read(&event.body))
        })
        .collect()
}

/// How much there is of all that a write could leave: events in the outbox and in the feed,
/// deliveries, keys of events and of requests, rows.
pub(super) async fn counts(db: &TestDatabase) -> [i64; 6] {
    [
        db.count("outbox").await,
        db.count("event_feed").await,
        db.count("delivery_queue").await,
        db.count("event_key").await,
        db.count("idempotency_key").await,
        db.count("edition_row").await,
    ]
}
