//! `forge-dispatch events publish`: an event or a snapshot from the command line, through the broker
//! where there is one, straight into the store otherwise.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde::Serialize;

use super::parse::WorkspaceArgs;
use super::{CliError, Context};
use crate::broker;
use crate::domain::event::Event;
use crate::domain::payload::Payload;
use crate::domain::snapshot::Snapshot;
use crate::store::intake::NoDispatch;
use crate::store::{AcceptOutcome, Applied, CoreFiles, Leasing};

mod compose;

use compose::{Content, Message, compose};

/// What to do with events.
#[derive(Clone, Debug, Subcommand)]
pub enum EventsCommand {
    /// Publish one event, or how an entity stands (`edition.snapshot`, `edition.deleted`).
    Publish(PublishArgs),
}

/// The event.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// Its type (`edition.submitted`). Snapshots and deletions go to the exchange of snapshots.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: String,

    /// Its data: JSON, `@FILE` to read it from a file, `@-` from standard input.
    #[arg(long, value_name = "JSON|@FILE")]
    data: String,

    /// Its id; an event of the same source and id is taken once. A new one otherwise.
    #[arg(long)]
    id: Option<String>,

    /// Who made it.
    #[arg(long, default_value = "/forge-dispatch/cli")]
    source: String,

    /// The project it is about.
    #[arg(long, value_name = "ID")]
    project: Option<String>,

    /// What it is about.
    #[arg(long)]
    subject: Option<String>,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// What became of it.
#[derive(Serialize)]
struct Published {
    /// The event's own id, by which a second arrival is known.
    id: String,
    source: String,
    r#type: String,
    /// `broker` or `store`.
    to: &'static str,
    /// `published`, `stored` or `duplicate`.
    outcome: &'static str,
    /// Our id, the `webhook-id`; only the store knows it, and only of events.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

/// Runs it.
pub async fn run(command: EventsCommand, context: &Context) -> Result<(), CliError> {
    let EventsCommand::Publish(args) = command;
    let message = compose(&args, context)?;
    let published = match &context.config.amqp.url {
        Some(url) => to_broker(url, &message, context).await?,
        None => to_store(message, context).await?,
    };
    context.output.print(&published, |published| {
        let Published { id, r#type, to, .. } = published;
        match published.outcome {
            "duplicate" => format!("{id} ({type}) was known already: nothing changed"),
            outcome => format!("{outcome} {id} ({type}) to the {to}"),
        }
    })
}

/// Gives the message to the broker as the core would, and waits until it is kept there.
async fn to_broker(
    url: &SecretString,
    message: &Message,
    context: &Context,
) -> Result<Published, CliError> {
    let amqp = &context.config.amqp;
    let exchange = match message.holds {
        Content::Event(_) => &amqp.events_exchange,
        Content::State(_) => &amqp.snapshots_exchange,
    };
    broker::publish(url, exchange, &message.text, &message.event_type)
        .await
        .context("publishing")?;
    Ok(Published {
        to: "broker",
        outcome: "published",
        ..Published::stored(message)
    })
}

/// Keeps what the message holds.
async fn to_store(message: Message, context: &Context) -> Result<Published, CliError> {
    let published = Published::stored(&message);
    match message.holds {
        Content::Event(event) => keep_event(published, *event, context).await,
        Content::State(snapshot) => keep_state(published, *snapshot, context).await,
    }
}

/// Keeps the event with its deliveries; a running `serve` takes them from there.
async fn keep_event(
    published: Published,
    event: Event,
    context: &Context,
) -> Result<Published, CliError> {
    let payload = Arc::new(Payload::new(event));
    let leasing = Leasing {
        owner: context.entropy.id(context.clock.now()),
        lease: context.config.dispatch.lease,
    };
    let accepted = context
        .with_store(async |store| {
            // A file that it tells of is fetched by whichever `serve` runs next.
            let core = CoreFiles::of(&context.config.outputs);
            store.open_output_jobs(Arc::default(), core);
            let batch = [Arc::clone(&payload)];
            let accepted = store.accept(&batch, leasing, &NoDispatch).await?;
            store.announce();
            Ok(accepted)
        })
        .await?;
    match accepted.outcomes.first() {
        Some(AcceptOutcome::Stored) => Ok(Published {
            event_id: Some(payload.event().id.to_string()),
            ..published
        }),
        Some(AcceptOutcome::Duplicate) => Ok(published.duplicate()),
        None => Err(CliError::Failure(anyhow::anyhow!(
            "the store took nothing of the event"
        ))),
    }
}

/// Keeps what the snapshot says in the read model.
async fn keep_state(
    published: Published,
    snapshot: Snapshot,
    context: &Context,
) -> Result<Published, CliError> {
    let applied = context
        .with_store(async |store| Ok(store.apply(&[snapshot]).await?))
        .await?;
    match applied.first() {
        Some(Applied::Changed) => Ok(published),
        Some(Applied::Older) => Ok(published.duplicate()),
        None => Err(CliError::Failure(anyhow::anyhow!(
            "the store took nothing of the snapshot"
        ))),
    }
}

impl Published {
    fn stored(message: &Message) -> Self {
        Self {
            id: message.id.clone(),
            source: message.source.clone(),
            r#type: message.event_type.to_string(),
            to: "store",
            outcome: "stored",
            event_id: None,
        }
    }

    fn duplicate(self) -> Self {
        Self {
            outcome: "duplicate",
            ..self
        }
    }
}
