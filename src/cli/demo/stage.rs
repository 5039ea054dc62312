//! Everything that plays in the demo, and the play itself.

use std::sync::Arc;
use std::time::Duration;

use super::DemoArgs;
use super::guide::{self, Door};
use super::plan::HARBOUR;
use super::receiver::Receiver;
use super::story::Story;
use super::summary::{self, Summary};
use super::view::{Row, View};
use crate::app::{Entrance, Surroundings};
use crate::clock::pause;
use crate::domain::audit::Act;
use crate::domain::headers::CustomHeaders;
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::{BodyFormat, Ordering, SubscriptionSpec, TargetUrl};
use crate::shutdown::Shutdown;
use crate::store::{NewSubscription, Store};

/// Events handed in, and then a breath, while the demo runs for someone to look at: slow enough that
/// an edition is still seen where a reader of the table looks for it.
const PACE: (u64, Duration) = (1, Duration::from_millis(100));

/// Events handed in at once when a number of them was asked for.
const BATCH: u64 = 100;

/// The three subscriptions of the demo.
const HOOKS: [(&str, &str, Option<&str>, BodyFormat); 3] = [
    ("everything", "*", None, BodyFormat::Standard),
    ("editions", "edition.*", None, BodyFormat::Kazinex),
    ("harbour", "*", Some(HARBOUR), BodyFormat::CloudEvents),
];

/// Everything that plays.
pub(super) struct Stage {
    pub(super) store: Arc<dyn Store>,
    pub(super) entrance: Entrance,
    pub(super) receiver: Receiver,
    pub(super) workspace: WorkspaceId,
    pub(super) surroundings: Surroundings,
    pub(super) shutdown: Shutdown,
    pub(super) started: Duration,
}

impl Stage {
    fn elapsed(&self) -> Duration {
        self.surroundings
            .clock
            .monotonic()
            .saturating_sub(self.started)
    }

    /// The circumstances of what the show sets up and takes down.
    pub(super) fn act(&self) -> Act {
        let Surroundings { clock, entropy, .. } = &self.surroundings;
        Act::on_command_line(entropy.id(clock.now()))
    }

    pub(super) async fn subscribe(&self) -> anyhow::Result<Vec<SubscriptionId>> {
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
                    ordering: Ordering::default(),
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

    /// Seeds the workspace and sends events: so many and a summary, or until the signal.
    pub(super) async fn play(
        &self,
        args: &DemoArgs,
        door: &Door,
    ) -> anyhow::Result<Option<Summary>> {
        let clock = &self.surroundings.clock;
        let mut story = Story::new(self.workspace.clone(), clock.now())?;
        let seed = story.seed(clock.now())?;
        self.store.apply(&seed).await?;
        let mut view = View::new();
        if !args.exit {
            let made = self.make_outputs(&seed).await?;
            let key = self.reading_key().await?;
            view.say(&guide::text(&seed, &made, door, &key)?)?;
        }
        let mut sent = 0;
        let mut drawn = None;
        while !self.shutdown.soft.is_cancelled() {
            let left = args.events.map_or(u64::MAX, |events| events - sent);
            let batch = if args.exit { BATCH } else { PACE.0 }.min(left);
            if batch == 0 && args.exit {
                return self.settled(sent).await;
            }
            let told = story.batch(batch, clock.now())?;
            self.store.apply(&told.snapshots).await?;
            self.entrance.publish(&told.events).await?;
            sent += batch;
            if args.exit {
                continue;
            }
            if drawn.is_none_or(|at| self.elapsed() >= at + view.interval()) {
                let statuses = summary::statuses(&*self.store, &self.reach()).await?;
                view.draw(sent, self.elapsed(), &self.rows(), &statuses)?;
                drawn = Some(self.elapsed());
            }
            tokio::select! {
                () = pause(PACE.1) => {}
                () = self.shutdown.soft.cancelled() => {}
            }
        }
        Ok(None)
    }

    /// The tenant of this run.
    pub(super) fn reach(&self) -> Reach {
        Reach::all(&self.workspace)
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
        let seconds = self.elapsed().as_secs_f64();
        let hooks = HOOKS.iter();
        let verified = hooks.map(|(name, ..)| self.receiver.tally(name).verified);
        Ok(Some(Summary {
            events,
            seconds,
            verified: verified.sum(),
            ..Summary::count(&*self.store, &self.reach()).await?
        }))
    }
}
