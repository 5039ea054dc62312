//! `demo`: the whole road on one machine with nothing installed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use secrecy::SecretString;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, AppError, Surroundings};
use crate::clock::{Clock, pause};
use crate::config::Config;
use crate::domain::delivery::DeliveryState;
use crate::domain::ids::{OwnerId, SubscriptionId, WorkspaceId};
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::{BodyFormat, SubscriptionSpec, TargetUrl};
use crate::ingest::Entrance;
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

/// Shows the whole thing at work: a temporary SQLite database, a local receiver that verifies
/// every signature, three subscriptions and a stream of events.
#[derive(Args, Debug)]
pub struct Demo {
    /// Keep the database here instead of in a temporary directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Send this many events instead of going on for ever
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// End when all is settled; fails if anything was not delivered and verified
    #[arg(long, requires = "events")]
    exit: bool,
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

impl Demo {
    /// Runs it; `json` prints the summary of a bounded run as JSON.
    pub async fn run(&self, json: bool) -> anyhow::Result<()> {
        let surroundings = Surroundings::default();
        let temporary = match self.data {
            Some(_) => None,
            None => Some(tempfile::tempdir().context("a temporary directory")?),
        };
        let data = match (&self.data, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) => dir.path().to_owned(),
            (None, None) => PathBuf::from("."),
        };
        let receiver_end = CancellationToken::new();
        let receiver = Receiver::start(receiver_end.clone()).await?;
        let shutdown = Shutdown::default();
        shutdown.watch_signals()?;
        let config = config(&data, &receiver)?;
        let app = App::build(config, surroundings.clone(), shutdown.clone()).await?;
        let stage = Stage {
            store: app.store(),
            entrance: app.entrance(),
            receiver,
            shutdown: shutdown.clone(),
            // A directory that is used again holds the runs before; each is a tenant of its own.
            workspace: run_workspace(&surroundings)?,
            surroundings,
            started: Duration::ZERO,
        };
        stage.store.migrate().await?;
        let subscriptions = stage.subscribe().await?;

        let running: JoinHandle<Result<(), AppError>> = tokio::spawn(app.run());
        let stage = stage.started_now();
        let summary = stage.play(self, json).await;
        // The receiver goes with this run: what is left over must not be tried for ever.
        for id in subscriptions {
            stage.store.delete_subscription(&stage.workspace, id).await?;
        }
        if summary.as_ref().is_ok_and(Option::is_some) || summary.is_err() {
            shutdown.begin();
        }
        running.await??;
        receiver_end.cancel();
        report(summary?, json)
    }
}

/// Prints the summary of a bounded run, and fails if it is not whole.
fn report(summary: Option<Summary>, json: bool) -> anyhow::Result<()> {
    let Some(summary) = summary else {
        return Ok(());
    };
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!(
            "{} events, {} deliveries: {} succeeded, {} failed, in {} attempts; {} verified by the receiver; {:.1} s",
            summary.events,
            summary.deliveries,
            summary.succeeded,
            summary.failed,
            summary.attempts,
            summary.verified,
            summary.seconds,
        );
    }
    anyhow::ensure!(summary.is_whole(), "not every delivery was made and verified");
    Ok(())
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
    fn started_now(mut self) -> Self {
        self.started = self.surroundings.clock.monotonic();
        self
    }

    fn elapsed(&self) -> Duration {
        self.surroundings
            .clock
            .monotonic()
            .saturating_sub(self.started)
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
                    project_ids: project.map(|id| id.parse().map(|id| vec![id])).transpose()?,
                    format,
                    max_concurrency: None,
                    retry_schedule: None,
                },
                secret_id: entropy.id(now),
                secret,
            };
            ids.push(self.store.create_subscription(&new).await?.id);
        }
        Ok(ids)
    }

    /// Sends events: so many and a summary, or until the signal.
    async fn play(&self, demo: &Demo, json: bool) -> anyhow::Result<Option<Summary>> {
        let mut story = Story::new(self.workspace.clone(), self.surroundings.entropy.clone());
        let mut sent = 0;
        let mut view = View::new();
        let mut drawn = None;
        let quiet = json || demo.exit;
        while !self.shutdown.soft.is_cancelled() {
            let left = demo.events.map_or(u64::MAX, |events| events - sent);
            let batch = if demo.exit { BATCH } else { PACE / 10 }.min(left);
            if batch == 0 && demo.exit {
                return self.settled(sent).await;
            }
            let now = self.surroundings.clock.now();
            let events = (0..batch).map(|_| story.next(now)).collect();
            self.entrance.publish(events).await?;
            sent += batch;
            if demo.exit {
                continue;
            }
            if !quiet && drawn.is_none_or(|at| self.elapsed() >= at + view.interval()) {
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
            let filter = DeliveryFilter::default();
            let page = self.store.deliveries(&self.workspace, filter, page).await?;
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
/// address that may be dialled, a free ops port, and retries within seconds.
fn config(data: &std::path::Path, receiver: &Receiver) -> anyhow::Result<Config> {
    let mut config = Config::default();
    let database = data.join("forge-dispatch.db");
    config.database.url = SecretString::from(format!("sqlite://{}", database.display()));
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
