//! What a replay's next step puts into the queue.
//!
//! It goes through what is selected, oldest first. A subscription that has its share of the queue is passed
//! over, and where it stood is kept in the cursor; when it has room again it catches up by itself. So a
//! receiver that is down, or slow, holds up nobody's replay but its own.

use std::collections::HashSet;

use super::room::Room;
use crate::domain::ids::{DeliveryId, EventId};
use crate::domain::selection::Selection;
use crate::store::replays::{Candidate, Held, Look, look};
use crate::store::{Cursor, Result, Running, Store};

/// One step: what is put into the queue, and where the replay stands then.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) deliveries: Vec<DeliveryId>,
    pub(super) events: Vec<EventId>,
    pub(super) next: Cursor,
}

impl Step {
    /// How many it puts there.
    pub(super) fn len(&self) -> usize {
        self.deliveries.len() + self.events.len()
    }
}

/// Which deliveries a step looks at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// Those that were passed over.
    Held,
    /// Those that were not seen yet.
    Unseen,
}

impl First {
    /// Each has its turn.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Held => Self::Unseen,
            Self::Unseen => Self::Held,
        }
    }
}

/// The next step, of at most `most`; `None` where there is nothing to do but wait.
pub(super) async fn next(
    store: &dyn Store,
    running: &Running,
    room: &mut Room,
    first: First,
    most: usize,
) -> Result<Option<Step>> {
    let only = running.record.selection.subscription_id;
    if only.is_some_and(|only| room.left(only) == 0) {
        return Ok(None);
    }
    let mut stepping = Stepping {
        store,
        running,
        room,
        most,
    };
    match &running.cursor {
        Cursor::Deliveries { after, held } => {
            let caught_up = match first {
                First::Held => stepping.catch_up(UpTo::Delivery(*after), held).await?,
                First::Unseen => None,
            };
            match caught_up {
                Some(step) => Ok(Some(step)),
                None => stepping.walk(*after, held).await.map(Some),
            }
        }
        Cursor::Held(held) => stepping.catch_up(UpTo::End, held).await,
        Cursor::Events { .. } => stepping.make().await.map(Some),
        Cursor::End => Ok(None),
    }
}

/// Where a subscription that catches up has done so.
#[derive(Clone, Copy, Debug)]
enum UpTo {
    /// With this delivery, the last that was seen of all; `None` is before them.
    Delivery(Option<DeliveryId>),
    /// With its last one.
    End,
}

impl UpTo {
    fn reaches(self, id: DeliveryId) -> bool {
        match self {
            Self::Delivery(last) => Some(id) <= last,
            Self::End => true,
        }
    }
}

struct Stepping<'a> {
    store: &'a dyn Store,
    running: &'a Running,
    room: &'a mut Room,
    most: usize,
}

/// How far a step got through what it saw.
struct Taken {
    deliveries: Vec<DeliveryId>,
    /// Up to here all was taken or passed over.
    upto: Option<DeliveryId>,
    /// Whether it ended before the end of what it saw.
    is_cut: bool,
}

impl Stepping<'_> {
    /// Through what was not seen yet.
    async fn walk(&mut self, after: Option<DeliveryId>, held: &[Held]) -> Result<Step> {
        let selection = &self.running.record.selection;
        let seen = self.look(selection, &self.running.cursor).await?;
        let mut held = held.to_vec();
        let taken = self.take(after, &seen.deliveries, &mut held);
        let next = match seen.next {
            _ if taken.is_cut => Cursor::Deliveries {
                after: taken.upto,
                held,
            },
            Cursor::Deliveries { after, .. } => Cursor::Deliveries { after, held },
            Cursor::End if !held.is_empty() => Cursor::Held(held),
            next => next,
        };
        Ok(Step {
            deliveries: taken.deliveries,
            events: Vec::new(),
            next,
        })
    }

    fn take(
        &mut self,
        after: Option<DeliveryId>,
        seen: &[Candidate],
        held: &mut Vec<Held>,
    ) -> Taken {
        let is_of_one = self.running.record.selection.subscription_id.is_some();
        let mut waits: HashSet<_> = held.iter().map(|it| it.subscription).collect();
        let mut taken = Taken {
            deliveries: Vec::new(),
            upto: after,
            is_cut: false,
        };
        for found in seen {
            let subscription = found.subscription;
            if !waits.contains(&subscription) {
                if taken.deliveries.len() >= self.most {
                    taken.is_cut = true;
                    break;
                }
                if self.room.take(subscription) {
                    taken.deliveries.push(found.id);
                } else if is_of_one {
                    // It goes past nobody, and what is behind its deliveries (events) waits for them.
                    taken.is_cut = true;
                    break;
                } else {
                    waits.insert(subscription);
                    held.push(Held {
                        subscription,
                        after: taken.upto,
                    });
                }
            }
            taken.upto = Some(found.id);
        }
        taken
    }

    /// On with one that was passed over and has room again. It is the last in the row then, so that each
    /// has its turn.
    async fn catch_up(&mut self, upto: UpTo, held: &[Held]) -> Result<Option<Step>> {
        let has_room = |it: &Held| self.room.is_half_empty(it.subscription);
        let Some(index) = held.iter().position(has_room) else {
            return Ok(None);
        };
        let mut held = held.to_vec();
        let mut one = held.remove(index);
        let its_own = Selection {
            subscription_id: Some(one.subscription),
            backfill: false,
            ..self.running.record.selection.clone()
        };
        let mut seen = self.look(&its_own, &Cursor::behind(one.after)).await?;
        seen.deliveries.retain(|found| upto.reaches(found.id));
        let mut deliveries = Vec::new();
        let mut is_cut = false;
        for found in &seen.deliveries {
            if deliveries.len() >= self.most || !self.room.take(one.subscription) {
                is_cut = true;
                break;
            }
            deliveries.push(found.id);
            one.after = Some(found.id);
        }
        let goes_on = match seen.next {
            _ if is_cut => true,
            Cursor::Deliveries {
                after: Some(after), ..
            } if upto.reaches(after) => {
                one.after = Some(after);
                true
            }
            _ => false,
        };
        if goes_on {
            held.push(one);
        }
        let next = match upto {
            UpTo::Delivery(after) => Cursor::Deliveries { after, held },
            UpTo::End if held.is_empty() => Cursor::End,
            UpTo::End => Cursor::Held(held),
        };
        Ok(Some(Step {
            deliveries,
            events: Vec::new(),
            next,
        }))
    }

    /// Deliveries that were never made. They are to one subscription.
    async fn make(&mut self) -> Result<Step> {
        let selection = &self.running.record.selection;
        let only = selection.subscription_id;
        self.most = only.map_or(self.most, |only| self.most.min(self.room.left(only)));
        let seen = self.look(selection, &self.running.cursor).await?;
        if let Some(only) = only {
            self.room.add(only, seen.events.len());
        }
        Ok(Step {
            deliveries: Vec::new(),
            events: seen.events,
            next: seen.next,
        })
    }

    async fn look(&self, selection: &Selection, cursor: &Cursor) -> Result<Look> {
        let record = &self.running.record;
        look(
            self.store,
            &record.reach,
            selection,
            record.created_at,
            cursor,
            self.most,
        )
        .await
    }
}
