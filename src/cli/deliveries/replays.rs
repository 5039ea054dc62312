//! `deliveries replays`: how far replays of many are, and ending one early.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::list::{Columns, ListArgs};
use crate::cli::output::{fields, or_dash};
use crate::cli::parse::{self, WorkspaceArgs};
use crate::cli::{CliError, Context};
use crate::domain::ids::ReplayId;
use crate::domain::payload::timestamp;
use crate::store::{Cancelled, ReplayRecord};

/// What to do with replays of many.
#[derive(Clone, Debug, Subcommand)]
pub enum ReplaysCommand {
    /// List replays of many, newest first.
    List(ListArgs),
    /// Show how far one is.
    Show(OneArgs),
    /// End one early: what was not sent is put back as it was.
    Cancel(OneArgs),
}

/// Which one.
#[derive(Clone, Debug, Args)]
pub struct OneArgs {
    /// The replay (`rpl_…`).
    id: String,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// A replay of many, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct View {
    id: String,
    state: &'static str,
    total: u64,
    queued: u64,
    done: u64,
    failed: u64,
    skipped: BTreeMap<&'static str, u64>,
    rate: u32,
    created_at: String,
    finished_at: Option<String>,
}

pub(super) async fn run(command: ReplaysCommand, context: &Context) -> Result<(), CliError> {
    match command {
        ReplaysCommand::List(args) => list(args, context).await,
        ReplaysCommand::Show(args) => show(args, context).await,
        ReplaysCommand::Cancel(args) => cancel(args, context).await,
    }
}

async fn list(args: ListArgs, context: &Context) -> Result<(), CliError> {
    let columns = Columns {
        what: "replays",
        header: &["ID", "STATE", "TOTAL", "TAKEN", "NOT TAKEN", "CREATED"],
        row: View::row,
    };
    args.print(
        context,
        async |store, reach, page| store.replays(reach, page).await,
        View::new,
        columns,
    )
    .await
}

async fn show(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = args.id()?;
    let found = context
        .with_store(async |store| Ok(store.replay(&reach, id).await?))
        .await?;
    args.print(found, context)
}

async fn cancel(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = args.id()?;
    let cancelled = context
        .with_store(async |store| Ok(store.cancel_replay(&reach, id, &context.act()).await?))
        .await?;
    match cancelled {
        Some(Cancelled::TooLate) => {
            Err(anyhow::anyhow!("not cancelled: replay {id} is done").into())
        }
        Some(Cancelled::Done(record)) => args.print(Some(*record), context),
        None => args.print(None, context),
    }
}

impl OneArgs {
    fn id(&self) -> Result<ReplayId, CliError> {
        Ok(parse::id("id", &self.id)?)
    }

    fn print(&self, found: Option<ReplayRecord>, context: &Context) -> Result<(), CliError> {
        let missing = || CliError::not_found("replay", &self.id, &self.workspace);
        let view = View::new(&found.ok_or_else(missing)?);
        context.output.print(&view, View::describe)
    }
}

impl View {
    pub(super) fn new(record: &ReplayRecord) -> Self {
        let skipped = record.skipped.0.iter();
        Self {
            id: record.id.to_string(),
            state: record.state.as_str(),
            total: record.total,
            queued: record.queued,
            done: record.done,
            failed: record.failed,
            skipped: skipped
                .map(|(reason, count)| (reason.as_str(), *count))
                .collect(),
            rate: record.rate,
            created_at: timestamp(record.created_at),
            finished_at: record.finished_at.map(timestamp),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.state.to_owned(),
            self.total.to_string(),
            self.done.to_string(),
            self.failed.to_string(),
            self.created_at.clone(),
        ]
    }

    pub(super) fn describe(&self) -> String {
        let skipped: u64 = self.skipped.values().sum();
        let reasons: Vec<String> = self
            .skipped
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let skipped = if reasons.is_empty() {
            skipped.to_string()
        } else {
            format!("{skipped} ({})", reasons.join(", "))
        };
        fields(&[
            ("id", self.id.clone()),
            ("state", self.state.to_owned()),
            ("total", self.total.to_string()),
            ("taken", self.done.to_string()),
            ("not taken", self.failed.to_string()),
            ("skipped", skipped),
            ("created", self.created_at.clone()),
            ("finished", or_dash(self.finished_at.as_ref())),
        ])
    }
}
