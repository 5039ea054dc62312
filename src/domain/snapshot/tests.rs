use super::*;

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_777_000_000_000).unwrap()
}

fn envelope(event_type: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"1","source":"/report-forge","type":"{event_type}","time":"2026-05-01T09:00:00.1239Z","workspaceid":"ws_1","projectid":"pr_1","data":{data}}}"#
    )
}

fn decode(event_type: &str, data: &str) -> Result<Snapshot, SnapshotError> {
    Snapshot::decode(envelope(event_type, data).as_bytes(), at())
}

const EDITION: &str = r#"{"id":"ed_1","version":7,"blueprint_id":"bp_1","name":"Q2","status":"draft","status_changed_at":"2026-04-01T00:00:00Z",
    "created_at":"2026-04-01T00:00:00Z","period":"2026-Q2","assignee":{"id":"u_1","name":"Ada"},
    "sections":{"summary":{"values":{"note":"all well","rate":1.50}},
    "costs":{"rows":[{"id":"r1","values":{"item":"a"}},{"id":"r2"},{"id":"r3","values":{}},{"id":"r4","values":{}}]}}}"#;

#[test]
fn an_edition_is_read_with_all_that_it_holds() {
    let snapshot = decode("edition.snapshot", EDITION).unwrap();
    assert_eq!(snapshot.workspace.as_str(), "ws_1");
    assert_eq!(snapshot.version, 7);
    assert_eq!(snapshot.key.id(), "ed_1");
    assert_eq!(
        snapshot.occurred_at.to_rfc3339(),
        "2026-05-01T09:00:00.123+00:00"
    );
    let State::Edition(state) = snapshot.state else {
        panic!("an edition");
    };
    assert_eq!(state.edition.project.as_str(), "pr_1");
    assert_eq!(state.edition.updated_at, snapshot.occurred_at);
    assert_eq!(state.content.len(), 2);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let place = |from: &str, to: &str| {
        assert!(EDITION.contains(from), "{from}");
        match decode("edition.snapshot", &EDITION.replace(from, to)) {
            Err(SnapshotError::Data(error)) => error.path,
            other => panic!("{from} → {to}: {other:?}"),
        }
    };
    assert_eq!(place(r#""version":7"#, r#""version":-7"#), "data.version");
    assert_eq!(place(r#""version":7"#, r#""version":7.0"#), "data.version");
    assert_eq!(place(r#""version":7,"#, ""), "data");
    assert_eq!(
        place(r#""id":"r4""#, r#""id":"r1""#),
        "data.sections.costs.rows[3].id"
    );
    assert_eq!(
        place(r#""id":"r4""#, r#""id":4"#),
        "data.sections.costs.rows[3].id"
    );
    assert_eq!(
        place(r#"{"item":"a"}"#, r#"{"item":"a","item":1}"#),
        "data.sections.costs.rows[0].values"
    );
    assert_eq!(place(r#""costs":"#, r#""summary":"#), "data.sections");
    assert_eq!(
        place(r#"{"id":"u_1","name":"Ada"}"#, r#"["u_1","Ada"]"#),
        "data.assignee"
    );
    assert_eq!(place(r#""draft""#, r#""Draft!""#), "data.status");
}
