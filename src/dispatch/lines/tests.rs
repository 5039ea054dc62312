//! The rules of the lines, and that their books balance.

use std::sync::Arc;

use chrono::DateTime;
use futures::FutureExt;
use proptest::prelude::*;

use super::super::permits::ROOMS_PER_SLOT as ROOMS;
use super::*;
use crate::domain::circuit::CircuitState;
use crate::domain::delivery::Sending;
use crate::domain::event::Event;
use crate::domain::headers::CustomHeaders;
use crate::domain::ids::{WorkspaceId, new_id};
use crate::domain::payload::Payload;
use crate::domain::subscription::{BodyFormat, Ordering, Subscription, SubscriptionSpec};
use crate::domain::subscription::{SubscriptionStatus, TargetUrl};

pub(super) fn target(number: u8, limit: Option<u32>) -> Arc<Target> {
    let now = DateTime::UNIX_EPOCH;
    Arc::new(Target {
        subscription: Subscription {
            id: new_id(now, [number; 10]),
            workspace: WorkspaceId::default(),
            spec: SubscriptionSpec {
                url: TargetUrl::new("https://receiver.example/").unwrap(),
                description: String::new(),
                event_types: vec!["*".parse().unwrap()],
                project_ids: None,
                format: BodyFormat::Standard,
                headers: CustomHeaders::default(),
                max_concurrency: limit.and_then(NonZeroU32::new),
                rate_limit: None,
                retry_schedule: None,
                ordering: Ordering::default(),
            },
            status: SubscriptionStatus::Active,
            circuit: CircuitState::Closed,
            missing_since: None,
            version: 1,
            created_at: now,
            updated_at: now,
        },
        keys: Vec::new(),
    })
}

/// One of more than a byte can count.
fn numbered(number: u16) -> Arc<Target> {
    let [high, low] = number.to_be_bytes();
    let mut target = Target::clone(&target(low, None));
    target.subscription.id = new_id(
        DateTime::UNIX_EPOCH,
        [high, low, 254, 254, 254, 254, 254, 254, 254, 254],
    );
    Arc::new(target)
}

/// A target of another workspace than the others'.
fn target_of(workspace: &str, number: u8) -> Arc<Target> {
    let mut target = Target::clone(&target(number, None));
    let mut random = [255; 10];
    random[0] = number;
    for (place, byte) in random[1..].iter_mut().zip(workspace.bytes().rev()) {
        *place = byte;
    }
    target.subscription.id = new_id(DateTime::UNIX_EPOCH, random);
    target.subscription.workspace = WorkspaceId::new(workspace).unwrap();
    Arc::new(target)
}

fn lines(concurrency: usize, per_subscription: usize, bytes: usize) -> Arc<Lines> {
    Arc::new(Lines::new(&config::Dispatch {
        concurrency,
        subscription_concurrency: per_subscription,
        max_bytes_in_flight: bytes,
        ..config::Dispatch::default()
    }))
}

fn leased(target: &Arc<Target>, lane: Lane) -> LeasedDelivery {
    let now = DateTime::UNIX_EPOCH;
    let text = br#"{"specversion":"1.0","id":"1","source":"s","type":"x"}"#;
    let event = Event::decode(text, new_id(now, [0; 10]), now).unwrap();
    LeasedDelivery {
        id: new_id(now, [0; 10]),
        epoch: 1,
        attempts: 0,
        base: 0,
        gate: None,
        replaying: None,
        lost_leases: 0,
        lane,
        sending: Sending::Usual,
        payload: Arc::new(Payload::new(event)),
        target: Arc::clone(target),
        leased_until: Duration::MAX,
    }
}

/// A target whose deliveries may come at this rate.
pub(super) fn limited(number: u8, rate: u32) -> Arc<Target> {
    let mut target = Target::clone(&target(number, None));
    target.subscription.spec.rate_limit = NonZeroU32::new(rate);
    Arc::new(target)
}

/// Reserves up to `count` rooms, of a line that was seen moving as far as that takes.
fn reserve(lines: &Arc<Lines>, target: &Target, lane: Lane, count: usize) -> Vec<Room> {
    let mut rooms = lines.reserve(target, lane, count);
    let mut before = 0;
    while rooms.len() < count && rooms.len() > before {
        before = rooms.len();
        rooms.truncate(before / 2);
        rooms.extend(lines.reserve(target, lane, count - rooms.len()));
    }
    rooms
}

/// Reserves up to `count` rooms and puts a delivery into each; how many there were.
fn fill(lines: &Arc<Lines>, target: &Arc<Target>, lane: Lane, count: usize) -> usize {
    let rooms = reserve(lines, target, lane, count);
    let got = rooms.len();
    lines.push(
        rooms
            .into_iter()
            .map(|room| (leased(target, lane), Permit::new(room))),
    );
    got
}

fn launch(lines: &Arc<Lines>) -> Vec<Flight> {
    std::iter::from_fn(|| lines.next()).collect()
}

fn of(flights: &[Flight], target: &Target) -> usize {
    let id = target.id();
    let of_it = |flight: &&Flight| flight.delivery.target.id() == id;
    flights.iter().filter(of_it).count()
}

#[test]
fn a_subscriptions_own_limit_holds_over_all_lanes() {
    let (lines, target) = (lines(100, 64, 1_000), target(1, Some(4)));
    fill(&lines, &target, Lane::Fresh, 30);
    let fresh = launch(&lines);
    fill(&lines, &target, Lane::Retry, 20);
    let retry = launch(&lines);
    assert_eq!((fresh.len(), retry.len()), (3, 1));
    fill(&lines, &target, Lane::Replay, 20);
    assert!(launch(&lines).is_empty(), "four is the limit");
    drop(fresh);
    let next = launch(&lines);
    let of = |lane| {
        let of_it = |flight: &&Flight| flight.delivery.lane == lane;
        next.iter().filter(of_it).count()
    };
    assert_eq!((of(Lane::Fresh), of(Lane::Replay)), (2, 1), "in turns");
}

#[test]
fn a_limit_is_divided_among_the_processes_that_send() {
    let replicas = |count| NonZeroU32::new(count).unwrap();
    let (lines, target) = (lines(100, 64, 1_000), target(1, Some(8)));
    lines.set_replicas(replicas(3));
    fill(&lines, &target, Lane::Fresh, 30);
    let mut flights = launch(&lines);
    assert_eq!(flights.len(), 2, "of a third of eight, one is for retries");
    // One that leaves: what waits already goes by the new part as well.
    lines.set_replicas(replicas(1));
    let ended = flights.pop().unwrap();
    flights.extend(lines.finish(ended));
    flights.extend(launch(&lines));
    assert_eq!(flights.len(), 6);
    // More than there are requests: one each.
    lines.set_replicas(replicas(100));
    while let Some(ended) = flights.pop() {
        flights.extend(lines.finish(ended));
        flights.extend(launch(&lines));
        assert!(flights.len() <= 5, "no more come while too many are out");
    }
}

#[test]
fn where_there_is_one_slot_the_lanes_take_turns() {
    let (lines, target) = (lines(100, 64, 1_000), target(1, Some(1)));
    fill(&lines, &target, Lane::Fresh, 3);
    fill(&lines, &target, Lane::Retry, 3);
    fill(&lines, &target, Lane::Replay, 3);
    let mut flight = lines.next();
    let mut seen = Vec::new();
    while let Some(now) = flight {
        assert!(lines.next().is_none(), "one at a time");
        seen.push(now.delivery.lane);
        flight = lines.finish(now);
    }
    assert_eq!(seen, [Lane::ALL, Lane::ALL, Lane::ALL].concat());
}

#[test]
fn lines_take_turns_for_the_slots() {
    let lines = lines(4, 64, 100_000);
    let (busy, quiet) = (target(1, None), target(2, None));
    fill(&lines, &busy, Lane::Fresh, 40);
    let mut flight = lines.next().unwrap();
    fill(&lines, &quiet, Lane::Fresh, 3);
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(flight.delivery.target.id() == quiet.id());
        flight = lines.finish(flight).unwrap();
    }
    let quiets = seen.iter().filter(|quiet| **quiet).count();
    assert!(quiets >= 2, "the quiet one waits for no backlog: {seen:?}");
}

#[test]
fn however_many_receivers_hang_the_next_one_gets_a_slot() {
    let lines = lines(512, 512, 100_000);
    let mut hanging = Vec::new();
    for number in 0..60 {
        fill(&lines, &target(number, None), Lane::Fresh, 600);
        hanging.extend(launch(&lines));
    }
    assert!(
        of(&hanging, &target(0, None)) > 100,
        "one alone is not held back"
    );
    let next = target(99, None);
    assert!(fill(&lines, &next, Lane::Fresh, 1) == 1);
    assert_eq!(of(&launch(&lines), &next), 1);
}

#[test]
fn however_many_receivers_of_one_workspace_hang_the_next_workspace_gets_a_slot() {
    let lines = lines(512, 64, 10_000_000);
    let mut hanging = Vec::new();
    for number in 0..400 {
        fill(&lines, &numbered(number), Lane::Fresh, 600);
        hanging.extend(launch(&lines));
    }
    // A workspace that has the slots to itself leaves a sixteenth of them.
    assert_eq!(hanging.len(), 320 - 20);
    for number in 0..20 {
        let next = target_of(&format!("ws_{number}"), number);
        assert_eq!(fill(&lines, &next, Lane::Fresh, 1), 1);
        assert_eq!(of(&launch(&lines), &next), 1, "it waits for no other's");
    }
}

#[test]
fn many_workspaces_whose_receivers_hang_leave_something_to_the_next() {
    let lines = lines(512, 64, 10_000_000);
    let mut hanging = Vec::new();
    for workspace in 0..8 {
        for number in 0..100 {
            fill(
                &lines,
                &target_of(&format!("ws_{workspace}"), number),
                Lane::Fresh,
                10,
            );
            hanging.extend(launch(&lines));
        }
    }
    let next = target_of("ws_next", 200);
    fill(&lines, &next, Lane::Fresh, 1);
    assert_eq!(of(&launch(&lines), &next), 1);
}

#[test]
fn workspaces_take_turns_however_many_lines_they_have() {
    let lines = lines(4, 64, 1_000_000);
    for number in 0..30 {
        fill(&lines, &target(number, None), Lane::Fresh, 3);
    }
    let mut flight = lines.next().unwrap();
    let quiet = target_of("ws_quiet", 200);
    fill(&lines, &quiet, Lane::Fresh, 3);
    let mut seen = Vec::new();
    for _ in 0..6 {
        flight = lines.finish(flight).unwrap();
        seen.push(flight.delivery.target.id() == quiet.id());
    }
    let quiets = seen.iter().filter(|quiet| **quiet).count();
    assert_eq!(quiets, 3, "behind no line of the busy one's: {seen:?}");
}

#[test]
fn a_workspace_with_rooms_to_itself_leaves_some_to_the_next() {
    let lines = lines(8, 1, 10_000_000);
    let rooms: Vec<Room> = (0..600)
        .flat_map(|number| lines.reserve(&numbered(number), Lane::Fresh, 1))
        .collect();
    assert_eq!(rooms.len(), 5 * ROOMS - 5 * ROOMS / 16);
    assert_eq!(
        lines
            .reserve(&target_of("ws_next", 1), Lane::Fresh, 1)
            .len(),
        1
    );
}

#[test]
fn retries_and_fresh_work_do_not_take_each_others_share() {
    let lines = lines(16, 64, 1_000);
    let mut retries = Vec::new();
    for number in 0..100 {
        fill(&lines, &target(number, None), Lane::Retry, 100);
        retries.extend(launch(&lines));
    }
    assert_eq!(retries.len(), 4);
    fill(&lines, &target(200, None), Lane::Fresh, 1);
    assert_eq!(launch(&lines).len(), 1);
}

#[test]
fn a_replay_of_a_million_takes_neither_slots_nor_rooms_of_live_work() {
    let lines = lines(64, 64, 1_000_000);
    let mut replays = Vec::new();
    for number in 0..200 {
        fill(&lines, &target(number, None), Lane::Replay, 10_000);
        replays.extend(launch(&lines));
    }
    assert_eq!(replays.len(), 8, "an eighth of the slots");
    // A subscription that is replayed to the full has its live deliveries sent all the same.
    for lane in [Lane::Fresh, Lane::Retry] {
        assert_eq!(fill(&lines, &target(0, None), lane, 1), 1);
        assert_eq!(launch(&lines).len(), 1);
    }
}

#[test]
fn bytes_are_bounded_but_a_giant_goes_alone() {
    let (lines, target) = (lines(100, 64, 1_000), target(1, None));
    let giant = lines.admit(&target, 5_000).unwrap();
    assert_eq!(lines.bytes_free(), 0);
    assert!(lines.admit(&target, 1).is_none());
    drop(giant);
    assert_eq!(lines.bytes_free(), 1_000);
}

#[test]
fn what_comes_behind_a_waiting_delivery_waits_too_until_the_queue_is_empty() {
    let (lines, target) = (lines(100, 1, 1_000_000), target(1, None));
    let rooms: Vec<Room> = std::iter::from_fn(|| lines.admit(&target, 1)).collect();
    assert_eq!(rooms.len(), ROOMS);
    drop(rooms);
    assert!(lines.admit(&target, 1).is_none(), "older ones wait");
    lines.set_backlogged(|_| false);
    let rooms: Vec<Room> = std::iter::from_fn(|| lines.admit(&target, 1)).collect();
    drop(rooms);
    assert!(lines.admit(&target, 1).is_none(), "older ones wait again");
    // A claim was for more than there was.
    let reserved = lines.reserve(&target, Lane::Fresh, 2);
    lines.caught_up(target.id());
    drop(reserved);
    assert!(lines.admit(&target, 1).is_some());
}

#[test]
fn a_line_whose_deliveries_waited_too_long_becomes_shorter_and_longer_again() {
    let (lines, target) = (lines(512, 64, 1_000_000), target(1, None));
    let all = fill(&lines, &target, Lane::Fresh, 10_000);
    assert_eq!(all, 48 * ROOMS);
    for _ in 0..10 {
        lines.shorten(&leased(&target, Lane::Fresh));
    }
    let mut flights = launch(&lines);
    assert!(!lines.has_room(&target, Lane::Fresh));
    while let Some(flight) = flights.pop() {
        flights.extend(lines.finish(flight));
    }
    // It was emptied, and begins anew.
    assert!(lines.has_room(&target, Lane::Fresh));
    assert_eq!(fill(&lines, &target, Lane::Fresh, 10_000), all);
}

#[test]
fn a_line_that_has_not_moved_is_claimed_little_for_and_twice_as_much_each_time_it_did() {
    let (lines, target) = (lines(512, 64, 1_000_000), target(1, None));
    let mut rooms = lines.reserve(&target, Lane::Fresh, 10_000);
    assert_eq!(rooms.len(), 48 * 2, "two for each slot");
    assert!(!lines.has_room(&target, Lane::Fresh));
    assert!(lines.reserve(&target, Lane::Fresh, 1).is_empty());
    rooms.truncate(49);
    assert!(!lines.has_room(&target, Lane::Fresh), "more than half");
    rooms.truncate(48);
    assert!(lines.has_room(&target, Lane::Fresh));
    rooms.extend(lines.reserve(&target, Lane::Fresh, 10_000));
    assert_eq!(rooms.len(), 48 * 4);
    // It hangs: no more than it has slots, though it had moved. What is written now is given rooms all
    // the same.
    lines.shorten(&leased(&target, Lane::Fresh));
    rooms.truncate(24);
    rooms.extend(lines.reserve(&target, Lane::Fresh, 10_000));
    assert_eq!(rooms.len(), 48 * 2, "it moved again");
    assert!(lines.admit(&target, 1).is_some());
}

#[tokio::test]
async fn a_writer_waits_for_a_crowded_line_that_moves() {
    let (lines, target) = (lines(512, 64, 1_000_000), target(1, None));
    assert_eq!(lines.relief().now_or_never(), Some(()));
    let mut rooms = reserve(&lines, &target, Lane::Fresh, 10_000);
    {
        let relief = lines.relief();
        tokio::pin!(relief);
        assert!(futures::poll!(&mut relief).is_pending());
        rooms.truncate(rooms.len() / 2);
        assert!(futures::poll!(&mut relief).is_ready());
    }
    // Nothing moves: given up after a moment, and not waited for again.
    rooms.extend(reserve(&lines, &target, Lane::Fresh, 10_000));
    lines.relief().await;
    assert_eq!(lines.relief().now_or_never(), Some(()));
}

#[test]
fn closed_lines_give_no_room_but_send_what_they_have() {
    let (lines, target) = (lines(100, 64, 1_000), target(1, None));
    fill(&lines, &target, Lane::Fresh, 2);
    lines.close();
    assert!(lines.admit(&target, 1).is_none());
    assert!(lines.reserve(&target, Lane::Retry, 1).is_empty());
    assert_eq!(launch(&lines).len(), 2);
}

/// Lines of which each token takes an hour to come again.
fn slow_lines() -> Arc<Lines> {
    let lines = lines(512, 64 * 3_600, 1_000_000);
    lines.set_replicas(NonZeroU32::new(3_600).unwrap());
    lines
}

#[test]
fn one_that_is_limited_has_no_room_while_it_waits_for_a_token() {
    let (lines, target) = (slow_lines(), limited(1, 1));
    assert_eq!(lines.reserve(&target, Lane::Fresh, 100).len(), 1);
    for lane in Lane::ALL {
        assert!(!lines.has_room(&target, lane));
        assert!(lines.reserve(&target, lane, 1).is_empty(), "in both lanes");
    }
    assert!(lines.admit(&target, 1).is_none());
    assert!(lines.next_token([&*target].into_iter()).is_some());
    // Neither another nor who writes is held up by it.
    let another = self::target(2, None);
    assert_eq!(fill(&lines, &another, Lane::Fresh, 100), 100);
    assert_eq!(lines.next_token([&*another].into_iter()), None);
    assert_eq!(lines.relief().now_or_never(), Some(()));
}

#[test]
fn a_room_that_was_not_needed_gives_its_token_back() {
    let (lines, target) = (slow_lines(), limited(1, 1));
    for _ in 0..3 {
        let rooms = lines.reserve(&target, Lane::Fresh, 1);
        assert_eq!(rooms.len(), 1);
        rooms.into_iter().for_each(Room::unused);
    }
    drop(lines.reserve(&target, Lane::Fresh, 1));
    assert!(lines.reserve(&target, Lane::Fresh, 1).is_empty());
}

#[test]
fn a_limit_outlasts_what_is_in_memory() {
    let (lines, target) = (slow_lines(), limited(1, 1));
    drop(lines.reserve(&target, Lane::Fresh, 100));
    lines.set_backlogged(|_| false);
    assert!(lines.reserve(&target, Lane::Fresh, 100).is_empty());
}

proptest! {
    /// Whatever is taken and given back in whatever order, the books balance at the end.
    #[test]
    fn the_books_balance(steps in prop::collection::vec((0_u8..8, 0_usize..3, 0_usize..300, 0_u8..4), 0..200)) {
        let lines = lines(8, 4, 10_000);
        let (mut rooms, mut flights) = (Vec::new(), Vec::new());
        for (number, lane, bytes, act) in steps {
            let lane = Lane::ALL[lane];
            let target = target_of(["a", "b"][usize::from(number % 2)], number / 2);
            match act {
                0 => rooms.extend(lines.admit(&target, bytes)),
                1 if !rooms.is_empty() => drop(rooms.swap_remove(bytes % rooms.len())),
                2 if !flights.is_empty() => {
                    let ended = flights.swap_remove(bytes % flights.len());
                    flights.extend(lines.finish(ended));
                }
                _ => {
                    fill(&lines, &target, lane, bytes % 8);
                    flights.extend(launch(&lines));
                }
            }
            prop_assert_eq!(lines.in_flight(), flights.len());
            prop_assert!(flights.len() <= 8);
        }
        rooms.clear();
        while let Some(flight) = flights.pop() {
            flights.extend(lines.finish(flight));
            flights.extend(launch(&lines));
        }
        lines.set_backlogged(|_| false);
        prop_assert!(lines.books().is_pristine());
    }
}
