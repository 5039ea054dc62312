//! What was counted, held against what was attempted (queue.md §9).

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{LeaseName, Leasing};

use super::databases::TestDatabase;

/// Folds what waits, and checks that the sums of rollups equal the attempts that are kept, per subscription
/// and outcome. For when all processes have ended, and nothing is under way.
///
/// An attempt alone does not say whether its delivery was tried again, so those that were not taken are one
/// sum. Deliveries that were taken count once, however often they were sent again.
pub(crate) async fn equal_attempts(database: &TestDatabase) {
    assert_eq!(
        database.count("delivery_queue").await,
        0,
        "something is under way"
    );
    fold(database).await;
    let unequal = "(
        select coalesce(counted.subscription_id, kept.subscription_id) as id
        from (
            select subscription_id, resolution,
                sum(attempts_succeeded) as taken,
                sum(attempts_retried + attempts_failed) as refused,
                sum(succeeded) as succeeded
            from rollup
            group by subscription_id, resolution
        ) as counted
        full join (
            select made.subscription_id, resolution.name as resolution, made.taken, made.refused,
                ended.succeeded
            from (
                select delivery.subscription_id,
                    sum(case when attempt.error is null then 1 else 0 end) as taken,
                    sum(case when attempt.error is null then 0 else 1 end) as refused
                from attempt
                join delivery on delivery.id = attempt.delivery_id
                where not attempt.lease_lost
                group by delivery.subscription_id
            ) as made
            join (
                select subscription_id,
                    sum(case when state = 'succeeded' then 1 else 0 end) as succeeded
                from delivery
                group by subscription_id
            ) as ended on ended.subscription_id = made.subscription_id
            cross join (select 'minute' as name union all select 'hour') as resolution
        ) as kept
            on kept.subscription_id = counted.subscription_id
            and kept.resolution = counted.resolution
        where counted.taken is distinct from kept.taken
            or counted.refused is distinct from kept.refused
            or counted.succeeded is distinct from kept.succeeded
    ) as unequal";
    assert_eq!(
        database.count(unequal).await,
        0,
        "of so many sums rollups and attempts say different things"
    );
    let settled = "attempt where not lease_lost";
    assert!(database.count(settled).await > 0, "nothing was attempted");
}

/// As the next leader does it. One that was killed leads no more, though its lease would go on.
async fn fold(database: &TestDatabase) {
    database
        .tamper("delete from lease where name = 'retention'")
        .await;
    let leasing = Leasing {
        owner: Entropy::system().id(SystemClock.now()),
        lease: Duration::from_hours(1),
    };
    let store = &database.store;
    let held = store.take_lease(LeaseName::RETENTION, leasing).await;
    let held = held.unwrap().expect("nobody else leads");
    let mut folded = Some(1);
    while folded != Some(0) {
        folded = store.fold_rollups(&held, 1_000).await.unwrap();
        assert!(folded.is_some(), "another leads");
    }
    assert_eq!(database.count("rollup_delta").await, 0);
}
