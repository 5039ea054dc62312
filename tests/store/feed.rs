//! The feed: what came, in the order of the commits.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::filter::EventFilter;
use forge_dispatch::domain::ids::{EditionId, EventId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{
    FeedFilter, FeedHead, FeedPage, FeedPosition, FeedRequest, FeedStart, MAX_LOOKED_AT, Store,
};
use forge_dispatch::wake::Wake;
use tokio::time::timeout;

use super::fixture::accept;
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{event, events, reach, workspace};

on_both_databases!(
    events_come_in_the_order_of_their_commits_page_by_page,
    an_item_is_the_event_as_it_is_read_alone,
    the_latest_is_behind_what_is_there,
    types_pass_as_subscriptions_filters_let_them,
    an_edition_and_a_reach_leave_out_what_they_should,
    a_page_ends_before_its_bytes_are_too_many,
    a_search_that_finds_little_ends_early_and_goes_on,
    a_place_below_the_floor_is_told,
    the_event_behind_a_place_is_found_in_its_own_feed,
    news_are_of_each_feed_behind_its_place,
    the_bell_rings_for_what_was_kept_and_for_nothing_else,
);

fn all() -> Reach {
    Reach::all(&WorkspaceId::default())
}

fn oldest(limit: usize) -> FeedRequest {
    FeedRequest {
        start: FeedStart::Oldest,
        limit,
        max_bytes: usize::MAX,
    }
}

fn behind(place: FeedPosition, limit: usize) -> FeedRequest {
    FeedRequest {
        start: FeedStart::Behind(place),
        ..oldest(limit)
    }
}

fn place(position: i64) -> FeedPosition {
    position.to_string().parse().unwrap()
}

fn types(filters: &[&str]) -> FeedFilter {
    FeedFilter {
        types: filters.iter().map(|text| text.parse().unwrap()).collect(),
        edition: None,
    }
}

async fn page(
    store: &Arc<dyn Store>,
    reach: &Reach,
    filter: &FeedFilter,
    request: FeedRequest,
) -> FeedPage {
    let page = store.feed(reach, filter, request).await.unwrap();
    page.expect("nothing was removed")
}

/// All that is there, page by page.
async fn read(
    store: &Arc<dyn Store>,
    reach: &Reach,
    filter: &FeedFilter,
    limit: usize,
) -> Vec<EventId> {
    let (mut found, mut request) = (Vec::new(), oldest(limit));
    loop {
        let page = page(store, reach, filter, request).await;
        assert!(page.items.len() <= limit);
        let positions: Vec<_> = page.items.iter().map(|item| item.position).collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
        found.extend(page.items.iter().map(|item| item.event.id));
        request = behind(page.next, limit);
        if page.caught_up {
            return found;
        }
    }
}

fn ids(events: &[Arc<Payload>]) -> Vec<EventId> {
    events.iter().map(|payload| payload.event().id).collect()
}

async fn events_come_in_the_order_of_their_commits_page_by_page(db: &TestDatabase) {
    let filter = FeedFilter::default();
    let first = page(&db.store, &all(), &filter, oldest(9)).await;
    assert_eq!((first.items.len(), first.caught_up), (0, true));

    // The ids of later ones are smaller here and there: what counts is the commit.
    let mut came = events(7);
    came.sort_by_key(|payload| std::cmp::Reverse(payload.event().id));
    accept(&db.store, &came[..3]).await;
    accept(&db.replica, &came[3..4]).await;
    accept(&db.store, &[event().workspace("ws_2").build()]).await;
    accept(&db.store, &came[4..]).await;
    for limit in [1, 2, 3, 7, 8, 500] {
        assert_eq!(read(&db.store, &all(), &filter, limit).await, ids(&came));
        assert_eq!(read(&db.replica, &all(), &filter, limit).await, ids(&came));
    }
    let kept = db.feed(&WorkspaceId::default()).await;
    let whole = page(&db.store, &all(), &filter, behind(first.next, 500)).await;
    let read: Vec<_> = whole
        .items
        .iter()
        .map(|item| (item.position, item.event.id))
        .collect();
    let kept: Vec<_> = kept
        .into_iter()
        .map(|(position, id)| (place(position), id))
        .collect();
    assert_eq!(read, kept);
    assert_eq!(whole.next, kept.last().unwrap().0);

    let end = page(&db.store, &all(), &filter, behind(whole.next, 500)).await;
    let nothing = FeedPage {
        items: Vec::new(),
        next: whole.next,
        caught_up: true,
    };
    assert_eq!(end, nothing, "and it ends where it began");
}

async fn an_item_is_the_event_as_it_is_read_alone(db: &TestDatabase) {
    let data = r#"{"z":1.50, "edition_id":"ed_1","big":12345678901234567890}"#;
    let came = event().project("pr_1").data(data).build();
    accept(&db.store, &[came.clone(), event().data("null").build()]).await;
    let page = page(&db.store, &all(), &FeedFilter::default(), oldest(9)).await;
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.items[0].event.data, data);
    for item in page.items {
        let alone = db.store.event(&all(), item.event.id).await.unwrap();
        assert_eq!(item.event, alone.unwrap());
    }
}

async fn the_latest_is_behind_what_is_there(db: &TestDatabase) {
    let filter = FeedFilter::default();
    let latest = FeedRequest {
        start: FeedStart::Latest,
        ..oldest(9)
    };
    let empty = page(&db.store, &all(), &filter, latest).await;
    let came = events(4);
    accept(&db.store, &came[..2]).await;
    let now = page(&db.store, &all(), &filter, latest).await;
    assert_eq!((now.items.len(), now.caught_up), (0, true));
    accept(&db.store, &[event().workspace("ws_2").build()]).await;
    accept(&db.store, &came[2..]).await;
    for (from, expected) in [(empty.next, &came[..]), (now.next, &came[2..])] {
        let page = page(&db.store, &all(), &filter, behind(from, 9)).await;
        let found: Vec<_> = page.items.iter().map(|item| item.event.id).collect();
        assert_eq!(found, ids(expected));
    }
}

async fn types_pass_as_subscriptions_filters_let_them(db: &TestDatabase) {
    let known = [
        "edition",
        "edition.archived",
        "edition.section.changed",
        "editions.archived",
        "editionx",
        "e_ition.archived",
        "output.lost",
        "subscription",
        "subscription.disabled",
        "subscriptions.x",
        "delivery.failed",
    ];
    let came: Vec<_> = known
        .iter()
        .map(|event_type| event().event_type(event_type).build())
        .collect();
    accept(&db.store, &came).await;
    for filters in [
        &["*"] as &[&str],
        &["edition"],
        &["edition.*"],
        &["e_ition.*"],
        &["edition.section.*", "edition", "output.lost"],
        &["subscription.*"],
        &["*", "delivery.failed"],
        &["nothing.*", "nothing"],
        &[],
    ] {
        let wanted: Vec<EventFilter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        let passes = |payload: &&Arc<Payload>| {
            let event_type = &payload.event().event_type;
            wanted.iter().any(|filter| filter.matches(event_type))
        };
        let expected: Vec<_> = came.iter().filter(passes).cloned().collect();
        let found = read(&db.store, &all(), &types(filters), 2).await;
        assert_eq!(found, ids(&expected), "{filters:?}");
    }
}

async fn an_edition_and_a_reach_leave_out_what_they_should(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let elsewhere = workspace("ws_2");
    let about = |project: &str, edition: &str| {
        let data = format!(r#"{{"edition_id":"{edition}"}}"#);
        event().project(project).data(&data).build()
    };
    let came = [
        about("pr_1", "ed_1"),
        about("pr_2", "ed_1"),
        about("pr_1", "ed_2"),
        event().data(r#"{"edition_id":"ed_1"}"#).build(),
        event().workspace("ws_2").project("pr_1").build(),
        event().build(),
    ];
    accept(&db.store, &came).await;
    for (within, edition, expected) in [
        (all(), None, &[0_usize, 1, 2, 3, 5] as &[usize]),
        (all(), Some("ed_1"), &[0, 1, 3]),
        (all(), Some("ed_3"), &[]),
        (reach(&here, &["pr_1"]), None, &[0, 2]),
        (reach(&here, &["pr_1", "pr_2"]), Some("ed_1"), &[0, 1]),
        (reach(&here, &["pr_3"]), None, &[]),
        (reach(&here, &[]), None, &[]),
        (Reach::all(&elsewhere), None, &[4]),
        (reach(&elsewhere, &["pr_2"]), None, &[]),
    ] {
        let filter = FeedFilter {
            edition: edition.map(|id| EditionId::new(id).unwrap()),
            ..FeedFilter::default()
        };
        let expected: Vec<_> = expected.iter().map(|n| came[*n].event().id).collect();
        for limit in [1, 2, 9] {
            let found = read(&db.store, &within, &filter, limit).await;
            assert_eq!(found, expected, "{within:?} {edition:?}");
        }
        // Who waits is woken by the same events.
        let known = [(within.workspace.clone(), FeedPosition::START)];
        let news: Vec<FeedHead> = db.store.feed_news(&known, 9).await.unwrap();
        let heads = news.iter().filter(|head| head.is_for(&within, &filter));
        assert_eq!(heads.count(), expected.len(), "{within:?} {edition:?}");
    }
}

async fn a_page_ends_before_its_bytes_are_too_many(db: &TestDatabase) {
    let came: Vec<_> = [10_usize, 4_000, 9_000, 20, 30_000, 40]
        .iter()
        .map(|length| {
            let data = format!("\"{}\"", "é".repeat(length / 2));
            event().data(&data).build()
        })
        .collect();
    accept(&db.store, &came).await;
    let size = |payload: &Arc<Payload>| payload.event().envelope.len();
    for max_bytes in [0, 1, 500, 4_600, 10_000, 13_800, 40_000, usize::MAX] {
        let (mut found, mut request) = (Vec::new(), oldest(9));
        loop {
            request.max_bytes = max_bytes;
            let page = page(&db.store, &all(), &FeedFilter::default(), request).await;
            let from = found.len();
            found.extend(page.items.iter().map(|item| item.event.id));
            let told = &came[from..found.len()];
            let bytes: usize = told.iter().map(size).sum();
            assert!(bytes <= max_bytes || told.len() == 1, "{max_bytes}");
            // Not fewer than there was room for.
            if let Some(next) = came.get(found.len()) {
                assert!(bytes + size(next) > max_bytes && !told.is_empty());
            }
            request = behind(page.next, 9);
            if page.caught_up {
                break;
            }
        }
        assert_eq!(found, ids(&came), "{max_bytes}");
    }
}

async fn a_search_that_finds_little_ends_early_and_goes_on(db: &TestDatabase) {
    let needle = || event().event_type("output.lost").project("pr_1").build();
    let first = needle();
    accept(&db.store, std::slice::from_ref(&first)).await;
    for _ in 0..=MAX_LOOKED_AT / 1_000 {
        accept(&db.store, &events(1_000)).await;
    }
    let last = needle();
    accept(&db.store, std::slice::from_ref(&last)).await;
    let kept = db.feed(&WorkspaceId::default()).await;
    let some = reach(&WorkspaceId::default(), &["pr_1"]);
    for (reach, filter) in [(all(), types(&["output.*"])), (some, FeedFilter::default())] {
        let one = page(&db.store, &reach, &filter, oldest(50)).await;
        let found: Vec<_> = one.items.iter().map(|item| item.event.id).collect();
        assert_eq!(found, [first.event().id]);
        assert_eq!(one.next, place(kept[MAX_LOOKED_AT - 1].0));
        assert!(!one.caught_up);
        let two = page(&db.store, &reach, &filter, behind(one.next, 50)).await;
        let found: Vec<_> = two.items.iter().map(|item| item.event.id).collect();
        assert_eq!(found, [last.event().id]);
        assert_eq!(two.next, place(kept[kept.len() - 1].0));
        assert!(two.caught_up);
        assert_eq!(
            read(&db.store, &reach, &filter, 1).await,
            ids(&[first.clone(), last.clone()])
        );
    }
    // A page of all is full, however it is looked for.
    let full = page(&db.store, &all(), &FeedFilter::default(), oldest(500)).await;
    assert_eq!(full.items.len(), 500);
}

/// Retention, as it will be: it removes and raises the floor in one transaction.
async fn remove_up_to(db: &TestDatabase, position: i64) {
    db.tamper(&format!(
        "begin;
        delete from event_feed where workspace = 'default' and position <= {position};
        delete from event_feed_floor where workspace = 'default';
        insert into event_feed_floor (workspace, position) values ('default', {position});
        commit"
    ))
    .await;
}

async fn the_event_behind_a_place_is_found_in_its_own_feed(db: &TestDatabase) {
    let batch = events(2);
    accept(&db.store, &batch[..1]).await;
    accept(&db.store, &[event().workspace("ws_other").build()]).await;
    accept(&db.store, &batch[1..]).await;
    let here = WorkspaceId::default();
    let mut found = Vec::new();
    let mut place = FeedPosition::START;
    while let Some((next, id)) = db.store.feed_behind(&here, place).await.unwrap() {
        assert!(next > place);
        found.push(id);
        place = next;
    }
    let expected: Vec<EventId> = batch.iter().map(|payload| payload.event().id).collect();
    assert_eq!(found, expected);
}

async fn a_place_below_the_floor_is_told(db: &TestDatabase) {
    let filter = FeedFilter::default();
    let came = events(4);
    accept(&db.store, &came).await;
    let kept = db.feed(&WorkspaceId::default()).await;
    remove_up_to(db, kept[1].0).await;
    for (from, expired) in [
        (0, true),
        (kept[0].0, true),
        (kept[1].0, false),
        (kept[2].0, false),
    ] {
        let request = behind(place(from), 9);
        let page = db.store.feed(&all(), &filter, request).await.unwrap();
        assert_eq!(page.is_none(), expired, "{from}");
    }
    assert_eq!(read(&db.store, &all(), &filter, 1).await, ids(&came[2..]));
    let other = Reach::all(&workspace("ws_2"));
    let untouched = page(&db.store, &other, &filter, behind(FeedPosition::START, 9)).await;
    assert!(
        untouched.items.is_empty(),
        "each workspace has a floor of its own"
    );

    // Where nothing is left, the next place is one that can be gone on from.
    remove_up_to(db, kept[3].0).await;
    for start in [FeedStart::Oldest, FeedStart::Latest] {
        let request = FeedRequest { start, ..oldest(9) };
        let rest = page(&db.store, &all(), &filter, request).await;
        assert_eq!((rest.items.len(), rest.next), (0, place(kept[3].0)));
        let more = page(&db.store, &all(), &filter, behind(rest.next, 9)).await;
        assert!(more.caught_up);
    }
}

async fn news_are_of_each_feed_behind_its_place(db: &TestDatabase) {
    let other = workspace("ws_2");
    let mine = events(3);
    let theirs = event()
        .workspace("ws_2")
        .project("pr_1")
        .data(r#"{"edition_id":"ed_1"}"#)
        .build();
    accept(&db.store, &mine[..2]).await;
    accept(&db.store, &[theirs, event().workspace("ws_3").build()]).await;
    accept(&db.store, &mine[2..]).await;
    let kept = db.feed(&WorkspaceId::default()).await;
    let known = [
        (WorkspaceId::default(), place(kept[0].0)),
        (other.clone(), FeedPosition::START),
    ];
    let news = db.store.feed_news(&known, 9).await.unwrap();
    let positions: Vec<_> = news.iter().map(|head| head.position).collect();
    assert_eq!((news.len(), positions.is_sorted()), (3, true));
    assert_eq!(news[0].position, place(kept[1].0));
    assert_eq!(news[1].workspace, other);
    assert_eq!(news[1].event_type.as_str(), "edition.archived");
    assert_eq!(news[1].project.as_ref().unwrap().as_str(), "pr_1");
    assert_eq!(news[1].edition.as_ref().unwrap().as_str(), "ed_1");
    assert_eq!(news[2].position, place(kept[2].0));
    let few = db.store.feed_news(&known, 1).await.unwrap();
    assert_eq!(few, news[..2], "one of each");
    assert_eq!(db.store.feed_news(&[], 9).await.unwrap(), []);
}

async fn the_bell_rings_for_what_was_kept_and_for_nothing_else(db: &TestDatabase) {
    let mut moves = db.store.feed_moves();
    let came = events(1);
    accept(&db.store, &came).await;
    assert!(moves.has_changed().unwrap(), "at once");
    moves.mark_unchanged();
    let again = event().id(&came[0].event().external_id).build();
    accept(&db.store, &[again]).await;
    assert!(!moves.has_changed().unwrap(), "a duplicate moves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_processes_are_told_that_a_feed_moved() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let mut moves = db.replica.feed_moves();
    let listening = tokio::spawn({
        let store = Arc::clone(&db.replica);
        async move { store.listen(Arc::new(Wake::default())).await }
    });
    let patience = Duration::from_secs(30);
    // The ring of one who begins to listen: what was told before is unknown.
    timeout(patience, moves.changed()).await.unwrap().unwrap();
    accept(&db.store, &events(1)).await;
    timeout(patience, moves.changed()).await.unwrap().unwrap();
    db.replica.close().await;
    timeout(patience, listening).await.unwrap().unwrap();
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_reader_misses_nothing_of_many_writers() {
    const WRITERS: usize = 8;
    const BATCHES: usize = 60;
    const BATCH: usize = 40;
    let db = TestDatabase::new(Kind::Postgres).await;
    let mut stores = vec![Arc::clone(&db.store), Arc::clone(&db.replica)];
    stores.extend([db.open().await, db.open().await]);
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let store = Arc::clone(&stores[number % stores.len()]);
            tokio::spawn(async move {
                let mut written = Vec::new();
                for batch in 0..BATCHES {
                    // Of many sizes, so that commits overtake one another.
                    let batch = events(1 + (batch * 7 + number * 13) % (2 * BATCH));
                    written.extend(ids(&batch));
                    accept(&store, &batch).await;
                }
                written
            })
        })
        .collect();
    let reader = stores[3].clone();
    let (filter, mut place) = (FeedFilter::default(), FeedPosition::START);
    let mut seen = Vec::new();
    loop {
        // Asked first: what is written by then is seen by the look behind it.
        let all_written = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let page = page(&reader, &all(), &filter, behind(place, 100)).await;
        for item in &page.items {
            assert!(item.position > place, "positions only grow");
            place = item.position;
            seen.push(item.event.id);
        }
        place = page.next;
        if all_written && page.caught_up {
            break;
        }
    }
    let mut written = Vec::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    assert!(written.len() > WRITERS * BATCHES * BATCH / 2);
    assert_eq!(seen.len(), written.len());
    seen.sort();
    written.sort();
    assert_eq!(seen, written);
    for store in &stores[2..] {
        store.close().await;
    }
    db.remove().await;
}
