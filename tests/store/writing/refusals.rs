//! What is not written, and why.

use forge_dispatch::domain::edition::{EditionStatus, Row, SectionContent};
use forge_dispatch::domain::snapshot::{MAX_ROWS, MAX_WRITTEN_BYTES};
use forge_dispatch::domain::values::{Place, ValueFaults, Values};
use forge_dispatch::store::{Edit, StoreError, Written};

use super::{
    Ask, ask, costs, counts, draft, edit, everything, head, row, row_id, rows, summary, values_of,
    version,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{reach, workspace};
use crate::store::state::{
    at, blueprint, deletion, edition, edition_as, project, repeating, single, stated, tell,
};

on_both_databases!(
    what_is_not_there_or_out_of_reach_is_not_found,
    a_version_that_the_client_does_not_know_is_stale,
    an_edition_that_is_not_open_takes_nothing,
    values_checked_against_another_blueprint_are_not_taken,
    rows_that_cannot_be_are_told_one_by_one,
    an_edition_has_only_so_many_rows,
    an_edition_holds_only_so_many_bytes,
    the_first_reason_is_told,
);

fn set() -> Edit {
    Edit::SetValues(values_of(r#"{"total":7}"#))
}

async fn is_not_found(db: &TestDatabase, ask: &Ask) {
    let edited = ask.edit(&db.store, &summary(), &set()).await.unwrap();
    assert!(matches!(edited, Written::NotFound), "{edited:?}");
    let submitted = ask.submit(&db.store).await.unwrap();
    assert!(matches!(submitted, Written::NotFound), "{submitted:?}");
}

async fn what_is_not_there_or_out_of_reach_is_not_found(db: &TestDatabase) {
    let here = &ask().reach.workspace;
    is_not_found(db, &ask()).await;
    draft(db).await;
    let before = (head(&db.store).await, counts(db).await);
    for reach in [
        reach(here, &[]),
        reach(here, &["pr_2", "pr_3"]),
        reach(&workspace("ws_2"), &["pr_1"]),
    ] {
        is_not_found(db, &Ask { reach, ..ask() }).await;
    }
    for change in [
        Edit::DeleteRow(row_id("r3")),
        Edit::SetRow(row_id("R1"), values_of("{}")),
    ] {
        let edited = ask().edit(&db.store, &costs(), &change).await.unwrap();
        assert!(matches!(edited, Written::NotFound), "{edited:?}");
    }
    assert_eq!((head(&db.store).await, counts(db).await), before);

    let within = Ask {
        reach: reach(here, &["pr_0", "pr_1"]),
        ..ask()
    };
    let written = within.edit(&db.store, &summary(), &set()).await;
    assert_eq!(version(written), 2);
    tell(&db.store, &[deletion(&project("pr_1", 1, "x"), 9)]).await;
    is_not_found(db, &ask()).await;
    tell(&db.store, &[project("pr_1", 10, "x")]).await;
    tell(&db.store, &[deletion(&edition("ed_1", 1), 3)]).await;
    is_not_found(db, &ask()).await;
}

async fn a_version_that_the_client_does_not_know_is_stale(db: &TestDatabase) {
    draft(db).await;
    let knows = |versions: &[i64]| Ask {
        versions: Some(versions.to_vec()),
        ..ask()
    };
    for versions in [&[][..], &[0], &[2, 3]] {
        let edited = knows(versions).edit(&db.store, &summary(), &set()).await;
        assert!(matches!(edited, Err(StoreError::Stale)), "{edited:?}");
        let submitted = knows(versions).submit(&db.store).await;
        assert!(matches!(submitted, Err(StoreError::Stale)), "{submitted:?}");
    }
    let edited = knows(&[7, 1]).edit(&db.store, &summary(), &set()).await;
    assert_eq!(version(edited), 2);
    let submitted = knows(&[2]).submit(&db.store).await;
    assert_eq!(version(submitted), 3);
}

async fn an_edition_that_is_not_open_takes_nothing(db: &TestDatabase) {
    draft(db).await;
    let before = counts(db).await;
    for (version, word) in (2..).zip(["submitted", "in_review", "approved", "closed", "on_ice"]) {
        tell(
            &db.store,
            &[edition_as("ed_1", version, stated(word, at(version)))],
        )
        .await;
        let status = EditionStatus::parse(word).unwrap();
        let edited = ask().edit(&db.store, &summary(), &set()).await.unwrap();
        assert!(matches!(&edited, Written::NotOpen(is) if *is == status));
        let submitted = ask().submit(&db.store).await.unwrap();
        assert!(matches!(&submitted, Written::NotOpen(is) if *is == status));
        assert_eq!(head(&db.store).await.edition.version, version);
    }
    assert_eq!(counts(db).await[..5], before[..5]);
    let reopened = edition_as("ed_1", 9, stated("changes_requested", at(9)));
    tell(&db.store, &[reopened]).await;
    assert_eq!(edit(&db.store, &summary(), &set()).await, 10);
}

async fn values_checked_against_another_blueprint_are_not_taken(db: &TestDatabase) {
    draft(db).await;
    let newer = blueprint("bp_1", "pr_1", 2, "Report");
    let of = |blueprint_version| Ask {
        blueprint_version,
        ..ask()
    };
    tell(&db.store, std::slice::from_ref(&newer)).await;
    let edited = ask().edit(&db.store, &summary(), &set()).await.unwrap();
    assert!(matches!(edited, Written::BlueprintChanged), "{edited:?}");
    let edited = of(2).edit(&db.store, &summary(), &set()).await;
    assert_eq!(version(edited), 2);
    tell(&db.store, &[deletion(&newer, 3)]).await;
    let edited = of(3).edit(&db.store, &summary(), &set()).await.unwrap();
    assert!(matches!(edited, Written::BlueprintChanged), "{edited:?}");
    // What would have to be complete is not known then.
    let submitted = of(3).submit(&db.store).await.unwrap();
    assert!(
        matches!(submitted, Written::BlueprintChanged),
        "{submitted:?}"
    );
}

fn pointers(faults: &ValueFaults) -> Vec<String> {
    let place = |place: &Place| place.to_string();
    faults.told().iter().map(|one| place(&one.place)).collect()
}

async fn rows_that_cannot_be_are_told_one_by_one(db: &TestDatabase) {
    draft(db).await;
    let before = (
        head(&db.store).await,
        rows(&db.store).await,
        counts(db).await,
    );
    let all = |ids: &[&str]| ids.iter().map(|id| row(id, "{}")).collect();
    for (change, places) in [
        (
            Edit::AppendRows(all(&["x", "r1", "y", "r0"])),
            &["/rows/1/id", "/rows/3/id"][..],
        ),
        (Edit::AppendRows(all(&["x", "y", "x"])), &["/rows/2/id"]),
        (Edit::PutRows(all(&["r1", "r1", "x"])), &["/rows/1/id"]),
    ] {
        let refused = ask().edit(&db.store, &costs(), &change).await.unwrap();
        let Written::Invalid(faults) = refused else {
            panic!("{change:?}: {refused:?}")
        };
        assert_eq!(pointers(&faults), places);
        let now = (
            head(&db.store).await,
            rows(&db.store).await,
            counts(db).await,
        );
        assert_eq!(now, before, "nothing half written");
    }
}

async fn an_edition_has_only_so_many_rows(db: &TestDatabase) {
    draft(db).await;
    tell(&db.store, &[edition("ed_1", 2)]).await;
    let beside = MAX_ROWS - 3;
    db.tamper(&format!(
        "insert into edition_row (workspace, edition, section, ord, id, content)
        with recursive numbers (n) as (
            select 1
            union all
            select n + 1 from numbers where n < {beside}
        )
        select 'default', 'ed_1', 'beside', n, 'beside ' || n, '{{}}' from numbers"
    ))
    .await;
    let all = |ids: &[&str]| ids.iter().map(|id| row(id, "{}")).collect::<Vec<_>>();
    for change in [
        Edit::AppendRows(all(&["a", "b", "c", "d"])),
        Edit::PutRows(all(&["a", "b", "c", "d"])),
    ] {
        let refused = ask().edit(&db.store, &costs(), &change).await.unwrap();
        assert!(matches!(&refused, Written::Invalid(faults) if pointers(faults) == ["/rows"]));
    }
    let most = Edit::AppendRows(all(&["a", "b", "c"]));
    assert_eq!(edit(&db.store, &costs(), &most).await, 3);
    let as_many = Edit::PutRows(all(&["d", "e", "f"]));
    assert_eq!(edit(&db.store, &costs(), &as_many).await, 4);
}

/// Values whose text has so many bytes.
fn of_bytes(bytes: usize) -> Values {
    let frame = r#"{"x":""}"#.len();
    Values::trusted(&format!(r#"{{"x":"{}"}}"#, "y".repeat(bytes - frame)))
}

fn row_of(id: &str, values: Values) -> Row {
    Row {
        id: row_id(id),
        values,
    }
}

async fn an_edition_holds_only_so_many_bytes(db: &TestDatabase) {
    const LEFT: usize = 100;
    draft(db).await;
    let total = r#"{"total": 1.50}"#;
    let costs_held = [row("r0", "{}")];
    let held = LEFT + total.len() + "r0{}".len() + "big".len();
    let big = row_of("big", of_bytes(MAX_WRITTEN_BYTES - held));
    let full = edition_as("ed_1", 2, |state| {
        let beside = SectionContent::Repeating(vec![big]);
        state.content = vec![
            single("summary", total),
            (
                "costs".to_owned(),
                SectionContent::Repeating(costs_held.to_vec()),
            ),
            ("beside".to_owned(), beside),
        ];
    });
    tell(&db.store, &[full]).await;
    let before = (head(&db.store).await, rows(&db.store).await);
    let append = |bytes| Edit::AppendRows(vec![row_of("a", of_bytes(bytes - "a".len()))]);
    for (section, change, place) in [
        (costs(), append(LEFT + 1), "/rows"),
        (
            costs(),
            Edit::PutRows(vec![row("r0", "{}"), row_of("a", of_bytes(LEFT))]),
            "/rows",
        ),
        (
            costs(),
            Edit::SetRow(row_id("r0"), of_bytes("{}".len() + LEFT + 1)),
            "/values",
        ),
        (
            summary(),
            Edit::SetValues(of_bytes("{}".len() + LEFT + 1)),
            "/values",
        ),
    ] {
        let refused = ask().edit(&db.store, &section, &change).await.unwrap();
        assert!(
            matches!(&refused, Written::Invalid(faults) if pointers(faults) == [place]),
            "{place}"
        );
    }
    assert_eq!((head(&db.store).await, rows(&db.store).await), before);
    assert_eq!(edit(&db.store, &costs(), &append(LEFT)).await, 3);
    // What makes it smaller, or no larger, is always taken.
    let smaller = Edit::SetValues(values_of(r#"{"total":1}"#));
    assert_eq!(edit(&db.store, &summary(), &smaller).await, 4);
    let as_large = Edit::PutRows(vec![row("r0", "{}"), row_of("b", of_bytes(LEFT - 1))]);
    assert_eq!(edit(&db.store, &costs(), &as_large).await, 5);
}

async fn the_first_reason_is_told(db: &TestDatabase) {
    draft(db).await;
    let stands = |version, word: &'static str| {
        edition_as("ed_1", version, move |state| {
            stated(word, at(version))(state);
            state.content = vec![repeating("costs", 1, "old")];
        })
    };
    let taken = Edit::AppendRows(vec![row("r0", "{}")]);
    let told = async |ask: &Ask| ask.edit(&db.store, &costs(), &taken).await;
    let mut ask = Ask {
        versions: Some(vec![7]),
        blueprint_version: 7,
        reach: reach(&ask().reach.workspace, &["pr_2"]),
        ..ask()
    };
    tell(&db.store, &[stands(2, "closed")]).await;
    assert!(matches!(told(&ask).await, Ok(Written::NotFound)));
    ask.reach = everything();
    assert!(matches!(told(&ask).await, Err(StoreError::Stale)));
    ask.versions = Some(vec![2, 3]);
    assert!(matches!(told(&ask).await, Ok(Written::NotOpen(_))));
    tell(&db.store, &[stands(3, "draft")]).await;
    assert!(matches!(told(&ask).await, Ok(Written::BlueprintChanged)));
    ask.blueprint_version = 1;
    assert!(matches!(told(&ask).await, Ok(Written::Invalid(_))));
    assert_eq!(head(&db.store).await.edition.version, 3);
}
