//! Waiting for a feed to move: one look for all who wait (product.md §5, long polls).
//!
//! Whoever waits sits in the room of its workspace. While anybody does, one task looks what came, for
//! all rooms at once: when the store's bell rings, and every second or so behind it. It tells each
//! room what came there, and who hears of something for itself goes and reads. So a commit costs one
//! look, however many wait, and a page is read only for an answer.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock::pause;
use crate::domain::ids::WorkspaceId;
use crate::domain::reach::Reach;
use crate::entropy::Entropy;
use crate::store::{FeedFilter, FeedHead, FeedPosition, Store};
use crate::wake::Wake;

/// How long a ring that was lost is waited for, give or take a fifth.
const POLL: Duration = Duration::from_secs(1);

/// The shortest time between two looks.
const GAP: Duration = Duration::from_millis(25);

/// What one look takes in of a feed; what is behind it, the next one does.
const HEADS: usize = 500;

/// How many looks a room remembers for those who have not heard of them yet.
const MEMORY: usize = 8;

/// How many of those who were woken read at once: a thousand that wake together must leave the
/// database's connections to others.
const READERS: usize = 2;

/// Where those who wait are told; clones share it.
#[derive(Clone)]
pub struct Tail(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    entropy: Entropy,
    /// Ends every wait.
    stop: CancellationToken,
    rooms: Mutex<Rooms>,
    /// Somebody sat down in an empty room, or there is more than one look took in.
    look: Wake,
    readers: Semaphore,
}

#[derive(Default)]
struct Rooms {
    open: HashMap<WorkspaceId, Room>,
    /// Whether the task runs that looks for them.
    watched: bool,
}

struct Room {
    /// Up to where it was told.
    known: FeedPosition,
    told: broadcast::Sender<Arc<[FeedHead]>>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Something came, or may have come.
    Moved,
    /// Nothing came in time, or the program is about to end.
    InVain,
}

impl Tail {
    /// Nobody waits yet. `stop` ends all waiting at once.
    pub fn new(store: Arc<dyn Store>, entropy: Entropy, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            store,
            entropy,
            stop,
            rooms: Mutex::default(),
            look: Wake::default(),
            readers: Semaphore::new(READERS),
        }))
    }

    /// Waits until something came behind `place` that a page of this reach and filter would hold.
    /// Everything up to `place` must have been read.
    pub async fn wait(
        &self,
        reach: &Reach,
        filter: &FeedFilter,
        place: FeedPosition,
        until: Instant,
    ) -> Waited {
        tokio::select! {
            () = self.news(reach, filter, place) => Waited::Moved,
            () = sleep_until(until) => Waited::InVain,
            () = self.0.stop.cancelled() => Waited::InVain,
        }
    }

    /// A turn to read, for who was woken. (`None` would mean that turns are no longer given.)
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.0.readers.acquire().await.ok()
    }

    async fn news(&self, reach: &Reach, filter: &FeedFilter, place: FeedPosition) {
        let Some(mut seat) = self.sit(&reach.workspace, place) else {
            return;
        };
        let is_new = |head: &FeedHead| head.position > place && head.is_for(reach, filter);
        loop {
            match seat.recv().await {
                Ok(heads) if heads.iter().any(is_new) => return,
                Ok(_) => {}
                // More came than was heard of.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            }
        }
    }

    /// A seat in the workspace's room; `None` where the room was told of more already.
    fn sit(
        &self,
        workspace: &WorkspaceId,
        place: FeedPosition,
    ) -> Option<broadcast::Receiver<Arc<[FeedHead]>>> {
        let mut rooms = self.rooms();
        let room = rooms.open.entry(workspace.clone()).or_insert_with(|| {
            // What came since the place was read is to be told at once.
            self.0.look.ring();
            Room {
                known: place,
                told: broadcast::Sender::new(MEMORY),
            }
        });
        if room.known > place {
            return None;
        }
        let seat = room.told.subscribe();
        if !std::mem::replace(&mut rooms.watched, true) {
            tokio::spawn(self.clone().watch());
        }
        Some(seat)
    }

    /// Looks what came until nobody waits.
    async fn watch(self) {
        let shared = &self.0;
        let mut moves = shared.store.feed_moves();
        while let Some(known) = self.taken() {
            // Before the look: what rings during it is looked for again.
            moves.mark_unchanged();
            match shared.store.feed_news(&known, HEADS).await {
                Ok(heads) => self.tell(heads),
                Err(error) => tracing::debug!(%error, "what came in the feeds is not known"),
            }
            let jitter = 0.8 + 0.4 * shared.entropy.unit();
            let rest = async {
                pause(GAP).await;
                tokio::select! {
                    _ = moves.changed() => {}
                    () = shared.look.rung() => {}
                    () = pause(POLL.mul_f64(jitter)) => {}
                }
            };
            tokio::select! {
                () = rest => {}
                () = shared.stop.cancelled() => return,
            }
        }
    }

    /// The rooms in which somebody sits, and up to where each was told; the others are closed. `None`
    /// where there is none: whoever sits down next has the task started again.
    fn taken(&self) -> Option<Vec<(WorkspaceId, FeedPosition)>> {
        let mut rooms = self.rooms();
        rooms.open.retain(|_, room| room.told.receiver_count() > 0);
        rooms.watched = !rooms.open.is_empty();
        let known = |(workspace, room): (&WorkspaceId, &Room)| (workspace.clone(), room.known);
        rooms
            .watched
            .then(|| rooms.open.iter().map(known).collect())
    }

    /// Tells each room what came there.
    fn tell(&self, heads: Vec<FeedHead>) {
        let mut by_workspace: HashMap<WorkspaceId, Vec<FeedHead>> = HashMap::new();
        for head in heads {
            let told = by_workspace.entry(head.workspace.clone()).or_default();
            told.push(head);
        }
        let mut rooms = self.rooms();
        for (workspace, heads) in by_workspace {
            let (Some(room), Some(last)) = (rooms.open.get_mut(&workspace), heads.last()) else {
                continue;
            };
            room.known = last.position;
            if heads.len() >= HEADS {
                self.0.look.ring();
            }
            // An error says that nobody sits there any more.
            drop(room.told.send(heads.into()));
        }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        // A poisoned list is still one: nothing is half written under this lock.
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tail")
    }
}
