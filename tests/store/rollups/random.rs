//! Random settles, folded at random moments by leaders who are deposed, with crashes in between: what is
//! told is what the attempts say.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{OwnerId, SubscriptionId};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{
    Counts, Lease, LeaseName, LeasedDelivery, Resolution, Settlement, Store,
};
use tokio::task::yield_now;

use super::super::fixture::{HOUR, claim_all, for_long, for_no_time, owner, subscribe};
use super::{count_for_ever, leased, outcome, points};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::eventually;

on_both_databases!(
    what_is_told_is_what_the_attempts_say_1,
    what_is_told_is_what_the_attempts_say_2,
    what_is_told_is_what_the_attempts_say_3,
);

const ACTS: usize = 120;

/// Minutes in which attempts are made: two of one hour, one of the next.
const MINUTES: usize = 3;

/// How long they take: one in each of four buckets.
const TOOK: [u64; 4] = [3, 80, 700, 40_000];

async fn what_is_told_is_what_the_attempts_say_1(db: &TestDatabase) {
    run(db, 1).await;
}

async fn what_is_told_is_what_the_attempts_say_2(db: &TestDatabase) {
    run(db, 2).await;
}

async fn what_is_told_is_what_the_attempts_say_3(db: &TestDatabase) {
    run(db, 3).await;
}

async fn run(db: &TestDatabase, seed: u64) {
    count_for_ever(db).await;
    let mut scene = Scene::new(db, seed).await;
    for _ in 0..ACTS {
        scene.act().await;
    }
    scene.compare("as it is").await;
    let leader = lead(db).await;
    eventually(Duration::from_mins(1), "all is folded", async || {
        let folded = db.store.fold_rollups(&leader, 7).await.unwrap();
        folded == Some(0) && db.count("rollup_delta").await == 0
    })
    .await;
    scene.compare("folded").await;
}

struct Scene<'a> {
    db: &'a TestDatabase,
    random: Entropy,
    me: OwnerId,
    subscriptions: [SubscriptionId; 2],
    first_minute: DateTime<Utc>,
    held: Vec<LeasedDelivery>,
    last: Vec<Settlement>,
    leader: Lease,
    deposed: Lease,
    /// Attempts that failed with none to follow.
    failed: [u64; 2],
}

impl<'a> Scene<'a> {
    async fn new(db: &'a TestDatabase, seed: u64) -> Self {
        let subscriptions = [
            subscribe(&db.store, &["*"]).await.id,
            subscribe(&db.store, &["*"]).await.id,
        ];
        let hour = Resolution::Hour.start(SystemClock.now()) - HOUR;
        let leader = lead(db).await;
        Self {
            db,
            random: Entropy::seeded(seed),
            me: owner(),
            subscriptions,
            first_minute: hour - chrono::Duration::minutes(2),
            held: Vec::new(),
            last: Vec::new(),
            leader,
            deposed: leader,
            failed: [0; 2],
        }
    }

    fn below(&self, bound: usize) -> usize {
        let [one, two, ..] = self.random.bytes::<4>();
        usize::from(u16::from_le_bytes([one, two])) % bound
    }

    /// Either process.
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone([&self.db.store, &self.db.replica][self.below(2)])
    }

    async fn act(&mut self) {
        match self.below(10) {
            0..=1 => {
                let count = 1 + self.below(4);
                self.held.extend(leased(self.db, self.me, count).await);
            }
            2 => {
                for id in self.subscriptions {
                    let again = claim_all(&self.store(), id, for_long(self.me)).await;
                    self.held.extend(again);
                }
            }
            3..=5 => self.settle().await,
            // The answer was lost, or the lease.
            6 => {
                let by = [self.me, owner()][self.below(2)];
                self.store().settle(by, &self.last).await.unwrap();
            }
            7..=8 => self.fold().await,
            _ => self.depose().await,
        }
    }

    async fn settle(&mut self) {
        let count = self.below(6).min(self.held.len());
        let batch: Vec<Settlement> = self
            .held
            .split_off(self.held.len() - count)
            .iter()
            .map(|delivery| self.any_outcome(delivery))
            .collect();
        for settlement in &batch {
            if settlement.verdict == Verdict::Failed {
                let own = |id: &SubscriptionId| *id == settlement.subscription;
                self.failed[self.subscriptions.iter().position(own).unwrap()] += 1;
            }
        }
        let (store, me) = (self.store(), self.me);
        if self.below(3) == 0 {
            let crashing = batch.clone();
            self.crash(async move { store.settle(me, &crashing).await.map(drop) })
                .await;
        }
        self.store().settle(me, &batch).await.unwrap();
        self.last = batch;
    }

    fn any_outcome(&self, delivery: &LeasedDelivery) -> Settlement {
        let verdict = match self.below(6) {
            0..=2 => Verdict::Succeeded,
            3 => Verdict::Failed,
            4 => Verdict::Released,
            _ => Verdict::Retry {
                delay: Duration::ZERO,
            },
        };
        let minute = i64::try_from(self.below(MINUTES)).unwrap();
        let second = i64::try_from(self.below(60)).unwrap();
        let at = self.minute(minute) + chrono::Duration::seconds(second);
        let took = Duration::from_millis(TOOK[self.below(TOOK.len())]);
        outcome(delivery, verdict, at, took)
    }

    async fn fold(&self) {
        let lease = [self.leader, self.deposed][self.below(2)];
        let (store, limit) = (self.store(), 1 + self.below(4));
        if self.below(2) == 0 {
            self.crash(async move { store.fold_rollups(&lease, limit).await.map(drop) })
                .await;
        } else {
            let folded = store.fold_rollups(&lease, limit).await.unwrap();
            assert_eq!(folded.is_none(), lease != self.leader);
        }
    }

    /// Begins it, and ends it wherever it is then.
    async fn crash(
        &self,
        work: impl Future<Output = forge_dispatch::store::Result<()>> + Send + 'static,
    ) {
        let begun = tokio::spawn(work);
        for _ in 0..self.below(200) {
            yield_now().await;
        }
        begun.abort();
        drop(begun.await);
    }

    async fn depose(&mut self) {
        self.deposed = self.leader;
        self.leader = lead(self.db).await;
    }

    fn minute(&self, number: i64) -> DateTime<Utc> {
        self.first_minute + chrono::Duration::minutes(number)
    }

    async fn compare(&self, when: &str) {
        let mut attempts = 0;
        for (id, failed) in self.subscriptions.into_iter().zip(self.failed) {
            let told = points(self.db, id, Resolution::Minute).await;
            let mut total = Counts::default();
            for number in 0..MINUTES {
                let start = self.minute(i64::try_from(number).unwrap());
                let point = told.iter().find(|point| point.start == start);
                let counts = point.map(|point| point.counts).unwrap_or_default();
                self.compare_minute(id, start, &counts, when).await;
                total.take_in(&counts);
            }
            assert_eq!(total.attempts.failed, failed, "{when}");
            for (state, told) in [("succeeded", total.succeeded), ("failed", total.failed)] {
                let own = self.literal(id);
                let rows = format!("delivery where state = '{state}' and subscription_id = {own}");
                assert_eq!(count(self.db, &rows).await, told, "{state} {when}");
            }
            let mut by_hour = Counts::default();
            for point in points(self.db, id, Resolution::Hour).await {
                by_hour.take_in(&point.counts);
            }
            assert_eq!(by_hour, total, "{when}");
            attempts += total.attempts.total();
        }
        assert!(attempts > 20, "something was attempted: {attempts}");
    }

    async fn compare_minute(
        &self,
        id: SubscriptionId,
        start: DateTime<Utc>,
        counts: &Counts,
        when: &str,
    ) {
        let own = self.literal(id);
        let (from, to) = (self.time(start), self.time(start + Duration::from_mins(1)));
        let made = format!(
            "attempt where not lease_lost and at >= {from} and at < {to} and delivery_id in (
                select id from delivery where subscription_id = {own}
                union all
                select delivery_id from delivery_queue where subscription_id = {own}
            )"
        );
        let buckets = counts.latency.buckets;
        let [quick, middling, slow] = [&buckets[..1], &buckets[1..5], &buckets[5..8]];
        let sum = |buckets: &[u64]| buckets.iter().sum::<u64>();
        for (and, told) in [
            ("error is null", counts.attempts.succeeded),
            (
                "error is not null",
                counts.attempts.retried + counts.attempts.failed,
            ),
            ("duration_ms = 3", sum(quick)),
            ("duration_ms = 80", sum(middling)),
            ("duration_ms = 700", sum(slow)),
            ("duration_ms = 40000", buckets[12]),
        ] {
            let rows = count(self.db, &format!("{made} and {and}")).await;
            assert_eq!(rows, told, "{and} in {start}, {when}");
        }
    }

    fn literal(&self, id: SubscriptionId) -> String {
        match self.db.kind {
            Kind::Sqlite => format!("x'{}'", id.uuid().simple()),
            Kind::Postgres => format!("'{}'", id.uuid()),
        }
    }

    fn time(&self, at: DateTime<Utc>) -> String {
        match self.db.kind {
            Kind::Sqlite => at.timestamp_millis().to_string(),
            Kind::Postgres => format!("'{}'", at.to_rfc3339()),
        }
    }
}

async fn count(db: &TestDatabase, table: &str) -> u64 {
    u64::try_from(db.count(table).await).unwrap()
}

/// Becomes a leader whom anybody can depose.
async fn lead(db: &TestDatabase) -> Lease {
    let taken = db
        .store
        .take_lease(LeaseName::RETENTION, for_no_time(owner()))
        .await;
    taken.unwrap().expect("the lease of the one before is over")
}
