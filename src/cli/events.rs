//! `forge-dispatch events publish`: an event from the command line, through the broker where there
//! is one, straight into the store otherwise.

use std::io::Read;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::parse::WorkspaceArgs;
use super::{CliError, Context};
use crate::broker;
use crate::domain::event::{Event, EventError, MAX_EVENT_BYTES};
use crate::domain::payload::{Payload, timestamp};
use crate::domain::subscription::FieldError;
use crate::store::intake::NoDispatch;
use crate::store::{AcceptOutcome, Leasing};

/// What to do with events.
#[derive(Clone, Debug, Subcommand)]
pub enum EventsCommand {
    /// Publish one event.
    Publish(PublishArgs),
}

/// The event.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// Its type (`edition.submitted`).
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

/// The envelope as it is sent (CloudEvents 1.0).
#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    workspaceid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    projectid: Option<&'a str>,
    data: &'a RawValue,
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
    /// Our id, the `webhook-id`; only the store knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

/// Runs it.
pub async fn run(command: EventsCommand, context: &Context) -> Result<(), CliError> {
    let EventsCommand::Publish(args) = command;
    let event = compose(&args, context)?;
    let published = match &context.config.amqp.url {
        Some(url) => to_broker(url, &event, context).await?,
        None => to_store(event, context).await?,
    };
    context.output.print(&published, |published| {
        let Published { id, r#type, to, .. } = published;
        match published.outcome {
            "duplicate" => format!("{id} ({type}) was known already: nothing changed"),
            outcome => format!("{outcome} {id} ({type}) to the {to}"),
        }
    })
}

/// Builds the event and checks it as an arriving one would be, before anything is sent.
fn compose(args: &PublishArgs, context: &Context) -> Result<Event, CliError> {
    let now = context.clock.now();
    let id = context.entropy.id(now);
    let new_external_id = uuid::Builder::from_random_bytes(context.entropy.bytes())
        .into_uuid()
        .to_string();
    let data = RawValue::from_string(read_data(&args.data)?)
        .map_err(|error| FieldError::new("data", format!("is not JSON: {error}")))?;
    let workspace = args.workspace.id()?;
    let envelope = Envelope {
        specversion: "1.0",
        id: args.id.as_deref().unwrap_or(&new_external_id),
        source: &args.source,
        r#type: &args.event_type,
        time: timestamp(now),
        subject: args.subject.as_deref(),
        workspaceid: workspace.as_str(),
        projectid: args.project.as_deref(),
        data: &data,
    };
    let text = serde_json::to_vec(&envelope).context("writing the event")?;
    Ok(Event::decode(&text, id, now).map_err(named)?)
}

/// The data as it was given, or out of a file.
fn read_data(argument: &str) -> Result<String, FieldError> {
    let wrong = |reason: String| FieldError::new("data", reason);
    let Some(path) = argument.strip_prefix('@') else {
        return Ok(argument.to_owned());
    };
    let mut text = String::new();
    // One byte more than an event may have tells that there is too much.
    let limit = MAX_EVENT_BYTES as u64 + 1;
    let read = match path {
        "-" => std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text),
        path => {
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
        }
    };
    read.map_err(|error| wrong(format!("{path}: {error}")))?;
    if text.len() > MAX_EVENT_BYTES {
        return Err(wrong(format!("has more than {MAX_EVENT_BYTES} bytes")));
    }
    Ok(text)
}

/// The field that breaks a rule, as the command line names it.
fn named(error: EventError) -> FieldError {
    match error {
        EventError::Attribute { attribute, reason } => FieldError::new(attribute, reason),
        EventError::Data(error) => match error.path.strip_prefix("data.") {
            Some(member) => FieldError::new("data", format!("`{member}`: {}", error.reason)),
            None => FieldError::new("data", error.reason),
        },
        EventError::State => FieldError::new(
            "type",
            "snapshots and deletions belong on the snapshots exchange",
        ),
        other => FieldError::new("event", other.to_string()),
    }
}

/// Gives the event to the broker as the core would, and waits until it is kept there.
async fn to_broker(
    url: &SecretString,
    event: &Event,
    context: &Context,
) -> Result<Published, CliError> {
    let settings = &context.config.amqp;
    broker::publish(url, settings, event.envelope.as_bytes(), &event.event_type)
        .await
        .context("publishing")?;
    Ok(Published::new(event, "broker", "published"))
}

/// Keeps the event with its deliveries; a running `serve` takes them from there.
async fn to_store(event: Event, context: &Context) -> Result<Published, CliError> {
    let payload = Arc::new(Payload::new(event));
    let leasing = Leasing {
        owner: context.entropy.id(context.clock.now()),
        lease: context.config.dispatch.lease,
    };
    let accepted = context
        .with_store(async |store| {
            let batch = [Arc::clone(&payload)];
            let accepted = store.accept(&batch, leasing, &NoDispatch).await?;
            store.announce();
            Ok(accepted)
        })
        .await?;
    let event = payload.event();
    match accepted.outcomes.first() {
        Some(AcceptOutcome::Stored) => {
            let mut published = Published::new(event, "store", "stored");
            published.event_id = Some(event.id.to_string());
            Ok(published)
        }
        Some(AcceptOutcome::Duplicate) => Ok(Published::new(event, "store", "duplicate")),
        None => Err(CliError::Failure(anyhow::anyhow!(
            "the store took nothing of the event"
        ))),
    }
}

impl Published {
    fn new(event: &Event, to: &'static str, outcome: &'static str) -> Self {
        Self {
            id: event.external_id.clone(),
            source: event.source.clone(),
            r#type: event.event_type.to_string(),
            to,
            outcome,
            event_id: None,
        }
    }
}
