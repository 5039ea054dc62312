//! `deliveries list | show`

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Config;
use forge_dispatch::domain::attempt::{Attempt, ErrorClass, Trigger};
use forge_dispatch::domain::delivery::{Lane, Verdict};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{self, Claim, Leasing, MAX_LOOKED_AT, Settlement, Store};
use insta::{assert_json_snapshot, assert_snapshot};

use super::{Home, stable, text};
use crate::harness::events::events;

/// The program's own store, opened by the test beside it.
async fn open(home: &Home) -> Arc<dyn Store> {
    let url = format!("sqlite://{}/data/forge-dispatch.db", home.path().display());
    let flag = format!("database.url={url}");
    let config = Config::load(None, [], &[flag]).unwrap();
    let clock = Arc::new(SystemClock);
    store::open(&config, clock, &Entropy::system())
        .await
        .unwrap()
}

/// Leases the only delivery and settles it as failed by an answer.
async fn fail_once(home: &Home, excerpt: &str) {
    let store = open(home).await;
    let owner = Entropy::system().id(DateTime::UNIX_EPOCH);
    let due = store.due(Duration::ZERO).await.unwrap();
    let claim = Claim {
        leasing: Leasing {
            owner,
            lease: Duration::from_mins(1),
        },
        grace: Duration::ZERO,
        lane: Lane::Fresh,
        wants: due
            .work
            .iter()
            .map(|(target, _)| (target.id(), 1))
            .collect(),
        max_bytes: 1_000_000,
    };
    let leased = store.claim(&claim).await.unwrap();
    let attempt = Attempt {
        at: DateTime::from_timestamp_millis(1_777_626_000_123).unwrap(),
        duration: Duration::from_millis(42),
        trigger: Trigger::Schedule,
        status: Some(500),
        error: Some(ErrorClass::HttpStatus),
        response_headers: vec![("server".to_owned(), "evil".to_owned())],
        response_excerpt: excerpt.to_owned(),
    };
    let settlements: Vec<Settlement> = leased
        .iter()
        .map(|delivery| {
            let verdict = Verdict::Retry {
                delay: Duration::from_hours(1),
            };
            Settlement::of(delivery, verdict, Some(attempt.clone()))
        })
        .collect();
    assert_eq!(settlements.len(), 1);
    store.settle(owner, &settlements).await.unwrap();
    store.close().await;
}

#[test]
fn deliveries_are_listed_newest_first_and_filtered() {
    let home = Home::new();
    assert_snapshot!(home.ok(&["deliveries", "list"]), @"no deliveries");
    let all = home.subscribe("*");
    let some = home.subscribe("edition.*");
    home.publish("edition.archived");
    home.publish("output.lost");
    assert_snapshot!(stable(&home.ok(&["deliveries", "list", "--limit", "1"])), @r"
    ID  EVENT  SUBSCRIPTION  STATE  ATTEMPTS  WHEN
    dlv_ID  output.lost  sub_ID  pending  0  due TIME
    more deliveries: --after dlv_ID
    ");
    let count = |args: &[&str]| {
        let list = home.json(&[&["deliveries", "list"], args].concat());
        list["data"].as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 3);
    assert_eq!(count(&["--subscription", &all]), 2);
    assert_eq!(count(&["--subscription", &some]), 1);
    assert_eq!(count(&["--state", "pending"]), 3);
    assert_eq!(count(&["--state", "failed"]), 0);
    assert_eq!(count(&["--workspace", "ws_1"]), 0);
    assert_eq!(count(&["--type", "output.lost"]), 1);
    assert_eq!(count(&["--type", "output"]), 0);
    assert_eq!(count(&["--edition", "ed_1"]), 0);
    assert_eq!(
        count(&["--since", "1h", "--until", "2100-01-01T00:00:00Z"]),
        3
    );
    assert_eq!(count(&["--since", "2100-01-01T00:00:00+01:00"]), 0);
    assert_eq!(count(&["--until", "1h"]), 0);
    let newest = home.json(&["deliveries", "list", "--limit", "1"]);
    let newest = text(&newest["data"][0]["event_id"]);
    assert_eq!(count(&["--event", &newest]), 1);
    let first = home.json(&["deliveries", "list", "--limit", "2"]);
    let cursor = text(&first["next_cursor"]);
    assert_eq!(count(&["--after", &cursor]), 1);
}

#[tokio::test]
async fn a_search_goes_on_where_the_store_ends_early() {
    let home = Home::new();
    home.subscribe("*");
    home.publish("output.lost");
    let store = open(&home).await;
    let leasing = Leasing {
        owner: Entropy::system().id(DateTime::UNIX_EPOCH),
        lease: Duration::from_mins(1),
    };
    for _ in 0..=MAX_LOOKED_AT / 1_000 {
        let accepted = store.accept(&events(1_000), leasing, &NoDispatch).await;
        assert_eq!(accepted.unwrap().pending, 1_000);
    }
    store.close().await;
    let found = home.json(&["deliveries", "list", "--type", "output.lost"]);
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    assert!(found["next_cursor"].is_null());
}

#[tokio::test]
async fn a_delivery_is_shown_with_its_attempts() {
    let home = Home::new();
    home.subscribe("*");
    home.publish("a.b");
    fail_once(&home, "no\u{1b}[2J thanks").await;
    let list = home.json(&["deliveries", "list"]);
    let id = text(&list["data"][0]["id"]);
    let shown = home.ok(&["deliveries", "show", &id]);
    assert_snapshot!(stable(&shown), @r"
    id  dlv_ID
    event  evt_ID
    type  a.b
    project  -
    edition  -
    subscription  sub_ID
    state  pending
    attempts  1
    created  TIME
    due  TIME
    settled  -

    AT  TOOK  TRIGGER  STATUS  OUTCOME  ANSWER
    TIME  42ms  schedule  500  http_status  no\u{1b}[2J thanks
    ");
    assert!(
        !shown.contains('\u{1b}'),
        "an answer must not drive the terminal"
    );
    assert_json_snapshot!(home.json(&["deliveries", "show", &id])["attempt_log"], @r#"
    [
      {
        "at": "2026-05-01T09:00:00.123Z",
        "duration_ms": 42,
        "error": "http_status",
        "lease_lost": false,
        "response_excerpt": "no\u001b[2J thanks",
        "response_headers": [
          [
            "server",
            "evil"
          ]
        ],
        "status": 500,
        "trigger": "schedule"
      }
    ]
    "#);
}

#[test]
fn a_wrong_value_is_told_with_its_field_and_a_missing_delivery_is_code_3() {
    let home = Home::new();
    for (args, expected) in [
        (
            &["list", "--state", "lost"] as &[&str],
            "error: state: `lost` must be `pending`",
        ),
        (
            &["list", "--subscription", "x"],
            "error: subscription: `x` is no id of the form sub_…",
        ),
        (
            &["list", "--event", "x"],
            "error: event: `x` is no id of the form evt_…",
        ),
        (
            &["list", "--type", "edition.*"],
            "error: type: `edition.*` must be dot-separated segments",
        ),
        (
            &["list", "--edition", ""],
            "error: edition: `` must not be empty",
        ),
        (
            &["list", "--since", "yesterday"],
            "error: since: `yesterday` is no time; write it as",
        ),
        (
            &["list", "--until", "99999999y"],
            "error: until: `99999999y` is no time",
        ),
        (
            &["list", "--after", "sub_1"],
            "error: after: `sub_1` is no id of the form dlv_…",
        ),
        (&["show", "x"], "error: id: `x` is no id of the form dlv_…"),
    ] {
        let told = home.fails(2, &[&["deliveries"], args].concat());
        assert!(told.starts_with(expected), "{args:?}: {told}");
    }
    let told = home.fails(3, &["deliveries", "show", "dlv_01h455vb4pex5vsknk084sn02q"]);
    assert_snapshot!(stable(&told), @"error: no delivery dlv_ID in workspace default");
}
