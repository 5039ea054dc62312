//! `forge-dispatch deliveries`: what was and is delivered, what each attempt met, and sending again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{List, fields, or_dash, table};
use super::parse::{self, PageArgs, WorkspaceArgs};
use super::{CliError, Context};
use crate::domain::attempt::ErrorClass;
use crate::domain::ids::DeliveryId;
use crate::domain::payload::timestamp;
use crate::domain::reach::Reach;
use crate::domain::subscription::FieldError;
use crate::store::{AttemptRecord, DeliveryFilter, DeliveryRecord, Page, PageRequest, Store};

mod replay;
mod replays;

pub use replay::ReplayArgs;
pub use replays::ReplaysCommand;

/// How many attempts are read at once: a schedule's worth.
const ATTEMPTS_PAGE: usize = 100;

/// What to see of deliveries.
#[derive(Clone, Debug, Subcommand)]
pub enum DeliveriesCommand {
    /// List deliveries, newest first.
    List(ListArgs),
    /// Show one delivery and its attempts.
    Show(ShowArgs),
    /// Send again, or sooner: one delivery, those of an event, or those that are selected. Many are
    /// counted first, and sent by the running service.
    Replay(ReplayArgs),
    /// List, show and cancel replays of many.
    #[command(subcommand)]
    Replays(ReplaysCommand),
}

/// Which deliveries.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only those of this subscription.
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,

    /// Only those of this event.
    #[arg(long, value_name = "ID")]
    event: Option<String>,

    /// Only those of events of this type (`edition.submitted`).
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// Only those of events about this edition.
    #[arg(long, value_name = "ID")]
    edition: Option<String>,

    /// Only those made then or later: a time of RFC 3339, or how long ago (`2h`, `7d`).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only those made before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    /// Only those in this state: `pending`, `in_flight`, `succeeded`, `failed` or `cancelled`.
    #[arg(long)]
    state: Option<String>,

    #[command(flatten)]
    page: PageArgs,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// Which delivery.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The delivery (`dlv_…`).
    id: String,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// A delivery as it is printed.
#[derive(Debug, Serialize)]
struct View {
    id: String,
    event_id: String,
    event_type: String,
    project_id: Option<String>,
    edition_id: Option<String>,
    subscription_id: String,
    state: &'static str,
    attempts: u32,
    created_at: String,
    due_at: Option<String>,
    settled_at: Option<String>,
}

/// An attempt as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct AttemptView {
    at: String,
    duration_ms: u128,
    trigger: &'static str,
    status: Option<u16>,
    error: Option<&'static str>,
    lease_lost: bool,
    response_headers: Vec<(String, String)>,
    response_excerpt: String,
}

#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    delivery: View,
    attempt_log: Vec<AttemptView>,
}

/// Runs it.
pub async fn run(command: DeliveriesCommand, context: &Context) -> Result<(), CliError> {
    match command {
        DeliveriesCommand::List(args) => list(args, context).await,
        DeliveriesCommand::Show(args) => show(args, context).await,
        DeliveriesCommand::Replay(args) => replay::run(args, context).await,
        DeliveriesCommand::Replays(command) => replays::run(command, context).await,
    }
}

async fn list(args: ListArgs, context: &Context) -> Result<(), CliError> {
    let reach = Reach::all(&args.workspace.id()?);
    let request = args.page.request()?;
    let filter = args.filter(context.clock.now())?;
    let page = context
        .with_store(async |store| search(&**store, &reach, &filter, request).await)
        .await?;
    let list = List::new(&page, View::new);
    context.output.print(&list, |list| {
        let header = ["ID", "EVENT", "SUBSCRIPTION", "STATE", "ATTEMPTS", "WHEN"];
        list.describe("deliveries", &header, View::row)
    })
}

impl ListArgs {
    fn filter(&self, now: DateTime<Utc>) -> Result<DeliveryFilter, FieldError> {
        fn read<T>(
            argument: Option<&String>,
            read: impl Fn(&str) -> Result<T, FieldError>,
        ) -> Result<Option<T>, FieldError> {
            argument.map(|text| read(text)).transpose()
        }
        Ok(DeliveryFilter {
            subscription: read(self.subscription.as_ref(), |text| {
                parse::id("subscription", text)
            })?,
            event: read(self.event.as_ref(), |text| parse::id("event", text))?,
            event_type: read(self.event_type.as_ref(), parse::event_type)?,
            edition: read(self.edition.as_ref(), |text| parse::value("edition", text))?,
            state: read(self.state.as_ref(), |text| parse::value("state", text))?,
            since: read(self.since.as_ref(), |text| parse::time("since", text, now))?,
            until: read(self.until.as_ref(), |text| parse::time("until", text, now))?,
        })
    }
}

/// A full page, or all that there is: the store looks at so many deliveries a call and no more, and
/// whoever waits at a terminal wants an answer and not a hint where to go on.
async fn search(
    store: &dyn Store,
    reach: &Reach,
    filter: &DeliveryFilter,
    request: PageRequest<DeliveryId>,
) -> Result<Page<DeliveryRecord, DeliveryId>, CliError> {
    let mut found = Page {
        items: Vec::new(),
        next: request.after,
    };
    loop {
        let rest = PageRequest {
            limit: request.limit - found.items.len(),
            after: found.next,
        };
        let page = store.deliveries(reach, filter, rest).await?;
        found.items.extend(page.items);
        found.next = page.next;
        if found.next.is_none() || found.items.len() >= request.limit {
            return Ok(found);
        }
    }
}

async fn show(args: ShowArgs, context: &Context) -> Result<(), CliError> {
    let reach = Reach::all(&args.workspace.id()?);
    let id = parse::id("id", &args.id)?;
    let found = context
        .with_store(async |store| {
            let Some(delivery) = store.delivery(&reach, id).await? else {
                return Ok(None);
            };
            Ok(Some((delivery, attempts(&**store, &reach, id).await?)))
        })
        .await?;
    let Some((delivery, attempts)) = found else {
        return Err(CliError::not_found("delivery", &args.id, &args.workspace));
    };
    let detail = Detail {
        delivery: View::new(&delivery),
        attempt_log: attempts.into_iter().map(AttemptView::from).collect(),
    };
    context.output.print(&detail, Detail::describe)
}

/// All attempts, oldest first: a schedule bounds how many there are.
async fn attempts(
    store: &dyn Store,
    reach: &Reach,
    id: DeliveryId,
) -> Result<Vec<AttemptRecord>, CliError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let request = PageRequest {
            limit: ATTEMPTS_PAGE,
            after,
        };
        let page = store.attempts(reach, id, request).await?;
        all.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

impl View {
    fn new(record: &DeliveryRecord) -> Self {
        Self {
            id: record.id.to_string(),
            event_id: record.event_id.to_string(),
            event_type: record.event_type.to_string(),
            project_id: record.project.as_ref().map(ToString::to_string),
            edition_id: record.edition.as_ref().map(ToString::to_string),
            subscription_id: record.subscription_id.to_string(),
            state: record.state.as_str(),
            attempts: record.attempts,
            created_at: timestamp(record.created_at),
            due_at: record.due_at.map(timestamp),
            settled_at: record.settled_at.map(timestamp),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.event_type.clone(),
            self.subscription_id.clone(),
            self.state.to_owned(),
            self.attempts.to_string(),
            self.when(),
        ]
    }

    fn describe(&self) -> String {
        fields(&[
            ("id", self.id.clone()),
            ("event", self.event_id.clone()),
            ("type", self.event_type.clone()),
            ("project", or_dash(self.project_id.as_ref())),
            ("edition", or_dash(self.edition_id.as_ref())),
            ("subscription", self.subscription_id.clone()),
            ("state", self.state.to_owned()),
            ("attempts", self.attempts.to_string()),
            ("created", self.created_at.clone()),
            ("due", or_dash(self.due_at.as_ref())),
            ("settled", or_dash(self.settled_at.as_ref())),
        ])
    }

    /// The instant that matters in its state.
    fn when(&self) -> String {
        match (&self.settled_at, &self.due_at) {
            (Some(settled), _) => settled.clone(),
            (None, Some(due)) => format!("due {due}"),
            (None, None) => "-".to_owned(),
        }
    }
}

impl From<AttemptRecord> for AttemptView {
    fn from(record: AttemptRecord) -> Self {
        let attempt = record.attempt;
        Self {
            at: timestamp(attempt.at),
            duration_ms: attempt.duration.as_millis(),
            trigger: attempt.trigger.as_str(),
            status: attempt.status,
            error: attempt.error.map(ErrorClass::as_str),
            lease_lost: record.lease_lost,
            response_headers: attempt.response_headers,
            response_excerpt: attempt.response_excerpt,
        }
    }
}

impl AttemptView {
    /// Whether the receiver took it.
    pub(super) fn succeeded(&self) -> bool {
        self.error.is_none()
    }

    /// A table of attempts.
    pub(super) fn table<'a>(attempts: impl IntoIterator<Item = &'a Self>) -> String {
        let header = ["AT", "TOOK", "TRIGGER", "STATUS", "OUTCOME", "ANSWER"];
        table(&header, attempts.into_iter().map(Self::row))
    }

    fn row(&self) -> Vec<String> {
        let mut outcome = self.error.unwrap_or("succeeded").to_owned();
        if self.lease_lost {
            outcome.push_str(" (lease lost)");
        }
        let millis = u64::try_from(self.duration_ms).unwrap_or(u64::MAX);
        vec![
            self.at.clone(),
            humantime::format_duration(Duration::from_millis(millis)).to_string(),
            self.trigger.to_owned(),
            or_dash(self.status),
            outcome,
            beginning(&self.response_excerpt),
        ]
    }
}

/// As much of an answer as a table can bear; `--json` has all that was kept.
fn beginning(excerpt: &str) -> String {
    const CHARS: usize = 60;
    match excerpt.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &excerpt[..end]),
        None => excerpt.to_owned(),
    }
}

impl Detail {
    fn describe(&self) -> String {
        let mut text = self.delivery.describe();
        if !self.attempt_log.is_empty() {
            text.push('\n');
            text.push_str(&AttemptView::table(&self.attempt_log));
        }
        text
    }
}
