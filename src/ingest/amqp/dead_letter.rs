//! Messages that cannot be used, put where operators find them with the reason.
//!
//! A copy is published and confirmed first, the original acknowledged afterwards: a crash between
//! the two leaves a second copy in the dead letters, and nothing is lost.

use std::sync::Arc;

use futures::future::join_all;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection};
use metrics::counter;

use super::source::Source;
use crate::broker::confirm::{ConfirmChannel, Placed};
use crate::broker::connection::short;
use crate::broker::copy::{delivery_count, lasting};
use crate::broker::topology::{self, Inbox};
use crate::broker::{AmqpError, PERSISTENT};

/// A message that cannot be used, and why.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) delivery: Delivery,
    pub(super) reason: String,
}

/// What became of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Burial {
    /// A copy is in the dead letters: the original is to be acknowledged.
    Kept,
    /// No copy could be placed, for this reason: the original is to be rejected, so that the
    /// broker dead-letters it by itself, which loses our headers but not the message.
    Failed(String),
}

/// The longest reason that goes into a header, in bytes: it may quote the message.
const MAX_REASON_BYTES: usize = 1_024;

/// From this delivery on, a copy is made without the message's own properties: they may be what
/// the broker refuses, and what then closes the channel each time.
const BARE_FROM: u64 = 3;

/// Publishes dead letters, on a channel of its own that it opens when it needs one: a publish to
/// an exchange that is missing closes the channel, which must not be the one that we consume on.
pub(super) struct DeadLetters {
    connection: Arc<Connection>,
    inbox: Inbox,
    /// Counts them.
    counter: &'static str,
    channel: Option<ConfirmChannel>,
}

impl DeadLetters {
    pub(super) fn new(connection: Arc<Connection>, source: &Source) -> Self {
        Self {
            connection,
            inbox: source.inbox.clone(),
            counter: source.counter,
            channel: None,
        }
    }

    /// Places a copy of each, and answers in the order given. An error means that the connection
    /// is lost. `at` is the time that the copies are marked with (RFC 3339).
    pub(super) async fn bury(
        &mut self,
        letters: &[Letter],
        at: &str,
    ) -> Result<Vec<Burial>, AmqpError> {
        let all: Vec<&Letter> = letters.iter().collect();
        let mut burials = self.publish(&all, at).await?;
        let failed: Vec<usize> = (0..letters.len())
            .filter(|index| burials[*index] != Burial::Kept)
            .collect();
        if !failed.is_empty() {
            // Somebody may have deleted the exchange, the queue or the binding.
            self.channel = None;
            if let Err(error) = topology::declare_dead_letters(&self.connection, &self.inbox).await
            {
                tracing::warn!(%error, "broker: the dead letters have no place");
            }
            let again: Vec<&Letter> = failed.iter().map(|index| &letters[*index]).collect();
            let second = self.publish(&again, at).await?;
            for (index, burial) in failed.into_iter().zip(second) {
                burials[index] = burial;
            }
        }
        report(letters, &burials);
        counter!(self.counter, "outcome" => "dead_lettered").increment(letters.len() as u64);
        Ok(burials)
    }

    async fn publish(&mut self, letters: &[&Letter], at: &str) -> Result<Vec<Burial>, AmqpError> {
        let channel = self.channel().await?;
        let exchange = short(&self.inbox.dead_letter_exchange)?;
        let mut confirms = Vec::with_capacity(letters.len());
        for letter in letters {
            let Letter { delivery, reason } = letter;
            let properties = properties(delivery, reason, at, &self.inbox.queue);
            let key = delivery.routing_key.clone();
            let sent = channel.send(exchange.clone(), key, &delivery.data, properties);
            confirms.push(sent.await);
        }
        let placed = join_all(confirms).await;
        let burials = placed.into_iter().map(Burial::from).collect();
        if self.connection.status().connected() {
            Ok(burials)
        } else {
            let lost = "the connection was lost while dead letters were published";
            Err(lapin::Error::from(std::io::Error::other(lost)).into())
        }
    }

    async fn channel(&mut self) -> Result<ConfirmChannel, AmqpError> {
        if let Some(channel) = &self.channel
            && channel.is_open()
        {
            return Ok(channel.clone());
        }
        let channel = ConfirmChannel::open(&self.connection).await?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }
}

impl From<Placed> for Burial {
    fn from(placed: Placed) -> Self {
        match placed {
            Placed::Kept => Self::Kept,
            Placed::Returned(told) => Self::Failed(format!("returned: {told}")),
            Placed::NotKept => Self::Failed("not kept by the broker".to_owned()),
            Placed::Failed(error) => Self::Failed(error.to_string()),
        }
    }
}

fn report(letters: &[Letter], burials: &[Burial]) {
    for (Letter { delivery, reason }, burial) in letters.iter().zip(burials) {
        let routing_key = delivery.routing_key.as_str();
        match burial {
            Burial::Kept => {
                tracing::warn!(routing_key, reason, "a message was dead-lettered");
            }
            Burial::Failed(failure) => tracing::error!(
                routing_key,
                reason,
                failure,
                "a message cannot be used, nor dead-lettered by us: rejected, left to the broker"
            ),
        }
    }
}

/// The message's own properties, with our headers.
fn properties(delivery: &Delivery, reason: &str, at: &str, queue: &str) -> BasicProperties {
    let bare = delivery_count(delivery) >= BARE_FROM;
    let mut headers = FieldTable::default();
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if !bare {
        let own = &delivery.properties;
        headers = own.headers().clone().unwrap_or_default();
        properties = lasting(own);
    }
    for (name, value) in [
        ("x-forge-reason", shortened(reason)),
        ("x-forge-dead-lettered-at", at),
        ("x-forge-queue", queue),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    properties.with_headers(headers)
}

fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        Delivery::mock(
            1,
            "x".into(),
            "edition.submitted".into(),
            false,
            b"{".to_vec(),
        )
    }

    fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
        properties.headers().as_ref()?.inner().get(name)
    }

    #[test]
    fn a_copy_keeps_what_the_message_said_and_adds_the_reason() {
        let mut delivery = delivery();
        let mut headers = FieldTable::default();
        headers.insert("trace".into(), AMQPValue::LongString("t1".into()));
        delivery.properties = BasicProperties::default()
            .with_message_id("m1".into())
            .with_type("edition.submitted".into())
            .with_headers(headers)
            .with_expiration("1000".into())
            .with_user_id("core".into());
        let copy = properties(&delivery, "not JSON", "2026-05-01T09:00:00Z", "q");
        assert_eq!(copy.message_id().as_ref().unwrap().as_str(), "m1");
        assert_eq!(copy.kind().as_ref().unwrap().as_str(), "edition.submitted");
        assert_eq!(
            header(&copy, "trace"),
            Some(&AMQPValue::LongString("t1".into()))
        );
        assert_eq!(
            header(&copy, "x-forge-reason"),
            Some(&AMQPValue::LongString("not JSON".into()))
        );
        assert_eq!(copy.expiration(), &None, "it would vanish");
        assert_eq!(copy.user_id(), &None, "the broker would refuse it");
        assert_eq!(copy.delivery_mode(), &Some(2));
    }

    #[test]
    fn a_message_that_keeps_coming_back_is_copied_bare() {
        let mut delivery = delivery();
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        delivery.properties = BasicProperties::default()
            .with_message_id("m1".into())
            .with_headers(headers);
        let copy = properties(&delivery, "not JSON", "2026-05-01T09:00:00Z", "q");
        assert_eq!(copy.message_id(), &None);
        assert_eq!(header(&copy, "x-delivery-count"), None);
        assert!(header(&copy, "x-forge-reason").is_some());
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let reason = "é".repeat(MAX_REASON_BYTES);
        assert_eq!(shortened(&reason).len(), MAX_REASON_BYTES);
        assert_eq!(shortened(&format!("a{reason}")).len(), MAX_REASON_BYTES - 1);
    }
}
