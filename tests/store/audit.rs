//! The audit log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::audit::{Action, Actor, AuditEntry, Request};
use forge_dispatch::domain::ids::{ApiKeyId, AuditId, WorkspaceId};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{AuditFilter, PageRequest};
use serde_json::json;

use super::api_keys::{entries, key_spec, make};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, workspace};

on_both_databases!(
    entries_are_read_as_they_were_written,
    a_batch_that_comes_again_is_written_once,
    the_log_is_paged_newest_first,
    filters_leave_out_what_they_should,
    times_are_bounds_to_the_millisecond,
    another_workspace_sees_no_entry,
    the_last_use_of_a_key_is_raised_and_never_falls,
    two_replicas_that_write_of_the_same_keys_both_succeed,
);

/// A fixed instant, and so many milliseconds.
fn at(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_777_000_000_000 + millis).unwrap()
}

fn some_key() -> ApiKeyId {
    Entropy::system().id(SystemClock.now())
}

/// A use of a key in workspace `default`.
fn used(key: ApiKeyId, at: DateTime<Utc>) -> AuditEntry {
    AuditEntry {
        workspace: WorkspaceId::default(),
        id: Entropy::system().id(at),
        actor: Actor::Key(key),
        action: Action::Request,
        object: None,
        address: Some(IpAddr::from([203, 0, 113, 7])),
        request_id: Some("req_1".to_owned()),
        request: Some(Request {
            method: "GET".to_owned(),
            route: "/v1/editions/{id}".to_owned(),
            status: Some(200),
        }),
        before: None,
        after: None,
    }
}

/// An entry that says little.
fn bare(at: DateTime<Utc>) -> AuditEntry {
    AuditEntry {
        actor: Actor::CommandLine,
        action: Action::SubscriptionDeleted,
        address: None,
        request_id: None,
        request: None,
        ..used(some_key(), at)
    }
}

async fn found(db: &TestDatabase, filter: AuditFilter) -> Vec<AuditEntry> {
    let all = PageRequest {
        limit: 100,
        after: None,
    };
    let here = WorkspaceId::default();
    let page = db.replica.audit_log(&here, &filter, all).await;
    page.unwrap().items
}

async fn entries_are_read_as_they_were_written(db: &TestDatabase) {
    let mut written = vec![
        used(some_key(), at(3)),
        AuditEntry {
            address: Some("2001:db8::7".parse().unwrap()),
            object: Some("sub_1".to_owned()),
            before: Some(json!({"name": "Für \u{1f600} \"x\"", "n": [1, null]})),
            after: Some(json!({})),
            ..used(some_key(), at(2))
        },
        bare(at(1)),
        // Its answer never began.
        AuditEntry {
            request: Some(Request {
                method: "POST".to_owned(),
                route: "/v1/subscriptions".to_owned(),
                status: None,
            }),
            ..used(some_key(), at(0))
        },
    ];
    db.store.append_audit(&[]).await.unwrap();
    db.store.append_audit(&written).await.unwrap();
    assert_eq!(entries(&db.replica).await, written);
    assert_eq!(written[0].at(), at(3));

    // An IPv4 address that came over IPv6 is the same address.
    written[0].id = Entropy::system().id(at(4));
    written[0].address = Some("::ffff:203.0.113.7".parse().unwrap());
    db.store.append_audit(&written[..1]).await.unwrap();
    let read = entries(&db.replica).await;
    assert_eq!(read[0].address, Some(IpAddr::from([203, 0, 113, 7])));
}

async fn a_batch_that_comes_again_is_written_once(db: &TestDatabase) {
    let mut batch: Vec<AuditEntry> = (0..600).map(|n| used(some_key(), at(n))).collect();
    db.store.append_audit(&batch[..300]).await.unwrap();
    db.replica.append_audit(&batch).await.unwrap();
    db.store.append_audit(&batch).await.unwrap();
    batch.reverse();
    assert_eq!(entries(&db.store).await, batch);
}

async fn the_log_is_paged_newest_first(db: &TestDatabase) {
    let key = some_key();
    let mut written: Vec<AuditEntry> = (0..7).map(|n| used(key, at(n))).collect();
    written.insert(3, bare(at(3)));
    db.store.append_audit(&written).await.unwrap();
    let filter = AuditFilter {
        actor: Some(Actor::Key(key)),
        until: Some(at(6)),
        ..AuditFilter::default()
    };
    let (mut read, mut after): (Vec<AuditEntry>, Option<AuditId>) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit: 2, after };
        let page = db
            .replica
            .audit_log(&WorkspaceId::default(), &filter, request)
            .await
            .unwrap();
        assert!(page.next.is_none() || page.items.len() == 2);
        read.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    written.retain(|entry| entry.actor == Actor::Key(key) && entry.at() < at(6));
    written.reverse();
    assert_eq!(written.len(), 6);
    assert_eq!(read, written);
}

async fn filters_leave_out_what_they_should(db: &TestDatabase) {
    let (one, other) = (some_key(), some_key());
    let elsewhere: IpAddr = "2001:db8::7".parse().unwrap();
    let written = [
        used(one, at(4)),
        used(other, at(3)),
        AuditEntry {
            address: Some(elsewhere),
            ..used(one, at(2))
        },
        bare(at(1)),
        AuditEntry {
            action: Action::KeyCreated,
            ..bare(at(0))
        },
    ];
    db.store.append_audit(&written).await.unwrap();
    let everything = AuditFilter::default();
    let of_one = AuditFilter {
        actor: Some(Actor::Key(one)),
        ..everything
    };
    let mapped: IpAddr = "::ffff:203.0.113.7".parse().unwrap();
    for (filter, expected) in [
        (everything, vec![0, 1, 2, 3, 4]),
        (of_one, vec![0, 2]),
        (
            AuditFilter {
                actor: Some(Actor::CommandLine),
                ..everything
            },
            vec![3, 4],
        ),
        (
            AuditFilter {
                address: Some(mapped),
                ..everything
            },
            vec![0, 1],
        ),
        (
            AuditFilter {
                address: Some(elsewhere),
                ..of_one
            },
            vec![2],
        ),
        (
            AuditFilter {
                action: Some(Action::KeyCreated),
                ..everything
            },
            vec![4],
        ),
        (
            AuditFilter {
                action: Some(Action::Request),
                since: Some(at(3)),
                ..of_one
            },
            vec![0],
        ),
    ] {
        let expected: Vec<AuditEntry> = expected
            .into_iter()
            .map(|n: usize| written[n].clone())
            .collect();
        assert_eq!(found(db, filter).await, expected, "{filter:?}");
    }
}

async fn times_are_bounds_to_the_millisecond(db: &TestDatabase) {
    let written: Vec<AuditEntry> = (0..4).map(|n| bare(at(n))).collect();
    db.store.append_audit(&written).await.unwrap();
    let half = Duration::from_micros(500);
    for (since, until, expected) in [
        (Some(at(1)), None, 1..4),
        (Some(at(1) + half), None, 2..4),
        (None, Some(at(2)), 0..2),
        (None, Some(at(2) + half), 0..3),
        (Some(at(1)), Some(at(3)), 1..3),
        (Some(at(2)), Some(at(2)), 0..0),
        (
            Some(DateTime::<Utc>::MIN_UTC),
            Some(DateTime::<Utc>::MAX_UTC),
            0..4,
        ),
    ] {
        let filter = AuditFilter {
            since,
            until,
            ..AuditFilter::default()
        };
        let mut expected = written[expected].to_vec();
        expected.reverse();
        assert_eq!(found(db, filter).await, expected, "{filter:?}");
    }
}

async fn another_workspace_sees_no_entry(db: &TestDatabase) {
    let theirs = AuditEntry {
        workspace: workspace("ws_2"),
        ..bare(at(1))
    };
    let ours = bare(at(2));
    let batch = [ours.clone(), theirs.clone()];
    db.store.append_audit(&batch).await.unwrap();
    assert_eq!(entries(&db.store).await, [ours]);
    let request = PageRequest {
        limit: 10,
        after: None,
    };
    let filter = AuditFilter::default();
    let page = db.store.audit_log(&theirs.workspace, &filter, request);
    assert_eq!(page.await.unwrap().items, [theirs]);
}

async fn the_last_use_of_a_key_is_raised_and_never_falls(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let (key, _) = make(&db.store, key_spec()).await;
    let (unused, _) = make(&db.store, key_spec()).await;
    let last_used_at = async |id| {
        let found = db.replica.api_key(&here, id).await.unwrap();
        found.unwrap().last_used_at
    };
    let stranger = used(some_key(), at(9));
    let claimed = AuditEntry {
        workspace: workspace("ws_2"),
        ..used(unused.id, at(9))
    };
    let uses = [
        used(key.id, at(5)),
        used(key.id, at(7)),
        used(key.id, at(6)),
    ];
    for (batch, expected) in [
        (&[bare(at(1))] as &[AuditEntry], None),
        (&uses, Some(at(7))),
        (&uses[..1], Some(at(7))),
        (&[stranger, used(key.id, at(8)), claimed], Some(at(8))),
        (&[used(key.id, at(2))], Some(at(8))),
    ] {
        db.store.append_audit(batch).await.unwrap();
        assert_eq!(last_used_at(key.id).await, expected);
    }
    assert_eq!(last_used_at(unused.id).await, None);
    // Nothing else of it changed.
    let revoked = db.store.revoke_api_key(&here, key.id, &act()).await;
    let revoked = revoked.unwrap().unwrap();
    assert_eq!(revoked.spec, key.spec);
    assert_eq!(revoked.last_used_at, Some(at(8)));
}

async fn two_replicas_that_write_of_the_same_keys_both_succeed(db: &TestDatabase) {
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.push(make(&db.store, key_spec()).await.0.id);
    }
    let writers: Vec<_> = [&db.store, &db.replica]
        .into_iter()
        .enumerate()
        .map(|(number, store)| {
            let (store, mut keys) = (Arc::clone(store), keys.clone());
            // Each comes with the keys in another order.
            if number == 1 {
                keys.reverse();
            }
            tokio::spawn(async move {
                for round in 0..20 {
                    let batch: Vec<_> = keys.iter().map(|key| used(*key, at(round))).collect();
                    store.append_audit(&batch).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(entries(&db.store).await.len(), 2 * 20 * 20 + keys.len());
    for key in keys {
        let found = db.store.api_key(&WorkspaceId::default(), key).await;
        assert_eq!(found.unwrap().unwrap().last_used_at, Some(at(19)));
    }
}
