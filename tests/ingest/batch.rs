//! The way in without a broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::ingest::{Outcome, accept_all};
use forge_dispatch::store::LeasedDelivery;
use forge_dispatch::store::intake::{Intake, Permit};
use forge_dispatch::store::targets::Target;
use sqlx::{Connection, SqliteConnection};

use super::rig::acceptor;
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{event, events, register, registration, spec};

const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Postgres];

#[tokio::test]
async fn each_event_has_its_outcome_in_the_order_given() {
    for kind in KINDS {
        let db = TestDatabase::new(kind).await;
        let acceptor = acceptor(Arc::clone(&db.store));
        let known = event();
        let batch = vec![known.build(), event().build(), known.build()];
        let outcomes = accept_all(&acceptor, batch, Duration::ZERO).await.unwrap();
        assert_eq!(
            outcomes,
            [Outcome::Stored, Outcome::Stored, Outcome::Duplicate]
        );
        let batch = vec![event().build(), known.build()];
        let outcomes = accept_all(&acceptor, batch, Duration::ZERO).await.unwrap();
        assert_eq!(outcomes, [Outcome::Stored, Outcome::Duplicate]);
        let nothing = accept_all(&acceptor, Vec::new(), Duration::ZERO).await;
        assert_eq!(nothing.unwrap(), []);
        db.remove().await;
    }
}

#[tokio::test]
async fn what_the_database_refuses_stands_alone_and_everything_else_is_stored_in_order() {
    for kind in KINDS {
        let db = TestDatabase::new(kind).await;
        db.tamper(match kind {
            Kind::Sqlite => {
                "create trigger refuse_poison before insert on event
                 when new.external_id like 'poison%'
                 begin select raise(abort, 'poisonous'); end"
            }
            Kind::Postgres => {
                "create function refuse_poison() returns trigger language plpgsql as $$
                 begin
                     if new.external_id like 'poison%' then
                         raise exception 'poisonous' using errcode = '22023';
                     end if;
                     return new;
                 end $$;
                 create trigger refuse_poison before insert on event
                 for each row execute function refuse_poison()"
            }
        })
        .await;
        let acceptor = acceptor(Arc::clone(&db.store));
        // The first, one in the middle with a neighbour of its kind, and the last.
        let culprits = [0, 41, 42, 99];
        let batch: Vec<_> = (0..100)
            .map(|n| {
                if culprits.contains(&n) {
                    event().id(&format!("poison {n}")).build()
                } else {
                    event().build()
                }
            })
            .collect();
        let ids: Vec<_> = batch.iter().map(|payload| payload.event().id).collect();
        let outcomes = accept_all(&acceptor, batch, Duration::ZERO).await.unwrap();
        assert_eq!(outcomes.len(), 100);
        let mut stored = Vec::new();
        for (n, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Refused(reason) => {
                    assert!(culprits.contains(&n), "{n}: {reason}");
                    assert!(reason.contains("poisonous"), "{reason}");
                }
                other => {
                    assert_eq!(*other, Outcome::Stored, "{n}");
                    stored.push(ids[n]);
                }
            }
        }
        assert_eq!(stored.len(), 100 - culprits.len());
        let feed = db.feed(&WorkspaceId::default()).await;
        let kept: Vec<_> = feed.into_iter().map(|(_, id)| id).collect();
        assert_eq!(kept, stored, "in the order given");
        db.remove().await;
    }
}

/// Counts what a dispatcher is told.
#[derive(Default)]
struct Told {
    left_waiting: AtomicUsize,
}

impl Intake for Told {
    fn admit(&self, _target: &Target, _bytes: usize) -> Option<Permit> {
        None
    }

    fn hand_over(&self, leased: Vec<(LeasedDelivery, Permit)>) {
        assert!(leased.is_empty(), "nothing was admitted");
    }

    fn left_waiting(&self, of: &[SubscriptionId]) {
        assert!(!of.is_empty(), "somebody's");
        self.left_waiting.fetch_add(1, Ordering::SeqCst);
    }

    fn something_is_due(&self) {}
}

#[tokio::test]
async fn a_batch_that_would_make_too_many_deliveries_is_taken_in_several_steps() {
    for kind in KINDS {
        let db = TestDatabase::new(kind).await;
        let workspace = WorkspaceId::default();
        for _ in 0..30 {
            let new = registration(&workspace, spec(&["*"]));
            register(&*db.store, &new).await.unwrap();
        }
        let told = Arc::new(Told::default());
        let mut acceptor = acceptor(Arc::clone(&db.store));
        acceptor.intake = Arc::clone(&told) as Arc<dyn Intake>;
        let outcomes = accept_all(&acceptor, events(400), Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(outcomes, vec![Outcome::Stored; 400]);
        let depth = db.store.queue_depth().await.unwrap();
        assert_eq!(depth.pending, 400 * 30);
        let steps = told.left_waiting.load(Ordering::SeqCst);
        assert!(steps >= 3, "5,000 rows a step: {steps}");
        db.remove().await;
    }
}

#[tokio::test]
async fn an_unavailable_database_is_asked_again_for_as_long_as_the_patience_lasts() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let acceptor = acceptor(Arc::clone(&db.store));
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", db.path().display()))
        .await
        .unwrap();
    sqlx::query("begin immediate")
        .execute(&mut other)
        .await
        .unwrap();
    let error = accept_all(&acceptor, events(1), Duration::ZERO)
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error}");

    let patient = accept_all(&acceptor, events(1), Duration::from_mins(1));
    let free = async {
        sqlx::query("rollback").execute(&mut other).await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(patient, free);
    assert_eq!(outcomes.unwrap(), [Outcome::Stored]);
    other.close().await.unwrap();
    db.remove().await;
}
