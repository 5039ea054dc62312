//! Many clients poll editions while the core changes them over RabbitMQ. (How fast that is, and
//! at which cost, is `scripts/bench pollers`.)

use std::time::Duration;

use forge_dispatch::domain::api_key::Scope;
use tokio::sync::watch;

use crate::harness::databases::TestDatabase;
use crate::harness::keys::key;
use crate::harness::pollers::{Core, Pollers};
use crate::harness::program::{InProcess, settings};
use crate::harness::{eventually, queues};

on_both_databases!(pollers_see_the_last_of_everything_and_never_half_of_a_change,);

const CLIENTS: usize = 50;
/// Few, so that each is read and changed often: 200 are polled by the bench, and checked the same way.
const EDITIONS: usize = 10;
const EDITS_PER_SECOND: u32 = 20;
const EDITS: usize = 60;
const PATIENCE: Duration = Duration::from_mins(4);

async fn pollers_see_the_last_of_everything_and_never_half_of_a_change(db: &TestDatabase) {
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    let amqp = config.amqp.clone();
    let program = InProcess::start(config).await;
    queues::declared(&amqp).await;
    let mut core = Core::connect(&amqp, EDITIONS).await;
    core.begin().await;
    let all = i64::try_from(EDITIONS).unwrap();
    eventually(PATIENCE, "all editions are known", async || {
        db.count("edition").await == all
    })
    .await;
    let mut keys = Vec::new();
    for _ in 0..CLIENTS {
        keys.push(key(&*program.store, &[Scope::ReadEditions]).await);
    }
    let base = format!("http://{}", program.api);
    let mut pollers = Pollers::new(&base, &keys, EDITIONS);
    let (told, end) = watch::channel(None);
    let editing = async {
        core.edit(EDITS, EDITS_PER_SECOND).await;
        told.send_replace(Some(core.states()));
    };
    let polling = tokio::time::timeout(PATIENCE, pollers.poll(None, end));
    let (tally, ()) = tokio::join!(polling, editing);
    let tally = tally.expect("each client has the last of everything");

    // Each answer was new to its client, so that there are no more of them than there were changes.
    let news = CLIENTS * 3 * (EDITIONS + EDITS);
    assert!(tally.sent.len() <= news, "{} of {news}", tally.sent.len());
    // A tag that changed with each answer would spare nobody anything.
    assert!(!tally.spared.is_empty(), "no read was answered by a 304");
    println!(
        "{} reads, {:.1} % of them 304",
        tally.took().len(),
        100.0 * tally.share_spared()
    );
    program.stop().await.unwrap();
    queues::check_empty(&amqp).await;
}
