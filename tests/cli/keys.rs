//! `keys create | list | show | revoke`

use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Config;
use forge_dispatch::domain::api_key::ApiKey;
use forge_dispatch::domain::audit::{Action, Actor};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::domain::rate::RateLimits;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{self, AuditFilter, PageRequest, Store};
use insta::assert_snapshot;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{Home, stable, text};

const CREATE: [&str; 6] = [
    "keys",
    "create",
    "--name",
    "ERP",
    "--scope",
    "read:editions",
];

fn create(home: &Home) -> String {
    text(&home.json(&CREATE)["id"])
}

/// The store that the commands in this home work on.
async fn open(home: &Path) -> Arc<dyn Store> {
    let mut config = Config::default();
    let url = format!("sqlite://{}/data/forge-dispatch.db", home.display());
    config.database.url = SecretString::from(url);
    store::open(&config, Arc::new(SystemClock), &Entropy::system())
        .await
        .unwrap()
}

/// Whose request it would be that shows this.
async fn holder(store: &Arc<dyn Store>, shown: &str) -> Option<ApiKey> {
    let key = KeyText::parse(shown).expect("a key");
    let limits = RateLimits {
        per_minute: 10,
        per_hour: 10,
    };
    let admitted = store.admit(key.id(), &key.digest(), limits).await.unwrap();
    admitted.map(|admitted| admitted.key)
}

#[test]
fn creating_shows_the_key_and_its_text() {
    let home = Home::new();
    let args = [
        "keys",
        "create",
        "--name",
        "ERP of Zoë",
        "--scope",
        "write:editions",
        "--scope",
        "read:editions",
        "--project",
        "pr_1",
        "--project",
        "pr_2",
        "--expires-in",
        "90d",
    ];
    assert_snapshot!(stable(&home.ok(&args)), @r"
    id  key_ID
    name  ERP of Zoë
    scopes  read:editions write:editions
    projects  pr_1 pr_2
    limits  default
    status  active
    expires  TIME
    created  TIME
    created by  cli
    last used  -
    key  rfk_KEY

    The key is shown this once only: it is not kept, only its SHA-256 is.
    ");
    let document = home.ok(&[&args as &[&str], &["--json"]].concat());
    assert_snapshot!(stable(&document), @r#"
    {
      "id": "key_ID",
      "workspace": "default",
      "name": "ERP of Zoë",
      "scopes": [
        "read:editions",
        "write:editions"
      ],
      "project_ids": [
        "pr_1",
        "pr_2"
      ],
      "limits": {
        "per_minute": null,
        "per_hour": null,
        "concurrent": null
      },
      "status": "active",
      "expires_at": "TIME",
      "created_by": "cli",
      "created_at": "TIME",
      "revoked_at": null,
      "last_used_at": null,
      "key": "rfk_KEY"
    }
    "#);
    let times: Value = serde_json::from_str(&document).unwrap();
    let time = |name: &str| DateTime::parse_from_rfc3339(times[name].as_str().unwrap()).unwrap();
    let minutes = (time("expires_at") - time("created_at")).num_minutes();
    assert!(
        (90 * 24 * 60 - 5..=90 * 24 * 60).contains(&minutes),
        "{times}"
    );
}

#[test]
fn a_key_may_have_limits_of_its_own() {
    let home = Home::new();
    let own = [
        "--per-minute",
        "6",
        "--per-hour",
        "100",
        "--concurrent",
        "2",
    ];
    let created = home.json(&[&CREATE as &[&str], &own].concat());
    let limits = json!({"per_minute": 6, "per_hour": 100, "concurrent": 2});
    assert_eq!(created["limits"], limits);
    let id = text(&created["id"]);
    assert_eq!(home.json(&["keys", "show", &id])["limits"], limits);
    let shown = home.ok(&["keys", "show", &id]);
    assert!(
        shown.contains("6 a minute, 100 an hour, 2 at once"),
        "{shown}"
    );
    let told = home.fails(2, &[&CREATE as &[&str], &["--per-minute", "0"]].concat());
    assert!(told.starts_with("error: invalid value '0'"), "{told}");
}

#[tokio::test]
async fn a_key_that_was_printed_is_taken_until_it_is_revoked() {
    let home = Home::new();
    let created = home.json(&CREATE);
    let (id, key) = (text(&created["id"]), text(&created["key"]));
    let store = open(home.path()).await;
    let found = holder(&store, &key).await.expect("it is valid");
    assert_eq!(
        (found.id.to_string(), found.created_by.as_str()),
        (id.clone(), "cli")
    );
    assert_eq!(
        (found.spec.project_ids, found.spec.expires_at),
        (None, None)
    );

    home.ok(&["keys", "revoke", &id]);
    assert_eq!(holder(&store, &key).await, None, "at the next request");

    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let here = WorkspaceId::default();
    let log = store.audit_log(&here, &AuditFilter::default(), page).await;
    let told: Vec<_> = log
        .unwrap()
        .items
        .into_iter()
        .map(|entry| (entry.actor, entry.action, entry.object))
        .collect();
    let actions = [Action::KeyRevoked, Action::KeyCreated];
    assert_eq!(
        told,
        actions.map(|action| (Actor::CommandLine, action, Some(id.clone())))
    );
    store.close().await;
}

#[test]
fn the_text_of_a_key_is_never_printed_again_nor_kept() {
    let home = Home::new();
    let created = home.json(&CREATE);
    let (id, key) = (text(&created["id"]), text(&created["key"]));
    let (_, secret) = key.rsplit_once('_').unwrap();
    for args in [
        &["keys", "list"] as &[&str],
        &["keys", "show", &id],
        &["keys", "list", "--json"],
        &["keys", "show", &id, "--json"],
        &["keys", "revoke", &id, "--json"],
    ] {
        let shown = home.ok(args);
        assert!(shown.contains(&id));
        assert!(
            !shown.contains(secret) && !shown.contains("rfk_"),
            "{shown}"
        );
    }
    for entry in std::fs::read_dir(home.path().join("data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        // In whole, without the checksum.
        assert!(!bytes.windows(40).any(|w| w == &secret.as_bytes()[..40]));
    }
}

#[test]
fn a_wrong_value_is_told_with_its_field() {
    let home = Home::new();
    let long = "x".repeat(101);
    for (more, expected) in [
        (&["--name", ""] as &[&str], "error: name: must be 1 to 100"),
        (&["--name", &long], "error: name: must be 1 to 100"),
        (&["--name", "a\u{7}"], "error: name: must not hold control"),
        (
            &["--scope", "root"],
            "error: scopes: `root` is none of `read:editions`, `write:editions`",
        ),
        (
            &["--scope", ""],
            "error: scopes: `` is none of `read:editions`",
        ),
        (
            &["--project", ""],
            "error: project_ids: `` must not be empty",
        ),
        (
            &["--expires-in", "soon"],
            "error: expires_in: `soon` is no duration; write it as `90d` or `12h`",
        ),
        (
            &["--expires-in", "0s"],
            "error: expires_at: must be in the future",
        ),
        (
            &["--expires-in", "9000years"],
            "error: expires_at: must be before the year 10000",
        ),
        (
            &["--expires-in", "400000000years"],
            "error: expires_in: `400000000years` is too long",
        ),
        (
            &["--workspace", ""],
            "error: workspace: `` must not be empty",
        ),
    ] {
        // What is said twice counts as said last.
        let args: Vec<&str> = match more[0] {
            "--name" => [&["keys", "create", "--scope", "admin"], more].concat(),
            _ => [&CREATE, more].concat(),
        };
        let told = home.fails(2, &args);
        assert!(told.starts_with(expected), "{more:?}: {told}");
    }
    assert!(
        !home.path().join("data").exists(),
        "nothing was opened for a value that breaks a rule"
    );
    let told = home.fails(2, &["keys", "create", "--name", "ERP"]);
    assert!(told.contains("--scope <SCOPE>"), "{told}");
}

#[test]
fn lists_are_newest_first_and_go_on_behind_their_cursor() {
    let home = Home::new();
    assert_snapshot!(home.ok(&["keys", "list"]), @"no keys");
    assert_snapshot!(
        home.json(&["keys", "list"]),
        @r#"{"data":[],"next_cursor":null}"#
    );
    let ids: Vec<String> = (0..3).map(|_| create(&home)).collect();
    home.ok(&["keys", "revoke", &ids[1]]);
    let listed = home.ok(&["keys", "list", "--limit", "2"]);
    assert_snapshot!(stable(&listed), @r"
    ID  NAME  SCOPES  STATUS  EXPIRES  LAST USED
    key_ID  ERP  read:editions  active  -  -
    key_ID  ERP  read:editions  revoked  -  -
    more keys: --after key_ID
    ");
    let first = home.json(&["keys", "list", "--limit", "2"]);
    let cursor = text(&first["next_cursor"]);
    assert_eq!(cursor, ids[1]);
    let second = home.json(&["keys", "list", "--after", &cursor]);
    assert_eq!(second["data"][0]["id"], ids[0].as_str());
    assert!(second["next_cursor"].is_null());
}

#[test]
fn a_revoked_key_stays_listed_and_may_be_revoked_again() {
    let home = Home::new();
    let id = create(&home);
    assert_snapshot!(stable(&home.ok(&["keys", "revoke", &id])), @"revoked key_ID");
    let first = home.json(&["keys", "show", &id]);
    assert_eq!(first["status"], "revoked");
    assert!(first["revoked_at"].is_string());
    assert_eq!(home.json(&["keys", "revoke", &id]), first);
    assert_eq!(home.json(&["keys", "list"])["data"], json!([first]));
    assert_snapshot!(stable(&home.ok(&["keys", "show", &id])), @r"
    id  key_ID
    name  ERP
    scopes  read:editions
    projects  -
    limits  default
    status  revoked
    expires  -
    created  TIME
    created by  cli
    revoked  TIME
    last used  -
    ");
}

#[test]
fn a_workspace_sees_only_its_own_and_what_never_was_is_code_3() {
    let home = Home::new();
    let there = ["--workspace", "ws_1"];
    let id = text(&home.json(&[&CREATE as &[&str], &there].concat())["id"]);
    assert_eq!(home.json(&["keys", "list"])["data"], Value::Array(vec![]));
    for command in ["show", "revoke"] {
        let told = home.fails(3, &["keys", command, &id]);
        assert_eq!(stable(&told), "error: no key key_ID in workspace default\n");
    }
    let shown = home.json(&["keys", "show", &id, "--workspace", "ws_1"]);
    assert_eq!(
        (&shown["status"], &shown["workspace"]),
        (&json!("active"), &json!("ws_1"))
    );
    let told = home.fails(2, &["keys", "show", "sub_1"]);
    assert_snapshot!(told, @"error: id: `sub_1` is no id of the form key_…");
}
