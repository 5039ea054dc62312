//! Work that this process knows of by itself: what it left in the queue, and what it made way for. It is
//! claimed without a look at the queue, which costs something for each subscription that there is.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::delivery::Lane;
use crate::domain::ids::SubscriptionId;
use crate::wake::Wake;

/// Where there is work.
pub(super) type Work = (SubscriptionId, Lane);

/// What was told since somebody listened; however often the same, once.
#[derive(Debug, Default)]
pub(super) struct Tips {
    told: Mutex<HashSet<Work>>,
    bell: Wake,
}

impl Tips {
    /// Tells of work that is committed.
    pub(super) fn tell(&self, work: impl IntoIterator<Item = Work>) {
        let is_news = {
            let mut told = self.lock();
            told.extend(work);
            !told.is_empty()
        };
        if is_news {
            self.bell.ring();
        }
    }

    /// Takes what was told.
    pub(super) fn take(&self) -> HashSet<Work> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether this was told since.
    pub(super) fn names(&self, work: Work) -> bool {
        self.lock().contains(&work)
    }

    /// Waits until something is told.
    pub(super) async fn told(&self) {
        self.bell.rung().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Work>> {
        // Every change under this lock is whole; a panic elsewhere does not spoil it.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
