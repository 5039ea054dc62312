//! `forge-dispatch demo`: the whole road on one machine with nothing installed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{CliError, Context};
use crate::app::{App, AppError, Entrance, Surroundings};
use crate::clock::pause;
use crate::config::Config;
use crate::domain::audit::Act;
use crate::domain::delivery::DeliveryState;
use crate::domain::headers::CustomHeaders;
use crate::domain::ids::{OwnerId, SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::{BodyFormat, SubscriptionSpec, TargetUrl};
use crate::shutdown::Shutdown;
use crate::store::{DeliveryFilter, NewSubscription, PageRequest, Store};

mod receiver;
mod story;
mod view;

use receiver::Receiver;
use story::{PROJECTS, Story};
use view::{Row, View};

/// Events a second while the demo runs for someone to look at.
const PACE: u64 = 40;

/// Events handed in at once when a number of them was asked for.
const BATCH: u64 = 100;

/// How much to show.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Keep the database in this directory (a temporary one otherwise).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Send this many events (without end otherwise).
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,

    /// End when all is settled, and say what came of it.
    #[arg(long, requires = "events")]
    pub exit: bool,
}

/// The three subscriptions of the demo.
const HOOKS: [(&str, &str, Option<&str>, BodyFormat); 3] = [
    ("everything", "*", None, BodyFormat::Standard),
    ("editions", "edition.*", None, BodyFormat::Kazinex),
    ("harbour", "*", Some(PROJECTS[0]), BodyFormat::CloudEvents),
];

/// What a bounded run came to.
#[derive(Debug, Default, Serialize)]
struct Summary {
    events: u64,
    deliveries: u64,
    succeeded: u64,
    failed: u64,
    attempts: u64,
    verified: u64,
    seconds: f64,
}

impl Summary {
    /// Whether everything was delivered, and every delivery verified by the receiver.
    fn is_whole(&self) -> bool {
        self.succeeded == self.deliveries && self.verified == self.deliveries
    }
}

/// A temporary SQLite database, a local receiver that verifies every signature, three subscriptions
/// and a stream of events; until Ctrl-C, or until so many are settled.
pub async fn run(args: DemoArgs, context: &Context) -> Result<(), CliError> {
    match play(&args, context).await? {
        None => Ok(()),
        Some(summary) => report(&summary, context),
    }
}

async fn play(args: &DemoArgs, context: &Context) -> anyhow::Result<Option<Summary>> {
    let temporary = tempfile::tempdir().context("a temporary directory")?;
    let data = args.data.as_deref().unwrap_or(temporary.path());
    let receiver_end = CancellationToken::new();
    let receiver = Receiver::start(receiver_end.clone()).await?;
    let shutdown = Shutdown::default();
    shutdown.watch_signals()?;
    let surroundings = Surroundings {
        clock: context.clock.clone(),
        entropy: context.entropy.clone(),
        ..Surroundings::default()
    };
    let config = config(data, &receiver)?;
    // A signal ends the show; the program behind it ends when its subscriptions are gone.
    let behind = Shutdown {
        soft: CancellationToken::new(),
        hard: shutdown.hard.clone(),
    };
    let app = App::build(config, surroundings.clone(), behind.clone()).await?;
    let stage = Stage {
        store: app.store(),
        entrance: app.entrance(),
        receiver,
        shutdown,
        // A directory that is used again holds the runs before; each is a tenant of its own.
        workspace: run_workspace(&surroundings)?,
        started: surroundings.clock.monotonic(),
        surroundings,
    };
    stage.store.migrate().await?;
    let subscriptions = stage.subscribe().await?;

    let running: JoinHandle<Result<(), AppError>> = tokio::spawn(app.run());
    let summary = stage.play(args).await;
    // The receiver goes with this run: what is left over must not be tried for ever.
    for id in subscriptions {
        stage
            .store
            .delete_subscription(&Reach::all(&stage.workspace), id, None, &stage.act())
            .await?;
    }
    behind.begin();
    running.await??;
    receiver_end.cancel();
    summary
}

/// Prints the summary of a bounded run, and fails if it is not whole.
fn report(summary: &Summary, context: &Context) -> Result<(), CliError> {
    context.output.print(summary, |summary| {
        format!(
            "{} events, {} deliveries: {} succeeded, {} failed, in {} attempts; {} verified by the receiver; {:.1} s",
            summary.events,
            summary.deliveries,
            summary.succeeded,
            summary.failed,
            summary.attempts,
            summary.verified,
            summary.seconds,
        )
    })?;
    if summary.is_whole() {
        return Ok(());
    }
    Err(CliError::Failure(anyhow::anyhow!(
        "not every delivery was made and verified"
    )))
}

/// Everything that plays.
struct Stage {
    store: std::sync::Arc<dyn Store>,
    entrance: Entrance,
    receiver: Receiver,
    workspace: WorkspaceId,
    surroundings: Surroundings,
    shutdown: Shutdown,
    started: Duration,
}

impl Stage {
    fn elapsed(&self) -> Duration {
        self.surroundings
            .clock
            .monotonic()
            .saturating_sub(self.started)
    }

    /// The circumstances of what the show sets up and takes down.
    fn act(&self) -> Act {
        let Surroundings { clock, entropy, .. } = &self.surroundings;
        Act::on_command_line(entropy.id(clock.now()))
    }

    async fn subscribe(&self) -> anyhow::Result<Vec<SubscriptionId>> {
        let mut ids = Vec::new();
        let now = self.surroundings.clock.now();
        let entropy = &self.surroundings.entropy;
        for (name, wants, project, format) in HOOKS {
            let secret = SigningSecret::generate(entropy.bytes());
            self.receiver.expect(name, secret.expose())?;
            let new = NewSubscription {
                id: entropy.id(now),
                workspace: self.workspace.clone(),
                spec: SubscriptionSpec {
                    url: TargetUrl::new(&self.receiver.url(name))?,
                    description: format!("demo: {name}"),
                    event_types: vec![wants.parse()?],
                    project_ids: project
                        .map(|id| id.parse().map(|id| vec![id]))
                        .transpose()?,
                    format,
                    headers: CustomHeaders::default(),
                    max_concurrency: None,
                    rate_limit: None,
                    retry_schedule: None,
                },
                secret_id: entropy.id(now),
                secret,
            };
            let created = self
                .store
                .create_subscription(&new, &self.act(), None)
                .await?;
            ids.push(created.created()?.id);
        }
        Ok(ids)
    }

    /// Sends events: so many and a summary, or until the signal.
    async fn play(&self, args: &DemoArgs) -> anyhow::Result<Option<Summary>> {
        let mut story = Story::new(self.workspace.clone(), self.surroundings.entropy.clone());
        let mut sent = 0;
        let mut view = View::new();
        let mut drawn = None;
        while !self.shutdown.soft.is_cancelled() {
            let left = args.events.map_or(u64::MAX, |events| events - sent);
            let batch = if args.exit { BATCH } else { PACE / 10 }.min(left);
            if batch == 0 && args.exit {
                return self.settled(sent).await;
            }
            let now = self.surroundings.clock.now();
            let events: Vec<_> = (0..batch).map(|_| story.next(now)).collect();
            self.entrance.publish(&events).await?;
            sent += batch;
            if args.exit {
                continue;
            }
            if drawn.is_none_or(|at| self.elapsed() >= at + view.interval()) {
                view.draw(sent, self.elapsed(), &self.rows())?;
                drawn = Some(self.elapsed());
            }
            tokio::select! {
                () = pause(Duration::from_millis(100)) => {}
                () = self.shutdown.soft.cancelled() => {}
            }
        }
        Ok(None)
    }

    fn rows(&self) -> Vec<Row> {
        HOOKS
            .iter()
            .map(|(name, wants, project, format)| Row {
                name,
                wants: match project {
                    None => (*wants).to_owned(),
                    Some(project) => format!("{wants} of {project}"),
                },
                format: format.as_str(),
                tally: self.receiver.tally(name),
            })
            .collect()
    }

    /// Waits until nothing is left in the queue, and counts.
    async fn settled(&self, events: u64) -> anyhow::Result<Option<Summary>> {
        loop {
            let depth = self.store.queue_depth().await?;
            if depth.pending + depth.in_flight == 0 {
                break;
            }
            tokio::select! {
                () = pause(Duration::from_millis(20)) => {}
                () = self.shutdown.soft.cancelled() => break,
            }
        }
        let mut summary = Summary {
            events,
            seconds: self.elapsed().as_secs_f64(),
            ..Summary::default()
        };
        let mut after = None;
        loop {
            let page = PageRequest { limit: 500, after };
            let (reach, filter) = (Reach::all(&self.workspace), DeliveryFilter::default());
            let page = self.store.deliveries(&reach, &filter, page).await?;
            for delivery in &page.items {
                summary.deliveries += 1;
                summary.attempts += u64::from(delivery.attempts);
                match delivery.state {
                    DeliveryState::Succeeded => summary.succeeded += 1,
                    DeliveryState::Failed => summary.failed += 1,
                    _ => {}
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        summary.verified = HOOKS
            .iter()
            .map(|(name, ..)| self.receiver.tally(name).verified)
            .sum();
        Ok(Some(summary))
    }
}

fn run_workspace(surroundings: &Surroundings) -> anyhow::Result<WorkspaceId> {
    let run: OwnerId = surroundings.entropy.id(surroundings.clock.now());
    Ok(WorkspaceId::new(&format!("demo_{run}"))?)
}

/// The defaults, but for what the demo needs: its own directory, its own receiver as the one
/// address that may be dialled, free ports, and retries within seconds.
fn config(data: &std::path::Path, receiver: &Receiver) -> anyhow::Result<Config> {
    let mut config = Config::default();
    let database = data.join("forge-dispatch.db");
    config.database.url = SecretString::from(format!("sqlite://{}", database.display()));
    config.api.listen = ([127, 0, 0, 1], 0).into();
    config.ops.listen = ([127, 0, 0, 1], 0).into();
    config.egress.allow_http = true;
    config.egress.allow = vec![
        format!("127.0.0.1/32:{}", receiver.address().port())
            .parse()
            .map_err(anyhow::Error::msg)?,
    ];
    config.retry.schedule = [200, 1_000, 5_000].map(Duration::from_millis).to_vec();
    Ok(config)
}
