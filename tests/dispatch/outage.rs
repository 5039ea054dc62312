//! An operator's first bad day: a receiver is down from one morning to the next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use forge_dispatch::app::Surroundings;
use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::config::{Circuit, Config};
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::NewReplay;
use forge_dispatch::store::replays::count;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::act;
use crate::harness::eventually;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{PATIENCE, all_become, deliveries, events, subscribe};

on_both_databases!(a_receiver_that_was_down_for_a_day_has_everything_in_the_end);

const AT_ONCE: usize = 400;
const NOW_AND_THEN: usize = 10;

/// The program, and a time that rounds when the test says so: on `SQLite` a clock is set on; on Postgres,
/// which goes by its own, all that is kept moves back.
struct Day<'a> {
    database: &'a TestDatabase,
    clock: Arc<ManualClock>,
    program: InProcess,
    subscription: SubscriptionId,
}

impl<'a> Day<'a> {
    async fn begin(database: &'a TestDatabase, receiver: &Receiver) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let surroundings = match database.kind {
            Kind::Sqlite => Surroundings {
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                ..Surroundings::default()
            },
            Kind::Postgres => Surroundings::default(),
        };
        let program = InProcess::start_in(config(database), surroundings).await;
        let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
        Self {
            database,
            clock,
            program,
            subscription,
        }
    }

    fn now(&self) -> DateTime<Utc> {
        match self.database.kind {
            Kind::Sqlite => self.clock.now(),
            Kind::Postgres => SystemClock.now(),
        }
    }

    /// When the next probe is sent, while the circuit is open.
    fn probe_at(&self) -> Option<DateTime<Utc>> {
        self.program.store.circuit(self.subscription).open_until()
    }

    /// Waits until nothing is under way and nothing is due: then nothing is leased, either.
    async fn quiet(&self) {
        let store = &self.program.store;
        eventually(PATIENCE, "nothing is under way or due", async || {
            // A probe that is settled between two looks makes all the rest due: hence a third.
            let before = store.due(Duration::ZERO).await.unwrap();
            let depth = store.queue_depth().await.unwrap();
            let after = store.due(Duration::ZERO).await.unwrap();
            before.work.is_empty() && depth.in_flight == 0 && after.work.is_empty()
        })
        .await;
    }

    async fn pass(&self, by: TimeDelta) {
        self.quiet().await;
        if self.database.kind == Kind::Sqlite {
            self.clock.advance(by.to_std().unwrap());
            return;
        }
        let by = format!("interval '{} milliseconds'", by.num_milliseconds());
        let back = format!(
            "update delivery_queue set visible_at = visible_at - {by};
            update circuit
            set since = since - {by}, until = until - {by}, window_began = window_began - {by},
                failing_since = failing_since - {by};
            update subscription_generation set generation = generation + 1;
            update subscription set generation = (select generation from subscription_generation);"
        );
        self.database.tamper(&back).await;
    }

    /// Lets the time pass up to the next probe, and waits until it was sent and refused.
    async fn probe_in_vain(&self, receiver: &Receiver) -> TimeDelta {
        let before = receiver.count();
        let wait = self.probe_at().expect("it is open") - self.now() + TimeDelta::milliseconds(1);
        self.pass(wait).await;
        receiver.wait_for_count(before + 1, PATIENCE).await.unwrap();
        // While it is out, the next one is due when its lease would end; then after a pause.
        let lease = TimeDelta::seconds(30);
        eventually(PATIENCE, "the probe failed", async || {
            self.probe_at()
                .is_some_and(|next| next > self.now() + lease)
        })
        .await;
        wait
    }
}

/// The rules of circuits as they come. A schedule so short that probes wear some deliveries out.
fn config(database: &TestDatabase) -> Config {
    let mut config = settings(database.url());
    config.dispatch.circuit = Circuit::default();
    config.dispatch.poll_interval = Duration::from_millis(50);
    // What is sent before the first outcomes are written is bounded by these.
    config.dispatch.settle_batch = 10;
    config.dispatch.subscription_concurrency = 8;
    config.retry.schedule = vec![Duration::from_secs(5)];
    config
}

async fn a_receiver_that_was_down_for_a_day_has_everything_in_the_end(database: &TestDatabase) {
    let receiver = Receiver::start(|_| Reply::status(503));
    let day = Day::begin(database, &receiver).await;
    let (program, subscription) = (&day.program, day.subscription);
    let store = &*program.store;

    // It is down. Its circuit opens, and from then on it is only asked whether it is back.
    let mut published = AT_ONCE;
    program
        .entrance
        .publish(&events(0..published))
        .await
        .unwrap();
    eventually(PATIENCE, "the circuit opens", async || {
        day.probe_at().is_some()
    })
    .await;
    day.quiet().await;
    let (at_first, mut probes) = (receiver.count(), 0);
    assert!(at_first < AT_ONCE / 2, "{at_first} before it opened");
    let mut passed = TimeDelta::zero();
    while passed < TimeDelta::hours(24) {
        passed += day.probe_in_vain(&receiver).await;
        probes += 1;
        // Life goes on.
        if probes % 10 == 0 {
            let more = events(published..published + NOW_AND_THEN);
            program.entrance.publish(&more).await.unwrap();
            published += NOW_AND_THEN;
        }
    }
    // Every 15 minutes in the end. Each delivery would have spent its two attempts without a circuit.
    assert_eq!(receiver.count(), at_first + probes, "probes, and no more");
    assert!(probes < 110, "{probes} in a day");
    let kept = deliveries(store, subscription).await;
    assert_eq!(kept.len(), published);

    // It comes back. What waited is sent, few at first and ever more.
    receiver.behave(|_| Reply::status(200));
    let down = receiver.count();
    let wait = day.probe_at().expect("it is open") - day.now() + TimeDelta::milliseconds(1);
    day.pass(wait).await;
    receiver.wait_for_count(down + 1, PATIENCE).await.unwrap();
    let mut rounds = 0;
    while store.queue_depth().await.unwrap().pending > 0 {
        // Those that were tried wait for their time besides.
        day.pass(TimeDelta::minutes(7)).await;
        rounds += 1;
        assert!(rounds < 10, "it drains");
    }
    day.quiet().await;
    at_a_growing_rate(&receiver, down);

    // What probes wore out is replayed by filter, count first.
    let all = deliveries(store, subscription).await;
    let failed = all
        .iter()
        .filter(|delivery| delivery.state == DeliveryState::Failed)
        .count();
    assert!(failed > 0, "probes spend attempts");
    let selection = Selection {
        subscription_id: Some(subscription),
        ..Selection::default()
    };
    day.pass(TimeDelta::seconds(1)).await;
    let reach = Reach::all(&WorkspaceId::default());
    let counted = count(store, &reach, &selection, day.now(), 100).await;
    assert_eq!(counted.unwrap().total(), failed as u64);
    let new = NewReplay {
        id: Entropy::system().id(day.now()),
        selection,
        rate: 10_000,
    };
    store
        .create_replay(&reach, &new, &act(), None)
        .await
        .unwrap();
    all_become(store, subscription, published, DeliveryState::Succeeded).await;
    eventually(PATIENCE, "the replay is done", async || {
        let replay = store.replay(&reach, new.id).await.unwrap().unwrap();
        replay.state == ReplayState::Done && replay.done == failed as u64
    })
    .await;

    let taken = receiver.received().split_off(down);
    let taken: BTreeSet<String> = taken.iter().map(|it| it.webhook_id().to_owned()).collect();
    let sent: BTreeSet<String> = all.iter().map(|it| it.event_id.to_string()).collect();
    assert_eq!(taken, sent, "every event");
    day.program.stop().await.unwrap();
}

/// Ten a second from the probe on, twice as many each second, and a second's worth at once. A machine
/// that is slow makes it slower, never faster: what came by then had been sent by then. But without growth
/// three hundred would take half a minute.
fn at_a_growing_rate(receiver: &Receiver, from: usize) {
    let requests = receiver.received().split_off(from);
    let probe = requests[0].arrived;
    let three_hundred = (requests[300].arrived - probe).as_secs_f64();
    assert!(three_hundred < 20.0, "300 took {three_hundred} s");
    for (number, request) in (0_u32..).zip(&requests) {
        let seconds = (request.arrived - probe).as_secs_f64();
        if seconds >= 10.0 {
            break;
        }
        let rate = 10.0 * seconds.exp2();
        let most = (rate - 10.0) / std::f64::consts::LN_2 + rate + 3.0;
        assert!(
            f64::from(number) <= most,
            "{number} after {seconds} s, where {most} may be"
        );
    }
}
