//! The Report Forge core: publishes persistent messages to the events exchange, each confirmed.

use std::time::Duration;

use anyhow::Context;
use forge_dispatch::config;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until};

use crate::envelope::{TYPE, envelope, envelope_at, micros, now_us};

/// What a timer may be late by, in microseconds: its wheel turns by the millisecond.
const TIMER_US: u64 = 2_000;

/// Messages on their way at once.
const WINDOW: usize = 500;

/// A connection that publishes.
pub(crate) struct Publisher {
    /// Dropped, it would close the channel.
    _connection: Connection,
    channel: Channel,
    settings: config::Amqp,
}

impl Publisher {
    pub(crate) async fn new(url: SecretString, settings: config::Amqp) -> anyhow::Result<Self> {
        let connection =
            Connection::connect(url.expose_secret(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            _connection: connection,
            channel,
            settings,
        })
    }

    /// As fast as the broker confirms.
    pub(crate) async fn publish(
        &self,
        run: u32,
        count: usize,
        data_bytes: usize,
    ) -> anyhow::Result<()> {
        let mut unconfirmed = Vec::new();
        for first in (0..count).step_by(WINDOW) {
            let mut sent = Vec::with_capacity(WINDOW);
            for number in first..count.min(first + WINDOW) {
                sent.push(self.send(&envelope(run, number, data_bytes)).await?);
            }
            // The window before this one, so that there is always one under way.
            confirmed(std::mem::replace(&mut unconfirmed, sent)).await?;
        }
        confirmed(unconfirmed).await
    }

    /// At a steady rate, whatever the program makes of it; answers how many.
    pub(crate) async fn publish_at(
        &self,
        run: u32,
        per_second: u32,
        duration: Duration,
        data_bytes: usize,
    ) -> anyhow::Result<usize> {
        let (begun, begun_us) = (Instant::now(), now_us());
        let count = usize::try_from(duration.as_secs() * u64::from(per_second))?;
        let mut unconfirmed = Vec::new();
        for number in 0..count {
            let due =
                Duration::from_secs_f64(f64::from(u32::try_from(number)?) / f64::from(per_second));
            sleep_until(begun + due).await;
            // A publisher that was held up hides nothing: then the time counts from when it was due.
            // What a timer is late by is not the program's.
            let (due_us, woken_us) = (begun_us + micros(due), now_us());
            let at_us = if woken_us > due_us + TIMER_US {
                due_us
            } else {
                woken_us
            };
            let event = envelope_at(at_us, run, number, data_bytes);
            unconfirmed.push(self.send(&event).await?);
            if unconfirmed.len() >= WINDOW * 4 {
                confirmed(unconfirmed.drain(..WINDOW).collect()).await?;
            }
        }
        confirmed(unconfirmed).await?;
        Ok(count)
    }

    async fn send(&self, body: &[u8]) -> anyhow::Result<PublisherConfirm> {
        let properties = BasicProperties::default()
            .with_content_type("application/cloudevents+json".into())
            .with_delivery_mode(2);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let exchange = self.settings.events_exchange.as_str().into();
        self.channel
            .basic_publish(exchange, TYPE.into(), options, body, properties)
            .await
            .context("publishing")
    }
}

async fn confirmed(sent: Vec<PublisherConfirm>) -> anyhow::Result<()> {
    for confirm in sent {
        anyhow::ensure!(confirm.await?.is_ack(), "the broker takes every message");
    }
    Ok(())
}
