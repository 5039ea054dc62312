//! `forge-dispatch keys`: make, list, show, revoke.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::list::{Columns, ListArgs};
use super::output::{fields, or_dash};
use super::parse::{self, WorkspaceArgs};
use super::{CliError, Context};
use crate::domain::api_key::{ApiKey, ApiKeySpec, KeyLimits, Scope};
use crate::domain::key_text::KeyText;
use crate::domain::payload::timestamp;
use crate::domain::subscription::FieldError;
use crate::store::NewApiKey;

/// What to do with API keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key. Its text is shown once, now.
    Create(CreateArgs),
    /// List keys, newest first, those too that ended or were revoked.
    List(ListArgs),
    /// Show one key.
    Show(OneArgs),
    /// Take a key back, for good. Nothing happens to one that is revoked already.
    Revoke(OneArgs),
}

/// What an admin says of a new key.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// A name for people.
    #[arg(long)]
    name: String,

    /// What it may do: `read:editions`, `write:editions`, `read:blueprints`, `read:outputs`,
    /// `write:outputs`, `read:workspace`, `read:webhooks`, `write:webhooks`, or `admin` for
    /// everything. May be repeated.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,

    /// Only in this project. May be repeated.
    #[arg(long = "project", value_name = "ID")]
    projects: Vec<String>,

    /// How long it is valid (`90d`, `12h`); for good otherwise.
    #[arg(long, value_name = "TIME")]
    expires_in: Option<String>,

    /// Requests in 60 s; the deployment's limit otherwise.
    #[arg(long, value_name = "N")]
    per_minute: Option<NonZeroU32>,

    /// Requests in 3,600 s; the deployment's limit otherwise.
    #[arg(long, value_name = "N")]
    per_hour: Option<NonZeroU32>,

    /// Requests at once, in each replica; the deployment's limit otherwise.
    #[arg(long, value_name = "N")]
    concurrent: Option<NonZeroU32>,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// Which key.
#[derive(Clone, Debug, Args)]
pub struct OneArgs {
    /// The key's id (`key_…`).
    id: String,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// A key as it is printed.
#[derive(Debug, Serialize)]
struct View {
    id: String,
    workspace: String,
    name: String,
    scopes: Vec<&'static str>,
    project_ids: Option<Vec<String>>,
    limits: KeyLimits,
    status: &'static str,
    expires_at: Option<String>,
    created_by: String,
    created_at: String,
    revoked_at: Option<String>,
    last_used_at: Option<String>,
    /// Only where it is shown for the only time.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Runs it.
pub async fn run(command: KeysCommand, context: &Context) -> Result<(), CliError> {
    match command {
        KeysCommand::Create(args) => create(args, context).await,
        KeysCommand::List(args) => list(args, context).await,
        KeysCommand::Show(args) => show(args, context).await,
        KeysCommand::Revoke(args) => revoke(args, context).await,
    }
}

async fn create(args: CreateArgs, context: &Context) -> Result<(), CliError> {
    let now = context.clock.now();
    let text = KeyText::generate(context.entropy.id(now), context.entropy.bytes());
    let new = NewApiKey {
        id: text.id(),
        workspace: args.workspace.id()?,
        spec: spec(&args, now)?,
        digest: text.digest(),
    };
    let act = context.act();
    let created = context
        .with_store(async |store| Ok(store.create_api_key(&new, &act, None).await?.created()?))
        .await?;
    let mut view = View::new(&created, now);
    view.key = Some(text.expose().to_owned());
    context.output.print(&view, |view| {
        format!(
            "{}\nThe key is shown this once only: it is not kept, only its SHA-256 is.",
            view.describe()
        )
    })
}

/// What was asked for, checked field by field.
fn spec(args: &CreateArgs, now: DateTime<Utc>) -> Result<ApiKeySpec, FieldError> {
    let spec = ApiKeySpec {
        name: args.name.clone(),
        scopes: args
            .scopes
            .iter()
            .map(|text| text.parse::<Scope>())
            .collect::<Result<_, _>>()?,
        project_ids: parse::project_ids(&args.projects)?,
        expires_at: args
            .expires_in
            .as_deref()
            .map(|text| end(text, now))
            .transpose()?,
        limits: KeyLimits {
            per_minute: args.per_minute,
            per_hour: args.per_hour,
            concurrent: args.concurrent,
        },
    };
    spec.check(now)?;
    Ok(spec)
}

/// The instant that lies so far ahead.
fn end(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, FieldError> {
    let wrong = |reason: &str| FieldError::new("expires_in", format!("`{text}` {reason}"));
    let length: Duration = humantime::parse_duration(text)
        .map_err(|_| wrong("is no duration; write it as `90d` or `12h`"))?;
    chrono::Duration::from_std(length)
        .ok()
        .and_then(|length| now.checked_add_signed(length))
        .ok_or_else(|| wrong("is too long"))
}

async fn list(args: ListArgs, context: &Context) -> Result<(), CliError> {
    let now = context.clock.now();
    let columns = Columns {
        what: "keys",
        header: &["ID", "NAME", "SCOPES", "STATUS", "EXPIRES", "LAST USED"],
        row: View::row,
    };
    args.print(
        context,
        async |store, reach, page| store.api_keys(&reach.workspace, page).await,
        |key| View::new(key, now),
        columns,
    )
    .await
}

async fn show(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let workspace = args.workspace.id()?;
    let id = parse::id("id", &args.id)?;
    let found = context
        .with_store(async |store| Ok(store.api_key(&workspace, id).await?))
        .await?;
    let key = found.ok_or_else(|| missing(&args))?;
    context
        .output
        .print(&View::new(&key, context.clock.now()), View::describe)
}

async fn revoke(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let workspace = args.workspace.id()?;
    let id = parse::id("id", &args.id)?;
    let act = context.act();
    let revoked = context
        .with_store(async |store| Ok(store.revoke_api_key(&workspace, id, &act).await?))
        .await?;
    let key = revoked.ok_or_else(|| missing(&args))?;
    context
        .output
        .print(&View::new(&key, context.clock.now()), |view| {
            format!("revoked {}", view.id)
        })
}

fn missing(args: &OneArgs) -> CliError {
    CliError::not_found("key", &args.id, &args.workspace)
}

/// A key's own limits; what is not among them is the deployment's.
fn limits(limits: KeyLimits) -> String {
    let own: Vec<String> = [
        (limits.per_minute, "a minute"),
        (limits.per_hour, "an hour"),
        (limits.concurrent, "at once"),
    ]
    .into_iter()
    .filter_map(|(limit, of)| limit.map(|limit| format!("{limit} {of}")))
    .collect();
    if own.is_empty() {
        return "default".to_owned();
    }
    own.join(", ")
}

impl View {
    fn new(key: &ApiKey, now: DateTime<Utc>) -> Self {
        let spec = &key.spec;
        Self {
            id: key.id.to_string(),
            workspace: key.workspace.to_string(),
            name: spec.name.clone(),
            scopes: spec.scopes.iter().map(|scope| scope.as_str()).collect(),
            project_ids: spec
                .project_ids
                .as_ref()
                .map(|projects| projects.iter().map(ToString::to_string).collect()),
            limits: spec.limits,
            status: key.status(now).as_str(),
            expires_at: spec.expires_at.map(timestamp),
            created_by: key.created_by.clone(),
            created_at: timestamp(key.created_at),
            revoked_at: key.revoked_at.map(timestamp),
            last_used_at: key.last_used_at.map(timestamp),
            key: None,
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.scopes.join(" "),
            self.status.to_owned(),
            or_dash(self.expires_at.as_ref()),
            or_dash(self.last_used_at.as_ref()),
        ]
    }

    fn describe(&self) -> String {
        let mut pairs = vec![
            ("id", self.id.clone()),
            ("name", self.name.clone()),
            ("scopes", self.scopes.join(" ")),
            (
                "projects",
                or_dash(self.project_ids.as_ref().map(|ids| ids.join(" "))),
            ),
            ("limits", limits(self.limits)),
            ("status", self.status.to_owned()),
            ("expires", or_dash(self.expires_at.as_ref())),
            ("created", self.created_at.clone()),
            ("created by", self.created_by.clone()),
        ];
        if let Some(revoked_at) = &self.revoked_at {
            pairs.push(("revoked", revoked_at.clone()));
        }
        pairs.push(("last used", or_dash(self.last_used_at.as_ref())));
        if let Some(key) = &self.key {
            pairs.push(("key", key.clone()));
        }
        fields(&pairs)
    }
}
