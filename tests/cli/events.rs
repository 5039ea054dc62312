//! `events publish`, without a broker.

use std::fs;

use insta::assert_snapshot;

use super::{Home, stable};

#[test]
fn an_event_is_stored_once_with_its_deliveries() {
    let home = Home::new();
    home.subscribe("edition.*");
    home.subscribe("output.*");
    let args = [
        "events",
        "publish",
        "--type",
        "edition.archived",
        "--data",
        "{}",
        "--id",
        "7",
    ];
    assert_snapshot!(home.ok(&args), @"stored 7 (edition.archived) to the store");
    assert_snapshot!(home.ok(&args), @"7 (edition.archived) was known already: nothing changed");
    let other_source = [&args as &[&str], &["--source", "/elsewhere"]].concat();
    let document = home.ok(&[&other_source as &[&str], &["--json"]].concat());
    assert_snapshot!(stable(&document), @r#"
    {
      "id": "7",
      "source": "/elsewhere",
      "type": "edition.archived",
      "to": "store",
      "outcome": "stored",
      "event_id": "evt_ID"
    }
    "#);
    let deliveries = home.json(&["deliveries", "list"]);
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 2);
}

#[test]
fn projects_and_workspaces_are_the_events_own() {
    let home = Home::new();
    let filtered = [
        "subscriptions",
        "create",
        "--url",
        super::URL,
        "--event-type",
        "*",
        "--project",
        "pr_1",
        "--workspace",
        "ws_1",
    ];
    home.ok(&filtered);
    let publish = ["events", "publish", "--type", "a.b", "--data", "null"];
    let deliveries = || {
        let list = home.json(&["deliveries", "list", "--workspace", "ws_1"]);
        list["data"].as_array().unwrap().len()
    };
    for (more, expected) in [
        (&["--workspace", "ws_1"] as &[&str], 0),
        (&["--project", "pr_1"], 0),
        (&["--workspace", "ws_1", "--project", "pr_1"], 1),
    ] {
        home.ok(&[&publish as &[&str], more].concat());
        assert_eq!(deliveries(), expected, "{more:?}");
    }
}

#[test]
fn data_comes_from_a_file_or_from_standard_input_too() {
    let home = Home::new();
    fs::write(
        home.path().join("data.json"),
        "{\"edition_id\": \"ed_1\"}\n",
    )
    .unwrap();
    home.ok(&["events", "publish", "--type", "a", "--data", "@data.json"]);
    let args = ["events", "publish", "--type", "a", "--data", "@-"];
    assert_eq!(home.run_with_input(&args, "[1, 2]\n").code, 0);
    assert_eq!(home.run_with_input(&args, "").code, 2);
}

#[test]
fn a_wrong_event_is_told_with_its_field_before_anything_is_sent() {
    let home = Home::new();
    let huge = format!("\"{}\"", "x".repeat(1024 * 1024));
    fs::write(home.path().join("huge.json"), huge).unwrap();
    for (args, expected) in [
        (
            &["--type", "a..b", "--data", "1"] as &[&str],
            "error: type: must be dot-separated",
        ),
        (
            &["--type", "", "--data", "1"],
            "error: type: must be dot-separated",
        ),
        (&["--type", "a", "--data", "{x"], "error: data: is not JSON"),
        (&["--type", "a", "--data", ""], "error: data: is not JSON"),
        (
            &["--type", "a", "--data", "1 2"],
            "error: data: is not JSON",
        ),
        (
            &["--type", "a", "--data", "@none.json"],
            "error: data: none.json: No such file",
        ),
        (
            &["--type", "a", "--data", "@huge.json"],
            "error: data: has more than 1048576 bytes",
        ),
        (
            &["--type", "edition.submitted", "--data", "{}"],
            "error: data: missing field `edition_id`",
        ),
        (
            &[
                "--type",
                "edition.approved",
                "--data",
                r#"{"edition_id":"e","approved_by":{"id":7},"timestamp":"2026-05-01T09:00:00Z"}"#,
            ],
            "error: data: `approved_by.id`: invalid type",
        ),
        (
            &["--type", "edition.snapshot", "--data", "{}"],
            "error: data: missing field",
        ),
        (
            &["--type", "a", "--data", "1", "--id", ""],
            "error: id: must not be empty",
        ),
        (
            &["--type", "a", "--data", "1", "--source", ""],
            "error: source: must not be empty",
        ),
        (
            &["--type", "a", "--data", "1", "--project", ""],
            "error: projectid: must not be empty",
        ),
    ] {
        let told = home.fails(2, &[&["events", "publish"], args].concat());
        assert!(told.starts_with(expected), "{args:?}: {told}");
    }
    assert!(!home.path().join("data").exists(), "nothing was opened");
}

#[test]
fn an_event_without_an_id_gets_a_new_one() {
    let home = Home::new();
    let told = home.ok(&["events", "publish", "--type", "a", "--data", "1"]);
    assert_snapshot!(stable(&told), @"stored UUID (a) to the store");
    assert_ne!(home.publish("a"), home.publish("a"));
}

#[test]
fn a_snapshot_is_kept_and_the_same_one_is_known() {
    let home = Home::new();
    let publish = |version: i64| {
        let data = format!(r#"{{"id":"pr_1","version":{version},"name":"Bridges"}}"#);
        let args = ["--type", "project.snapshot", "--id", "7", "--data", &data];
        home.ok(&[&["events", "publish"], args.as_slice()].concat())
    };
    assert_snapshot!(publish(2), @"stored 7 (project.snapshot) to the store");
    assert_snapshot!(publish(2), @"7 (project.snapshot) was known already: nothing changed");
    assert_snapshot!(publish(3), @"stored 7 (project.snapshot) to the store");
}
