use proptest::prelude::*;

use super::super::edition::{Row, SectionContent};
use super::super::ids::RowId;
use super::super::values::Values;
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

#[test]
fn the_documented_examples_are_taken_and_can_be_told_again() {
    let text = include_str!("../../../docs/SNAPSHOTS.md");
    let examples = text.split("```json\n").skip(1);
    let examples: Vec<&str> = examples
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(examples.len(), 6);
    for example in examples {
        let snapshot = Snapshot::decode(example.as_bytes(), at())
            .unwrap_or_else(|error| panic!("{error}\n{example}"));
        let told = snapshot.to_json("x", "/demo").unwrap();
        let again = Snapshot::decode(told.as_bytes(), at()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{snapshot:?}"));
    }
}

#[test]
fn a_deletion_tells_what_is_no_more() {
    for kind in EntityKind::ALL {
        let event_type = format!("{}.deleted", kind.as_str());
        let snapshot = decode(&event_type, r#"{"id":"x","version":3}"#).unwrap();
        assert_eq!(snapshot.key.kind(), kind);
        assert!(matches!(snapshot.state, State::Deleted));
        assert!(decode(&event_type, r#"{"id":"x"}"#).is_err());
    }
}

#[test]
fn what_is_no_snapshot_is_refused() {
    for event_type in [
        "edition.submitted",
        "user.snapshot",
        "edition.snapshot.x",
        "x",
    ] {
        let refused = decode(event_type, EDITION).unwrap_err();
        assert_eq!(refused, SnapshotError::NotState, "{event_type}");
    }
    let huge = vec![b' '; MAX_SNAPSHOT_BYTES + 1];
    assert!(matches!(
        Snapshot::decode(&huge, at()),
        Err(SnapshotError::TooLarge(_))
    ));
    let no_project = envelope("edition.snapshot", EDITION).replace(r#""projectid":"pr_1","#, "");
    let reason = Snapshot::decode(no_project.as_bytes(), at()).unwrap_err();
    assert!(
        reason.to_string().starts_with("`data.project_id`"),
        "{reason}"
    );
}

#[test]
fn a_blueprint_that_contradicts_itself_is_told_with_its_place() {
    let place = |sections: &str, outputs: &str| {
        let data = format!(
            r#"{{"id":"b","version":1,"name":"B","sections":{sections},"outputs":{outputs}}}"#
        );
        match decode("blueprint.snapshot", &data) {
            Err(SnapshotError::Data(error)) => error.path,
            other => panic!("{data}: {other:?}"),
        }
    };
    let section = |fields: &str| format!(r#"{{"name":"s","kind":"single","fields":[{fields}]}}"#);
    let two = |fields: &str| format!("[{},{}]", section(""), section(fields));
    let text = r#"{"name":"a","type":"text"}"#;
    assert_eq!(place(&two(""), "[]"), "data.sections");
    assert_eq!(
        place(&two(&format!("{text},{text}")), "[]"),
        "data.sections[1]"
    );
    let bad = |field: &str| place(&two(&format!("{text},{field}")), "[]");
    assert_eq!(
        bad(r#"{"name":"b","type":"colour"}"#),
        "data.sections[1].fields[1]"
    );
    assert_eq!(
        bad(r#"{"name":"b\u0000","type":"text"}"#),
        "data.sections[1].fields[1].name"
    );
    assert_eq!(
        bad(r#"{"name":"b","type":"select","options":["x","x"]}"#),
        "data.sections[1].fields[1]"
    );
    let pdf = r#"{"name":"o","format":"pdf"}"#;
    assert_eq!(place("[]", &format!("[{pdf},{pdf}]")), "data.outputs");
    assert_eq!(
        place("[]", r#"[{"name":"o","format":"PDF"}]"#),
        "data.outputs[0].format"
    );
}

proptest! {
    #[test]
    fn junk_in_the_place_of_a_part_never_panics(part in ".{0,24}", from in 0..EDITION.len()) {
        let mut text = EDITION.to_owned();
        if text.is_char_boundary(from) {
            text.insert_str(from, &part);
        }
        drop(decode("edition.snapshot", &text));
        drop(Snapshot::decode(part.as_bytes(), at()));
    }

    #[test]
    fn an_edition_is_told_as_it_was(
        version in 0..i64::MAX,
        names in prop::collection::btree_set("[a-zé/. ]{1,8}", 0..5),
        texts in prop::collection::vec("[^\0]{0,12}", 5),
    ) {
        let content: Content = names.iter().zip(&texts).enumerate().map(|(at, (name, text))| {
            let values = Values::parse(&serde_json::json!({ "a": text, name: at }).to_string()).unwrap();
            let section = if at % 2 == 0 {
                SectionContent::Single(values)
            } else {
                let row = |id: usize| Row { id: RowId::new(&format!("r{id}")).unwrap(), values: values.clone() };
                SectionContent::Repeating((0..at).map(row).collect())
            };
            (name.clone(), section)
        }).collect();
        let mut snapshot = decode("edition.snapshot", EDITION).unwrap();
        snapshot.version = version;
        let State::Edition(state) = &mut snapshot.state else { panic!("an edition") };
        state.edition.version = version;
        state.content = content;
        let again = Snapshot::decode(snapshot.to_json("x", "s").unwrap().as_bytes(), at()).unwrap();
        prop_assert_eq!(format!("{again:?}"), format!("{snapshot:?}"));
    }
}

#[test]
fn what_clients_may_write_fits_into_a_snapshot() {
    let all = MAX_WRITTEN_BYTES / MAX_ROWS;
    let row = |number: usize| {
        let id = format!("{number:07}");
        let frame = id.len() + r#"{"x":""}"#.len();
        let values = Values::trusted(&format!(r#"{{"x":"{}"}}"#, "y".repeat(all - frame)));
        let id = RowId::new(&id).unwrap();
        Row { id, values }
    };
    let mut snapshot = decode("edition.snapshot", EDITION).unwrap();
    let State::Edition(state) = &mut snapshot.state else {
        panic!("an edition");
    };
    let rows = (0..MAX_ROWS).map(row).collect();
    state.content = vec![("costs".to_owned(), SectionContent::Repeating(rows))];
    let message = snapshot.to_json("1", "/report-forge").unwrap();
    assert!(
        message.len() < MAX_SNAPSHOT_BYTES - 100_000,
        "{}",
        message.len()
    );
}
