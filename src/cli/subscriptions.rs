//! `forge-dispatch subscriptions`: register, list, show, test, change, give a new secret, delete.

use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::list::{Columns, ListArgs};
use super::parse::{self, WorkspaceArgs};
use super::{CliError, Context};
use crate::domain::filter::EventFilter;
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::{
    BodyFormat, FieldError, Subscription, SubscriptionSpec, TargetUrl,
};
use crate::egress::{SystemLookup, WebhookClient};
use crate::store::NewSubscription;

mod change;
mod stats;
mod test_send;
mod view;

pub use change::{RotateArgs, UpdateArgs};
pub use stats::StatsArgs;
use view::View;

/// What to do with subscriptions.
#[derive(Clone, Debug, Subcommand)]
pub enum SubscriptionsCommand {
    /// Register a subscription. Its secret is shown once, now.
    Create(CreateArgs),
    /// List subscriptions, newest first.
    List(ListArgs),
    /// Show one subscription.
    Show(OneArgs),
    /// See how a subscription goes: what waits for it, and what was attempted of late; or what was
    /// attempted for all of a workspace's together.
    Stats(StatsArgs),
    /// Send a signed `ping` to a subscription now, from this machine, and show what came of it. It is
    /// not tried again; the exit code is 1 where the receiver did not take it.
    Test(OneArgs),
    /// Change a subscription: what is not named stays as it is.
    Update(UpdateArgs),
    /// Give a subscription a new secret. It is shown once, now; the old one signs beside it for a
    /// while.
    RotateSecret(RotateArgs),
    /// Delete a subscription. What still waits for it is cancelled.
    Delete(OneArgs),
}

/// What an admin says of a new subscription.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Where to send: an https URL that leads to a public address.
    #[arg(long)]
    url: String,

    /// Which events: a type (`edition.submitted`), all below a prefix (`edition.*`), or `*`. May
    /// be repeated.
    #[arg(long = "event-type", value_name = "TYPE", required = true)]
    event_types: Vec<String>,

    /// Only events of this project. May be repeated.
    #[arg(long = "project", value_name = "ID")]
    projects: Vec<String>,

    /// The body: `standard`, `kazinex` or `cloudevents`.
    #[arg(long, default_value = "standard")]
    format: String,

    /// A header that goes with each delivery, as `Name: value`; the value is kept sealed and not shown
    /// again. May be repeated.
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,

    /// Requests in flight at once, from all replicas together; the deployment's limit otherwise.
    #[arg(long, value_name = "N")]
    max_concurrency: Option<NonZeroU32>,

    /// Deliveries a second, from all replicas together; no limit otherwise.
    #[arg(long, value_name = "N")]
    rate_limit: Option<NonZeroU32>,

    /// When to try again (`5s,5m,1h`), or `none`; the deployment's schedule otherwise.
    #[arg(long, value_name = "DELAYS")]
    retry_schedule: Option<String>,

    /// `edition`: the events of an edition one by one, in the order in which they were accepted; or
    /// `none`.
    #[arg(long, default_value = "none")]
    ordering: String,

    /// The signing secret, if you bring one: `whsec_` and 24 to 64 bytes in base64, or, with
    /// `kazinex`, any 16 to 128 characters.
    #[arg(long)]
    secret: Option<String>,

    /// A note for people.
    #[arg(long, default_value = "")]
    description: String,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// Which subscription.
#[derive(Clone, Debug, Args)]
pub struct OneArgs {
    /// The subscription (`sub_…`).
    id: String,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

#[derive(Serialize)]
struct Deleted {
    id: String,
    deleted: bool,
}

/// Runs it.
pub async fn run(command: SubscriptionsCommand, context: &Context) -> Result<(), CliError> {
    match command {
        SubscriptionsCommand::Create(args) => create(args, context).await,
        SubscriptionsCommand::List(args) => list(args, context).await,
        SubscriptionsCommand::Show(args) => show(args, context).await,
        SubscriptionsCommand::Stats(args) => stats::run(args, context).await,
        SubscriptionsCommand::Test(args) => test_send::run(args, context).await,
        SubscriptionsCommand::Update(args) => change::update(args, context).await,
        SubscriptionsCommand::RotateSecret(args) => change::rotate_secret(args, context).await,
        SubscriptionsCommand::Delete(args) => delete(args, context).await,
    }
}

async fn create(args: CreateArgs, context: &Context) -> Result<(), CliError> {
    let workspace = args.workspace.id()?;
    let spec = spec(&args)?;
    let secret = match &args.secret {
        Some(text) => SigningSecret::bring(text, spec.format)?,
        None => SigningSecret::generate(context.entropy.bytes()),
    };
    check_target(&spec.url, context).await?;

    let now = context.clock.now();
    let new = NewSubscription {
        id: context.entropy.id(now),
        workspace,
        spec,
        secret_id: context.entropy.id(now),
        secret,
    };
    let act = context.act();
    let created = context
        .with_store(async |store| {
            Ok(store
                .create_subscription(&new, &act, None)
                .await?
                .created()?)
        })
        .await?;
    print_with_secret(&created, &new.secret, context)
}

/// Whether the address may be dialled.
async fn check_target(url: &TargetUrl, context: &Context) -> Result<(), CliError> {
    let clock = Arc::clone(&context.clock);
    WebhookClient::new(&context.config.egress, Arc::new(SystemLookup), clock)
        .context("egress")?
        .check_target(url)
        .await?;
    Ok(())
}

fn print_with_secret(
    subscription: &Subscription,
    secret: &SigningSecret,
    context: &Context,
) -> Result<(), CliError> {
    let view = View::with_secret(subscription, secret, context.clock.now());
    context.output.print(&view, |view| {
        format!(
            "{}\nThe secret is shown this once only. Receivers verify the signature with it.",
            view.describe()
        )
    })
}

fn event_types(texts: &[String]) -> Result<Vec<EventFilter>, FieldError> {
    texts
        .iter()
        .map(|text| parse::value("event_types", text))
        .collect()
}

/// What was asked for, checked field by field.
fn spec(args: &CreateArgs) -> Result<SubscriptionSpec, FieldError> {
    let spec = SubscriptionSpec {
        url: TargetUrl::new(&args.url)?,
        description: args.description.clone(),
        event_types: event_types(&args.event_types)?,
        project_ids: parse::project_ids(&args.projects)?,
        format: args.format.parse::<BodyFormat>()?,
        headers: parse::headers(&args.headers)?,
        max_concurrency: args.max_concurrency,
        rate_limit: args.rate_limit,
        retry_schedule: args
            .retry_schedule
            .as_deref()
            .map(parse::retry_schedule)
            .transpose()?,
        ordering: args.ordering.parse()?,
    };
    spec.check()?;
    Ok(spec)
}

async fn list(args: ListArgs, context: &Context) -> Result<(), CliError> {
    let now = context.clock.now();
    let columns = Columns {
        what: "subscriptions",
        header: &["ID", "URL", "EVENTS", "FORMAT", "STATUS", "CIRCUIT"],
        row: View::row,
    };
    args.print(
        context,
        async |store, reach, page| store.subscriptions(reach, page).await,
        |found| View::new(found, now),
        columns,
    )
    .await
}

async fn show(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = parse::id("id", &args.id)?;
    let found = context
        .with_store(async |store| Ok(store.subscription(&reach, id).await?))
        .await?;
    let subscription = found.ok_or_else(|| missing(&args.id, &args.workspace))?;
    context.output.print(
        &View::new(&subscription, context.clock.now()),
        View::describe,
    )
}

async fn delete(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = parse::id("id", &args.id)?;
    let act = context.act();
    let deleted = context
        .with_store(async |store| Ok(store.delete_subscription(&reach, id, None, &act).await?))
        .await?;
    if !deleted {
        return Err(missing(&args.id, &args.workspace));
    }
    let deleted = Deleted {
        id: id.to_string(),
        deleted,
    };
    context
        .output
        .print(&deleted, |deleted| format!("deleted {}", deleted.id))
}

fn missing(id: &str, workspace: &WorkspaceArgs) -> CliError {
    CliError::not_found("subscription", id, workspace)
}
