//! The consumer on our queue: one at a time, so that messages keep their order.

use std::future::pending;

use futures::stream::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};

use crate::broker::AmqpError;

/// A consumer, or its absence.
pub(super) struct Subscription {
    channel: Channel,
    queue: ShortString,
    /// After a cancel it is kept until its end was read, since what was sent before still comes.
    consumer: Option<Consumer>,
    cancelling: bool,
}

impl Subscription {
    /// Nothing is subscribed yet.
    pub(super) fn new(channel: Channel, queue: ShortString) -> Self {
        Self {
            channel,
            queue,
            consumer: None,
            cancelling: false,
        }
    }

    /// Subscribes; the broker sends so many ahead. A window holds for the subscriptions that come
    /// after it is set, so that another one takes another subscription.
    pub(super) async fn begin(&mut self, window: u16) -> Result<(), AmqpError> {
        self.channel
            .basic_qos(window, BasicQosOptions { global: false })
            .await?;
        let consumer = self
            .channel
            .basic_consume(
                self.queue.clone(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        self.consumer = Some(consumer);
        tracing::debug!(window, "broker: subscribed");
        Ok(())
    }

    /// Asks for no more. What was sent before still comes, and then the end.
    pub(super) async fn cancel(&mut self) -> Result<(), AmqpError> {
        if let Some(consumer) = &self.consumer
            && !self.cancelling
        {
            let tag = consumer.tag();
            self.cancelling = true;
            self.channel
                .basic_cancel(tag, BasicCancelOptions::default())
                .await?;
        }
        Ok(())
    }

    /// The next message, or the end; never anything, while nothing is subscribed. May be dropped
    /// and called again: nothing is lost by it.
    pub(super) async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        match &mut self.consumer {
            Some(consumer) => consumer.next().await,
            None => pending().await,
        }
    }

    /// Takes note of the end. One that we did not ask for is the broker's, and an error.
    pub(super) fn ended(&mut self) -> Result<(), AmqpError> {
        self.consumer = None;
        if std::mem::take(&mut self.cancelling) {
            Ok(())
        } else {
            Err(AmqpError::Cancelled(self.queue.to_string()))
        }
    }

    /// Whether messages can come.
    pub(super) fn is_open(&self) -> bool {
        self.consumer.is_some()
    }
}
