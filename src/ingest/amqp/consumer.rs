//! One session with the broker: from a connection that stands to its end.
//!
//! One loop waits for whatever comes next: a message, the end of a commit, the end of a burial, a
//! timer, a shutdown. While a batch is being committed the next one is gathered. What came but is
//! not acknowledged is bounded by the window, and so is everything that is held here.
//!
//! While the database is away nothing is acknowledged, and so nothing comes beyond the window: that
//! is the pause. The consumer is not cancelled for it, since a quorum queue takes back what is just
//! on its way to a consumer that is cancelled, which costs those messages a redelivery and their
//! place in the order.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Fuse, FusedFuture, FutureExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};

use super::dead_letter::{Burial, DeadLetters, Letter};
use super::message;
use super::source::Source;
use super::storing::{Work, batch_length};
use super::subscription::Subscription;
use super::watermark::Watermark;
use super::window::Window;
use crate::broker::connection::{self, Line, short};
use crate::broker::copy::delivery_count;
use crate::broker::{AmqpError, topology};
use crate::clock::Clock;
use crate::domain::payload::timestamp;
use crate::health::{Health, Part};
use crate::heavy::heavy;
use crate::ingest::batch::Batch;
use crate::ingest::{Outcome, Sink};
use crate::shutdown::Shutdown;
use crate::store::StoreError;

/// How long messages are held for a database that is away. The broker closes the channel of a
/// consumer that takes too long to acknowledge (15 minutes in some versions, 30 in others); at
/// half of that they are given back in good order, which costs each one redelivery.
const HOLD: Duration = Duration::from_mins(7);

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// As it was asked to.
    Stopped,
    /// The database was away for too long, for this reason.
    StoreAway(String),
    /// Something broke.
    Fault(AmqpError),
}

type Storing<T> = BoxFuture<'static, (Work<T>, Result<(), StoreError>)>;
type Burying = BoxFuture<'static, (DeadLetters, Vec<Letter>, Result<Vec<Burial>, AmqpError>)>;

/// What the loop was woken by.
enum Step<T> {
    Arrived(Option<lapin::Result<Delivery>>),
    Stored(Work<T>, Result<(), StoreError>),
    Buried(DeadLetters, Vec<Letter>, Result<Vec<Burial>, AmqpError>),
    /// The batch has waited long enough.
    Due,
    HeldTooLong,
    Stop,
    Abort,
}

pub(super) struct Session<'a, S: Sink> {
    source: &'a Source,
    sink: &'a Arc<S>,
    clock: &'a dyn Clock,
    health: &'a Health,
    shutdown: &'a Shutdown,
    line: Line,
    channel: Channel,
    subscription: Subscription,
    watermark: Watermark,
    window: Window,
    /// Delivered and not looked at yet.
    gathered: VecDeque<Delivery>,
    /// When the oldest of them has waited long enough for others.
    due: Option<Instant>,
    storing: Fuse<Storing<S::Item>>,
    /// Messages that wait for the dead letters to be free.
    letters: Vec<Letter>,
    /// Here unless it is at work.
    dead_letters: Option<DeadLetters>,
    burying: Fuse<Burying>,
    /// While the database is away: until when messages are held for it.
    held_until: Option<Instant>,
    stopping: bool,
    progress: bool,
}

impl<'a, S: Sink> Session<'a, S> {
    /// Connects, declares what is missing, and subscribes.
    pub(super) async fn connect(
        url: &SecretString,
        source: &'a Source,
        sink: &'a Arc<S>,
        clock: &'a dyn Clock,
        health: &'a Health,
        shutdown: &'a Shutdown,
    ) -> Result<Self, AmqpError> {
        let name = format!("forge-dispatch {}", source.name);
        let line = Line::new(connection::connect(url, &name).await?);
        topology::declare(&line, &source.inbox).await?;
        let channel = line.create_channel().await?;
        let queue = short(&source.inbox.queue)?;
        let subscription = Subscription::new(channel.clone(), queue);
        let dead_letters = DeadLetters::new(line.share(), source);
        let mut session = Self {
            source,
            sink,
            clock,
            health,
            shutdown,
            line,
            channel,
            subscription,
            watermark: Watermark::default(),
            window: Window::new(source.prefetch),
            gathered: VecDeque::new(),
            due: None,
            storing: Fuse::terminated(),
            letters: Vec::new(),
            dead_letters: Some(dead_letters),
            burying: Fuse::terminated(),
            held_until: None,
            stopping: false,
            progress: false,
        };
        session.subscribe().await?;
        Ok(session)
    }

    /// Whether anything was acknowledged.
    pub(super) fn made_progress(&self) -> bool {
        self.progress
    }

    /// Consumes until the end.
    pub(super) async fn run(&mut self) -> Ended {
        let ended = match self.consume().await {
            Ok(ended) => ended,
            Err(error) => Ended::Fault(error),
        };
        // What is being committed is committed to the end: the messages come again and are known
        // then, but deliveries that were born leased are handed over only now.
        if self.held_until.is_none() && !self.storing.is_terminated() {
            tokio::select! {
                _ = &mut self.storing => {}
                () = self.shutdown.hard.cancelled() => {}
            }
        }
        ended
    }

    /// Gives back what is unacknowledged, by closing.
    pub(super) async fn close(self) {
        connection::close(&self.line).await;
    }

    async fn consume(&mut self) -> Result<Ended, AmqpError> {
        loop {
            self.begin_storing();
            self.begin_burying();
            if self.stopping && (self.is_drained() || self.held_until.is_some()) {
                return Ok(Ended::Stopped);
            }
            match self.next_step().await {
                Step::Arrived(Some(Ok(delivery))) => self.arrived(delivery),
                Step::Arrived(Some(Err(error))) => return Err(error.into()),
                Step::Arrived(None) => {
                    self.subscription.ended()?;
                    if !self.stopping {
                        self.subscribe().await?;
                    }
                }
                Step::Due => self.due = None,
                Step::Stored(work, Ok(())) => self.stored(work).await?,
                Step::Stored(work, Err(error)) => self.store_is_away(work, &error),
                Step::Buried(dead_letters, letters, burials) => {
                    self.dead_letters = Some(dead_letters);
                    self.buried(letters, burials?).await?;
                }
                Step::HeldTooLong => {
                    return Ok(Ended::StoreAway("it is away for too long".to_owned()));
                }
                Step::Stop => {
                    self.stopping = true;
                    self.subscription.cancel().await?;
                }
                Step::Abort => return Ok(Ended::Stopped),
            }
        }
    }

    async fn next_step(&mut self) -> Step<S::Item> {
        // Only a batch that could begin at once waits for its time.
        let due = self.due.filter(|_| self.storing.is_terminated());
        tokio::select! {
            biased;
            () = self.shutdown.hard.cancelled() => Step::Abort,
            () = self.shutdown.soft.cancelled(), if !self.stopping => Step::Stop,
            (work, result) = &mut self.storing => Step::Stored(work, result),
            (dead_letters, letters, burials) = &mut self.burying => {
                Step::Buried(dead_letters, letters, burials)
            }
            () = time_of(due) => Step::Due,
            arrived = self.subscription.next() => Step::Arrived(arrived),
            () = time_of(self.held_until) => Step::HeldTooLong,
        }
    }

    /// Nothing is left to be acknowledged, or waited for.
    fn is_drained(&self) -> bool {
        !self.subscription.is_open()
            && self.gathered.is_empty()
            && self.storing.is_terminated()
            && self.letters.is_empty()
            && self.burying.is_terminated()
    }

    fn arrived(&mut self, delivery: Delivery) {
        self.watermark.delivered(delivery.delivery_tag);
        self.window.delivered(delivery.data.len());
        if self.gathered.is_empty() {
            self.due = Some(Instant::now() + self.source.linger);
        }
        self.gathered.push_back(delivery);
    }

    /// Begins a commit, if none is under way and there is reason to.
    fn begin_storing(&mut self) {
        while self.storing.is_terminated() && self.batch_is_due() {
            self.due = None;
            let (mut items, mut deliveries) = (Vec::new(), Vec::new());
            let batch = self.next_batch();
            let bytes = batch.iter().map(|delivery| delivery.data.len()).sum();
            let decoded: Vec<_> = heavy(bytes, || {
                let messages = batch.iter();
                messages.map(|it| self.sink.decode(message(it))).collect()
            });
            for (delivery, decoded) in batch.into_iter().zip(decoded) {
                match decoded {
                    Ok(item) => {
                        items.push(item);
                        deliveries.push(delivery);
                    }
                    Err(reason) => self.letters.push(Letter { delivery, reason }),
                }
            }
            if !items.is_empty() {
                let work = Work::new(Batch::new(items), deliveries);
                self.storing = work.commit(Arc::clone(self.sink)).boxed().fuse();
            }
        }
    }

    /// Whether there is something to store, and no reason to wait for more: the batch is full, its
    /// time is over, or nothing will come before this is acknowledged.
    fn batch_is_due(&self) -> bool {
        let full = self.gathered.len() >= self.source.batch;
        let nothing_comes = !self.subscription.is_open() || self.window_is_full();
        !self.gathered.is_empty() && (full || nothing_comes || self.due.is_none())
    }

    /// Takes a batch from the front; a suspicious message alone.
    fn next_batch(&mut self) -> Vec<Delivery> {
        let messages = self
            .gathered
            .iter()
            .map(|delivery| (delivery_count(delivery), delivery.data.len()));
        let length = batch_length(messages, self.source.batch);
        self.gathered.drain(..length).collect()
    }

    async fn stored(&mut self, work: Work<S::Item>) -> Result<(), AmqpError> {
        for (delivery, outcome) in work.into_outcomes() {
            match outcome {
                Outcome::Stored | Outcome::Duplicate => {
                    self.window.done(delivery.data.len());
                    self.watermark.done(delivery.delivery_tag);
                }
                Outcome::Refused(reason) => self.letters.push(Letter { delivery, reason }),
            }
        }
        if self.held_until.take().is_some() {
            tracing::info!("database: back, consumption goes on");
            self.health.up(Part::Database);
        }
        self.acknowledge().await
    }

    /// The database cannot take the batch now. What is held is kept for it: a message that is given
    /// back would cost one of its redeliveries.
    fn store_is_away(&mut self, work: Work<S::Item>, error: &StoreError) {
        self.health.down(Part::Database, "does not take what comes");
        if self.held_until.is_none() {
            self.held_until = Some(Instant::now() + HOLD);
            tracing::warn!(
                %error,
                held = self.watermark.unacknowledged(),
                "database: away, consumption is paused"
            );
        }
        self.storing = work.commit_later(Arc::clone(self.sink)).boxed().fuse();
    }

    fn begin_burying(&mut self) {
        if self.letters.is_empty() {
            return;
        }
        if let Some(mut dead_letters) = self.dead_letters.take() {
            let letters = std::mem::take(&mut self.letters);
            let at = timestamp(self.clock.now());
            let burying = async move {
                let burials = dead_letters.bury(&letters, &at).await;
                (dead_letters, letters, burials)
            };
            self.burying = burying.boxed().fuse();
        }
    }

    async fn buried(
        &mut self,
        letters: Vec<Letter>,
        burials: Vec<Burial>,
    ) -> Result<(), AmqpError> {
        for (Letter { delivery, .. }, burial) in letters.into_iter().zip(burials) {
            let tag = delivery.delivery_tag;
            self.window.done(delivery.data.len());
            match burial {
                Burial::Kept => self.watermark.done(tag),
                Burial::Failed(_) => {
                    let options = BasicRejectOptions { requeue: false };
                    self.channel.basic_reject(tag, options).await?;
                    self.watermark.rejected(tag);
                }
            }
        }
        self.acknowledge().await
    }

    /// One frame for all that can be acknowledged.
    async fn acknowledge(&mut self) -> Result<(), AmqpError> {
        self.resize().await?;
        if let Some(tag) = self.watermark.advance() {
            let options = BasicAckOptions { multiple: true };
            self.channel.basic_ack(tag, options).await?;
            self.progress = true;
        }
        Ok(())
    }

    /// Ends the subscription for one with another window, where that is due.
    ///
    /// Only a subscription that has its window full is cancelled, and before anything of it is
    /// acknowledged: then no message is on its way, and none gets lost from the order.
    async fn resize(&mut self) -> Result<(), AmqpError> {
        if self.stopping || !self.window_is_full() {
            return Ok(());
        }
        if let Some(size) = self.window.due() {
            self.window.resized(size);
            self.subscription.cancel().await?;
        }
        Ok(())
    }

    /// Whether the broker sends no more before something is acknowledged.
    fn window_is_full(&self) -> bool {
        self.watermark.of_this_subscription() >= usize::from(self.window.size())
    }

    async fn subscribe(&mut self) -> Result<(), AmqpError> {
        self.subscription.begin(self.window.size()).await?;
        self.watermark.subscribed();
        Ok(())
    }
}

/// Waits for an instant; for ever, where there is none.
async fn time_of(instant: Option<Instant>) {
    match instant {
        // Nothing ever comes of `pending`: only the time runs out.
        Some(instant) => drop(timeout_at(instant, pending::<()>()).await),
        None => pending().await,
    }
}
