//! What an index serves of a selection, the same in both databases.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::delivery::DeliveryState;
use crate::domain::ids::{DeliveryId, EventId, SubscriptionId, first_at};
use crate::domain::selection::Selection;
use crate::store::PageRequest;
use crate::store::identity::delivery_id;

/// Bounds on the ids of deliveries, which go by the time of their events.
pub(in crate::store) struct Bounds {
    pub(in crate::store) subscription: Option<Uuid>,
    /// Those of these, which are all that the workspace has.
    pub(in crate::store) among: Option<Vec<Uuid>>,
    /// These only.
    pub(in crate::store) ids: Option<Vec<Uuid>>,
    /// Behind this one.
    pub(in crate::store) after: Option<Uuid>,
    /// Not below.
    pub(in crate::store) from: Uuid,
    /// Below this.
    pub(in crate::store) below: Uuid,
    pub(in crate::store) in_queue: bool,
    pub(in crate::store) in_history: bool,
    /// Whether the index on what did not succeed serves.
    pub(in crate::store) not_succeeded: bool,
    /// How many rows to look at.
    pub(in crate::store) look: usize,
}

impl Bounds {
    /// `subscriptions` are all that the selected event can have been delivered to.
    pub(in crate::store) fn of(
        selection: &Selection,
        until: DateTime<Utc>,
        page: PageRequest<DeliveryId>,
        subscriptions: Option<(EventId, Vec<SubscriptionId>)>,
    ) -> Self {
        let ids = subscriptions.map(|(event, subscriptions)| {
            let ids = subscriptions.into_iter();
            ids.map(|id| delivery_id(event, id).uuid()).collect()
        });
        Self {
            subscription: selection.subscription_id.map(|id| id.uuid()),
            among: None,
            ids,
            after: page.after.map(|id| id.uuid()),
            from: selection.from.map_or(Uuid::nil(), first_at),
            below: first_at(until),
            in_queue: selection.in_queue(),
            in_history: selection.in_history(),
            not_succeeded: !selection.states.contains(&DeliveryState::Succeeded),
            look: page.limit.max(1),
        }
    }

    /// Whether what waits is looked for in the whole workspace.
    pub(in crate::store) fn is_of_workspace(&self) -> bool {
        self.in_queue && self.subscription.is_none() && self.ids.is_none()
    }
}
