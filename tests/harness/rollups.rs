//! What statistics tell of, and rollups that fall behind.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, Trigger};
use forge_dispatch::domain::delivery::{Lane, Verdict};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Claim, Leasing, Settlement};

use super::databases::TestDatabase;

/// Claims the one delivery of a subscription and settles it, as taken after so long.
pub(crate) async fn deliver(db: &TestDatabase, subscription: &str, duration: Duration) {
    let leasing = Leasing {
        owner: Entropy::system().id(SystemClock.now()),
        lease: Duration::from_hours(1),
    };
    let claim = Claim {
        leasing,
        grace: Duration::ZERO,
        lane: Lane::Fresh,
        wants: vec![(subscription.parse().unwrap(), 1)],
        max_bytes: usize::MAX,
    };
    let leased = db.store.claim(&claim).await.unwrap();
    let attempt = Attempt {
        at: SystemClock.now(),
        duration,
        trigger: Trigger::Schedule,
        status: Some(200),
        error: None,
        response_headers: Vec::new(),
        response_excerpt: String::new(),
    };
    let settled = Settlement::of(&leased[0], Verdict::Succeeded, Some(attempt));
    db.store.settle(leasing.owner, &[settled]).await.unwrap();
}

/// Repeats what waits to be folded until so many deltas do: statements of their own, since as many settles
/// would take minutes.
pub(crate) async fn wait_to_be_folded(db: &TestDatabase, count: usize) {
    let waiting = async || usize::try_from(db.count("rollup_delta").await).unwrap();
    let mut there = waiting().await;
    assert!((1..=count).contains(&there), "{there} to begin with");
    while there < count {
        let more = there.min(count - there);
        db.tamper(&format!(
            "insert into rollup_delta select * from rollup_delta limit {more}"
        ))
        .await;
        there += more;
    }
    assert_eq!(waiting().await, count);
}
