//! The feed, as a client reads it and waits for more.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::{KeyLimits, Scope};
use forge_dispatch::domain::ids::EventId;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{Leasing, Store};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::rig::{Answer, Key, Rig};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{event, events};
use crate::harness::eventually;

on_both_databases!(
    the_feed_is_read_page_by_page_and_gone_on_from,
    filters_and_projects_narrow_the_feed,
    a_restricted_key_reads_its_projects_events_only,
    what_tells_of_receivers_is_for_who_may_see_these,
    an_answer_ends_before_ten_megabytes,
    a_cursor_belongs_to_its_filters_and_workspace,
    a_cursor_older_than_what_is_kept_is_told,
    parameters_are_checked,
    who_waits_is_answered_when_something_comes,
    who_waited_in_vain_ends_where_it_began,
    a_client_that_hangs_up_frees_its_place,
    a_graceful_stop_ends_waiting,
);

/// Longer than a test waits, and shorter than the client's own patience.
const WAIT: &str = "wait=25";

/// How long something may take that does not wait: less than [`WAIT`].
const SOON: Duration = Duration::from_secs(20);

pub(super) async fn accept(store: &Arc<dyn Store>, events: &[Arc<Payload>]) {
    let leasing = Leasing {
        owner: Entropy::system().id(SystemClock.now()),
        lease: Duration::from_mins(1),
    };
    store.accept(events, leasing, &NoDispatch).await.unwrap();
}

async fn reader(rig: &Rig) -> KeyText {
    rig.key(Key::with(&[Scope::ReadEditions])).await
}

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let page = answer.json();
    let items = page["data"].as_array().unwrap().iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

fn ids_of(events: &[Arc<Payload>]) -> Vec<String> {
    let ids = events.iter().map(|payload| payload.event().id);
    ids.map(|id: EventId| id.to_string()).collect()
}

fn cursor(answer: &Answer) -> String {
    let page = answer.json();
    page["next_cursor"].as_str().unwrap().to_owned()
}

/// What the answer links to as `next`.
fn next(answer: &Answer) -> String {
    let link = answer.header("link");
    let target = link.strip_suffix(">; rel=\"next\"").unwrap();
    target.strip_prefix('<').unwrap().to_owned()
}

async fn the_feed_is_read_page_by_page_and_gone_on_from(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let empty = rig.get(&key, "/v1/events").await;
    assert!(ids(&empty).is_empty());
    let data = r#"{"z":1.50, "edition_id":"ed_1","big":12345678901234567890}"#;
    let mut came = vec![event().project("pr_1").data(data).build()];
    came.extend(events(4));
    accept(&db.store, &came).await;

    let first = rig.get(&key, "/report-forge/v1/events?limit=2").await;
    assert_eq!(ids(&first), ids_of(&came[..2]));
    assert_eq!(first.header("cache-control"), "private, no-cache");
    let item = &first.json()["data"][0];
    let mut named = item.clone();
    named.as_object_mut().unwrap().remove("data");
    let expected = json!({
        "id": came[0].event().id.to_string(),
        "type": "edition.archived",
        "timestamp": "2026-05-01T09:00:00.250Z",
        "project_id": "pr_1",
        "edition_id": "ed_1",
    });
    assert_eq!(named, expected);
    let text = String::from_utf8(first.body.to_vec()).unwrap();
    assert!(text.contains(&format!(r#""data":{data}}}"#)), "{text}");
    assert_eq!(first.json()["data"][1]["project_id"], Value::Null);

    let path = next(&first);
    assert!(
        path.starts_with("/report-forge/v1/events?limit=2&after="),
        "{path}"
    );
    let second = rig.get(&key, &path).await;
    assert_eq!(ids(&second), ids_of(&came[2..4]));
    let third = rig.get(&key, &next(&second)).await;
    assert_eq!(ids(&third), ids_of(&came[4..]));
    let end = rig.get(&key, &next(&third)).await;
    assert!(ids(&end).is_empty());
    assert_eq!(cursor(&end), cursor(&third), "nothing came");

    let latest = rig.get(&key, "/v1/events?after=latest").await;
    assert!(ids(&latest).is_empty());
    let more = events(2);
    accept(&db.store, &more).await;
    for from in [cursor(&end), cursor(&latest)] {
        let resumed = rig.get(&key, &format!("/v1/events?after={from}")).await;
        assert_eq!(ids(&resumed), ids_of(&more));
    }
    let all = rig
        .get(&key, &format!("/v1/events?after={}", cursor(&empty)))
        .await;
    assert_eq!(ids(&all), [ids_of(&came), ids_of(&more)].concat());
    rig.stop().await;
}

async fn filters_and_projects_narrow_the_feed(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let both = [Scope::ReadEditions, Scope::ReadWebhooks];
    let key = rig.key(Key::with(&both)).await;
    let came = [
        event().project("pr_1").build(),
        event().event_type("output.lost").project("pr_2").build(),
        event().data(r#"{"edition_id":"ed_1"}"#).build(),
        event().event_type("delivery.exhausted").build(),
        event().workspace("ws_2").build(),
    ];
    accept(&db.store, &came).await;
    for (query, expected) in [
        ("", &[0_usize, 1, 2] as &[usize]),
        ("type=edition.*", &[0, 2]),
        ("type=output.lost,delivery.*", &[1, 3]),
        ("type=*,delivery.exhausted", &[0, 1, 2, 3]),
        ("edition=ed_1", &[2]),
        ("edition=ed_1&type=output.*", &[]),
        ("project=pr_2", &[1]),
        ("project=pr_9", &[]),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|n| came[*n].event().id.to_string())
            .collect();
        let found = rig.get(&key, &format!("/v1/events?{query}")).await;
        assert_eq!(ids(&found), expected, "{query}");
    }
    rig.stop().await;
}

async fn a_restricted_key_reads_its_projects_events_only(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let own = rig
        .key(Key {
            projects: Some(&["pr_1", "pr_2"]),
            ..Key::with(&[Scope::ReadEditions])
        })
        .await;
    let came = [
        event().project("pr_1").build(),
        event().project("pr_3").build(),
        event().build(),
        event().project("pr_2").build(),
        event().project("pr_1").workspace("ws_2").build(),
    ];
    accept(&db.store, &came).await;
    for (query, expected) in [
        ("", &[0_usize, 3] as &[usize]),
        ("project=pr_2", &[3]),
        ("project=pr_3", &[]),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|n| came[*n].event().id.to_string())
            .collect();
        let found = rig.get(&own, &format!("/v1/events?{query}")).await;
        assert_eq!(ids(&found), expected, "{query}");
    }
    rig.stop().await;
}

async fn what_tells_of_receivers_is_for_who_may_see_these(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let both = [Scope::ReadEditions, Scope::ReadWebhooks];
    let operator = rig.key(Key::with(&both)).await;
    let came = [event().event_type("delivery.failed").build()];
    accept(&db.store, &came).await;
    let one = format!("/v1/events/{}", came[0].event().id);
    for path in [
        "/v1/events?type=delivery.failed",
        "/v1/events?type=delivery.*",
        "/v1/events?type=edition.*,subscription.disabled",
        &one,
    ] {
        let refused = rig.get(&key, path).await;
        assert_eq!(refused.problem(), "insufficient-scope", "{path}");
        assert_eq!(rig.get(&operator, path).await.status, StatusCode::OK);
    }
    assert!(ids(&rig.get(&key, "/v1/events").await).is_empty());
    let found = rig.get(&operator, "/v1/events?type=delivery.*").await;
    assert_eq!(ids(&found), ids_of(&came));
    rig.stop().await;
}

async fn an_answer_ends_before_ten_megabytes(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let data = format!("\"{}\"", "x".repeat(1_000_000));
    let came: Vec<_> = (0..11).map(|_| event().data(&data).build()).collect();
    accept(&db.store, &came).await;
    let first = rig.get(&key, "/v1/events?limit=500").await;
    assert!(first.body.len() < 10_000_000, "{}", first.body.len());
    assert_eq!(ids(&first), ids_of(&came[..9]));
    let rest = rig.get(&key, &next(&first)).await;
    assert_eq!(ids(&rest), ids_of(&came[9..]));
    rig.stop().await;
}

async fn a_cursor_belongs_to_its_filters_and_workspace(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let elsewhere = rig
        .key(Key {
            workspace: "ws_2",
            ..Key::with(&[Scope::ReadEditions])
        })
        .await;
    accept(&db.store, &events(2)).await;
    let of_all = cursor(&rig.get(&key, "/v1/events?limit=1").await);
    let of_some = cursor(&rig.get(&key, "/v1/events?type=edition.*").await);
    for (key, query, expected) in [
        (&key, format!("after={of_all}&limit=7&wait=0"), None),
        (&key, format!("after={of_some}&type=edition.*"), None),
        (
            &key,
            format!("after={of_all}&type=edition.*"),
            Some("invalid-cursor"),
        ),
        (
            &key,
            format!("after={of_all}&edition=ed_1"),
            Some("invalid-cursor"),
        ),
        (
            &key,
            format!("after={of_all}&project=pr_1"),
            Some("invalid-cursor"),
        ),
        (&key, format!("after={of_some}"), Some("invalid-cursor")),
        (
            &elsewhere,
            format!("after={of_all}"),
            Some("invalid-cursor"),
        ),
        (&key, "after=Latest".to_owned(), Some("invalid-cursor")),
        (&key, "after=".to_owned(), Some("invalid-cursor")),
    ] {
        let answer = rig.get(key, &format!("/v1/events?{query}")).await;
        match expected {
            Some(problem) => assert_eq!(answer.problem(), problem, "{query}"),
            None => assert_eq!(answer.status, StatusCode::OK, "{query}"),
        }
    }
    rig.stop().await;
}

async fn a_cursor_older_than_what_is_kept_is_told(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let came = events(3);
    accept(&db.store, &came).await;
    let one = cursor(&rig.get(&key, "/v1/events?limit=1").await);
    let two = cursor(&rig.get(&key, "/v1/events?limit=2").await);
    // Retention, as it will be.
    let position = "(select min(position) + 1 from event_feed where workspace = 'default')";
    db.tamper(&format!(
        "begin;
        insert into event_feed_floor (workspace, position) select 'default', {position};
        delete from event_feed
        where workspace = 'default' and position <= {position};
        commit"
    ))
    .await;
    for wait in ["", "&wait=1"] {
        let expired = rig
            .get(&key, &format!("/v1/events?after={one}{wait}"))
            .await;
        assert_eq!(expired.status, StatusCode::GONE);
        assert_eq!(expired.problem(), "cursor-expired");
    }
    for query in [format!("after={two}"), String::new()] {
        let kept = rig.get(&key, &format!("/v1/events?{query}")).await;
        assert_eq!(ids(&kept), ids_of(&came[2..]), "{query}");
    }
    let told = rig
        .ask(Method::GET, "/problems/cursor-expired")
        .send()
        .await;
    assert_eq!(told.status, StatusCode::OK);
    rig.stop().await;
}

async fn parameters_are_checked(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let many = vec!["a"; 101].join(",");
    for (name, value) in [
        ("wait", "31"),
        ("wait", "-1"),
        ("wait", "1.5"),
        ("wait", ""),
        ("type", "Edition"),
        ("type", ""),
        ("type", "edition.*,"),
        ("type", &many),
        ("edition", ""),
        ("project", "%00"),
        ("limit", "501"),
        ("limit", "0"),
        ("types", "edition.*"),
    ] {
        let answer = rig.get(&key, &format!("/v1/events?{name}={value}")).await;
        assert_eq!(answer.problem(), "invalid-parameter", "{name}={value}");
        assert_eq!(answer.json()["errors"][0]["parameter"], name);
    }
    rig.stop().await;
}

/// A request that waits behind what is there, begun.
fn wait(rig: &Rig, key: &KeyText, cursor: &str) -> JoinHandle<Answer> {
    let path = format!("/v1/events?after={cursor}&{WAIT}");
    tokio::spawn(rig.ask(Method::GET, &path).key(key).send())
}

/// Returns when so many requests of this key were let in, beside those made here.
async fn let_in(rig: &Rig, key: &KeyText, requests: u32) {
    let mut made = 0;
    let look = async {
        loop {
            let answer = rig.get(key, "/v1/events?after=latest").await;
            made += 1;
            let left: u32 = answer.header("x-ratelimit-remaining").parse().unwrap();
            if left + made + requests == 100_000 {
                return;
            }
        }
    };
    timeout(SOON, look).await.expect("it is let in");
}

async fn who_waits_is_answered_when_something_comes(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    for _ in 0..5 {
        let key = reader(&rig).await;
        let latest = cursor(&rig.get(&key, "/v1/events?after=latest").await);
        let waiting = wait(&rig, &key, &latest);
        let_in(&rig, &key, 2).await;
        let came = events(2);
        accept(&db.store, &came).await;
        let answer = timeout(SOON, waiting).await.expect("at once").unwrap();
        assert_eq!(ids(&answer), ids_of(&came));
    }
    rig.stop().await;
}

async fn who_waited_in_vain_ends_where_it_began(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    accept(&db.store, &events(1)).await;
    let before = rig.get(&key, "/v1/events").await;
    let path = format!("/v1/events?after={}&wait=1", cursor(&before));
    let began = SystemClock.monotonic();
    let after = rig.get(&key, &path).await;
    assert!(SystemClock.monotonic() >= began + Duration::from_secs(1));
    assert!(ids(&after).is_empty());
    assert_eq!(cursor(&after), cursor(&before));
    rig.stop().await;
}

async fn a_client_that_hangs_up_frees_its_place(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let limits = KeyLimits {
        concurrent: NonZeroU32::new(1),
        ..KeyLimits::default()
    };
    let scopes = [Scope::ReadEditions];
    let key = rig
        .key(Key {
            limits,
            ..Key::with(&scopes)
        })
        .await;
    let latest = cursor(&rig.get(&key, "/v1/events?after=latest").await);
    let is_free = async || {
        let answer = rig.get(&key, "/v1/events?after=latest").await;
        answer.status == StatusCode::OK
    };
    let mut waiting = wait(&rig, &key, &latest);
    let hold = async {
        while is_free().await {
            // It may have come while the look took the one place.
            if waiting.is_finished() {
                waiting = wait(&rig, &key, &latest);
            }
        }
    };
    timeout(SOON, hold).await.expect("it holds the place");
    assert!(!waiting.is_finished());
    waiting.abort();
    eventually(SOON, "the place is free", is_free).await;
    rig.stop().await;
}

async fn a_graceful_stop_ends_waiting(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let latest = cursor(&rig.get(&key, "/v1/events?after=latest").await);
    let waiting = wait(&rig, &key, &latest);
    let_in(&rig, &key, 2).await;
    timeout(SOON, rig.stop()).await.expect("at once");
    let answer = waiting.await.unwrap();
    assert!(ids(&answer).is_empty());
    assert_eq!(cursor(&answer), latest);
}
