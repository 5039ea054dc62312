//! What goes well.

use super::rig::{Rig, eventually};
use crate::harness::events::event;

#[tokio::test]
async fn every_event_is_stored_once_and_nothing_is_left_on_the_broker() {
    let mut rig = Rig::new().await;
    rig.start().await;
    rig.publish((0..2_000).map(|_| event().text())).await;
    rig.until_stored(2_000).await;
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn an_event_that_comes_again_is_acknowledged_and_changes_nothing() {
    let mut rig = Rig::new().await;
    rig.start().await;
    let again = event();
    rig.publish([again.text(), again.text()]).await;
    rig.until_stored(1).await;
    rig.publish([again.text(), event().text()]).await;
    rig.until_stored(2).await;
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn events_are_stored_in_the_order_in_which_they_were_published() {
    let mut rig = Rig::new().await;
    rig.start().await;
    let projects: Vec<String> = (0..300).map(|n| format!("pr_{n}")).collect();
    rig.publish(projects.iter().map(|id| event().project(id).text()))
        .await;
    rig.until_stored(300).await;
    assert_eq!(rig.projects_in_feed().await, projects);
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_stop_in_mid_flow_gives_back_what_was_not_stored_and_nothing_else() {
    const PUBLISHED: usize = 10_000;
    let mut rig = Rig::new().await;
    rig.start().await;
    rig.stop().await;
    rig.publish((0..PUBLISHED).map(|_| event().text())).await;
    rig.start().await;
    eventually("some are stored", async || rig.stored().await > 100).await;
    rig.stop().await;
    let stored = rig.stored().await;
    assert!(
        stored < PUBLISHED,
        "the stop came too late to tell anything"
    );
    assert_eq!(
        usize::try_from(rig.left().await).unwrap(),
        PUBLISHED - stored,
        "an event that was stored and not acknowledged would be there too"
    );
    rig.start().await;
    rig.until_stored(PUBLISHED).await;
    rig.stop_and_find_nothing_left().await;
}
