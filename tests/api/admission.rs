//! The door: validity before limits, limits on every answer, every use in the audit log.

use std::num::NonZeroU32;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::{KeyLimits, Scope};
use forge_dispatch::domain::audit::{Action, Actor};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{AuditFilter, PageRequest};
use futures::StreamExt;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Answer, FROM, Key, PATIENCE, Rig};
use crate::harness::databases::{Kind, TestDatabase};

on_both_databases!(
    without_a_valid_key_there_is_nothing,
    the_sixty_first_request_of_a_minute_waits,
    two_replicas_let_sixty_through_together_where_they_share,
    limits_are_told_on_every_answer,
    the_sixth_request_at_once_is_refused_and_does_not_count,
    an_address_with_too_many_wrong_keys_waits_and_its_neighbours_do_not,
    every_use_of_a_key_is_in_the_audit_log,
    bodies_are_small_plain_json,
);

fn stranger() -> KeyText {
    let entropy = Entropy::system();
    KeyText::generate(entropy.id(SystemClock.now()), entropy.bytes())
}

async fn without_a_valid_key_there_is_nothing(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.admin().await;
    let imitation = KeyText::generate(key.id(), [7; 20]);
    for path in ["/v1/api-keys", "/v1/nothing", "/report-forge/v1/api-keys/x"] {
        let bare = rig.ask(Method::GET, path).send().await;
        assert_eq!(bare.problem(), "unauthorized", "{path}");
        assert_eq!(
            bare.header("www-authenticate"),
            "Bearer realm=\"forge-dispatch\""
        );
        for wrong in [stranger(), imitation.clone()] {
            let answer = rig.get(&wrong, path).await;
            assert_eq!(answer.problem(), "unauthorized");
            assert!(answer.header("www-authenticate").contains("invalid_token"));
        }
        for header in [
            "Bearer",
            "Basic YTpi",
            "Bearer rfk_",
            &format!("Token {}", key.expose()),
        ] {
            let ask = rig.ask(Method::GET, path).header("authorization", header);
            assert_eq!(
                ask.send().await.status,
                StatusCode::UNAUTHORIZED,
                "{header}"
            );
        }
    }
    let unknown = rig.get(&key, "/v1/nothing").await;
    assert_eq!(unknown.problem(), "not-found");
    let method = rig.ask(Method::PUT, "/v1/api-keys").key(&key).send().await;
    assert_eq!(method.problem(), "method-not-allowed");
    assert!(method.header("allow").contains("GET"));
    rig.stop().await;
}

async fn the_sixty_first_request_of_a_minute_waits(db: &TestDatabase) {
    let rig = Rig::with(&db.store, |api| {
        api.requests_per_minute = 60;
        api.requests_per_hour = 1_000;
    })
    .await;
    let admin = rig.admin().await;
    for number in 1..=60_u32 {
        let answer = rig.get(&admin, "/v1/api-keys").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(
            answer.header("x-ratelimit-remaining"),
            (60 - number).to_string()
        );
    }
    let answer = rig.get(&admin, "/v1/api-keys").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.problem(), "rate-limited");
    assert_eq!(answer.header("x-ratelimit-limit"), "60");
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");
    let wait: i64 = answer.header("retry-after").parse().unwrap();
    let reset: i64 = answer.header("x-ratelimit-reset").parse().unwrap();
    let ends = SystemClock.now().timestamp() + wait;
    assert!((1..=60).contains(&wait), "{wait}");
    assert!((ends - reset).abs() <= 2, "{ends} {reset}");
    let policy = answer.header("ratelimit-policy");
    assert_eq!(policy, "\"minute\";q=60;w=60, \"hour\";q=1000;w=3600");
    assert_eq!(
        answer.header("ratelimit"),
        format!("\"minute\";r=0;t={wait}")
    );
    rig.stop().await;
}

async fn two_replicas_let_sixty_through_together_where_they_share(db: &TestDatabase) {
    let sixty = |api: &mut forge_dispatch::config::Api| api.requests_per_minute = 60;
    let here = Rig::with(&db.store, sixty).await;
    let there = Rig::with(&db.replica, sixty).await;
    let admin = here.admin().await;
    let answers: Vec<Answer> = futures::stream::iter(0..120)
        .map(|number| {
            let rig = if number % 2 == 0 { &here } else { &there };
            rig.get(&admin, "/v1/api-keys")
        })
        .buffer_unordered(16)
        .collect()
        .await;
    let through = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::OK);
    // SQLite is served by one process, which counts by itself.
    let expected = if db.kind == Kind::Postgres { 60 } else { 120 };
    assert_eq!(through.count(), expected);
    here.stop().await;
    there.stop().await;
}

async fn limits_are_told_on_every_answer(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&[Scope::ReadWorkspace])).await;
    for (method, path) in [
        (Method::GET, "/v1/api-keys"),
        (Method::GET, "/v1/nothing"),
        (Method::PUT, "/v1/api-keys"),
        (Method::POST, "/v1/api-keys"),
    ] {
        let answer = rig.ask(method, path).key(&key).send().await;
        assert!(answer.status.is_client_error());
        for name in [
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "ratelimit",
            "ratelimit-policy",
        ] {
            answer.header(name);
        }
        assert!(answer.header("x-request-id").starts_with("req_"));
    }
    rig.stop().await;
}

/// A request whose body never ends, which holds its place.
async fn hang(rig: &Rig, key: &KeyText) -> TcpStream {
    let mut stream = TcpStream::connect(rig.authority()).await.unwrap();
    let head = format!(
        "POST /v1/api-keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n",
        key.expose()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The handler asks for the body: the request is under way.
    let mut told = [0; 25];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn the_sixth_request_at_once_is_refused_and_does_not_count(db: &TestDatabase) {
    let rig = Rig::with(&db.store, |api| api.concurrent_requests = 5).await;
    let key = rig.admin().await;
    let mut under_way = Vec::new();
    for _ in 0..5 {
        under_way.push(hang(&rig, &key).await);
    }
    for _ in 0..3 {
        let sixth = rig.get(&key, "/v1/api-keys").await;
        assert_eq!(sixth.problem(), "too-many-concurrent-requests");
        assert_eq!(sixth.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            sixth.header("x-ratelimit-remaining"),
            (100_000 - 5).to_string()
        );
        assert_eq!(sixth.header("retry-after"), "1");
    }
    let other = rig.admin().await;
    assert_eq!(rig.get(&other, "/v1/api-keys").await.status, StatusCode::OK);

    under_way.pop();
    crate::harness::eventually(PATIENCE, "a place is free", async || {
        rig.get(&key, "/v1/api-keys").await.status == StatusCode::OK
    })
    .await;
    drop(under_way);
    let own = KeyLimits {
        concurrent: NonZeroU32::new(1),
        ..KeyLimits::default()
    };
    let own = rig
        .key(Key {
            limits: own,
            ..Key::with(&[Scope::Admin])
        })
        .await;
    let first = hang(&rig, &own).await;
    let second = rig.get(&own, "/v1/api-keys").await;
    assert_eq!(second.problem(), "too-many-concurrent-requests");
    drop(first);
    rig.stop().await;
}

async fn an_address_with_too_many_wrong_keys_waits_and_its_neighbours_do_not(db: &TestDatabase) {
    let rig = Rig::with(&db.store, |api| api.failed_authentications_per_minute = 5).await;
    let known = rig.admin().await;
    let fresh = rig.admin().await;
    let from = async |key: &KeyText, address: &str| {
        let ask = rig.ask(Method::GET, "/v1/api-keys").key(key);
        ask.header(FROM, address).send().await
    };
    assert_eq!(from(&known, "192.0.2.1").await.status, StatusCode::OK);
    for _ in 0..5 {
        let answer = from(&stranger(), "192.0.2.1").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let refused = from(&stranger(), "192.0.2.1").await;
    assert_eq!(refused.problem(), "too-many-failed-authentications");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=61).contains(&wait));
    assert_eq!(
        from(&known, "192.0.2.1").await.status,
        StatusCode::OK,
        "known here"
    );
    let unseen = from(&fresh, "192.0.2.1").await;
    assert_eq!(unseen.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(from(&fresh, "192.0.2.2").await.status, StatusCode::OK);
    rig.stop().await;
}

async fn every_use_of_a_key_is_in_the_audit_log(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.admin().await;
    let address = "2001:db8::7";
    let ask = |method, path: &str| rig.ask(method, path).key(&key).header(FROM, address);
    let listed = ask(Method::GET, "/report-forge/v1/api-keys?limit=1")
        .send()
        .await;
    ask(Method::GET, &format!("/v1/api-keys/{}", key.id()))
        .send()
        .await;
    ask(Method::GET, "/v1/nothing").send().await;
    let before = db
        .store
        .api_key(&WorkspaceId::default(), key.id())
        .await
        .unwrap();
    assert!(before.is_some());
    rig.stop().await;

    let filter = AuditFilter {
        action: Some(Action::Request),
        ..AuditFilter::default()
    };
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let log = db
        .store
        .audit_log(&WorkspaceId::default(), &filter, page)
        .await
        .unwrap();
    let mut uses: Vec<(String, String, u16)> = log
        .items
        .iter()
        .map(|entry| entry.request.clone().unwrap())
        .map(|used| (used.method, used.route, used.status.unwrap()))
        .collect();
    uses.sort();
    let of = |route: &str, status| ("GET".to_owned(), route.to_owned(), status);
    assert_eq!(
        uses,
        [
            of("/v1/api-keys", 200),
            of("/v1/api-keys/{id}", 200),
            of("unknown", 404)
        ]
    );
    for entry in &log.items {
        assert_eq!(entry.actor, Actor::Key(key.id()));
        assert_eq!(entry.address, Some(address.parse().unwrap()));
    }
    let ids: Vec<_> = log
        .items
        .iter()
        .map(|entry| entry.request_id.clone().unwrap())
        .collect();
    assert!(ids.contains(&listed.header("x-request-id").to_owned()));
    let after = db
        .store
        .api_key(&WorkspaceId::default(), key.id())
        .await
        .unwrap();
    assert!(after.unwrap().last_used_at.is_some());
}

async fn bodies_are_small_plain_json(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let admin = rig.admin().await;
    let ask = || rig.ask(Method::POST, "/v1/api-keys").key(&admin);
    let json = "application/json";
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(5_000_000));
    let answer = ask().header("content-type", json).bytes(large).send().await;
    assert_eq!(answer.problem(), "payload-too-large");
    let answer = ask()
        .header("content-type", "text/plain")
        .bytes("{}")
        .send()
        .await;
    assert_eq!(answer.problem(), "unsupported-media-type");
    let zipped = ask()
        .header("content-type", json)
        .header("content-encoding", "gzip");
    assert_eq!(
        zipped.bytes("{}").send().await.problem(),
        "unsupported-media-type"
    );
    let twice = r#"{"name":"x","scopes":["admin"]}{}"#;
    for body in ["", "{", "nul", twice, "\u{0}"] {
        let answer = ask().header("content-type", json).bytes(body).send().await;
        assert_eq!(answer.problem(), "malformed-body", "{body:?}");
    }
    rig.stop().await;
}
