//! `subscriptions create | list | show | delete`

use insta::assert_snapshot;

use super::{Home, URL, stable, text};

mod change;
mod going;

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
    rate  -
    retries  default
    ordering  none
    status  active
    circuit  closed
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
      "rate_limit": null,
      "retry_schedule": null,
      "ordering": "none",
      "status": "active",
      "disabled_reason": null,
      "circuit": {
        "state": "closed",
        "since": null,
        "until": null
      },
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
    ID  URL  EVENTS  FORMAT  STATUS  CIRCUIT
    sub_ID  https://9.9.9.9/hook  c  standard  active  closed
    sub_ID  https://9.9.9.9/hook  b  standard  active  closed
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
