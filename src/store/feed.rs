//! The feed: a workspace's events in the order of their commits (product.md §5).
//!
//! Positions grow and are never filled in later, so whoever has read up to one has seen everything
//! below it. Whoever waits for more listens to the bell ([`Feed::feed_moves`]) and asks what came
//! ([`Feed::feed_news`]), once for all who wait.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{EventRecord, MAX_LOOKED_AT, Result};
use crate::domain::filter::{EventFilter, EventType};
use crate::domain::ids::{EditionId, EventId, ProjectId, WorkspaceId};
use crate::domain::reach::Reach;

/// The first look takes in so many times what a page holds: enough where matches are common.
const FIRST_LOOK: usize = 4;

/// A place in the feed: behind the event that has this position. As text it always has as many digits,
/// so that a length tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FeedPosition(pub(super) i64);

impl FeedPosition {
    /// Before everything.
    pub const START: Self = Self(0);

    /// The place in the middle of the two; `None` where none lies between them.
    pub(super) fn halfway(self, higher: Self) -> Option<Self> {
        let middle = self.0.midpoint(higher.0);
        (self.0 < middle && middle < higher.0).then_some(Self(middle))
    }
}

impl fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:019}", self.0)
    }
}

impl FromStr for FeedPosition {
    type Err = ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedStart {
    /// With the oldest event that is kept.
    Oldest,
    /// Behind the newest one: with what comes from now on.
    Latest,
    /// Behind a place that was read up to.
    Behind(FeedPosition),
}

/// Which events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedFilter {
    /// Of these types, as a subscription would name them.
    pub types: Vec<EventFilter>,
    /// About this edition only.
    pub edition: Option<EditionId>,
}

impl Default for FeedFilter {
    /// What a subscription to `*` is told: every domain event.
    fn default() -> Self {
        Self {
            types: vec![EventFilter::All],
            edition: None,
        }
    }
}

/// A page that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct FeedRequest {
    /// Where it begins.
    pub start: FeedStart,
    /// At most so many events.
    pub limit: usize,
    /// About so many bytes of events' text at most, or one event.
    pub max_bytes: usize,
}

/// An event in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedItem {
    /// Its place.
    pub position: FeedPosition,
    /// The event.
    pub event: EventRecord,
}

/// A page of the feed.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedPage {
    /// The events, in the order of their commits.
    pub items: Vec<FeedItem>,
    /// Where the next page begins: there is always one.
    pub next: FeedPosition,
    /// Whether nothing was behind that place when it was read.
    pub caught_up: bool,
}

/// What came, without what it says: enough to tell whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedHead {
    /// Whose feed it is in.
    pub workspace: WorkspaceId,
    /// Where.
    pub position: FeedPosition,
    /// The event's type.
    pub event_type: EventType,
    /// The event's project.
    pub project: Option<ProjectId>,
    /// The event's edition.
    pub edition: Option<EditionId>,
}

impl FeedHead {
    /// Whether a page of this reach and filter would hold it.
    pub fn is_for(&self, reach: &Reach, filter: &FeedFilter) -> bool {
        let edition = filter.edition.as_ref();
        self.workspace == reach.workspace
            && reach.sees(self.project.as_ref())
            && edition.is_none_or(|wanted| self.edition.as_ref() == Some(wanted))
            && filter.types.iter().any(|it| it.matches(&self.event_type))
    }
}

/// Reading the feed.
#[async_trait]
pub trait Feed: Send + Sync {
    /// A page. **A short one is not the last one**: one call looks at no more than
    /// [`MAX_LOOKED_AT`] events to find those that match; only [`FeedPage::caught_up`] tells the end.
    ///
    /// `None` where some of what is behind the start was removed: its reader has missed it.
    async fn feed(
        &self,
        reach: &Reach,
        filter: &FeedFilter,
        request: FeedRequest,
    ) -> Result<Option<FeedPage>>;

    /// The first event behind a place: where, and which one; `None` where there is none. One seek in an
    /// index, however long the feed is.
    async fn feed_behind(
        &self,
        workspace: &WorkspaceId,
        place: FeedPosition,
    ) -> Result<Option<(FeedPosition, EventId)>>;

    /// What came behind a place in each of these feeds, in order, at most `limit` of each.
    async fn feed_news(
        &self,
        known: &[(WorkspaceId, FeedPosition)],
        limit: usize,
    ) -> Result<Vec<FeedHead>>;

    /// Changes whenever some feed moved: at once by what was committed through this store, soon by
    /// what other processes committed to the same Postgres (while [`super::Maintenance::listen`]
    /// runs). A ring can be lost: look now and then anyway.
    fn feed_moves(&self) -> watch::Receiver<u64>;
}

/// The bell that rings when some feed moved.
#[derive(Debug, Default)]
pub(super) struct FeedBell(watch::Sender<u64>);

impl FeedBell {
    pub(super) fn ring(&self) {
        self.0.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// Type filters as both databases try them on a row.
#[derive(Debug, Default)]
pub(super) struct WantedTypes {
    /// These types.
    pub(super) exact: Vec<String>,
    /// Those that begin so; the dot is part of it.
    pub(super) below: Vec<String>,
    /// Every domain event.
    pub(super) domain: bool,
}

impl WantedTypes {
    fn of(filters: &[EventFilter]) -> Self {
        let mut wanted = Self::default();
        for filter in filters {
            match filter {
                EventFilter::Exact(event_type) => wanted.exact.push(event_type.to_string()),
                EventFilter::Below(prefix) => wanted.below.push(format!("{prefix}.")),
                EventFilter::All => wanted.domain = true,
            }
        }
        wanted
    }
}

/// A page that is being put together, look by look: bounds that the feed's index serves, and
/// conditions that are tried on one event after the other.
pub(super) struct FeedSearch<'a> {
    pub(super) reach: &'a Reach,
    pub(super) filter: &'a FeedFilter,
    pub(super) types: WantedTypes,
    /// Behind this position.
    pub(super) after: i64,
    /// How many rows to look at, oldest first.
    pub(super) look: usize,
    request: FeedRequest,
    /// How many rows may still be looked at after this look.
    left: usize,
    /// Bytes of text found so far.
    bytes: usize,
    found: Vec<FeedItem>,
}

/// What a look met: all of one state of the database.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What matched and is within the bounds of the page, oldest first.
    pub(super) found: Vec<FeedItem>,
    /// The bytes of its text.
    pub(super) bytes: i64,
    /// How many matched, up to how many were wanted.
    pub(super) matching: i64,
    /// How many rows were looked at.
    pub(super) looked: i64,
    /// The last of them.
    pub(super) last: Option<i64>,
    /// What was removed, up to where.
    pub(super) floor: Option<i64>,
}

/// What a look came to.
pub(super) enum Step {
    /// The answer.
    Done(Option<FeedPage>),
    /// Look again, behind the last row.
    Again,
}

impl<'a> FeedSearch<'a> {
    /// A search from the start on; a start at the end is no search. A page of nothing would never end:
    /// it holds one event at least.
    pub(super) fn new(reach: &'a Reach, filter: &'a FeedFilter, request: FeedRequest) -> Self {
        let request = FeedRequest {
            limit: request.limit.max(1),
            ..request
        };
        let selective = reach.is_restricted() || *filter != FeedFilter::default();
        let times = if selective { FIRST_LOOK } else { 1 };
        let look = request.limit.saturating_mul(times).min(MAX_LOOKED_AT);
        let after = match request.start {
            FeedStart::Behind(place) => place,
            FeedStart::Oldest | FeedStart::Latest => FeedPosition::START,
        };
        Self {
            reach,
            filter,
            types: WantedTypes::of(&filter.types),
            after: after.0,
            look,
            request,
            left: MAX_LOOKED_AT - look,
            bytes: 0,
            found: Vec::new(),
        }
    }

    /// How many more a page takes.
    pub(super) fn wanted(&self) -> usize {
        self.request.limit.saturating_sub(self.found.len())
    }

    /// How many more bytes of text a page takes.
    pub(super) fn room(&self) -> usize {
        self.request.max_bytes.saturating_sub(self.bytes)
    }

    /// Takes in what a look met.
    pub(super) fn take(&mut self, sight: Sight) -> Step {
        let count = |number: i64| usize::try_from(number).unwrap_or_default();
        let floor = sight.floor.unwrap_or(0);
        if self.after < floor && self.misses_what_was_removed() {
            return Step::Done(None);
        }
        let cut = sight.found.len() < count(sight.matching);
        let ended = count(sight.looked) < self.look;
        let edge = sight.last.unwrap_or(self.after).max(floor);
        self.bytes = self.bytes.saturating_add(count(sight.bytes));
        self.found.extend(sight.found);
        let full = cut || self.wanted() == 0 || (self.room() == 0 && !self.found.is_empty());
        if !(full || ended) && self.left > 0 {
            self.after = edge;
            self.look = std::mem::take(&mut self.left);
            return Step::Again;
        }
        let items = std::mem::take(&mut self.found);
        let next = match items.last() {
            Some(last) if full => last.position,
            _ => FeedPosition(edge),
        };
        Step::Done(Some(FeedPage {
            items,
            next,
            caught_up: ended && !full,
        }))
    }

    /// Whoever begins with the oldest misses nothing, as long as nothing was found for it.
    fn misses_what_was_removed(&self) -> bool {
        self.request.start != FeedStart::Oldest || !self.found.is_empty()
    }
}
