//! `deliveries replay`

use std::time::Duration;

use forge_dispatch::domain::delivery::DeliveryState;
use insta::assert_snapshot;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Home, stable, text};
use crate::harness::databases::TestDatabase;
use crate::harness::program::{InProcess, MASTER_KEY, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{all_become, events, subscribe};

on_both_databases!(what_failed_is_counted_replayed_and_followed_to_its_end,);

async fn what_failed_is_counted_replayed_and_followed_to_its_end(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.retry.schedule = vec![Duration::from_millis(10)];
    let program = InProcess::start(config).await;
    let receiver = Receiver::start(|_| Reply::status(500));
    let to = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..20)).await.unwrap();
    let failed = all_become(&*program.store, to, 20, DeliveryState::Failed).await;
    receiver.behave(|_| Reply::status(200));
    let home = Home::new()
        .with("FORGE_DATABASE__URL", database.url().expose_secret())
        .with("FORGE_MASTER_KEY", MASTER_KEY);
    let one = failed[0].id.to_string();
    let (home, counted, alone, followed) = tokio::task::spawn_blocking(move || {
        let select = ["deliveries", "replay", "--state", "failed", "--since", "1h"];
        let counted = home.json(&[&select[..], &["--dry-run"]].concat());
        let alone = home.json(&["deliveries", "replay", &one]);
        let followed = home.run(&[&select[..], &["--yes", "--json"]].concat());
        (home, counted, alone, followed)
    })
    .await
    .unwrap();
    assert_eq!(counted, json!({"total": 20, "by_state": {"failed": 20}}));
    assert_eq!(alone["id"], json!(failed[0].id.to_string()));
    assert_ne!(alone["state"], "failed");
    let done: Value = serde_json::from_str(&followed.stdout).expect("one JSON document");
    let id = text(&done["id"]);
    assert!(
        followed.stderr.starts_with(&format!("replay {id} ")),
        "{followed:?}"
    );
    assert_eq!(
        (&done["state"], &done["failed"]),
        (&json!("done"), &json!(0))
    );
    assert_eq!(done["done"], 19, "all but the one that was replayed alone");
    all_become(&*program.store, to, 20, DeliveryState::Succeeded).await;
    let nothing = tokio::task::spawn_blocking(move || {
        let late = home.fails(1, &["deliveries", "replays", "cancel", &id]);
        assert_eq!(late, format!("error: not cancelled: replay {id} is done\n"));
        home.ok(&["deliveries", "replay", "--state", "failed", "--yes"])
    });
    assert_snapshot!(nothing.await.unwrap(), @"0 deliveries; nothing was done");
    program.stop().await.unwrap();
}

#[test]
fn a_replay_is_begun_and_left_to_the_service() {
    let home = Home::new();
    let subscription = home.subscribe("*");
    home.publish("a.b");
    let event = home.publish("a.c");
    let select = ["deliveries", "replay", "--state", "pending"];
    let counted = home.ok(&[&select[..], &["--dry-run"]].concat());
    assert_snapshot!(counted, @"2 deliveries (2 pending); nothing was done");
    let unasked = home.fails(2, &[&select[..], &["--detach"]].concat());
    assert_snapshot!(unasked, @"error: --yes: is needed to replay many where nobody can be asked; `--dry-run` only counts them");
    assert_eq!(
        home.json(&["deliveries", "replays", "list"])["data"],
        json!([])
    );
    let begun = home.ok(&[&select[..], &["--detach", "--yes"]].concat());
    assert_snapshot!(stable(&begun), @r"
    id  rpl_ID
    state  pending
    total  0
    taken  0
    not taken  0
    skipped  0
    created  TIME
    finished  -
    ");
    let of_event = [
        "deliveries",
        "replay",
        "--event",
        &event,
        "--detach",
        "--yes",
    ];
    assert_eq!(home.json(&of_event)["rate"], 500);
    let count = |args: &[&str]| -> Value {
        let all = [&["deliveries", "replay", "--dry-run"], args].concat();
        home.json(&all)["total"].clone()
    };
    assert_eq!(
        count(&["--event", &event, "--subscription", &subscription]),
        1
    );
    assert_eq!(count(&["--subscription", &subscription]), 0, "none failed");
    assert_eq!(count(&["--state", "pending", "--type", "a.c"]), 1);
    assert_eq!(count(&["--state", "pending", "--until", "1h"]), 0);
    let later = home.subscribe("a.*");
    assert_eq!(count(&["--subscription", &later, "--backfill"]), 2);
}

#[test]
fn replays_are_listed_shown_and_cancelled() {
    let home = Home::new();
    home.subscribe("*");
    home.publish("a.b");
    let begin = |rate: &str| {
        let select = ["deliveries", "replay", "--state", "pending"];
        let begin = [&select[..], &["--detach", "--yes", "--rate", rate]].concat();
        text(&home.json(&begin)["id"])
    };
    let (first, second) = (begin("1"), begin("2"));
    let list = home.json(&["deliveries", "replays", "list", "--limit", "1"]);
    assert_eq!(list["data"][0]["id"], json!(second));
    let next = text(&list["next_cursor"]);
    let rest = home.json(&["deliveries", "replays", "list", "--after", &next]);
    assert_eq!(
        (&rest["data"][0]["rate"], &rest["next_cursor"]),
        (&json!(1), &Value::Null)
    );
    let table = home.ok(&["deliveries", "replays", "list"]);
    assert!(table.starts_with("ID "), "{table}");
    for (act, state) in [
        ("show", "pending"),
        ("cancel", "cancelled"),
        ("cancel", "cancelled"),
        ("show", "cancelled"),
    ] {
        let shown = home.json(&["deliveries", "replays", act, &first]);
        assert_eq!(
            (&shown["id"], &shown["state"]),
            (&json!(first), &json!(state))
        );
    }
    for act in ["show", "cancel"] {
        let missing = home.fails(
            3,
            &[
                "deliveries",
                "replays",
                act,
                "rpl_01h455vb4pex5vsknk084sn02q",
            ],
        );
        assert!(missing.contains("no replay rpl_"), "{missing}");
        let wrong = home.fails(2, &["deliveries", "replays", act, "x"]);
        assert!(wrong.starts_with("error: id: "), "{wrong}");
    }
}

#[test]
fn what_cannot_be_replayed_is_told() {
    let home = Home::new();
    let subscription = home.subscribe("*");
    home.publish("a.b");
    home.publish("a.b");
    let list = home.json(&["deliveries", "list"]);
    let [id, other] = [0, 1].map(|index| text(&list["data"][index]["id"]));
    let sent = home.json(&["deliveries", "replay", &id]);
    assert_eq!(sent["state"], "pending");
    let moved = [
        "subscriptions",
        "update",
        &subscription,
        "--disable",
        "moved",
    ];
    home.ok(&moved);
    let refused = home.fails(1, &["deliveries", "replay", &other]);
    assert_snapshot!(refused, @"error: not replayed: The subscription is disabled.");
    let nothing = home.fails(2, &["deliveries", "replay"]);
    assert!(nothing.contains("required"), "{nothing}");
    let both = home.fails(2, &["deliveries", "replay", &id, "--state", "failed"]);
    assert!(both.contains("cannot be used with"), "{both}");
    let alone = home.fails(2, &["deliveries", "replay", "--backfill"]);
    assert!(alone.contains("--subscription"), "{alone}");
    for (args, expected) in [
        (
            &["x"] as &[&str],
            "error: id: `x` is no id of the form dlv_…",
        ),
        (
            &["--state", "lost"],
            "error: state: `lost` must be `pending`",
        ),
        (&["--type", "A"], "error: type: `A` must be dot-separated"),
    ] {
        let told = home.fails(2, &[&["deliveries", "replay", "--yes"], args].concat());
        assert!(told.starts_with(expected), "{args:?}: {told}");
    }
    for args in [
        &["dlv_01h455vb4pex5vsknk084sn02q"] as &[&str],
        &["--event", "evt_01h455vb4pex5vsknk084sn02q"],
        &["--subscription", "sub_01h455vb4pex5vsknk084sn02q"],
    ] {
        let told = home.fails(3, &[&["deliveries", "replay", "--yes"], args].concat());
        assert!(told.contains("in workspace default"), "{told}");
    }
}
