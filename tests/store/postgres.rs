//! What only Postgres has.

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::store::SettleOutcome;

use super::fixture::{accept_leased, for_long, owner, record, settle, subscribe};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::events;

#[tokio::test]
async fn an_outcome_in_a_strangers_name_does_not_keep_the_holder_from_settling() {
    let db = TestDatabase::new(Kind::Postgres).await;
    subscribe(&db.store, &["*"]).await;
    let (me, stranger) = (owner(), owner());
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    let told = settle(&db.store, stranger, &born[0], Verdict::Succeeded).await;
    assert_eq!(told, SettleOutcome::LeaseLost);
    let told = settle(&db.store, me, &born[0], Verdict::Failed).await;
    assert_eq!(told, SettleOutcome::Settled);
    let now = record(&db.store, born[0].id).await;
    assert_eq!((now.state, now.attempts), (DeliveryState::Failed, 1));
    assert_eq!(db.count("attempt").await, 1, "the stranger's stays");
    db.remove().await;
}
