//! `deliveries replay`: one at once; many counted first, and followed until they are sent.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{View, replays};
use crate::cli::parse::{self, WorkspaceArgs};
use crate::cli::{CliError, Context};
use crate::clock::pause;
use crate::domain::ids::{DeliveryId, ReplayId};
use crate::domain::reach::Reach;
use crate::domain::replay::Refusal;
use crate::domain::selection::{DEFAULT_RATE, MAX_RATE, Selection};
use crate::domain::subscription::FieldError;
use crate::store::replays::{Count, count};
use crate::store::{NewReplay, ReplayRecord, Store};

/// How often it is looked how far a replay is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is replayed.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[command(group(ArgGroup::new("selection").required(true).multiple(true).args([
    "id", "event", "subscription", "event_types", "states", "edition", "project", "since", "until",
    "backfill",
])))]
pub struct ReplayArgs {
    /// The delivery (`dlv_…`), alone.
    #[arg(conflicts_with_all = [
        "event", "subscription", "event_types", "states", "edition", "project", "since", "until",
        "backfill", "rate", "dry_run",
    ])]
    id: Option<String>,

    /// All deliveries of this event, whatever their state; with --subscription also one that was never
    /// made.
    #[arg(long, value_name = "ID", conflicts_with_all = [
        "event_types", "states", "edition", "project", "since", "until", "backfill",
    ])]
    event: Option<String>,

    /// Only those to this subscription.
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,

    /// Only those of events of this type, or of all below a prefix (`edition.*`). May be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    event_types: Vec<String>,

    /// Only those in this state; `failed` unless it is said. May be repeated.
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<String>,

    /// Only those of events about this edition.
    #[arg(long, value_name = "ID")]
    edition: Option<String>,

    /// Only those of events about this project.
    #[arg(long, value_name = "ID")]
    project: Option<String>,

    /// Only those made then or later: a time of RFC 3339, or how long ago (`2h`, `7d`).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only those made before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    /// Also make those that were never made, of events that came before the subscription asked for them.
    #[arg(long, requires = "subscription")]
    backfill: bool,

    /// How many a second, at most.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RATE, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
    rate: u32,

    /// Only count them.
    #[arg(long)]
    dry_run: bool,

    /// Do not ask. Needed for many where there is no terminal.
    #[arg(long, short)]
    yes: bool,

    /// Do not wait until they are sent.
    #[arg(long)]
    detach: bool,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// How many would be replayed, as it is printed.
#[derive(Debug, Serialize)]
struct CountView {
    total: u64,
    by_state: BTreeMap<&'static str, u64>,
}

/// What asking first came to.
enum Asked {
    /// Only counted, or nothing to do, or the operator thought better of it.
    Nothing(CountView),
    /// It is under way, or done.
    Begun(Box<ReplayRecord>),
}

pub(super) async fn run(args: ReplayArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    match &args.id {
        Some(id) => one(parse::id("id", id)?, &args, &reach, context).await,
        None => many(&args, &reach, context).await,
    }
}

async fn one(
    id: DeliveryId,
    args: &ReplayArgs,
    reach: &Reach,
    context: &Context,
) -> Result<(), CliError> {
    let missing = || CliError::not_found("delivery", &id.to_string(), &args.workspace);
    let found = context
        .with_store(async |store| {
            let answer = store.replay_delivery(reach, id, &context.act()).await?;
            match answer.ok_or_else(missing)? {
                Ok(_) | Err(Refusal::AlreadyReplaying) => store.announce(),
                Err(refusal) => {
                    return Err(anyhow::anyhow!("not replayed: {}", refusal.told()).into());
                }
            }
            store.delivery(reach, id).await?.ok_or_else(missing)
        })
        .await?;
    let view = View::new(&found);
    context.output.print(&view, View::describe)
}

async fn many(args: &ReplayArgs, reach: &Reach, context: &Context) -> Result<(), CliError> {
    let now = context.clock.now();
    let selection = args.selection(now)?;
    if !args.dry_run && !args.yes && !io::stdin().is_terminal() {
        let needed =
            "is needed to replay many where nobody can be asked; `--dry-run` only counts them";
        return Err(FieldError::new("--yes", needed).into());
    }
    let asked = context
        .with_store(async |store| {
            let store = &**store;
            args.check(store, reach, &selection).await?;
            let count = count(store, reach, &selection, now, usize::MAX).await?;
            if args.dry_run || count.total() == 0 || !args.confirm(&count)? {
                return Ok(Asked::Nothing(CountView::new(&count)));
            }
            let new = NewReplay {
                id: context.entropy.id(now),
                selection,
                rate: args.rate,
            };
            let created = store
                .create_replay(reach, &new, &context.act(), None)
                .await?;
            let created = created
                .context("20 replays are under way: wait until one is done, or cancel one")?
                .created()?;
            if args.detach {
                return Ok(Asked::Begun(Box::new(created)));
            }
            tell_of(created.id);
            let sent = follow(store, reach, created.id, count.total()).await?;
            Ok(Asked::Begun(Box::new(sent)))
        })
        .await?;
    match asked {
        Asked::Nothing(count) => context.output.print(&count, CountView::describe),
        Asked::Begun(record) => context
            .output
            .print(&replays::View::new(&record), replays::View::describe),
    }
}

/// Tells which one it is before it is followed: who stops following does not stop the replay.
fn tell_of(id: ReplayId) {
    let told = writeln!(
        io::stderr(),
        "replay {id} is under way, whether it is followed or not; \
         `deliveries replays cancel {id}` ends it"
    );
    // Where standard error is closed nobody is to be told.
    drop(told);
}

/// Shows how far a replay is until nothing of it is left to be sent. A service must run for that.
async fn follow(
    store: &dyn Store,
    reach: &Reach,
    id: ReplayId,
    counted: u64,
) -> Result<ReplayRecord, CliError> {
    let bar = ProgressBar::new(counted);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    bar.set_style(style.context("the progress bar")?);
    loop {
        let record = store.replay(reach, id).await?;
        let record = record.context("the replay is gone")?;
        bar.set_length(record.total.max(counted));
        bar.set_position(record.done + record.failed + record.skipped.total());
        bar.set_message(format!("{} not taken", record.failed));
        if record.finished_at.is_some() {
            bar.finish_and_clear();
            return Ok(record);
        }
        pause(LOOK_EVERY).await;
    }
}

impl ReplayArgs {
    fn selection(&self, now: DateTime<Utc>) -> Result<Selection, FieldError> {
        let subscription = self.subscription.as_deref();
        let subscription = subscription
            .map(|text| parse::id("subscription", text))
            .transpose()?;
        if let Some(event) = &self.event {
            return Ok(Selection::of_event(
                parse::id("event", event)?,
                subscription,
            ));
        }
        let default = Selection::default();
        let states = self.states.iter().map(|text| parse::value("state", text));
        let states = states.collect::<Result<Vec<_>, _>>()?;
        let types = self.event_types.iter();
        let types = types.map(|text| parse::value("type", text));
        let time = |field, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| parse::time(field, text, now)).transpose()
        };
        Ok(Selection {
            subscription_id: subscription,
            types: types.collect::<Result<_, _>>()?,
            states: if states.is_empty() {
                default.states.clone()
            } else {
                states
            },
            from: time("since", &self.since)?,
            to: time("until", &self.until)?,
            edition_id: self
                .edition
                .as_deref()
                .map(|text| parse::value("edition", text))
                .transpose()?,
            project_id: self
                .project
                .as_deref()
                .map(|text| parse::value("project", text))
                .transpose()?,
            backfill: self.backfill,
            ..default
        })
    }

    /// Whether what is named is there.
    async fn check(
        &self,
        store: &dyn Store,
        reach: &Reach,
        selection: &Selection,
    ) -> Result<(), CliError> {
        if let Some(id) = selection.event_id
            && store.event(reach, id).await?.is_none()
        {
            return Err(CliError::not_found(
                "event",
                &id.to_string(),
                &self.workspace,
            ));
        }
        if let Some(id) = selection.subscription_id
            && store.subscription(reach, id).await?.is_none()
        {
            let id = id.to_string();
            return Err(CliError::not_found("subscription", &id, &self.workspace));
        }
        Ok(())
    }

    /// Asks whoever sits at a terminal and has not said it yet.
    fn confirm(&self, count: &Count) -> Result<bool, CliError> {
        if self.yes {
            return Ok(true);
        }
        let question = format!("Replay {}? [y/N] ", told(count.total(), &count.by_state));
        let mut out = io::stderr().lock();
        out.write_all(question.as_bytes())
            .and_then(|()| out.flush())
            .context("asking")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).context("asking")?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// `3 deliveries (2 failed, 1 pending)`
fn told(total: u64, by_state: &BTreeMap<&'static str, u64>) -> String {
    let parts: Vec<String> = by_state
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let noun = if total == 1 { "delivery" } else { "deliveries" };
    if parts.is_empty() {
        format!("{total} {noun}")
    } else {
        format!("{total} {noun} ({})", parts.join(", "))
    }
}

impl CountView {
    fn new(count: &Count) -> Self {
        Self {
            total: count.total(),
            by_state: count.by_state.clone(),
        }
    }

    fn describe(&self) -> String {
        format!("{}; nothing was done", told(self.total, &self.by_state))
    }
}
