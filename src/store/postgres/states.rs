//! How editions and outputs stand, as the core states it: their rows as snapshots write them.

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::Result;
use super::errors::{expect_rows, from_sqlx};
use super::snapshots::{News, places};
use crate::domain::edition::Edition;
use crate::domain::output::{Output, OutputFile};
use crate::domain::snapshot::State;

/// The places of those that are older here than what is told, or not here at all.
pub(super) async fn newer_editions(
    tx: &mut PgTransaction<'_>,
    news: &[&News<'_>],
) -> Result<Vec<usize>> {
    let newer: Vec<(String, String)> = sqlx::query_as(
        "-- postgres::states::newer_editions
        select told.workspace, told.id
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::bigint[]) as version
        ) as told
        left join lateral (
            select version
            from edition
            where workspace = told.workspace and id = told.id
            limit 1
        ) as known on true
        where known.version is null or known.version < told.version",
    )
    .bind(news.iter().map(|news| news.workspace()).bind_iter())
    .bind(news.iter().map(|news| news.id()).bind_iter())
    .bind(news.iter().map(|news| news.version()).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(places(news, &newer))
}

/// Writes the heads of editions that are held, older than what is told, and of which there is a row.
///
/// Of a deleted one what events told of it stays, and so do its outputs, which are not seen without
/// it: a greater version may bring it back, and then they count again, in whatever order they came.
/// Its project stays for events that do not say theirs.
pub(super) async fn write_editions(tx: &mut PgTransaction<'_>, news: &[&News<'_>]) -> Result<()> {
    if news.is_empty() {
        return Ok(());
    }
    let heads = || news.iter().map(|news| edition(news));
    let person = || heads().map(|head| head?.assignee.as_ref());
    let written = sqlx::query(
        "-- postgres::states::write_editions
        with tick as (
            update edition_clock
            set last = greatest(last + interval '1 millisecond', clock_timestamp())
            returning last
        )
        insert into edition (
            workspace, id, version, revision, changed_at, deleted_at, project, blueprint, name,
            period, assignee_id, assignee_name, created_at, stated_status, stated_at
        )
        select
            told.workspace, told.id, told.version, 1, tick.last,
            case when told.deleted then now() end, told.project, told.blueprint, told.name,
            told.period, told.assignee_id, told.assignee_name, told.created_at, told.status,
            told.status_changed_at
        from tick
        cross join (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::bigint[]) as version,
                unnest($4::boolean[]) as deleted,
                unnest($5::text[]) as project,
                unnest($6::text[]) as blueprint,
                unnest($7::text[]) as name,
                unnest($8::text[]) as period,
                unnest($9::text[]) as assignee_id,
                unnest($10::text[]) as assignee_name,
                unnest($11::timestamptz[]) as created_at,
                unnest($12::text[]) as status,
                unnest($13::timestamptz[]) as status_changed_at
        ) as told
        on conflict on constraint edition_pk do update
        set version = excluded.version,
            revision = edition.revision + 1,
            changed_at = case
                when excluded.deleted_at is null then excluded.changed_at
                else edition.changed_at
            end,
            deleted_at = excluded.deleted_at,
            project = coalesce(excluded.project, edition.project),
            blueprint = coalesce(excluded.blueprint, edition.blueprint),
            name = excluded.name,
            period = excluded.period,
            assignee_id = excluded.assignee_id,
            assignee_name = excluded.assignee_name,
            created_at = coalesce(excluded.created_at, edition.created_at),
            stated_status = coalesce(excluded.stated_status, edition.stated_status),
            stated_at = coalesce(excluded.stated_at, edition.stated_at)",
    )
    .bind(news.iter().map(|news| news.workspace()).bind_iter())
    .bind(news.iter().map(|news| news.id()).bind_iter())
    .bind(news.iter().map(|news| news.version()).bind_iter())
    .bind(news.iter().map(|news| news.is_deletion()).bind_iter())
    .bind(heads().map(|head| Some(head?.project.as_str())).bind_iter())
    .bind(
        heads()
            .map(|head| Some(head?.blueprint.as_str()))
            .bind_iter(),
    )
    .bind(heads().map(|head| Some(head?.name.as_str())).bind_iter())
    .bind(heads().map(|head| head?.period.as_deref()).bind_iter())
    .bind(person().map(|person| Some(person?.id.as_str())).bind_iter())
    .bind(person().map(|person| person?.name.as_deref()).bind_iter())
    .bind(heads().map(|head| Some(head?.created_at)).bind_iter())
    .bind(heads().map(|head| Some(head?.status.as_str())).bind_iter())
    .bind(
        heads()
            .map(|head| Some(head?.status_changed_at))
            .bind_iter(),
    )
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("edition", news.len(), written.rows_affected())
}

fn edition<'n>(news: &'n News<'_>) -> Option<&'n Edition> {
    match &news.snapshot.state {
        State::Edition(state) => Some(&state.edition),
        _ => None,
    }
}

/// Writes outputs that are older than what is told. Answers the places of those that were.
pub(super) async fn write_outputs(
    tx: &mut PgTransaction<'_>,
    news: &[&News<'_>],
) -> Result<Vec<usize>> {
    if news.is_empty() {
        return Ok(Vec::new());
    }
    let states = || news.iter().map(|news| output(news));
    let files = || states().map(|state| state?.file.as_ref());
    let size = |file: &OutputFile| i64::try_from(file.size).unwrap_or(i64::MAX);
    let changed: Vec<(String, String)> = sqlx::query_as(
        "-- postgres::states::write_outputs
        insert into output (
            workspace, id, version, revision, deleted_at, edition, name, format, stated_status,
            stated_at, size, sha256, generated_at, failure
        )
        select
            told.workspace, told.id, told.version, 1, case when told.deleted then now() end,
            told.edition, told.name, told.format, told.status, told.at, told.size, told.sha256,
            told.generated_at, told.failure
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::bigint[]) as version,
                unnest($4::boolean[]) as deleted,
                unnest($5::text[]) as edition,
                unnest($6::text[]) as name,
                unnest($7::text[]) as format,
                unnest($8::text[]) as status,
                unnest($9::timestamptz[]) as at,
                unnest($10::bigint[]) as size,
                unnest($11::text[]) as sha256,
                unnest($12::timestamptz[]) as generated_at,
                unnest($13::text[]) as failure
        ) as told
        on conflict on constraint output_pk do update
        set version = excluded.version,
            revision = output.revision + 1,
            deleted_at = excluded.deleted_at,
            edition = coalesce(excluded.edition, output.edition),
            name = coalesce(excluded.name, output.name),
            format = coalesce(excluded.format, output.format),
            stated_status = coalesce(excluded.stated_status, output.stated_status),
            stated_at = coalesce(excluded.stated_at, output.stated_at),
            size = excluded.size,
            sha256 = excluded.sha256,
            generated_at = excluded.generated_at,
            failure = excluded.failure
        where output.version is null or excluded.version > output.version
        returning workspace, id",
    )
    .bind(news.iter().map(|news| news.workspace()).bind_iter())
    .bind(news.iter().map(|news| news.id()).bind_iter())
    .bind(news.iter().map(|news| news.version()).bind_iter())
    .bind(news.iter().map(|news| news.is_deletion()).bind_iter())
    .bind(
        states()
            .map(|state| Some(state?.edition.as_str()))
            .bind_iter(),
    )
    .bind(states().map(|state| Some(state?.name.as_str())).bind_iter())
    .bind(
        states()
            .map(|state| Some(state?.format.as_str()))
            .bind_iter(),
    )
    .bind(
        states()
            .map(|state| Some(state?.status.as_str()))
            .bind_iter(),
    )
    .bind(states().map(|state| Some(state?.updated_at)).bind_iter())
    .bind(files().map(|file| file.map(size)).bind_iter())
    .bind(files().map(|file| Some(file?.sha256.as_str())).bind_iter())
    .bind(files().map(|file| Some(file?.generated_at)).bind_iter())
    .bind(states().map(|state| state?.failure.as_deref()).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(places(news, &changed))
}

fn output<'n>(news: &'n News<'_>) -> Option<&'n Output> {
    match &news.snapshot.state {
        State::Output(state) => Some(state),
        _ => None,
    }
}
