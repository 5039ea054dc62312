//! `subscriptions create | list | show | delete`

use insta::assert_snapshot;

use super::{Home, URL, stable, text};

fn create(home: &Home, url: &str, more: &[&str]) -> String {
    let args = ["subscriptions", "create", "--url", url, "--event-type", "*"];
    home.fails(2, &[&args, more].concat())
}

#[test]
fn creating_shows_the_subscription_and_its_secret() {
    let home = Home::new();
    let args = [
        "subscriptions",
        "create",
        "--url",
        URL,
        "--event-type",
        "edition.*",
        "--event-type",
        "output.generated",
        "--project",
        "pr_1",
        "--format",
        "kazinex",
        "--description",
        "ERP",
    ];
    assert_snapshot!(stable(&home.ok(&args)), @r"
    id  sub_ID
    url  https://9.9.9.9/hook
    events  edition.* output.generated
    projects  pr_1
    format  kazinex
    headers  -
    concurrency  default
    retries  default
    status  active
    note  ERP
    version  1
    created  TIME
    updated  TIME
    secret  whsec_SECRET

    The secret is shown this once only. Receivers verify the signature with it.
    ");
    let document = home.ok(&[&args as &[&str], &["--json"]].concat());
    assert_snapshot!(stable(&document), @r#"
    {
      "id": "sub_ID",
      "workspace": "default",
      "url": "https://9.9.9.9/hook",
      "description": "ERP",
      "event_types": [
        "edition.*",
        "output.generated"
      ],
      "project_ids": [
        "pr_1"
      ],
      "format": "kazinex",
      "headers": {},
      "max_concurrency": null,
      "retry_schedule": null,
      "status": "active",
      "disabled_reason": null,
      "version": 1,
      "created_at": "TIME",
      "updated_at": "TIME",
      "secret": "whsec_SECRET"
    }
    "#);
}

#[test]
fn a_secret_is_never_printed_again() {
    let home = Home::new();
    let brought = "a secret of the admin's own";
    let args = [
        "subscriptions",
        "create",
        "--url",
        URL,
        "--event-type",
        "*",
        "--format",
        "kazinex",
        "--secret",
        brought,
    ];
    let created = home.json(&args);
    assert_eq!(created["secret"], brought);
    let id = text(&created["id"]);
    for args in [
        &["subscriptions", "list"] as &[&str],
        &["subscriptions", "show", &id],
        &["subscriptions", "list", "--json"],
        &["subscriptions", "show", &id, "--json"],
    ] {
        let shown = home.ok(args);
        assert!(shown.contains(&id));
        assert!(
            !shown.contains(brought) && !shown.contains("secret"),
            "{shown}"
        );
    }
    // Nor does it lie in the files in clear.
    for entry in std::fs::read_dir(home.path().join("data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(
            !bytes
                .windows(brought.len())
                .any(|w| w == brought.as_bytes())
        );
    }
}

#[test]
fn a_wrong_value_is_told_with_its_field() {
    let home = Home::new();
    for (url, more, expected) in [
        ("nonsense", &[] as &[&str], "error: url: is no URL"),
        ("ftp://9.9.9.9/", &[], "error: url: must be an https URL"),
        ("http://9.9.9.9/", &[], "error: url: must be an https URL"),
        (
            "https://127.0.0.1/",
            &[],
            "error: url: must lead to a public address",
        ),
        (
            "https://10.1.2.3/",
            &[],
            "error: url: must lead to a public address",
        ),
        (
            "https://0x7f.1/",
            &[],
            "error: url: must lead to a public address",
        ),
        (
            "https://169.254.169.254/",
            &[],
            "error: url: must lead to a public address",
        ),
        (
            "https://[::1]/",
            &[],
            "error: url: must lead to a public address",
        ),
        (
            "https://u:s3cret@9.9.9.9/",
            &[],
            "error: url: must not hold credentials",
        ),
        (
            URL,
            &["--format", "xml"],
            "error: format: must be `standard`",
        ),
        (
            URL,
            &["--event-type", ""],
            "error: event_types: `` must be dot-separated",
        ),
        (
            URL,
            &["--event-type", "Edition"],
            "error: event_types: `Edition` must be dot-separated",
        ),
        (
            URL,
            &["--event-type", "a.*.b"],
            "error: event_types: `a.*.b` must be dot-separated",
        ),
        (
            URL,
            &["--project", ""],
            "error: project_ids: `` must not be empty",
        ),
        (
            URL,
            &["--secret", "short-s3cret"],
            "error: secret: must begin with `whsec_`",
        ),
        (
            URL,
            &["--secret", "whsec_c2hvcnQtczNjcmV0"],
            "error: secret: `whsec_` must hold 24 to 64",
        ),
        (
            URL,
            &["--format", "kazinex", "--secret", "s3cret"],
            "error: secret: must be 16 to 128",
        ),
        (
            URL,
            &["--workspace", ""],
            "error: workspace: `` must not be empty",
        ),
    ] {
        let told = create(&home, url, more);
        assert!(told.starts_with(expected), "{url} {more:?}: {told}");
        assert!(
            !told.contains("s3cret") && !told.contains("c2hvcnQ"),
            "{told}"
        );
    }
    assert!(
        !home.path().join("data").exists(),
        "nothing was opened for a value that breaks a rule"
    );
}

#[test]
fn an_operator_can_allow_what_is_refused() {
    let home = Home::new()
        .with("FORGE_EGRESS__ALLOW", "127.0.0.0/8:8080")
        .with("FORGE_EGRESS__ALLOW_HTTP", "true");
    let args = |url| ["subscriptions", "create", "--event-type", "*", "--url", url];
    home.ok(&args("http://127.0.0.1:8080/"));
    let told = home.fails(2, &args("http://127.0.0.1:8081/"));
    assert!(
        told.starts_with("error: url: must lead to a public address"),
        "{told}"
    );
}

#[test]
fn lists_are_newest_first_and_go_on_behind_their_cursor() {
    let home = Home::new();
    assert_snapshot!(home.ok(&["subscriptions", "list"]), @"no subscriptions");
    assert_snapshot!(
        home.json(&["subscriptions", "list"]),
        @r#"{"data":[],"next_cursor":null}"#
    );
    let ids: Vec<String> = ["a", "b", "c"].map(|kind| home.subscribe(kind)).into();
    assert_snapshot!(stable(&home.ok(&["subscriptions", "list", "--limit", "2"])), @r"
    ID  URL  EVENTS  FORMAT  STATUS
    sub_ID  https://9.9.9.9/hook  c  standard  active
    sub_ID  https://9.9.9.9/hook  b  standard  active
    more subscriptions: --after sub_ID
    ");
    let first = home.json(&["subscriptions", "list", "--limit", "2"]);
    let cursor = text(&first["next_cursor"]);
    assert_eq!(cursor, ids[1]);
    let second = home.json(&["subscriptions", "list", "--after", &cursor]);
    assert_eq!(second["data"][0]["id"], ids[0].as_str());
    assert!(second["next_cursor"].is_null());
}

#[test]
fn a_workspace_sees_only_its_own() {
    let home = Home::new();
    let args = [
        "subscriptions",
        "create",
        "--url",
        URL,
        "--event-type",
        "*",
        "--workspace",
        "ws_1",
    ];
    let id = text(&home.json(&args)["id"]);
    assert_eq!(
        home.json(&["subscriptions", "list"])["data"],
        serde_json::json!([])
    );
    home.fails(3, &["subscriptions", "show", &id]);
    home.fails(3, &["subscriptions", "delete", &id]);
    home.ok(&["subscriptions", "show", &id, "--workspace", "ws_1"]);
}

#[test]
fn what_is_deleted_is_gone_and_what_never_was_is_code_3() {
    let home = Home::new();
    let id = home.subscribe("*");
    let deleted = home.json(&["subscriptions", "delete", &id]);
    assert_eq!(deleted, serde_json::json!({"id": id, "deleted": true}));
    for command in ["show", "delete"] {
        let told = home.fails(3, &["subscriptions", command, &id]);
        assert_eq!(
            stable(&told),
            "error: no subscription sub_ID in workspace default
"
        );
    }
    let id = home.subscribe("*");
    let told = home.ok(&["subscriptions", "delete", &id]);
    assert_snapshot!(stable(&told), @"deleted sub_ID");
    let told = home.fails(2, &["subscriptions", "show", "dlv_1"]);
    assert_snapshot!(told, @"error: id: `dlv_1` is no id of the form sub_…");
}

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
    retries  5s,1m 30s,1h 30m
    status  active
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
