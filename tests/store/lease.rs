//! Leaders: one at a time, and none that was deposed changes anything.

use forge_dispatch::store::{LeaseName, Standing};

use super::fixture::{for_long, for_no_time, owner};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    a_lease_has_one_holder,
    a_lease_that_is_over_is_taken_under_a_greater_fence,
    the_holder_takes_its_lease_again_under_a_greater_fence,
    a_lease_that_is_over_and_not_taken_can_still_be_renewed,
    a_lease_that_is_given_up_can_be_taken_at_once,
    who_was_deposed_neither_renews_nor_gives_up,
);

const NAME: LeaseName = LeaseName::new("test");

async fn a_lease_has_one_holder(db: &TestDatabase) {
    let (one, two) = (for_long(owner()), for_long(owner()));
    let held = db.store.take_lease(NAME, one).await.unwrap().unwrap();
    assert_eq!((held.name, held.owner), (NAME, one.owner));
    assert_eq!(db.replica.take_lease(NAME, two).await.unwrap(), None);
    let renewed = db.store.renew_lease(&held, one).await.unwrap();
    assert_eq!(renewed, Standing::Leads);
    let other = LeaseName::new("another");
    assert!(db.replica.take_lease(other, two).await.unwrap().is_some());
}

async fn a_lease_that_is_over_is_taken_under_a_greater_fence(db: &TestDatabase) {
    let one = for_no_time(owner());
    let first = db.store.take_lease(NAME, one).await.unwrap().unwrap();
    let two = for_long(owner());
    let second = db.replica.take_lease(NAME, two).await.unwrap().unwrap();
    assert_eq!(second.owner, two.owner);
    assert!(second.fence > first.fence);
}

async fn the_holder_takes_its_lease_again_under_a_greater_fence(db: &TestDatabase) {
    let leasing = for_long(owner());
    let first = db.store.take_lease(NAME, leasing).await.unwrap().unwrap();
    let second = db.store.take_lease(NAME, leasing).await.unwrap().unwrap();
    assert!(second.fence > first.fence);
    let renewed = db.store.renew_lease(&first, leasing).await.unwrap();
    assert_eq!(renewed, Standing::Deposed);
}

async fn a_lease_that_is_over_and_not_taken_can_still_be_renewed(db: &TestDatabase) {
    let leasing = for_no_time(owner());
    let held = db.store.take_lease(NAME, leasing).await.unwrap().unwrap();
    let renewed = db
        .store
        .renew_lease(&held, for_long(leasing.owner))
        .await
        .unwrap();
    assert_eq!(renewed, Standing::Leads);
    let taken = db.replica.take_lease(NAME, for_long(owner())).await;
    assert_eq!(taken.unwrap(), None);
}

async fn a_lease_that_is_given_up_can_be_taken_at_once(db: &TestDatabase) {
    let (one, two) = (for_long(owner()), for_long(owner()));
    let first = db.store.take_lease(NAME, one).await.unwrap().unwrap();
    db.store.release_lease(&first).await.unwrap();
    let second = db.replica.take_lease(NAME, two).await.unwrap().unwrap();
    assert!(second.fence > first.fence);
}

async fn who_was_deposed_neither_renews_nor_gives_up(db: &TestDatabase) {
    let one = for_no_time(owner());
    let first = db.store.take_lease(NAME, one).await.unwrap().unwrap();
    let two = for_long(owner());
    let second = db.replica.take_lease(NAME, two).await.unwrap().unwrap();
    let renewed = db.store.renew_lease(&first, for_long(one.owner)).await;
    assert_eq!(renewed.unwrap(), Standing::Deposed);
    db.store.release_lease(&first).await.unwrap();
    assert_eq!(db.store.take_lease(NAME, one).await.unwrap(), None);
    let renewed = db.replica.renew_lease(&second, two).await.unwrap();
    assert_eq!(renewed, Standing::Leads);
}
