//! `subscriptions test | stats`

use insta::assert_snapshot;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::cli::{Home, stable, text};
use crate::harness::databases::TestDatabase;
use crate::harness::program::MASTER_KEY;
use crate::harness::receiver::{Receiver, Reply};

on_both_databases!(
    a_test_sends_one_signed_ping_and_shows_the_attempt,
    a_test_that_fails_is_shown_and_is_code_1,
    stats_tell_what_waits_and_what_became_of_the_rest,
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
