//! Looking for what is next: the same for counting and for sending.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Candidate, Cursor, STEP, start};
use crate::clock::Clock;
use crate::domain::ids::{DeliveryId, EventId, SubscriptionId, created_at};
use crate::domain::reach::Reach;
use crate::domain::replay::Was;
use crate::domain::selection::{About, Selection};
use crate::domain::subscription::{Subscription, SubscriptionStatus};
use crate::store::feed::{FeedFilter, FeedItem, FeedPosition, FeedRequest, FeedStart};
use crate::store::{PageRequest, Result, Store};

/// About so many bytes of events are read to find those that were never delivered.
const LOOK_BYTES: usize = 4 * 1024 * 1024;

/// So long it is counted what was missed, and then said that there may be more: whoever enables a
/// subscription waits for it.
const TIME_FOR_MISSED: Duration = Duration::from_secs(2);

/// What was found behind a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Deliveries that are selected, oldest first.
    pub deliveries: Vec<Candidate>,
    /// Events whose delivery is selected, and was never made.
    pub events: Vec<EventId>,
    /// Up to where: what is behind it was not looked at.
    pub next: Cursor,
}

impl Look {
    /// There is nothing more.
    fn nothing() -> Self {
        Self {
            deliveries: Vec::new(),
            events: Vec::new(),
            next: Cursor::End,
        }
    }
}

/// How many deliveries are selected, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// By the state, or `unmade`.
    pub by_state: BTreeMap<&'static str, u64>,
    /// Whether that is all; otherwise there may be more.
    pub is_exact: bool,
}

impl Count {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_state.values().sum()
    }

    fn add(&mut self, look: &Look) {
        for found in &look.deliveries {
            *self.by_state.entry(found.state.as_str()).or_default() += 1;
        }
        if !look.events.is_empty() {
            let unmade = self.by_state.entry(Was::Unmade.as_str()).or_default();
            *unmade += look.events.len() as u64;
        }
    }
}

/// Counts what is selected, in at most `looks` looks, so that whoever asks does not wait for ever.
pub async fn count(
    store: &dyn Store,
    reach: &Reach,
    selection: &Selection,
    until: DateTime<Utc>,
    looks: usize,
) -> Result<Count> {
    let mut left = looks;
    let goes_on = || {
        let goes_on = left > 0;
        left = left.saturating_sub(1);
        goes_on
    };
    count_while(store, reach, selection, until, goes_on).await
}

/// The same for about so long.
pub async fn count_for(
    store: &dyn Store,
    reach: &Reach,
    selection: &Selection,
    until: DateTime<Utc>,
    (clock, time): (&dyn Clock, Duration),
) -> Result<Count> {
    let begun = clock.monotonic();
    let goes_on = || clock.monotonic().saturating_sub(begun) < time;
    count_while(store, reach, selection, until, goes_on).await
}

async fn count_while(
    store: &dyn Store,
    reach: &Reach,
    selection: &Selection,
    until: DateTime<Utc>,
    mut goes_on: impl FnMut() -> bool,
) -> Result<Count> {
    let mut count = Count::default();
    let mut cursor = Cursor::START;
    while goes_on() {
        let look = look(store, reach, selection, until, &cursor, usize::MAX).await?;
        count.add(&look);
        cursor = look.next;
        if cursor == Cursor::End {
            count.is_exact = true;
            break;
        }
    }
    Ok(count)
}

/// What a subscription missed that is served again, so that it can be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// From when on.
    pub since: DateTime<Utc>,
    /// How much.
    pub count: Count,
}

/// Counts what a subscription missed, where a change made it active again: `None` where it did not.
pub async fn missed(
    store: &dyn Store,
    reach: &Reach,
    before: &Subscription,
    after: &Subscription,
    clock: &dyn Clock,
) -> Result<Option<Missed>> {
    let is_back = after.status == SubscriptionStatus::Active;
    let Some(since) = before.missing_since.filter(|_| is_back) else {
        return Ok(None);
    };
    let selection = Selection::missed(after.id, since);
    let patience = (clock, TIME_FOR_MISSED);
    let count = count_for(store, reach, &selection, clock.now(), patience).await?;
    Ok(Some(Missed { since, count }))
}

/// Looks at no more than [`STEP`] rows behind a cursor, and finds no more than `most` events. What was made at
/// `until` or later is no part of it, so there is an end. What a cursor holds back is not looked at.
pub async fn look(
    store: &dyn Store,
    reach: &Reach,
    selection: &Selection,
    until: DateTime<Utc>,
    cursor: &Cursor,
    most: usize,
) -> Result<Look> {
    let until = selection.to.map_or(until, |to| to.min(until));
    let asked = Asked {
        store,
        reach,
        selection,
        until,
        most,
    };
    match cursor {
        Cursor::Deliveries { after, .. } => asked.deliveries(*after).await,
        Cursor::Events { after } => asked.events(*after).await,
        Cursor::Held(_) | Cursor::End => Ok(Look::nothing()),
    }
}

struct Asked<'a> {
    store: &'a dyn Store,
    reach: &'a Reach,
    selection: &'a Selection,
    until: DateTime<Utc>,
    most: usize,
}

impl Asked<'_> {
    async fn deliveries(&self, after: Option<DeliveryId>) -> Result<Look> {
        let behind = self.behind_deliveries();
        if self.selection.states.is_empty() {
            return Ok(Look {
                deliveries: Vec::new(),
                events: Vec::new(),
                next: behind,
            });
        }
        let request = PageRequest { limit: STEP, after };
        let page = self
            .store
            .replay_candidates(self.reach, self.selection, self.until, request)
            .await?;
        let mut deliveries = page.items;
        deliveries.retain(|found| {
            self.selection.states.contains(&found.state) && self.selection.takes(found.about())
        });
        Ok(Look {
            deliveries,
            events: Vec::new(),
            next: page.next.map_or(behind, |last| Cursor::behind(Some(last))),
        })
    }

    /// Where those that were never made are looked for, if they are.
    fn behind_deliveries(&self) -> Cursor {
        match self.selection.subscription_id {
            Some(_) if self.selection.backfill => Cursor::Events { after: None },
            _ => Cursor::End,
        }
    }

    async fn events(&self, after: Option<FeedPosition>) -> Result<Look> {
        let Some(id) = self.selection.subscription_id else {
            return Ok(Look::nothing());
        };
        let Some(subscription) = self.store.subscription(self.reach, id).await? else {
            return Ok(Look::nothing());
        };
        match self.selection.event_id {
            Some(event) => self.one_event(&subscription, event).await,
            None => self.of_feed(&subscription, after).await,
        }
    }

    async fn one_event(&self, subscription: &Subscription, event: EventId) -> Result<Look> {
        let found = self.store.event(self.reach, event).await?;
        let wanted = found.filter(|it| {
            let about = About {
                event_type: &it.event_type,
                project: it.project.as_ref(),
                edition: it.edition.as_ref(),
            };
            subscription.spec.wants_type(about.event_type) && self.wants(subscription, it.id, about)
        });
        let wanted: Vec<EventId> = wanted.into_iter().map(|it| it.id).collect();
        Ok(Look {
            events: self.undelivered(subscription.id, &wanted).await?,
            ..Look::nothing()
        })
    }

    async fn of_feed(
        &self,
        subscription: &Subscription,
        before: Option<FeedPosition>,
    ) -> Result<Look> {
        let filter = FeedFilter {
            types: subscription.spec.event_types.clone(),
            edition: self.selection.edition_id.clone(),
        };
        let request = |start| FeedRequest {
            start,
            limit: STEP,
            max_bytes: LOOK_BYTES,
        };
        let start = self.start(before).await?;
        let page = self.store.feed(self.reach, &filter, request(start)).await?;
        // What was removed meanwhile cannot be sent: it goes on with what is left.
        let page = if page.is_some() {
            page
        } else {
            let oldest = request(FeedStart::Oldest);
            self.store.feed(self.reach, &filter, oldest).await?
        };
        let Some(page) = page else {
            return Ok(Look::nothing());
        };
        let wanted: Vec<EventId> = page
            .items
            .iter()
            .map(|item| &item.event)
            .filter(|event| {
                let about = About {
                    event_type: &event.event_type,
                    project: event.project.as_ref(),
                    edition: event.edition.as_ref(),
                };
                self.wants(subscription, event.id, about)
            })
            .map(|event| event.id)
            .collect();
        let mut events = self.undelivered(subscription.id, &wanted).await?;
        if events.len() > self.most {
            events.truncate(self.most);
            let place = |last: &EventId| page.items.iter().find(|item| item.event.id == *last);
            let after = events.last().and_then(place).map(|item| item.position);
            let next = Cursor::Events {
                after: after.or(before),
            };
            return Ok(Look {
                events,
                next,
                ..Look::nothing()
            });
        }
        let is_past = |item: &FeedItem| created_at(item.event.id.uuid()) >= self.past();
        let next = if page.caught_up || page.items.last().is_some_and(is_past) {
            Cursor::End
        } else {
            Cursor::Events {
                after: Some(page.next),
            }
        };
        Ok(Look {
            deliveries: Vec::new(),
            events,
            next,
        })
    }

    /// Whether an event of a type that a subscription asks for is one of those selected for it.
    fn wants(&self, subscription: &Subscription, id: EventId, about: About<'_>) -> bool {
        let came = created_at(id.uuid());
        self.selection.takes(about)
            && subscription.spec.wants_project(about.project)
            && self.selection.from.is_none_or(|from| from <= came)
            && came < self.until
    }

    async fn start(&self, after: Option<FeedPosition>) -> Result<FeedStart> {
        let place = match (after, self.selection.from) {
            (None, None) => return Ok(FeedStart::Oldest),
            (Some(after), _) => after,
            (None, Some(from)) => start::before(self.store, self.reach, from).await?,
        };
        Ok(match place {
            FeedPosition::START => FeedStart::Oldest,
            place => FeedStart::Behind(place),
        })
    }

    /// What comes behind an event of this time came too late to be selected.
    fn past(&self) -> DateTime<Utc> {
        let past = self.until.checked_add_signed(start::OUT_OF_ORDER);
        past.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Those that were never made, in the order given: deliveries that go by order are made in it.
    async fn undelivered(&self, id: SubscriptionId, wanted: &[EventId]) -> Result<Vec<EventId>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let workspace = &self.reach.workspace;
        let found = self.store.undelivered(workspace, id, wanted).await?;
        let found: HashSet<EventId> = found.into_iter().collect();
        let wanted = wanted.iter().copied();
        Ok(wanted.filter(|event| found.contains(event)).collect())
    }
}
