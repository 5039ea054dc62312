//! What a list of deliveries is searched for, the same in both databases.

use std::time::Duration;

use uuid::Uuid;

use super::identity::delivery_id;
use super::{DeliveryFilter, DeliveryRecord, MAX_LOOKED_AT, Page, PageRequest};
use crate::domain::delivery::DeliveryState;
use crate::domain::ids::{DeliveryId, EventId, SubscriptionId, created_at, first_at};
use crate::domain::reach::Reach;

/// The first look takes in so many times what a page holds: enough where matches are common.
const FIRST_LOOK: usize = 4;

/// A filter and a place in the list, as bounds on ids, which an index serves, and conditions, which
/// are tried on one row after the other.
pub(super) struct Search<'a> {
    pub(super) reach: &'a Reach,
    pub(super) filter: &'a DeliveryFilter,
    /// These deliveries only.
    pub(super) ids: Option<Vec<Uuid>>,
    /// Those of these subscriptions, which are all that the workspace has: an index leads to what waits for
    /// them, where a walk over the queue would meet everybody's.
    pub(super) among: Option<Vec<Uuid>>,
    /// Not below.
    pub(super) from: Option<Uuid>,
    /// Below this.
    pub(super) below: Option<Uuid>,
    /// How many rows to look at, newest first.
    pub(super) look: usize,
    /// How many a page holds.
    limit: usize,
    /// How many rows may still be looked at after this look.
    left: usize,
    found: Vec<DeliveryRecord>,
}

/// What a look met.
pub(super) struct Seen {
    /// What matched, newest first, at most as many as were wanted.
    pub(super) found: Vec<DeliveryRecord>,
    /// The last row looked at, where there may be others behind it.
    pub(super) edge: Option<DeliveryId>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        reach: &'a Reach,
        filter: &'a DeliveryFilter,
        page: PageRequest<DeliveryId>,
    ) -> Self {
        let wanted = page.limit.saturating_add(1);
        let bounded = filter.event_type.is_some()
            || filter.edition.is_some()
            || filter.state.is_some()
            || reach.is_restricted();
        let look = if bounded {
            wanted.saturating_mul(FIRST_LOOK).min(MAX_LOOKED_AT)
        } else {
            wanted
        };
        // The list goes down: what bounds it from above is its beginning.
        let until = filter.until.map(first_at);
        let after = page.after.map(|id| id.uuid());
        Self {
            reach,
            filter,
            ids: None,
            among: None,
            from: filter.since.map(first_at),
            below: [until, after].into_iter().flatten().min(),
            look,
            limit: page.limit,
            left: if bounded { MAX_LOOKED_AT - look } else { 0 },
            found: Vec::new(),
        }
    }

    /// The deliveries of an event are known by the subscriptions that there are. All have its time:
    /// bounds that keep a planner from walking the whole list for them.
    pub(super) fn of_event(
        &mut self,
        event: EventId,
        subscriptions: impl IntoIterator<Item = SubscriptionId>,
    ) {
        let ids = subscriptions.into_iter();
        self.ids = Some(ids.map(|id| delivery_id(event, id).uuid()).collect());
        let made = created_at(event.uuid());
        let (first, behind) = (first_at(made), first_at(made + Duration::from_millis(1)));
        self.from = Some(self.from.map_or(first, |from| from.max(first)));
        self.below = Some(self.below.map_or(behind, |below| below.min(behind)));
    }

    /// Whether what waits is searched for in the whole workspace.
    pub(super) fn is_of_workspace(&self) -> bool {
        self.in_queue() && self.filter.subscription.is_none() && self.ids.is_none()
    }

    /// How many more that match are needed: one more than a page holds tells that there are others.
    pub(super) fn wanted(&self) -> usize {
        self.limit
            .saturating_add(1)
            .saturating_sub(self.found.len())
    }

    /// Whether the queue can hold what is searched.
    pub(super) fn in_queue(&self) -> bool {
        self.filter.state.is_none_or(|state| !state.is_final())
    }

    /// Whether the history can.
    pub(super) fn in_history(&self) -> bool {
        self.filter.state.is_none_or(DeliveryState::is_final)
    }

    /// Whether the index on what did not succeed serves.
    pub(super) fn not_succeeded(&self) -> bool {
        !self.in_queue() && self.filter.state != Some(DeliveryState::Succeeded)
    }

    /// Takes in what a look met. `Some` is the page; `None` asks for another look, behind the last
    /// row. Each look sees the database at its own time, as two pages do: a delivery that moves from
    /// the queue to the history meanwhile keeps its place in the list, and is seen by the look whose
    /// place that is.
    pub(super) fn take(&mut self, seen: Seen) -> Option<Page<DeliveryRecord, DeliveryId>> {
        self.found.extend(seen.found);
        match seen.edge {
            Some(edge) if self.wanted() > 0 && self.left > 0 => {
                self.below = Some(edge.uuid());
                self.look = std::mem::take(&mut self.left);
                None
            }
            edge => {
                let found = std::mem::take(&mut self.found);
                Some(Page::of_search(found, self.limit, edge, |record| record.id))
            }
        }
    }
}
