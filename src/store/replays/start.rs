//! Where in the feed a backfill begins.

use chrono::{DateTime, Utc};

use crate::domain::ids::created_at;
use crate::domain::reach::Reach;
use crate::store::feed::{FeedFilter, FeedPosition, FeedRequest, FeedStart};
use crate::store::{Result, Store};

/// Events come into the feed in the order of their ids' times but for what lies between the making of an
/// id and its commit, and between the clocks of replicas.
pub(super) const OUT_OF_ORDER: chrono::Duration = chrono::Duration::hours(1);

/// A place before all that came at `from` or later, and not long before: halved towards, so that what is
/// older is not read, however much it is.
pub(super) async fn before(
    store: &dyn Store,
    reach: &Reach,
    from: DateTime<Utc>,
) -> Result<FeedPosition> {
    let workspace = &reach.workspace;
    let from = from
        .checked_sub_signed(OUT_OF_ORDER)
        .unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut low = FeedPosition::START;
    let mut high = end(store, reach).await?;
    while let Some(middle) = low.halfway(high) {
        match store.feed_behind(workspace, middle).await? {
            // What is looked at lies behind the middle, so this comes nearer whichever way it goes.
            Some((place, event)) if place <= high && created_at(event.uuid()) < from => low = place,
            _ => high = middle,
        }
    }
    Ok(low)
}

async fn end(store: &dyn Store, reach: &Reach) -> Result<FeedPosition> {
    let request = FeedRequest {
        start: FeedStart::Latest,
        limit: 1,
        max_bytes: 0,
    };
    let page = store.feed(reach, &FeedFilter::default(), request).await?;
    Ok(page.map_or(FeedPosition::START, |page| page.next))
}
