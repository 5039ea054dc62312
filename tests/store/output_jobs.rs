//! Outputs that are asked for, leased and settled; and the files that come of it.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::file::{FileKey, KeptFile};
use forge_dispatch::domain::ids::{ApiKeyId, OwnerId, WorkspaceId};
use forge_dispatch::domain::output::{OutputFormat, OutputStatus};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{
    CoreFiles, Idempotency, JobOutcome, JobSettled, OutputAsk, OutputAsked, OutputJob,
    OutputRecord, OutputTask, Standing, Store, Telling,
};
use forge_dispatch::wake::Wake;

use super::fixture::{accept, for_long, for_no_time, owner, subscribe};
use super::state::{
    at, blueprint, deletion, edition_as, generated, output, output_as, output_id, project_id,
    stated, tell,
};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    what_is_asked_for_is_queued_and_leased_once,
    it_is_made_of_editions_that_are_done_only,
    what_is_out_of_reach_is_not_asked_for,
    asking_again_changes_nothing_until_it_is_done,
    a_repeated_request_is_given_the_first_answer,
    what_the_core_makes_is_asked_of_it_and_given_up_in_the_end,
    where_the_core_is_not_asked_its_formats_are_refused,
    a_file_that_was_made_is_shown_and_told_of,
    a_file_takes_the_place_of_the_one_before,
    what_failed_says_why_and_keeps_its_file,
    what_is_postponed_waits_and_what_is_released_does_not_count,
    a_lease_that_is_over_is_taken_over_and_the_first_changes_nothing,
    a_settle_whose_answer_was_lost_is_settled,
    a_job_of_a_deleted_output_ends,
    a_file_of_the_cores_is_to_be_taken_once,
    a_later_file_takes_the_place_of_one_that_is_under_way,
    what_was_asked_for_again_is_taken_again,
    files_are_left_alone_where_none_may_be_taken,
    a_file_that_is_told_of_before_its_output_waits_for_it,
    files_that_no_output_has_are_unreferenced,
    two_processes_take_each_job_once,
);

const DAY: Duration = Duration::from_hours(24);

/// `ed_1`, approved, with a CSV (`out_csv`) and a PDF (`out_pdf`); `ed_2`, a draft, with `out_draft`.
async fn told(db: &TestDatabase) {
    for store in [&db.store, &db.replica] {
        store.open_outbox(Arc::new(Wake::default()));
        store.open_output_jobs(Arc::new(Wake::default()), CoreFiles::Fetched);
    }
    let csv = |id: &str, edition: &str| {
        output_as(id, edition, 1, |output| {
            "Figures".clone_into(&mut output.name);
            output.format = OutputFormat::Csv;
        })
    };
    tell(
        &db.store,
        &[
            blueprint("bp_1", "pr_1", 1, "Report"),
            edition_as("ed_1", 1, stated("approved", at(0))),
            edition_as("ed_2", 1, |_| {}),
            csv("out_csv", "ed_1"),
            output("out_pdf", "ed_1", 1),
            csv("out_draft", "ed_2"),
        ],
    )
    .await;
}

fn everything() -> Reach {
    Reach::all(&WorkspaceId::default())
}

fn answer(record: &OutputRecord) -> String {
    let output = &record.output;
    format!(
        "{} {} r{}",
        output.id,
        output.status.as_str(),
        record.revision
    )
}

async fn ask(store: &Arc<dyn Store>, id: &str) -> OutputAsked {
    ask_as(store, id, &everything(), Some(DAY), None).await
}

async fn ask_as(
    store: &Arc<dyn Store>,
    id: &str,
    reach: &Reach,
    core_timeout: Option<Duration>,
    once: Option<&Idempotency>,
) -> OutputAsked {
    let ask = OutputAsk {
        reach,
        once,
        core_timeout,
        answer: &answer,
        event: Entropy::system().id(SystemClock.now()),
    };
    store.ask_output(&output_id(id), &ask).await.unwrap()
}

fn done(text: &str) -> OutputAsked {
    OutputAsked::Done(text.to_owned())
}

async fn shown(store: &Arc<dyn Store>, id: &str) -> OutputRecord {
    let found = store.output(&everything(), &output_id(id)).await;
    found.unwrap().expect("the output is seen")
}

async fn status(store: &Arc<dyn Store>, id: &str) -> &'static str {
    shown(store, id).await.output.status.as_str()
}

async fn take(store: &Arc<dyn Store>, owner: OwnerId) -> Vec<OutputJob> {
    store.take_output_jobs(for_long(owner), 10).await.unwrap()
}

/// The one job that is due.
async fn take_one(store: &Arc<dyn Store>) -> OutputJob {
    let mut jobs = take(store, owner()).await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

/// A file that is kept for a job, of so many bytes.
fn file(job: &OutputJob, size: u64) -> KeptFile {
    let id = Entropy::system().id(SystemClock.now());
    KeptFile {
        key: FileKey::new(&job.workspace, &job.output.id, id, &job.output.format),
        size,
        sha256: format!("{size:064x}"),
    }
}

fn rendered(file: &KeptFile) -> JobOutcome<'_> {
    JobOutcome::Rendered {
        file,
        version: 1,
        telling: Telling {
            event: Entropy::system().id(SystemClock.now()),
            download_url: "https://forge.example/v1/outputs/out_csv/download",
            leasing: for_long(owner()),
            intake: &NoDispatch,
        },
    }
}

async fn settle(store: &Arc<dyn Store>, job: &OutputJob, outcome: JobOutcome<'_>) -> JobSettled {
    store.settle_output_job(job, outcome).await.unwrap()
}

const SETTLED: JobSettled = JobSettled::Settled { replaced: None };

async fn what_is_asked_for_is_queued_and_leased_once(db: &TestDatabase) {
    told(db).await;
    let before = shown(&db.store, "out_csv").await;
    assert_eq!(ask(&db.store, "out_csv").await, done("out_csv queued r2"));
    let queued = shown(&db.replica, "out_csv").await;
    assert_eq!(queued.output.status, OutputStatus::Queued);
    assert_eq!(queued.output.version, before.output.version, "the core's");
    assert!(queued.output.updated_at > before.output.updated_at);
    let mine = owner();
    let jobs = take(&db.replica, mine).await;
    assert_eq!(jobs.len(), 1);
    let job = &jobs[0];
    assert_eq!(
        (&job.task, job.owner, job.tries),
        (&OutputTask::Render, mine, 1)
    );
    assert_eq!(job.output, shown(&db.store, "out_csv").await.output);
    assert_eq!(job.output.status, OutputStatus::Generating);
    assert!(take(&db.store, owner()).await.is_empty(), "it is leased");
    let renewed = db.store.renew_output_job(job, DAY).await.unwrap();
    assert_eq!(renewed, Standing::Leads);
}

async fn it_is_made_of_editions_that_are_done_only(db: &TestDatabase) {
    told(db).await;
    let refused = ask(&db.store, "out_draft").await;
    let OutputAsked::NotReady(status) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(status.as_str(), "draft");
    for (version, word) in [
        (2, "submitted"),
        (3, "in_review"),
        (4, "changes_requested"),
        (5, "x"),
    ] {
        tell(
            &db.store,
            &[edition_as("ed_2", version, stated(word, at(version)))],
        )
        .await;
        let refused = ask(&db.store, "out_draft").await;
        assert!(
            matches!(refused, OutputAsked::NotReady(_)),
            "{word}: {refused:?}"
        );
    }
    assert_eq!(db.count("output_job").await, 0);
    assert_eq!(shown(&db.store, "out_draft").await.revision, 1);
    tell(&db.store, &[edition_as("ed_2", 6, stated("closed", at(6)))]).await;
    assert_eq!(
        ask(&db.store, "out_draft").await,
        done("out_draft queued r2")
    );
}

async fn what_is_out_of_reach_is_not_asked_for(db: &TestDatabase) {
    told(db).await;
    let other = Reach::all(&WorkspaceId::new("other").unwrap());
    let elsewhere = everything().within(project_id("pr_2"));
    for reach in [other, elsewhere] {
        let asked = ask_as(&db.store, "out_csv", &reach, Some(DAY), None).await;
        assert_eq!(asked, OutputAsked::NotFound);
    }
    assert_eq!(ask(&db.store, "out_missing").await, OutputAsked::NotFound);
    let own = everything().within(project_id("pr_1"));
    let asked = ask_as(&db.store, "out_csv", &own, None, None).await;
    assert_eq!(asked, done("out_csv queued r2"));
    assert_eq!(db.count("output_job").await, 1);
}

async fn asking_again_changes_nothing_until_it_is_done(db: &TestDatabase) {
    told(db).await;
    let queued = ask(&db.store, "out_csv").await;
    assert_eq!(ask(&db.replica, "out_csv").await, queued);
    let job = take_one(&db.store).await;
    let generating = done("out_csv generating r3");
    assert_eq!(ask(&db.replica, "out_csv").await, generating);
    // An older word of the core's does not end it.
    tell(
        &db.store,
        &[output_as("out_csv", "ed_1", 2, |output| {
            output.format = OutputFormat::Csv;
        })],
    )
    .await;
    assert_eq!(
        ask(&db.store, "out_csv").await,
        done("out_csv not_generated r4")
    );
    let kept = file(&job, 3);
    assert_eq!(settle(&db.store, &job, rendered(&kept)).await, SETTLED);
    assert_eq!(ask(&db.store, "out_csv").await, done("out_csv queued r6"));
    let again = take_one(&db.replica).await;
    assert_eq!(again.tries, 1, "a job of its own");
}

async fn a_repeated_request_is_given_the_first_answer(db: &TestDatabase) {
    told(db).await;
    let caller: ApiKeyId = Entropy::system().id(SystemClock.now());
    let once = |fingerprint: u8| Idempotency {
        caller,
        route: "POST /v1/outputs/{id}/generate",
        key: "k".to_owned(),
        fingerprint: [fingerprint; 32],
    };
    let ask = async |fingerprint| {
        let once = once(fingerprint);
        ask_as(&db.store, "out_csv", &everything(), None, Some(&once)).await
    };
    assert_eq!(ask(1).await, done("out_csv queued r2"));
    let job = take_one(&db.store).await;
    let kept = file(&job, 3);
    settle(&db.store, &job, rendered(&kept)).await;
    assert_eq!(ask(1).await, done("out_csv queued r2"));
    assert_eq!(ask(2).await, OutputAsked::Conflicting);
    assert_eq!(db.count("output_job").await, 0);
    assert_eq!(status(&db.store, "out_csv").await, "generated");
}

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

async fn a_file_that_was_made_is_shown_and_told_of(db: &TestDatabase) {
    told(db).await;
    subscribe(&db.store, &["output.generated"]).await;
    ask(&db.store, "out_csv").await;
    let job = take_one(&db.store).await;
    let kept = file(&job, 48_213);
    assert_eq!(settle(&db.store, &job, rendered(&kept)).await, SETTLED);
    let made = shown(&db.replica, "out_csv").await;
    let shown_file = made.output.file.clone().expect("there is a file");
    assert_eq!(
        (shown_file.size, &shown_file.sha256),
        (48_213, &kept.sha256)
    );
    assert_eq!(made.kept, Some(kept.key.clone()));
    assert_eq!(made.output.status, OutputStatus::Generated);
    // The event is of the very time that the row states: it moves nothing, now or later.
    assert_eq!(shown_file.generated_at, made.output.updated_at);
    let feed = db.feed(&WorkspaceId::default()).await;
    assert_eq!(feed.len(), 1);
    let event = db
        .store
        .event(&everything(), feed[0].1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.occurred_at, made.output.updated_at);
    assert_eq!(db.count("delivery_queue").await, 1);
    assert_eq!(db.count("outbox where type = 'output.generated'").await, 1);
    assert_eq!(db.count("output where told_at = stated_at").await, 1);
    let listed = forge_dispatch::store::PageRequest {
        limit: 9,
        after: None,
    };
    let listed = db
        .store
        .outputs(&everything(), &made.output.edition, listed)
        .await;
    assert!(listed.unwrap().unwrap().items.contains(&made));
    assert_eq!(db.count("output_job").await, 0);
}

async fn a_file_takes_the_place_of_the_one_before(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_csv").await;
    let first = take_one(&db.store).await;
    let old = file(&first, 1);
    settle(&db.store, &first, rendered(&old)).await;
    ask(&db.store, "out_csv").await;
    let again = shown(&db.store, "out_csv").await;
    assert_eq!(
        again.kept.as_ref(),
        Some(&old.key),
        "until there is another"
    );
    let second = take_one(&db.replica).await;
    let new = file(&second, 2);
    let settled = settle(&db.replica, &second, rendered(&new)).await;
    assert_eq!(
        settled,
        JobSettled::Settled {
            replaced: Some(old.key)
        }
    );
    assert_eq!(
        shown(&db.store, "out_csv").await.kept,
        Some(new.key.clone())
    );
    // The core tells everybody of it, later: it is the same file.
    let echo = generated("out_csv", "ed_1", SystemClock.now() + TimeDelta::hours(1))
        .data(r#"{"edition_id":"ed_1","output_id":"out_csv","format":"csv","download_url":"u"}"#);
    accept(&db.store, &[echo.build()]).await;
    assert_eq!(shown(&db.store, "out_csv").await.kept, Some(new.key));
    assert!(take(&db.store, owner()).await.is_empty());
    assert_eq!(db.count("output_file").await, 1);
    assert_eq!(db.feed(&WorkspaceId::default()).await.len(), 3);
}

async fn what_failed_says_why_and_keeps_its_file(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_csv").await;
    let first = take_one(&db.store).await;
    let old = file(&first, 1);
    settle(&db.store, &first, rendered(&old)).await;
    ask(&db.store, "out_csv").await;
    let second = take_one(&db.store).await;
    assert_eq!(
        settle(&db.store, &second, JobOutcome::Failed("too large")).await,
        SETTLED
    );
    let failed = shown(&db.replica, "out_csv").await;
    assert_eq!(failed.output.status, OutputStatus::Failed);
    assert_eq!(failed.output.failure.as_deref(), Some("too large"));
    assert_eq!(failed.kept, Some(old.key));
    assert_eq!(db.feed(&WorkspaceId::default()).await.len(), 1);
    ask(&db.store, "out_csv").await;
    assert_eq!(shown(&db.store, "out_csv").await.output.failure, None);
}

async fn what_is_postponed_waits_and_what_is_released_does_not_count(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_csv").await;
    let job = take_one(&db.store).await;
    assert_eq!(settle(&db.store, &job, JobOutcome::Released).await, SETTLED);
    let job = take_one(&db.replica).await;
    assert_eq!((job.tries, job.epoch), (1, 2));
    let now = JobOutcome::Postponed(Duration::ZERO);
    assert_eq!(settle(&db.replica, &job, now).await, SETTLED);
    let job = take_one(&db.store).await;
    assert_eq!(job.tries, 2);
    settle(&db.store, &job, JobOutcome::Postponed(DAY)).await;
    assert!(take(&db.store, owner()).await.is_empty());
    assert_eq!(status(&db.store, "out_csv").await, "generating");
}

async fn a_lease_that_is_over_is_taken_over_and_the_first_changes_nothing(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_csv").await;
    let mine = for_no_time(owner());
    let lost = db.store.take_output_jobs(mine, 10).await.unwrap().remove(0);
    let job = take_one(&db.replica).await;
    assert_eq!((job.tries, job.epoch), (2, 2), "a crash counts");
    let before = (
        shown(&db.store, "out_csv").await,
        db.count("event_key").await,
    );
    let kept = file(&lost, 1);
    for outcome in [
        rendered(&kept),
        JobOutcome::Fetched(&kept),
        JobOutcome::Failed("x"),
        JobOutcome::Postponed(DAY),
        JobOutcome::Released,
    ] {
        assert_eq!(
            settle(&db.store, &lost, outcome).await,
            JobSettled::LeaseLost
        );
    }
    let renewed = db.store.renew_output_job(&lost, DAY).await.unwrap();
    assert_eq!(renewed, Standing::Deposed);
    let after = (
        shown(&db.store, "out_csv").await,
        db.count("event_key").await,
    );
    assert_eq!(after, before);
    assert_eq!(
        (db.count("output_file").await, db.count("output_job").await),
        (0, 1)
    );
    let kept = file(&job, 2);
    assert_eq!(settle(&db.replica, &job, rendered(&kept)).await, SETTLED);
}

async fn a_settle_whose_answer_was_lost_is_settled(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_csv").await;
    let job = take_one(&db.store).await;
    let kept = file(&job, 1);
    settle(&db.store, &job, rendered(&kept)).await;
    let before = shown(&db.store, "out_csv").await;
    assert_eq!(settle(&db.replica, &job, rendered(&kept)).await, SETTLED);
    assert_eq!(shown(&db.store, "out_csv").await, before);
    assert_eq!(db.feed(&WorkspaceId::default()).await.len(), 1);
}

async fn a_job_of_a_deleted_output_ends(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_csv").await;
    let job = take_one(&db.store).await;
    tell(&db.store, &[deletion(&output("out_csv", "ed_1", 1), 2)]).await;
    let kept = file(&job, 1);
    let settled = settle(&db.store, &job, rendered(&kept)).await;
    assert_eq!(settled, JobSettled::LeaseLost, "its file is nobody's");
    assert_eq!(
        (db.count("output_job").await, db.count("output_file").await),
        (0, 0)
    );
    assert_eq!(db.count("event_feed").await, 0);
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
        set visible_at = (select min(last) from edition_clock), tries = 50
        where output = 'out_never'",
    )
    .await;
    assert!(take(&db.store, owner()).await.is_empty());
    assert_eq!(db.count("output_job where output = 'out_never'").await, 0);
}

async fn files_that_no_output_has_are_unreferenced(db: &TestDatabase) {
    told(db).await;
    ask(&db.store, "out_csv").await;
    let job = take_one(&db.store).await;
    let (mine, other) = (file(&job, 1), file(&job, 2));
    settle(&db.store, &job, rendered(&mine)).await;
    let keys = [mine.key.clone(), other.key.clone()];
    let found = db.replica.unreferenced(&keys).await.unwrap();
    assert_eq!(found, [other.key]);
    assert!(db.replica.unreferenced(&[]).await.unwrap().is_empty());
    tell(&db.store, &[deletion(&output("out_csv", "ed_1", 1), 2)]).await;
    let found = db.replica.unreferenced(&keys[..1]).await.unwrap();
    assert_eq!(found, [mine.key], "of what was deleted");
}

async fn two_processes_take_each_job_once(db: &TestDatabase) {
    told(db).await;
    let names: Vec<String> = (0..40).map(|number| format!("out_{number}")).collect();
    let outputs: Vec<_> = names
        .iter()
        .map(|id| output_as(id, "ed_1", 1, |output| output.format = OutputFormat::Xlsx))
        .collect();
    tell(&db.store, &outputs).await;
    for id in &names {
        ask(&db.store, id).await;
    }
    let mut taking = Vec::new();
    for store in [&db.store, &db.replica, &db.store, &db.replica] {
        let store = Arc::clone(store);
        taking.push(tokio::spawn(async move {
            let (mine, mut taken) = (for_long(owner()), Vec::new());
            loop {
                let jobs = store.take_output_jobs(mine, 3).await.unwrap();
                if jobs.is_empty() {
                    return taken;
                }
                taken.extend(jobs);
            }
        }));
    }
    let mut ids: Vec<String> = Vec::new();
    for taken in taking {
        let taken = taken.await.unwrap();
        ids.extend(taken.iter().map(|job| job.output.id.to_string()));
    }
    // Those that others held at the moment were passed over.
    let mut left = take(&db.store, owner()).await;
    while !left.is_empty() {
        ids.extend(left.iter().map(|job| job.output.id.to_string()));
        left = take(&db.store, owner()).await;
    }
    ids.sort();
    let mut expected = names;
    expected.sort();
    assert_eq!(ids, expected);
}
