//! Finding editions: their heads, one or many.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::error::store_error;
use super::rows::{
    count, get, list as list_of, millis, optional_parsed, parsed, projects, time, to_time,
};
use crate::domain::edition::{Edition, EditionStatus};
use crate::domain::ids::EditionId;
use crate::domain::reach::Reach;
use crate::domain::workspace::Person;
use crate::store::walk::{By, Walk};
use crate::store::{
    EditionFilter, EditionKey, EditionList, EditionRecord, EditionTag, Page, PageRequest, Result,
    SectionTag, StoreError,
};

/// Whether a row of `edition` is seen by readers at all.
macro_rules! edition_is_seen {
    () => {
        "edition.version is not null and edition.deleted_at is null
            and not exists (
                select 1
                from project
                where project.workspace = edition.workspace
                    and project.id = edition.project
                    and project.deleted_at is not null
            )"
    };
}
pub(super) use edition_is_seen;

/// The edition, if it is seen and in reach.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionRecord>> {
    let row = sqlx::query(concat!(
        "-- sqlite::heads::one
        select id, project, blueprint, name, status, status_changed_at, period, assignee_id,
            assignee_name, version, revision, created_at, changed_at
        from edition
        where workspace = ?1 and id = ?2
            and (?3 is null or project in (select value from json_each(?3)))
            and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.as_ref().map(record).transpose()
}

/// Its tag alone.
pub(super) async fn tag(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionTag>> {
    let row = sqlx::query(concat!(
        "-- sqlite::heads::tag
        select version, revision
        from edition
        where workspace = ?1 and id = ?2
            and (?3 is null or project in (select value from json_each(?3)))
            and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.map(|row| {
        Ok(EditionTag {
            version: get(&row, "version")?,
            revision: get(&row, "revision")?,
        })
    })
    .transpose()
}

/// Its tag with its blueprint's version, if that is seen.
pub(super) async fn section_tag(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<SectionTag>> {
    // The blueprint is seen by whoever sees the edition, if it is of the same project.
    let row = sqlx::query(concat!(
        "-- sqlite::heads::section_tag
        select version, revision, (
            select blueprint.version
            from blueprint
            where blueprint.workspace = edition.workspace and blueprint.id = edition.blueprint
                and blueprint.project = edition.project and blueprint.deleted_at is null
        ) as blueprint_version
        from edition
        where workspace = ?1 and id = ?2
            and (?3 is null or project in (select value from json_each(?3)))
            and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.map(|row| {
        Ok(SectionTag {
            edition: EditionTag {
                version: get(&row, "version")?,
                revision: get(&row, "revision")?,
            },
            blueprint: get(&row, "blueprint_version")?,
        })
    })
    .transpose()
}

/// A page of those that the filter lets through, and the time up to which all is seen. In a
/// transaction that sees one state.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    reach: &Reach,
    filter: &EditionFilter,
    page: PageRequest<EditionKey>,
) -> Result<EditionList> {
    // There is one writer, and it sets the clock forward with each change: what is committed later
    // has a later time.
    let last: i64 = sqlx::query_scalar(
        "-- sqlite::heads::list (clock)
        select last from edition_clock",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(store_error)?;
    let walk = Walk::of(reach, filter);
    let ways = ways(&walk);
    let rows = if ways.is_empty() {
        Vec::new()
    } else {
        statement(reach, filter, &page, &walk, &ways)?
            .build()
            .fetch_all(connection)
            .await
            .map_err(store_error)?
    };
    let items = rows.iter().map(record).collect::<Result<_>>()?;
    Ok(EditionList {
        page: Page::of(items, page.limit, EditionKey::of),
        as_of: to_time(last.saturating_add(1))?,
    })
}

/// An index that has editions in the list's order, and the condition that makes it so.
type Way<'a> = (&'static str, Option<(&'static str, &'a str)>);

/// The ways of a walk: one, or as many as there are projects or statuses. (A key has at most 100
/// projects, and no statement may have more than 500 parts.)
fn ways<'a>(walk: &Walk<'a>) -> Vec<Way<'a>> {
    let each = |index, condition, of: &[&'a str]| {
        let way = |of: &&'a str| (index, Some((condition, *of)));
        of.iter().map(way).collect()
    };
    match &walk.by {
        By::Blueprint(one) => each("edition_of_blueprint", " and blueprint = ", &[one]),
        By::Projects(several) => each("edition_of_project", " and project = ", several),
        By::Period(one) => each("edition_of_period", " and period = ", &[one]),
        By::Statuses(several) => each("edition_in_status", " and status = ", several),
        By::Changes => vec![("edition_changes", None)],
    }
}

/// Walks these ways beside each other: `SQLite` merges parts whose order is that of the whole, and stops
/// where the page is full. Left to itself it would rather walk the whole workspace, or sort.
fn statement(
    reach: &Reach,
    filter: &EditionFilter,
    page: &PageRequest<EditionKey>,
    walk: &Walk<'_>,
    ways: &[Way<'_>],
) -> Result<QueryBuilder<Sqlite>> {
    let mut select = QueryBuilder::new("-- sqlite::heads::list");
    for (number, (index, condition)) in ways.iter().enumerate() {
        if number > 0 {
            select.push(
                "
        union all",
            );
        }
        select
            .push(
                "
        select id, project, blueprint, name, status, status_changed_at, period, assignee_id,
            assignee_name, version, revision, created_at, changed_at
        from edition indexed by ",
            )
            .push(index)
            .push(" where workspace = ")
            .push_bind(reach.workspace.as_str().to_owned());
        if let Some((condition, value)) = condition {
            select.push(condition).push_bind((*value).to_owned());
        }
        push_conditions(&mut select, filter, page, walk)?;
    }
    select
        .push(
            "
        order by changed_at, id limit ",
        )
        .push_bind(count(page.limit.saturating_add(1)));
    Ok(select)
}

/// What is looked at in each row on the way.
fn push_conditions(
    select: &mut QueryBuilder<Sqlite>,
    filter: &EditionFilter,
    page: &PageRequest<EditionKey>,
    walk: &Walk<'_>,
) -> Result<()> {
    let several = [
        (" and project in ", &walk.projects),
        (" and status in ", &walk.statuses),
    ];
    for (condition, words) in several {
        if let Some(words) = words {
            select
                .push(condition)
                .push("(select value from json_each(")
                .push_bind(list_of(words)?)
                .push("))");
        }
    }
    if let Some(period) = walk.period {
        select.push(" and period = ").push_bind(period.to_owned());
    }
    if let Some(since) = filter.updated_since {
        select.push(" and changed_at >= ").push_bind(millis(since));
    }
    if let Some(after) = &page.after {
        select
            .push(" and (changed_at, id) > (")
            .push_bind(millis(after.changed_at))
            .push(", ")
            .push_bind(after.id.as_str().to_owned())
            .push(")");
    }
    select.push(concat!(" and ", edition_is_seen!()));
    Ok(())
}

/// A row of `edition` that is seen.
fn record(row: &SqliteRow) -> Result<EditionRecord> {
    let status: &str = get(row, "status")?;
    let assignee = optional_parsed(row, "assignee_id")?;
    let name: Option<String> = get(row, "assignee_name")?;
    Ok(EditionRecord {
        edition: Edition {
            id: parsed(row, "id")?,
            project: parsed(row, "project")?,
            blueprint: parsed(row, "blueprint")?,
            name: get(row, "name")?,
            status: EditionStatus::parse(status)
                .ok_or_else(|| StoreError::corrupt(format!("edition.status: {status}")))?,
            status_changed_at: time(row, "status_changed_at")?,
            period: get(row, "period")?,
            assignee: assignee.map(|id| Person { id, name }),
            version: get(row, "version")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "changed_at")?,
        },
        revision: get(row, "revision")?,
    })
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Row};

    use super::super::maintenance::MIGRATIONS;
    use super::*;
    use crate::domain::ids::{BlueprintId, ProjectId, WorkspaceId};

    /// What `SQLite` does for a list, step by step.
    async fn plan(
        connection: &mut SqliteConnection,
        reach: &Reach,
        filter: &EditionFilter,
    ) -> Vec<String> {
        let after = EditionKey {
            changed_at: to_time(1).unwrap(),
            id: EditionId::new("ed_1").unwrap(),
        };
        let page = PageRequest {
            limit: 50,
            after: Some(after),
        };
        let walk = Walk::of(reach, filter);
        let select = statement(reach, filter, &page, &walk, &ways(&walk)).unwrap();
        let explain = format!("explain query plan {}", select.sql().as_str());
        let steps = sqlx::query(AssertSqlSafe(explain));
        let steps = steps.fetch_all(connection).await.unwrap();
        steps.iter().map(|step| step.get("detail")).collect()
    }

    #[tokio::test]
    async fn every_list_walks_an_index_in_its_order() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        MIGRATIONS
            .run_direct(None, &mut connection, false)
            .await
            .unwrap();
        let project = |id: &str| ProjectId::new(id).unwrap();
        let all = Reach::all(&WorkspaceId::default());
        let three = Reach {
            projects: Some(["a", "b", "c"].map(project).to_vec()),
            ..all.clone()
        };
        let none = EditionFilter::default;
        let two_statuses = EditionFilter {
            statuses: ["draft", "closed"]
                .map(|word| EditionStatus::parse(word).unwrap())
                .to_vec(),
            ..none()
        };
        let one_project = EditionFilter {
            project: Some(project("a")),
            ..two_statuses.clone()
        };
        let blueprint = EditionFilter {
            blueprint: BlueprintId::new("bp").ok(),
            ..two_statuses.clone()
        };
        let period = EditionFilter {
            period: Some("Q1".to_owned()),
            ..two_statuses.clone()
        };
        for (reach, filter, walk, ways) in [
            (&all, none(), "edition_changes (workspace=?", 1),
            (
                &all,
                two_statuses.clone(),
                "edition_in_status (workspace=? AND status=?",
                2,
            ),
            (
                &all,
                one_project,
                "edition_of_project (workspace=? AND project=?",
                1,
            ),
            (
                &all,
                period,
                "edition_of_period (workspace=? AND period=?",
                1,
            ),
            (
                &three,
                blueprint,
                "edition_of_blueprint (workspace=? AND blueprint=?",
                1,
            ),
            (
                &three,
                two_statuses,
                "edition_of_project (workspace=? AND project=?",
                3,
            ),
        ] {
            let steps = plan(&mut connection, reach, &filter).await;
            let whole = steps.join("\n");
            let walked = steps.iter().filter(|step| step.contains(walk)).count();
            assert_eq!(walked, ways, "{walk}:\n{whole}");
            let of_editions = steps
                .iter()
                .filter(|step| step.contains(" edition "))
                .count();
            assert_eq!(of_editions, ways, "{walk}:\n{whole}");
            assert!(!whole.contains("TEMP B-TREE"), "{walk}:\n{whole}");
        }
    }
}
