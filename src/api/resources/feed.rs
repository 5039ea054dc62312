//! `/v1/events`: the feed, what webhooks tell of, for those who come and ask.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::Caller;
use crate::api::auth::caller::ReadEditions;
use crate::api::page::{Asked, Listing, MAX_PAGE_BYTES, Part};
use crate::api::problem_type::ProblemType;
use crate::api::query::{self, Query};
use crate::api::tail::Waited;
use crate::api::{Api, Problem, Result};
use crate::domain::api_key::Scope;
use crate::domain::filter::{EventFilter, EventTypeError};
use crate::domain::ids::{EditionId, ProjectId};
use crate::domain::payload::timestamp;
use crate::domain::reach::Reach;
use crate::domain::subscription::MAX_FILTERS;
use crate::store::{
    FeedFilter, FeedItem, FeedPage, FeedPosition, FeedRequest, FeedStart, Page, StoreError,
};

/// The longest that a request may wait for something to come.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// The cursor of who wants nothing that is there already.
const LATEST: &str = "latest";

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which events, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Params {
    /// Behind this cursor: `next_cursor` of the answer before. `latest`: only what comes from now on.
    /// Without it: from the oldest event that is kept.
    after: Option<String>,
    /// Of these types only, as a subscription names them: one or more of `edition.submitted`,
    /// `edition.*`, `*`, with commas between them. Without it: `*`, every domain event. Operational types
    /// (`delivery.failed`, `subscription.*`) tell of receivers: they need `read:webhooks` too.
    #[param(
        example = "edition.*",
        pattern = r"^(\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?)(,(\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?)){0,99}$"
    )]
    r#type: Option<String>,
    /// About this edition only.
    #[param(
        example = "ed_123",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    edition: Option<String>,
    /// About this project only.
    #[param(
        example = "pr_1",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    project: Option<String>,
    /// At most so many items.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    limit: Option<String>,
    /// Where there is nothing yet: seconds to wait for something to come. It is answered as soon as
    /// something does, and empty otherwise.
    #[param(value_type = Option<u32>, minimum = 0, maximum = 30)]
    wait: Option<String>,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeedItem)]
pub struct View<'a> {
    /// The event's id, the `webhook-id` of its deliveries.
    #[schema(example = "evt_01h455vb4pex5vsknk084sn02q")]
    id: String,
    /// What happened.
    #[schema(example = "edition.submitted")]
    r#type: &'a str,
    /// When it happened.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The project it is about.
    project_id: Option<&'a str>,
    /// The edition it is about.
    edition_id: Option<&'a str>,
    /// What it says, as it was written.
    #[schema(value_type = Value)]
    data: &'a RawValue,
}

/// A page of the feed, as it is documented.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeedPage)]
pub struct Described<'a> {
    /// The events, in the order in which they were committed. It may hold fewer than `limit`, or
    /// none, while there are more.
    data: Vec<View<'a>>,
    /// Send as `after`, to go on. It is there in every answer: a feed has no end.
    next_cursor: String,
}

/// Read the feed
///
/// All that webhooks would tell, in the order in which it was committed; nothing is left out by
/// those who go on from `next_cursor`, however many write at once. With `wait`, a request at the end
/// is held until something comes; it takes one of the key's places as long as it lasts.
#[utoipa::path(
    get, path = "/events", operation_id = "readFeed", tag = "Events",
    params(Params),
    responses((status = 200, description = "What came, or nothing yet.", body = Described)),
    security(("api_key" = ["read:editions"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<ReadEditions>,
    asked: Asked,
    Query(params): Query<Params>,
) -> Result<Response> {
    let filter = params.filter()?;
    if filter.types.iter().any(EventFilter::is_operational) {
        caller.must_have(Scope::ReadWebhooks)?;
    }
    let reach = params.within(caller.reach())?;
    let until = params.until()?;
    let latest = params.after.as_deref() == Some(LATEST);
    let part = Part {
        limit: params.limit,
        after: params.after.filter(|_| !latest),
    };
    let filters = [
        ("type", params.r#type.as_deref()),
        ("edition", params.edition.as_deref()),
        ("project", params.project.as_deref()),
    ];
    let listing = Listing::new(&api, asked, caller.workspace(), part, &filters)?;
    let page = listing.request::<FeedPosition>()?;
    let start = match page.after {
        Some(place) => FeedStart::Behind(place),
        None if latest => FeedStart::Latest,
        None => FeedStart::Oldest,
    };
    let request = FeedRequest {
        start,
        limit: page.limit,
        max_bytes: MAX_PAGE_BYTES,
    };
    let page = follow(&api, &reach, &filter, request, until).await?;
    answer(&listing, page)
}

/// Reads, and where there is nothing, waits and reads again.
async fn follow(
    api: &Api,
    reach: &Reach,
    filter: &FeedFilter,
    request: FeedRequest,
    until: Option<Instant>,
) -> Result<FeedPage> {
    let read = async |start| {
        let request = FeedRequest { start, ..request };
        let page = api.store().feed(reach, filter, request).await?;
        page.ok_or_else(|| Problem::new(ProblemType::CursorExpired))
    };
    let mut page = read(request.start).await?;
    let Some(until) = until else {
        return Ok(page);
    };
    let tail = api.tail();
    while page.items.is_empty()
        && page.caught_up
        && tail.wait(reach, filter, page.next, until).await == Waited::Moved
    {
        let _turn = tail.turn().await;
        page = read(FeedStart::Behind(page.next)).await?;
    }
    Ok(page)
}

fn answer(listing: &Listing, page: FeedPage) -> Result<Response> {
    let page = Page {
        items: page.items,
        next: Some(page.next),
    };
    listing.answer_checked(
        &page,
        |item| item.position,
        |item| View::new(item).map_err(Problem::from),
    )
}

impl Params {
    fn filter(&self) -> Result<FeedFilter> {
        let types = query::made("type", self.r#type.as_deref(), types)?;
        let everything = FeedFilter::default();
        Ok(FeedFilter {
            types: types.unwrap_or(everything.types),
            edition: query::made("edition", self.edition.as_deref(), EditionId::new)?,
        })
    }

    fn within(&self, reach: Reach) -> Result<Reach> {
        let project = query::made("project", self.project.as_deref(), ProjectId::new)?;
        Ok(match project {
            Some(project) => reach.within(project),
            None => reach,
        })
    }

    /// When waiting ends; `None` where nobody waits.
    fn until(&self) -> Result<Option<Instant>> {
        let Some(text) = self.wait.as_deref() else {
            return Ok(None);
        };
        match text.parse().map(Duration::from_secs) {
            Ok(Duration::ZERO) => Ok(None),
            Ok(wait) if wait <= MAX_WAIT => Ok(Some(Instant::now() + wait)),
            _ => Err(Problem::parameter(
                "wait",
                "must be a whole number of seconds from 0 to 30",
            )),
        }
    }
}

fn types(text: &str) -> std::result::Result<Vec<EventFilter>, String> {
    let types: Vec<EventFilter> = text
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, EventTypeError>>()
        .map_err(|error| error.to_string())?;
    if types.len() > MAX_FILTERS {
        return Err(format!("must be at most {MAX_FILTERS} types"));
    }
    Ok(types)
}

impl<'a> View<'a> {
    fn new(item: &'a FeedItem) -> std::result::Result<Self, StoreError> {
        let event = &item.event;
        Ok(Self {
            id: event.id.to_string(),
            r#type: event.event_type.as_str(),
            timestamp: timestamp(event.occurred_at),
            project_id: event.project.as_ref().map(ProjectId::as_str),
            edition_id: event.edition.as_ref().map(EditionId::as_str),
            // It was JSON when it was accepted.
            data: serde_json::from_str(&event.data).map_err(StoreError::corrupt)?,
        })
    }
}
