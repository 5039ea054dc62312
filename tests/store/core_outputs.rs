//! Outputs that the core makes: asked for, told of and taken.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::output::{Output, OutputFile, OutputFormat, OutputStatus};
use forge_dispatch::store::{Applied, CoreFiles, JobOutcome, JobSettled, OutputAsked, OutputTask};
use forge_dispatch::wake::Wake;

use super::fixture::{accept, owner};
use super::output_jobs::{
    SETTLED, ask, ask_as, done, everything, file, rendered, settle, shown, status, take, take_one,
    told,
};
use super::state::{apply, at, deletion, generated, output, output_as, output_id, project, tell};
use crate::harness::databases::TestDatabase;
use crate::harness::events::EventBuilder;

on_both_databases!(
    what_the_core_makes_is_asked_of_it_and_given_up_in_the_end,
    where_the_core_is_not_asked_its_formats_are_refused,
    a_file_of_the_cores_is_to_be_taken_once,
    a_later_file_takes_the_place_of_one_that_is_under_way,
    what_was_asked_for_again_is_taken_again,
    files_are_left_alone_where_none_may_be_taken,
    a_file_that_is_told_of_before_its_output_waits_for_it,
    a_word_of_the_cores_does_not_end_what_is_under_way,
    the_core_answers_by_a_snapshot_that_says_how_it_ended,
    what_was_answered_is_not_given_up,
    a_snapshot_that_answers_does_not_keep_the_file_away,
    an_event_answers_also_where_files_are_left_alone,
    looking_for_an_output_is_not_trying,
    what_is_given_up_with_its_project_can_be_asked_for_again,
    what_ends_while_its_project_is_away_can_be_asked_for_again,
);

async fn what_the_core_makes_is_asked_of_it_and_given_up_in_the_end(db: &TestDatabase) {
    told(db).await;
    assert_eq!(ask(&db.store, "out_pdf").await, done("out_pdf queued r2"));
    assert_eq!(db.count("outbox where type = 'output.requested'").await, 1);
    assert!(
        take(&db.store, owner()).await.is_empty(),
        "the core has a day"
    );
    assert_eq!(ask(&db.replica, "out_pdf").await, done("out_pdf queued r2"));
    assert_eq!(db.count("outbox").await, 1, "it is asked once");
    assert_eq!(db.count("event_feed").await, 0, "subscribers are not");

    db.tamper("update output_job set visible_at = (select min(last) from edition_clock)")
        .await;
    let job = take_one(&db.replica).await;
    assert_eq!(job.task, OutputTask::GiveUp);
    assert_eq!(
        status(&db.store, "out_pdf").await,
        "queued",
        "nobody makes it"
    );
    settle(&db.replica, &job, JobOutcome::Failed("no answer")).await;
    let failed = shown(&db.store, "out_pdf").await.output;
    assert_eq!(
        (failed.status, failed.failure.as_deref()),
        (OutputStatus::Failed, Some("no answer"))
    );
}

async fn where_the_core_is_not_asked_its_formats_are_refused(db: &TestDatabase) {
    told(db).await;
    let refused = ask_as(&db.store, "out_pdf", &everything(), None, None).await;
    let OutputAsked::NotMadeHere(format) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(format.as_str(), "pdf");
    assert_eq!(
        (db.count("output_job").await, db.count("outbox").await),
        (0, 0)
    );
}

async fn a_file_of_the_cores_is_to_be_taken_once(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_pdf").await;
    // By a clock that is behind ours.
    let event = generated("out_pdf", "ed_1", at(5)).build();
    accept(&db.store, &[Arc::clone(&event)]).await;
    let job = take_one(&db.replica).await;
    let url = "https://core.example/file".to_owned();
    assert_eq!(job.task, OutputTask::Fetch { url });
    assert_eq!(status(&db.store, "out_pdf").await, "generating");
    let kept = file(&job, 7);
    let settled = settle(&db.replica, &job, JobOutcome::Fetched(&kept)).await;
    assert_eq!(settled, SETTLED);
    let made = shown(&db.store, "out_pdf").await;
    assert_eq!(made.output.status, OutputStatus::Generated);
    assert_eq!(made.kept, Some(kept.key));
    assert_eq!(
        db.feed(&WorkspaceId::default()).await.len(),
        1,
        "the core's own"
    );

    // The same event, and another that leads to the same file.
    accept(&db.replica, &[event]).await;
    let later = SystemClock.now() + TimeDelta::hours(1);
    accept(&db.replica, &[generated("out_pdf", "ed_1", later).build()]).await;
    assert!(take(&db.store, owner()).await.is_empty());
    let still = shown(&db.store, "out_pdf").await;
    assert_eq!(
        (still.output.status, still.kept),
        (OutputStatus::Generated, made.kept)
    );
}

async fn a_later_file_takes_the_place_of_one_that_is_under_way(db: &TestDatabase) {
    told(db).await;
    let named = |url: &str, seconds| {
        generated("out_pdf", "ed_1", at(seconds)).data(&format!(
            r#"{{"edition_id":"ed_1","output_id":"out_pdf","format":"pdf","download_url":"{url}"}}"#
        ))
    };
    // Of one batch, the latest.
    let batch = [
        named("https://c/2", 2).build(),
        named("https://c/1", 1).build(),
    ];
    accept(&db.store, &batch).await;
    let first = take_one(&db.store).await;
    let url = |url: &str| OutputTask::Fetch {
        url: url.to_owned(),
    };
    assert_eq!(first.task, url("https://c/2"));
    // One that is older than what is known is not wanted.
    accept(&db.store, &[named("https://c/0", 0).build()]).await;
    assert!(take(&db.store, owner()).await.is_empty());
    accept(&db.replica, &[named("https://c/3", 3).build()]).await;
    assert_eq!(status(&db.store, "out_pdf").await, "queued");
    let kept = file(&first, 1);
    let lost = settle(&db.store, &first, JobOutcome::Fetched(&kept)).await;
    assert_eq!(lost, JobSettled::LeaseLost);
    let second = take_one(&db.store).await;
    assert_eq!((second.task.clone(), second.tries), (url("https://c/3"), 1));
    let kept = file(&second, 1);
    assert_eq!(
        settle(&db.store, &second, JobOutcome::Fetched(&kept)).await,
        SETTLED
    );
}

async fn what_was_asked_for_again_is_taken_again(db: &TestDatabase) {
    told(db).await;
    accept(&db.store, &[generated("out_pdf", "ed_1", at(5)).build()]).await;
    let first = take_one(&db.store).await;
    let old = file(&first, 1);
    settle(&db.store, &first, JobOutcome::Fetched(&old)).await;
    ask(&db.store, "out_pdf").await;
    accept(&db.store, &[generated("out_pdf", "ed_1", at(6)).build()]).await;
    let second = take_one(&db.store).await;
    let new = file(&second, 2);
    let settled = settle(&db.store, &second, JobOutcome::Fetched(&new)).await;
    assert_eq!(
        settled,
        JobSettled::Settled {
            replaced: Some(old.key)
        }
    );
}

async fn files_are_left_alone_where_none_may_be_taken(db: &TestDatabase) {
    told(db).await;
    let alone = db.open().await;
    let closed = db.open().await;
    alone.open_output_jobs(Arc::new(Wake::default()), CoreFiles::LeftAlone);
    for (store, seconds) in [(&alone, 1), (&closed, 2)] {
        accept(store, &[generated("out_pdf", "ed_1", at(seconds)).build()]).await;
    }
    assert_eq!(db.count("output_job").await, 0);
    let told = shown(&db.store, "out_pdf").await;
    assert_eq!(told.output.status, OutputStatus::Generated);
    assert_eq!((told.output.file, told.kept), (None, None));
    alone.close().await;
    closed.close().await;
}

async fn a_file_that_is_told_of_before_its_output_waits_for_it(db: &TestDatabase) {
    told(db).await;
    accept(&db.store, &[generated("out_new", "ed_1", at(5)).build()]).await;
    assert!(take(&db.store, owner()).await.is_empty());
    assert_eq!(db.count("output_job").await, 1);
    tell(&db.store, &[output("out_new", "ed_1", 1)]).await;
    db.tamper("update output_job set visible_at = (select min(last) from edition_clock)")
        .await;
    let job = take_one(&db.store).await;
    assert_eq!(job.output.id, output_id("out_new"));

    accept(&db.store, &[generated("out_never", "ed_1", at(5)).build()]).await;
    db.tamper(
        "update output_job
        set visible_at = (select min(last) from edition_clock), looks = 50
        where output = 'out_never'",
    )
    .await;
    assert!(take(&db.store, owner()).await.is_empty());
    assert_eq!(db.count("output_job where output = 'out_never'").await, 0);
}

/// The event that says that the PDF is there.
fn made_at(url: &str, when: DateTime<Utc>) -> EventBuilder {
    generated("out_pdf", "ed_1", when).data(&format!(
        r#"{{"edition_id":"ed_1","output_id":"out_pdf","format":"pdf","download_url":"{url}"}}"#
    ))
}

/// The core's word that there is a file of so many bytes.
fn with_file(size: u64, when: DateTime<Utc>) -> impl FnOnce(&mut Output) {
    move |output| {
        output.status = OutputStatus::Generated;
        output.updated_at = when;
        output.file = Some(OutputFile {
            size,
            sha256: format!("{size:064x}"),
            generated_at: when,
        });
    }
}

fn with_failure(output: &mut Output) {
    output.status = OutputStatus::Failed;
    output.failure = Some("no fonts".to_owned());
}

async fn a_word_of_the_cores_does_not_end_what_is_under_way(db: &TestDatabase) {
    told(db).await;
    let later = SystemClock.now() + TimeDelta::hours(1);
    accept(&db.store, &[made_at("https://c/1", at(5)).build()]).await;
    let first = take_one(&db.store).await;
    let old = file(&first, 1);
    settle(&db.store, &first, JobOutcome::Fetched(&old)).await;

    accept(&db.store, &[made_at("https://c/2", later).build()]).await;
    let words = [
        output_as("out_pdf", "ed_1", 2, with_file(2, later)),
        output_as("out_pdf", "ed_1", 3, with_failure),
        output_as("out_pdf", "ed_1", 4, with_file(2, later)),
    ];
    let mut revision = shown(&db.store, "out_pdf").await.revision;
    for word in words {
        tell(&db.store, &[word]).await;
        let seen = shown(&db.replica, "out_pdf").await;
        assert_eq!(seen.output.status, OutputStatus::Queued);
        assert_eq!(seen.output.failure, None);
        assert_eq!(seen.output.file.as_ref().map(|file| file.size), Some(1));
        assert_eq!(seen.kept.as_ref(), Some(&old.key), "until there is another");
        assert!(seen.revision > revision);
        revision = seen.revision;
    }
    let second = take_one(&db.replica).await;
    assert_eq!(second.output.status, OutputStatus::Generating);
    tell(&db.store, &[output_as("out_pdf", "ed_1", 5, with_failure)]).await;
    assert_eq!(status(&db.store, "out_pdf").await, "generating");
    let new = file(&second, 2);
    settle(&db.replica, &second, JobOutcome::Fetched(&new)).await;
    let made = shown(&db.store, "out_pdf").await;
    assert_eq!(made.output.status, OutputStatus::Generated);
    assert_eq!((made.output.failure, made.kept), (None, Some(new.key)));

    // Of what is made here the core's word counts as little.
    ask(&db.store, "out_csv").await;
    let failing = |output: &mut Output| {
        output.format = OutputFormat::Csv;
        with_failure(output);
    };
    tell(&db.store, &[output_as("out_csv", "ed_1", 2, failing)]).await;
    assert_eq!(status(&db.store, "out_csv").await, "queued");
    let job = take_one(&db.store).await;
    let kept = file(&job, 3);
    assert_eq!(settle(&db.store, &job, rendered(&kept)).await, SETTLED);
    assert_eq!(status(&db.store, "out_csv").await, "generated");
}

async fn the_core_answers_by_a_snapshot_that_says_how_it_ended(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_pdf").await;
    let under_way = |status| move |output: &mut Output| output.status = status;
    for (version, word, seen) in [
        (2, OutputStatus::NotGenerated, "queued"),
        (3, OutputStatus::Generating, "generating"),
    ] {
        let word = output_as("out_pdf", "ed_1", version, under_way(word));
        tell(&db.store, &[word]).await;
        assert_eq!(status(&db.store, "out_pdf").await, seen);
        assert_eq!(db.count("output_job").await, 1);
    }
    // By a clock that is behind ours.
    tell(&db.store, &[output_as("out_pdf", "ed_1", 5, with_failure)]).await;
    let failed = shown(&db.replica, "out_pdf").await.output;
    assert_eq!(failed.status, OutputStatus::Failed);
    assert_eq!(failed.failure.as_deref(), Some("no fonts"));
    assert_eq!(db.count("output_job").await, 0);
    let again = ask(&db.replica, "out_pdf").await;
    assert!(
        matches!(&again, OutputAsked::Done(answer) if answer.starts_with("out_pdf queued ")),
        "{again:?}"
    );
    assert_eq!(db.count("outbox").await, 2, "it is asked again");
    // What is older is no answer to that.
    let older = output_as("out_pdf", "ed_1", 4, with_file(1, at(9)));
    assert_eq!(apply(&db.store, &[older]).await, [Applied::Older]);
    assert_eq!(db.count("output_job").await, 1);
}

async fn what_was_answered_is_not_given_up(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_pdf").await;
    db.tamper("update output_job set visible_at = (select min(last) from edition_clock)")
        .await;
    let job = take_one(&db.store).await;
    assert_eq!(job.task, OutputTask::GiveUp);
    tell(
        &db.replica,
        &[output_as("out_pdf", "ed_1", 2, with_failure)],
    )
    .await;
    let lost = settle(&db.store, &job, JobOutcome::Failed("no answer")).await;
    assert_eq!(lost, JobSettled::LeaseLost);
    let failed = shown(&db.store, "out_pdf").await.output;
    assert_eq!(failed.failure.as_deref(), Some("no fonts"));
}

async fn a_snapshot_that_answers_does_not_keep_the_file_away(db: &TestDatabase) {
    told(db).await;
    let later = SystemClock.now() + TimeDelta::hours(1);
    accept(&db.store, &[made_at("https://c/same", at(5)).build()]).await;
    let first = take_one(&db.store).await;
    let old = file(&first, 1);
    settle(&db.store, &first, JobOutcome::Fetched(&old)).await;
    ask(&db.store, "out_pdf").await;
    let answer = output_as("out_pdf", "ed_1", 2, with_file(2, later));
    tell(&db.store, &[answer]).await;
    let stated = shown(&db.replica, "out_pdf").await;
    assert_eq!(stated.output.status, OutputStatus::Generated);
    assert_eq!(stated.output.file.map(|file| file.size), Some(2));
    assert_eq!(stated.kept, None, "it is with the core still");
    accept(&db.store, &[made_at("https://c/same", later).build()]).await;
    let second = take_one(&db.store).await;
    let new = file(&second, 2);
    let settled = settle(&db.store, &second, JobOutcome::Fetched(&new)).await;
    let replaced = Some(old.key);
    assert_eq!(settled, JobSettled::Settled { replaced });
    assert_eq!(shown(&db.store, "out_pdf").await.kept, Some(new.key));
}

async fn an_event_answers_also_where_files_are_left_alone(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_pdf").await;
    let alone = db.open().await;
    alone.open_output_jobs(Arc::new(Wake::default()), CoreFiles::LeftAlone);
    let later = SystemClock.now() + TimeDelta::hours(1);
    accept(&alone, &[made_at("https://c/1", later).build()]).await;
    assert_eq!(db.count("output_job").await, 0);
    assert_eq!(status(&db.store, "out_pdf").await, "generated");
    alone.close().await;
}

async fn make_due(db: &TestDatabase) {
    db.tamper("update output_job set visible_at = (select min(last) from edition_clock)")
        .await;
}

async fn looking_for_an_output_is_not_trying(db: &TestDatabase) {
    told(db).await;
    accept(&db.store, &[generated("out_new", "ed_1", at(5)).build()]).await;
    for _ in 0..12 {
        make_due(db).await;
        assert!(take(&db.store, owner()).await.is_empty());
    }
    tell(&db.store, &[output("out_new", "ed_1", 1)]).await;
    make_due(db).await;
    let job = take_one(&db.store).await;
    assert_eq!(job.output.id, output_id("out_new"));
    assert_eq!(job.tries, 1);
    assert_eq!(db.count("output_job where looks = 0").await, 1);
}

async fn what_is_given_up_with_its_project_can_be_asked_for_again(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_pdf").await;
    accept(&db.store, &[made_at("https://c/1", at(5)).build()]).await;
    tell(&db.store, &[deletion(&project("pr_1", 1, "Bridge"), 1)]).await;
    let mut looks = 0;
    while db.count("output_job").await > 0 {
        looks += 1;
        assert!(looks < 50, "it is looked for for ever");
        make_due(db).await;
        assert!(take(&db.replica, owner()).await.is_empty());
    }
    tell(&db.store, &[project("pr_1", 2, "Bridge")]).await;
    assert_eq!(status(&db.store, "out_pdf").await, "not_generated");
    let asked = ask(&db.store, "out_pdf").await;
    assert!(
        matches!(&asked, OutputAsked::Done(answer) if answer.starts_with("out_pdf queued ")),
        "{asked:?}"
    );
    assert_eq!(db.count("outbox").await, 2);
}

async fn what_ends_while_its_project_is_away_can_be_asked_for_again(db: &TestDatabase) {
    told(db).await;
    accept(&db.store, &[made_at("https://c/1", at(5)).build()]).await;
    let job = take_one(&db.store).await;
    tell(&db.store, &[deletion(&project("pr_1", 1, "Bridge"), 1)]).await;
    let kept = file(&job, 1);
    let lost = settle(&db.replica, &job, JobOutcome::Fetched(&kept)).await;
    assert_eq!(lost, JobSettled::LeaseLost, "its file is nobody's");
    tell(&db.store, &[project("pr_1", 2, "Bridge")]).await;
    let seen = shown(&db.store, "out_pdf").await;
    assert_eq!(seen.output.status, OutputStatus::NotGenerated);
    assert_eq!((seen.output.file, seen.kept), (None, None));
    ask(&db.store, "out_pdf").await;
    assert_eq!(status(&db.store, "out_pdf").await, "queued");
}
