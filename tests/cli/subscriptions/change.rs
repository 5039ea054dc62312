//! `subscriptions update | rotate-secret`

use insta::assert_snapshot;

use super::create;
use crate::cli::{Home, URL, stable, text};

#[test]
fn headers_are_shown_by_name_and_replaced_as_a_whole() {
    let home = Home::new();
    let args = [
        "subscriptions",
        "create",
        "--url",
        URL,
        "--event-type",
        "*",
        "--header",
        "Authorization: Bearer s3cret: x",
        "--header",
        "X-Tenant:7",
    ];
    let created = home.json(&args);
    let hidden = serde_json::json!({"authorization": "***", "x-tenant": "***"});
    assert_eq!(created["headers"], hidden);
    let id = text(&created["id"]);
    let shown = home.ok(&["subscriptions", "show", &id]);
    assert!(shown.contains("authorization x-tenant"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
    let update = |more: &[&str]| home.json(&[&["subscriptions", "update", &id], more].concat());
    assert_eq!(update(&["--description", "x"])["headers"], hidden);
    let replaced = update(&["--header", "x-other: s3cret"]);
    assert_eq!(replaced["headers"], serde_json::json!({"x-other": "***"}));
    let cleared = update(&["--clear-headers"]);
    assert_eq!(cleared["headers"], serde_json::json!({}));
    for (header, expected) in [
        ("s3cret", "error: headers: must be written as `Name: value`"),
        ("Host: s3cret", "error: headers: must not set `host`"),
        ("webhook_id: s3cret", "error: headers: must have names"),
        (
            "x-a: s3cret\u{e9}",
            "error: headers: `x-a` must have a value",
        ),
        ("x-a:", "error: headers: `x-a` must have a value"),
    ] {
        let told = create(&home, URL, &["--header", header]);
        assert!(told.starts_with(expected), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn concurrency_and_retries_are_set_shown_and_given_back() {
    let home = Home::new();
    let args = [
        "subscriptions",
        "create",
        "--url",
        URL,
        "--event-type",
        "*",
        "--max-concurrency",
        "3",
        "--retry-schedule",
        "5s, 90s,1h 30m",
    ];
    let created = home.json(&args);
    assert_eq!(created["max_concurrency"], 3);
    let schedule = serde_json::json!(["5s", "1m 30s", "1h 30m"]);
    assert_eq!(created["retry_schedule"], schedule);
    let id = text(&created["id"]);
    assert_snapshot!(stable(&home.ok(&["subscriptions", "show", &id])), @r"
    id  sub_ID
    url  https://9.9.9.9/hook
    events  *
    projects  -
    format  standard
    headers  -
    concurrency  3
    rate  -
    retries  5s,1m 30s,1h 30m
    ordering  none
    status  active
    circuit  closed
    version  1
    created  TIME
    updated  TIME
    ");
    let update = |more: &[&str]| home.json(&[&["subscriptions", "update", &id], more].concat());
    let changed = update(&["--retry-schedule", "none", "--max-concurrency", "7"]);
    assert_eq!(changed["retry_schedule"], serde_json::json!([]));
    assert_eq!(
        (&changed["max_concurrency"], &changed["version"]),
        (&7.into(), &2.into())
    );
    let same = update(&["--max-concurrency", "7"]);
    assert_eq!(same, changed, "nothing changed");
    let given_back = update(&["--default-retry-schedule", "--default-concurrency"]);
    assert!(given_back["retry_schedule"].is_null() && given_back["max_concurrency"].is_null());
    assert_eq!(update(&["--rate-limit", "20"])["rate_limit"], 20);
    assert!(update(&["--no-rate-limit"])["rate_limit"].is_null());
    assert_eq!(update(&["--ordering", "edition"])["ordering"], "edition");
    assert_eq!(update(&["--ordering", "none"])["ordering"], "none");
    let off = update(&["--disable", "moving"]);
    assert!(off.get("pending").is_none());
    let on = update(&["--enable"]);
    assert_eq!(
        on["pending"],
        serde_json::json!({"count": 0, "exact": true})
    );
    assert_eq!(
        (&on["missed"]["count"], &on["missed"]["exact"]),
        (&0.into(), &true.into())
    );
    assert!(on["missed"]["since"].is_string());
    assert_eq!(on["circuit"]["state"], "closed");
    for (more, expected) in [
        (
            ["--retry-schedule", "5s,soon"],
            "error: retry_schedule: `soon` is no duration",
        ),
        (
            ["--retry-schedule", ""],
            "error: retry_schedule: `` is no duration",
        ),
        (
            ["--retry-schedule", "8d"],
            "error: retry_schedule: each delay must be at most 7 days",
        ),
        (["--max-concurrency", "0"], "error: invalid value '0'"),
    ] {
        let told = create(&home, URL, &more);
        assert!(told.starts_with(expected), "{told}");
    }
}

fn created(home: &Home) -> (String, String) {
    let created = home.json(&["subscriptions", "create", "--url", URL, "--event-type", "*"]);
    (text(&created["id"]), text(&created["secret"]))
}

#[test]
fn a_change_leaves_what_it_does_not_name() {
    let home = Home::new();
    let (id, _) = created(&home);
    let update = |more: &[&str]| home.json(&[&["subscriptions", "update", &id], more].concat());
    let changed = update(&[
        "--event-type",
        "edition.*",
        "--project",
        "pr_1",
        "--description",
        "ERP",
    ]);
    assert_eq!(changed["event_types"][0], "edition.*");
    assert_eq!(changed["project_ids"][0], "pr_1");
    assert_eq!(
        (&changed["url"], &changed["description"]),
        (&URL.into(), &"ERP".into())
    );
    let disabled = update(&["--disable", "moving house"]);
    assert_eq!(
        (&disabled["status"], &disabled["disabled_reason"]),
        (&"disabled".into(), &"moving house".into())
    );
    assert_eq!(disabled["description"], "ERP");
    let enabled = update(&["--enable", "--all-projects"]);
    assert_eq!(
        (&enabled["status"], &enabled["project_ids"]),
        (&"active".into(), &serde_json::Value::Null)
    );
    assert_eq!(enabled["event_types"][0], "edition.*");
}

#[test]
fn a_wrong_change_changes_nothing_and_names_its_field() {
    let home = Home::new();
    let (id, _) = created(&home);
    let before = home.ok(&["subscriptions", "show", &id, "--json"]);
    for (more, expected) in [
        (
            &["--url", "https://127.0.0.1/"] as &[&str],
            "error: url: must lead to a public address",
        ),
        (&["--url", "nonsense"], "error: url: is no URL"),
        (
            &["--event-type", "Edition"],
            "error: event_types: `Edition`",
        ),
        (&["--project", ""], "error: project_ids: ``"),
        (&["--format", "xml"], "error: format: must be"),
        (
            &["--disable", " "],
            "error: disabled_reason: must be 1 to 500",
        ),
    ] {
        let told = home.fails(
            2,
            &[
                &["subscriptions", "update", &id, "--description", "new"],
                more,
            ]
            .concat(),
        );
        assert!(told.starts_with(expected), "{more:?}: {told}");
    }
    assert_eq!(home.ok(&["subscriptions", "show", &id, "--json"]), before);
    let told = home.fails(2, &["subscriptions", "update", &id]);
    assert!(told.contains("required"), "nothing to change: {told}");
    home.fails(
        3,
        &[
            "subscriptions",
            "update",
            "sub_01h455vb4pex5vsknk084sn02q",
            "--enable",
        ],
    );
}

#[test]
fn a_new_secret_is_shown_once() {
    let home = Home::new();
    let (id, first) = created(&home);
    let rotated = home.json(&["subscriptions", "rotate-secret", &id, "--overlap", "7d"]);
    let second = text(&rotated["secret"]);
    assert!(second.starts_with("whsec_") && second != first);
    assert!(!home.ok(&["subscriptions", "show", &id]).contains(&second));
    for (more, expected) in [
        (
            &["--overlap", "8d"] as &[&str],
            "error: overlap: `8d` must be a duration of 0s to 7d",
        ),
        (&["--overlap", "soon"], "error: overlap: `soon`"),
        (
            &["--secret", "short-s3cret"],
            "error: secret: must begin with `whsec_`",
        ),
    ] {
        let told = home.fails(
            2,
            &[&["subscriptions", "rotate-secret", &id], more].concat(),
        );
        assert!(told.starts_with(expected), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    home.fails(
        3,
        &[
            "subscriptions",
            "rotate-secret",
            "sub_01h455vb4pex5vsknk084sn02q",
        ],
    );
}
