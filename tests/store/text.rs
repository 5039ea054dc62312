//! Text that databases stumble over: it is kept and given back byte for byte.

use forge_dispatch::domain::event::MAX_EVENT_BYTES;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::payload::Payload;

use super::fixture::{accept, claim_all, deliveries, for_long, owner, subscribe, subscribe_in};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{EventBuilder, event, events, spec, workspace};

on_both_databases!(
    odd_text_in_data_comes_back_as_it_was,
    odd_identities_are_told_apart,
    an_event_of_the_largest_size_comes_back_as_it_was,
    the_largest_events_travel_in_one_batch,
    times_at_the_edge_come_back_as_they_were,
);

async fn there_and_back(db: &TestDatabase, builders: &[EventBuilder]) {
    let here = WorkspaceId::default();
    let subscription = subscribe_in(&db.store, &here, spec(&["*"])).await;
    let sent: Vec<_> = builders.iter().map(EventBuilder::build).collect();
    accept(&db.store, &sent).await;
    let claimed = claim_all(&db.replica, subscription.id, for_long(owner())).await;
    assert_eq!(claimed.len(), sent.len());
    for delivery in &claimed {
        let event = delivery.payload.event();
        let original = sent
            .iter()
            .map(|payload| payload.event())
            .find(|original| original.id == event.id)
            .unwrap();
        assert!(event == original, "{:.200}", original.envelope);
    }
}

async fn odd_text_in_data_comes_back_as_it_was(db: &TestDatabase) {
    let data = [
        r#""\u0000 NUL""#,
        r#""lone \ud800 and \udfff surrogates""#,
        r#""\ud83d\ude00 escaped, 😀 as it is, 👩‍👩‍👧 joined, é combining""#,
        r#"{"b":1,"a":2,"b":3,"":{}}"#,
        r#"{"n":1.50,"e":1e200000,"big":123456789012345678901234567890,"neg":-0.0}"#,
        r#""' -- ; drop table event; $1 ?1 %s {} \\ \" \/ \b\f\n\r\t""#,
        "  [ 1 ,\n\t2 ]  ",
        r#""\u202e right to left, \ufeff mark, \uffff""#,
        "null",
        r#""""#,
    ];
    let builders: Vec<_> = data.iter().map(|data| event().data(data)).collect();
    there_and_back(db, &builders).await;
}

async fn odd_identities_are_told_apart(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let ids = [
        "é", "e\u{301}", "É", "e", "E", " e", "e ", "😀", "\u{1}", "'", "\\", "%",
    ];
    let longest = "x".repeat(512);
    let mut builders: Vec<_> = ids.iter().map(|id| event().id(id)).collect();
    builders.push(event().id(&longest).source(&longest));
    builders.push(event().workspace("wörk 😀").project("p'r").data("{}"));
    let batch: Vec<_> = builders.iter().map(EventBuilder::build).collect();
    let accepted = accept(&db.store, &batch).await;
    assert_eq!(
        accepted.pending,
        batch.len() - 1,
        "all are new; one has no subscriber"
    );
    let again: Vec<_> = builders.iter().map(EventBuilder::build).collect();
    assert_eq!(
        accept(&db.replica, &again).await.pending,
        0,
        "all are known"
    );
    assert_eq!(deliveries(&db.store, &workspace("wörk 😀")).await.len(), 0);
}

async fn an_event_of_the_largest_size_comes_back_as_it_was(db: &TestDatabase) {
    there_and_back(db, &[largest()]).await;
}

/// An event of exactly the size that is still taken.
fn largest() -> EventBuilder {
    let frame = event().data(r#""""#).text().len();
    let filling = MAX_EVENT_BYTES - frame;
    let data = format!(
        r#""{}{}""#,
        "\u{1f600}".repeat(filling / 4),
        "x".repeat(filling % 4)
    );
    let builder = event().data(&data);
    assert_eq!(builder.text().len(), MAX_EVENT_BYTES);
    builder
}

async fn the_largest_events_travel_in_one_batch(db: &TestDatabase) {
    let builders: Vec<_> = (0..20).map(|_| largest()).collect();
    there_and_back(db, &builders).await;
}

async fn times_at_the_edge_come_back_as_they_were(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let mut sent = Vec::new();
    for time in [
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "9999-12-31T23:59:59.999Z",
    ] {
        let occurred_at = chrono::DateTime::parse_from_rfc3339(time).unwrap().to_utc();
        for payload in events(1) {
            let mut event = payload.event().clone();
            event.occurred_at = occurred_at;
            sent.push(std::sync::Arc::new(Payload::new(event)));
        }
    }
    accept(&db.store, &sent).await;
    let claimed = claim_all(&db.store, subscription.id, for_long(owner())).await;
    for payload in &sent {
        assert!(
            claimed
                .iter()
                .any(|delivery| delivery.payload.event() == payload.event())
        );
    }
}
