//! Edition data read and written by several at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use forge_dispatch::domain::edition::{Content, Row, SectionContent};
use forge_dispatch::domain::ids::{EditionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::Snapshot;
use forge_dispatch::store::{EditionFilter, EditionKey, EditionTag, PageRequest, Store, Whole};

use super::fixture::accept;
use super::state::{
    apply, at, blueprint, edition, edition_as, edition_id, generated, output, project, repeating,
    single, told, workspace_state,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::EventBuilder;

on_both_databases!(
    who_asks_for_what_changed_misses_nothing_of_many_writers,
    nobody_sees_half_an_edition,
    replicas_that_write_the_same_entities_all_succeed,
);

fn everything() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// So many tasks, half of them in each process, and how many of them are still at work.
fn writers<F>(
    db: &TestDatabase,
    count: usize,
    write: impl Fn(usize, Arc<dyn Store>) -> F,
) -> (Arc<AtomicUsize>, Vec<tokio::task::JoinHandle<()>>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let writing = Arc::new(AtomicUsize::new(count));
    let tasks = (0..count).map(|number| {
        let store = [&db.store, &db.replica][number % 2];
        let (write, writing) = (write(number, Arc::clone(store)), Arc::clone(&writing));
        tokio::spawn(async move {
            let _done = Done(writing);
            write.await;
        })
    });
    let tasks = tasks.collect();
    (writing, tasks)
}

/// Says that a writer is done, also when it panics.
struct Done(Arc<AtomicUsize>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn join(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.await.unwrap();
    }
}

type Seen = HashMap<EditionId, EditionTag>;

/// Reads all pages of what changed since then; answers from when on to ask the next time.
async fn poll(
    store: &Arc<dyn Store>,
    since: Option<DateTime<Utc>>,
    seen: &mut Seen,
) -> DateTime<Utc> {
    let filter = EditionFilter {
        updated_since: since,
        ..EditionFilter::default()
    };
    let mut after: Option<EditionKey> = None;
    loop {
        let page = PageRequest { limit: 7, after };
        let list = store.editions(&everything(), &filter, page).await.unwrap();
        for record in &list.page.items {
            assert!(list.as_of > record.edition.updated_at);
            assert!(since.is_none_or(|since| record.edition.updated_at >= since));
            seen.insert(record.edition.id.clone(), record.tag());
        }
        after = list.page.next;
        if after.is_none() {
            return list.as_of;
        }
    }
}

/// Each edition is written twice only, so that one change that is missed stays missed.
async fn who_asks_for_what_changed_misses_nothing_of_many_writers(db: &TestDatabase) {
    const WRITERS: usize = 6;
    const ROUNDS: i64 = 25;
    const EDITIONS: usize = 3;
    let (writing, tasks) = writers(db, WRITERS, |writer, store| async move {
        for round in 0..ROUNDS {
            let id = |number| format!("ed_{writer}_{round}_{number}");
            let batch: Vec<_> = (0..EDITIONS)
                .map(|number| edition(&id(number), 1))
                .collect();
            apply(&store, &batch).await;
            accept(&store, &[told("submitted", &id(0), at(1)).build()]).await;
        }
    });
    let (mut seen, mut since) = (Seen::new(), None);
    loop {
        let at_rest = writing.load(Ordering::SeqCst) == 0;
        since = Some(poll(&db.replica, since, &mut seen).await);
        if at_rest {
            break;
        }
    }
    join(tasks).await;
    let mut all = Seen::new();
    poll(&db.store, None, &mut all).await;
    assert_eq!(
        all.len(),
        WRITERS * EDITIONS * usize::try_from(ROUNDS).unwrap()
    );
    assert_eq!(seen, all);
}

/// What each version of the edition holds, which says the version everywhere.
fn content_of(version: i64) -> Content {
    let word = format!("v{version}");
    vec![
        repeating("a", 40, &word),
        single("b", &format!(r#"{{"word": "{word}"}}"#)),
        repeating("c", 30, &word),
    ]
}

async fn nobody_sees_half_an_edition(db: &TestDatabase) {
    const VERSIONS: i64 = 40;
    let filled = |version| edition_as("ed_1", version, |state| state.content = content_of(version));
    apply(&db.store, &[filled(1)]).await;
    let (writing, tasks) = writers(db, 1, move |_, store| async move {
        for number in 2..=VERSIONS {
            apply(&store, &[filled(number)]).await;
        }
    });
    let id = edition_id("ed_1");
    let reach = everything();
    loop {
        let at_rest = writing.load(Ordering::SeqCst) == 0;
        let whole = db.replica.content(&reach, &id, usize::MAX).await;
        let Some(Whole::Content(edition, content)) = whole.unwrap() else {
            panic!("it is there, and small");
        };
        let version = edition.edition.version;
        assert!(content == content_of(version), "of {version}: {content:?}");

        let page = PageRequest {
            limit: 100,
            after: None,
        };
        let rows = db.replica.rows(&reach, &id, "c", page, usize::MAX).await;
        let rows = rows.unwrap().unwrap();
        let version = rows.edition.edition.version;
        let expected: Vec<Row> = match content_of(version).remove(2).1 {
            SectionContent::Repeating(rows) => rows,
            SectionContent::Single(_) => unreachable!("it is repeating"),
        };
        assert!(rows.page.items == expected, "of {version}");
        if at_rest {
            assert_eq!(version, VERSIONS);
            break;
        }
    }
    join(tasks).await;
}

async fn replicas_that_write_the_same_entities_all_succeed(db: &TestDatabase) {
    churn(db).await;
}

/// Two processes that tell of the same entities, each in another order, for many rounds.
pub(super) async fn churn(db: &TestDatabase) {
    const ROUNDS: i64 = 25;
    const ENTITIES: usize = 5;
    let (_, tasks) = writers(db, 4, |writer, store| async move {
        for round in 1..=ROUNDS {
            let mut snapshots: Vec<Snapshot> = vec![workspace_state(round, "ws", &["u1", "u2"])];
            let mut events = Vec::new();
            for number in 0..ENTITIES {
                let (old, new) = (format!("ed_{number}"), format!("ed_{number}_{round}"));
                // Some are there already, others are new to all of them at once.
                snapshots.extend([
                    project(&format!("pr_{number}"), round, "pr"),
                    project(&format!("pr_{number}_{round}"), round, "pr"),
                    blueprint(&format!("bp_{number}"), &format!("pr_{round}"), round, "bp"),
                    edition_as(&old, round, |state| {
                        state.content = vec![repeating("a", 3, &format!("v{round}"))];
                    }),
                    edition(&new, round),
                    output(&format!("out_{number}"), &old, round),
                ]);
                events.extend([
                    told("submitted", &new, at(round)).project(&format!("pr_{round}_{number}")),
                    told("approved", &old, at(round)),
                    told("submitted", &format!("ed_{number}_{round}_soon"), at(round)),
                    generated(&format!("out_{number}"), &old, at(round)),
                    generated(&format!("out_{number}_{round}"), &old, at(round)),
                ]);
            }
            match writer {
                0 => {}
                1 => {
                    snapshots.reverse();
                    events.reverse();
                }
                _ => {
                    let turn = usize::try_from(round).unwrap() * writer;
                    let (snapshot, event) = (turn % snapshots.len(), turn % events.len());
                    snapshots.rotate_left(snapshot);
                    events.rotate_left(event);
                }
            }
            let events: Vec<_> = events.iter().map(EventBuilder::build).collect();
            if writer % 2 == 0 {
                apply(&store, &snapshots).await;
                accept(&store, &events).await;
            } else {
                accept(&store, &events).await;
                apply(&store, &snapshots).await;
            }
        }
    });
    join(tasks).await;
    let mut seen = Seen::new();
    poll(&db.store, None, &mut seen).await;
    assert_eq!(
        seen.len(),
        ENTITIES * (1 + usize::try_from(ROUNDS).unwrap())
    );
    assert!(seen.values().all(|tag| tag.version <= ROUNDS));
}
