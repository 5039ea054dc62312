//! `subscriptions test | stats`

use std::time::Duration;

use forge_dispatch::store::stats::{MAX_SUMMED, MAX_UNFOLDED};
use insta::assert_snapshot;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::cli::{Home, stable, text};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{register, registration, spec, workspace};
use crate::harness::program::MASTER_KEY;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::rollups::{deliver, wait_to_be_folded};

on_both_databases!(
    a_test_sends_one_signed_ping_and_shows_the_attempt,
    a_test_that_fails_is_shown_and_is_code_1,
    stats_tell_what_waits_and_what_became_of_the_rest,
    stats_of_a_workspace_are_those_of_its_subscriptions_together,
    stats_that_would_be_too_much_are_refused_with_the_way_out,
);

/// Commands that work on this database and may send to this machine.
fn home(database: &TestDatabase) -> Home {
    Home::new()
        .with("FORGE_DATABASE__URL", database.url().expose_secret())
        .with("FORGE_MASTER_KEY", MASTER_KEY)
        .with("FORGE_EGRESS__ALLOW", "127.0.0.0/8")
        .with("FORGE_EGRESS__ALLOW_HTTP", "true")
}

/// A subscription of workspace `ws_1`: its id and its secret.
fn subscribe(home: &Home, url: &str) -> (String, String) {
    let args = [
        "subscriptions",
        "create",
        "--url",
        url,
        "--event-type",
        "edition.*",
        "--workspace",
        "ws_1",
    ];
    let created = home.json(&args);
    (text(&created["id"]), text(&created["secret"]))
}

fn in_workspace<'a>(command: &'a str, id: &'a str) -> [&'a str; 5] {
    ["subscriptions", command, id, "--workspace", "ws_1"]
}

async fn a_test_sends_one_signed_ping_and_shows_the_attempt(database: &TestDatabase) {
    let home = home(database);
    let receiver = Receiver::start(|_| Reply::status(202).body("thanks"));
    let (id, secret) = subscribe(&home, &receiver.url("/hook"));
    let sent = home.json(&in_workspace("test", &id));
    let requests = receiver.received();
    assert_eq!(requests.len(), 1);
    requests[0].verify(&secret).unwrap();
    assert_eq!(requests[0].webhook_id(), text(&sent["event_id"]));
    assert_eq!(requests[0].json()["type"], "ping");
    let attempt = &sent["attempt"];
    assert_eq!(
        (&attempt["trigger"], &attempt["status"], &attempt["error"]),
        (&json!("test"), &json!(202), &Value::Null)
    );
    assert_eq!(attempt["response_excerpt"], "thanks");

    let delivery = text(&sent["delivery_id"]);
    let kept = home.json(&["deliveries", "show", &delivery, "--workspace", "ws_1"]);
    assert_eq!(kept["state"], "succeeded");
    assert_eq!(kept["attempt_log"], json!([attempt]));

    // Also to one that is disabled, and to one of the same id nowhere else.
    let disable = ["subscriptions", "update", &id, "--disable", "moving"];
    home.ok(&[&disable as &[&str], &["--workspace", "ws_1"]].concat());
    let shown = home.ok(&in_workspace("test", &id));
    assert!(
        shown.contains("succeeded") && shown.contains("thanks"),
        "{shown}"
    );
    let told = home.fails(3, &["subscriptions", "test", &id]);
    assert_eq!(
        stable(&told),
        "error: no subscription sub_ID in workspace default\n"
    );
    assert_eq!(receiver.count(), 2);
}

async fn a_test_that_fails_is_shown_and_is_code_1(database: &TestDatabase) {
    let home = home(database);
    let receiver = Receiver::start(|_| Reply::status(503));
    let (id, _) = subscribe(&home, &receiver.url("/hook"));
    let run = home.run(&[&in_workspace("test", &id) as &[&str], &["--json"]].concat());
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: the receiver did not take the test\n")
    );
    let sent: Value = serde_json::from_str(&run.stdout).unwrap();
    let attempt = &sent["attempt"];
    assert_eq!(
        (&attempt["status"], &attempt["error"]),
        (&json!(503), &json!("http_status"))
    );

    receiver.stop().await;
    let run = home.run(&in_workspace("test", &id));
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("connect"), "{}", run.stdout);
    let delivery = text(&sent["delivery_id"]);
    let kept = home.json(&["deliveries", "show", &delivery, "--workspace", "ws_1"]);
    assert_eq!(
        (&kept["state"], &kept["attempts"]),
        (&json!("failed"), &json!(1)),
        "it is not tried again"
    );
}

async fn stats_tell_what_waits_and_what_became_of_the_rest(database: &TestDatabase) {
    let home = home(database);
    let receiver = Receiver::ok();
    let (id, _) = subscribe(&home, &receiver.url("/hook"));
    home.ok(&in_workspace("test", &id));
    for _ in 0..2 {
        let publish = ["events", "publish", "--type", "edition.archived"];
        home.ok(&[
            &publish as &[&str],
            &["--data", "{}", "--workspace", "ws_1"],
        ]
        .concat());
    }
    let stats = home.json(&in_workspace("stats", &id));
    assert_eq!(stats["pending"], json!({"count": 2, "exact": true}));
    assert_eq!(stats["in_flight"], json!({"count": 0, "exact": true}));
    let past = ["succeeded", "failed", "attempts", "latency"].map(|name| &stats[name]);
    assert_eq!(
        past,
        [&json!(0), &json!(0), &json!(0), &Value::Null],
        "a test is not counted"
    );
    assert_eq!(stats.get("series"), None);
    let shown = stable(&home.ok(&in_workspace("stats", &id)));
    let shown: Vec<&str> = shown
        .lines()
        .filter(|line| !line.starts_with("oldest due"))
        .collect();
    assert_snapshot!(shown.join("\n"), @r"
    circuit  closed
    pending  2
    in flight  0
    since  TIME
    succeeded  0
    failed  0
    attempts  0 (0 succeeded, 0 retried, 0 failed)
    latency  -
    ");
    let by_hour = [
        &in_workspace("stats", &id) as &[&str],
        &["--by", "hour", "--window", "7d"],
    ];
    assert_eq!(home.json(&by_hour.concat())["series"], json!([]));
    home.fails(3, &["subscriptions", "stats", &id]);
}

async fn stats_of_a_workspace_are_those_of_its_subscriptions_together(database: &TestDatabase) {
    let home = home(database);
    let receiver = Receiver::ok();
    let ids = ["/one", "/two"].map(|path| subscribe(&home, &receiver.url(path)).0);
    let publish = ["events", "publish", "--type", "edition.archived"];
    let data = ["--data", "{}", "--workspace", "ws_1"];
    home.ok(&[&publish as &[&str], &data].concat());
    for id in &ids {
        deliver(database, id, Duration::from_millis(70)).await;
    }
    let all = ["subscriptions", "stats", "--workspace", "ws_1"];
    let stats = home.json(&[&all as &[&str], &["--by", "hour"]].concat());
    let told = ["succeeded", "attempts", "exact", "pending"].map(|name| &stats[name]);
    assert_eq!(told, [&json!(2), &json!(2), &json!(true), &Value::Null]);
    let series = stats["series"].as_array().unwrap();
    let each = series.iter().map(|point| point["succeeded"].as_u64());
    assert_eq!(each.sum::<Option<u64>>(), Some(2));
    let elsewhere = home.json(&["subscriptions", "stats"]);
    assert_eq!(elsewhere["attempts"], 0);
    assert_snapshot!(stable(&home.ok(&all)), @r"
    since  TIME
    succeeded  2
    failed  0
    attempts  2 (2 succeeded, 0 retried, 0 failed)
    latency  p50 75 ms, p95 100 ms, p99 100 ms
    ");

    wait_to_be_folded(database, MAX_UNFOLDED + 1).await;
    let stats = home.json(&in_workspace("stats", &ids[0]));
    assert_eq!(stats["exact"], false);
    let shown = stable(&home.ok(&all));
    let counted = shown.lines().find(|line| line.starts_with("counted"));
    assert_eq!(
        counted,
        Some("counted  not all of this: the rest is added up soon")
    );
}

async fn stats_that_would_be_too_much_are_refused_with_the_way_out(database: &TestDatabase) {
    let home = home(database);
    let too_many = MAX_SUMMED / (48 * 60) + 1;
    for _ in 0..too_many {
        let new = registration(&workspace("ws_1"), spec(&["*"]));
        register(&*database.store, &new).await.unwrap();
    }
    let two_days = [
        "subscriptions",
        "stats",
        "--workspace",
        "ws_1",
        "--window",
        "2d",
    ];
    let refused = home.fails(2, &[&two_days as &[&str], &["--by", "minute"]].concat());
    assert_snapshot!(
        refused,
        @"error: window: is too long for as many subscriptions as there are: take a shorter one, or `--by hour`"
    );
    home.ok(&[&two_days as &[&str], &["--by", "hour"]].concat());
    home.ok(&two_days);
}
