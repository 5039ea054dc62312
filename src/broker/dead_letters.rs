//! Reading the queue of dead letters, for `events dead-letters`.
//!
//! Messages are taken by one consumer and acknowledged only where they are to go: whatever ends this in
//! the middle, the broker still has all that it was not told to forget. What was taken and stays is
//! returned by the end of the channel, in order. Some versions return to the head of the queue and others
//! (3.10) to its end, so the whole queue is taken in any case, as far as it can be.
//!
//! The broker counts how often a message came back, and newer ones drop one that came back too often (20
//! times, where nobody says otherwise). So that looking never costs a letter, one that has come back
//! [`OFTEN`] times is replaced by a copy, which begins to count anew.

use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::confirm::{ConfirmChannel, Placed};
use super::connection::{self, Line, short};
use super::copy::{self, delivery_count};
use super::error::{AmqpError, NOT_FOUND, reply_code};
use crate::domain::hex::hex;

/// How long a message that is there may take to come; another that looks may have it in hand.
const PATIENCE: Duration = Duration::from_secs(5);

/// From so many returns on a letter is copied and not given back once more.
const OFTEN: u64 = 10;

/// How much of the hash of a letter is its id: enough among those of one queue.
const ID_BYTES: usize = 6;

/// Headers that say why a message is here, and are no part of it.
const OURS: [&str; 3] = [REASON, AT, QUEUE];
const REASON: &str = "x-forge-reason";
const AT: &str = "x-forge-dead-lettered-at";
const QUEUE: &str = "x-forge-queue";

/// Where the broker itself dead-lettered a message from, first of all.
const BROKERS_QUEUE: &str = "x-first-death-queue";
/// Why.
const BROKERS_REASON: &str = "x-first-death-reason";

/// Headers of the broker's own that begin so; it adds them again.
const BROKERS: [&str; 3] = ["x-death", "x-first-death-", "x-last-death-"];

/// A dead letter that is in hand: it is dropped, requeued or kept.
#[derive(Debug)]
pub struct DeadLetter {
    /// Its place in the queue, from 1 on.
    pub position: usize,
    /// The same each time that it is looked at: of what it says and when it came here.
    pub id: String,
    delivery: Delivery,
}

impl DeadLetter {
    fn new(position: usize, delivery: Delivery) -> Self {
        let mut digest = Sha256::new();
        for name in OURS {
            digest.update(header(&delivery, name).unwrap_or_default());
            digest.update([0]);
        }
        digest.update(&delivery.data);
        Self {
            position,
            id: hex(&digest.finalize()[..ID_BYTES]),
            delivery,
        }
    }

    /// Why it is here.
    pub fn reason(&self) -> Option<String> {
        header(&self.delivery, REASON).or_else(|| {
            let broker = header(&self.delivery, BROKERS_REASON)?;
            Some(format!("the broker: {broker}"))
        })
    }

    /// Since when (RFC 3339).
    pub fn dead_lettered_at(&self) -> Option<String> {
        header(&self.delivery, AT)
    }

    /// The queue that it came by, and goes back to.
    pub fn queue(&self) -> Option<String> {
        header(&self.delivery, QUEUE).or_else(|| header(&self.delivery, BROKERS_QUEUE))
    }

    /// What it was published with.
    pub fn routing_key(&self) -> &str {
        self.delivery.routing_key.as_str()
    }

    /// What it says that it holds.
    pub fn content_type(&self) -> Option<String> {
        let own = self.delivery.properties.content_type();
        own.as_ref().map(ToString::to_string)
    }

    /// The message.
    pub fn body(&self) -> &[u8] {
        &self.delivery.data
    }

    /// All its headers, in the order of their names.
    pub fn headers(&self) -> Vec<(String, String)> {
        let headers = self.delivery.properties.headers().iter();
        headers
            .flat_map(FieldTable::inner)
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    }
}

/// What became of a letter that was to go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// Its queue has it again, and the dead letters no more.
    Done,
    /// It stays, for this reason.
    Kept(String),
}

/// The queue, opened.
pub struct DeadLetters {
    line: Line,
    channel: Channel,
    /// Of its own: a publish that fails may close it.
    copies: ConfirmChannel,
    consumer: Consumer,
    queue: String,
    waiting: usize,
    /// How many may be in hand.
    most: usize,
    taken: usize,
    /// How many are in hand, to be returned.
    held: usize,
}

impl DeadLetters {
    /// Opens the queue, to have so many letters in hand at most. Declares nothing: one that is missing is
    /// an error.
    pub async fn open(url: &SecretString, queue: &str, most: u16) -> Result<Self, AmqpError> {
        let connection = connection::connect(url, "forge-dispatch dead letters").await?;
        let line = Line::new(connection);
        let channel = line.create_channel().await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel
            .queue_declare(short(queue)?, passive, FieldTable::default())
            .await
            .map_err(|error| match reply_code(&error) {
                Some(NOT_FOUND) => AmqpError::NoQueue(queue.to_owned()),
                _ => error.into(),
            })?;
        let waiting = usize::try_from(declared.message_count()).unwrap_or(usize::MAX);
        channel.basic_qos(most, BasicQosOptions::default()).await?;
        let consumer = channel
            .basic_consume(
                short(queue)?,
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(Self {
            copies: ConfirmChannel::open(&line).await?,
            line,
            channel,
            consumer,
            queue: queue.to_owned(),
            waiting,
            most: usize::from(most),
            taken: 0,
            held: 0,
        })
    }

    /// How many were there when the queue was opened.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes the next one in hand. No more than were there at first: what comes back meanwhile, as a
    /// message that is still of no use does, is left for another time.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, AmqpError> {
        if self.taken == self.waiting || self.held == self.most {
            return Ok(None);
        }
        let next = tokio::time::timeout(PATIENCE, self.consumer.next()).await;
        let Ok(message) = next else {
            return Ok(None);
        };
        let delivery = message.ok_or_else(|| AmqpError::Cancelled(self.queue.clone()))??;
        self.taken += 1;
        Ok(Some(DeadLetter::new(self.taken, delivery)))
    }

    /// It is to stay: it is returned by [`DeadLetters::close`].
    pub async fn keep(&mut self, letter: DeadLetter) -> Result<(), AmqpError> {
        if delivery_count(&letter.delivery) >= OFTEN
            && let Placed::Kept = self.place(&letter, &self.queue, as_it_is).await?
        {
            return self.forget(&letter).await;
        }
        self.held += 1;
        Ok(())
    }

    /// It is to go.
    pub async fn discard(&mut self, letter: DeadLetter) -> Result<(), AmqpError> {
        self.forget(&letter).await
    }

    /// Publishes it to the queue that it came by; it goes once that queue has it.
    pub async fn requeue(&mut self, letter: DeadLetter) -> Result<Requeued, AmqpError> {
        let Some(queue) = letter.queue() else {
            self.keep(letter).await?;
            let reason = format!("no header `{QUEUE}` says where it came from");
            return Ok(Requeued::Kept(reason));
        };
        let kept = match self.place(&letter, &queue, as_it_was).await? {
            Placed::Kept => {
                self.forget(&letter).await?;
                return Ok(Requeued::Done);
            }
            Placed::Returned(_) => format!("there is no queue `{queue}`"),
            Placed::NotKept => AmqpError::NotKept.to_string(),
            Placed::Failed(error) => {
                // Perhaps it was kept: then there are two, and neither is lost.
                self.copies = ConfirmChannel::open(&self.line).await?;
                error.to_string()
            }
        };
        self.keep(letter).await?;
        Ok(Requeued::Kept(kept))
    }

    /// Returns what was kept, behind it the rest of the queue, and says goodbye.
    pub async fn close(mut self) -> Result<(), AmqpError> {
        while let Some(letter) = self.next().await? {
            self.keep(letter).await?;
        }
        // Answered when all that was said before was heard.
        self.channel.close(200, "done".into()).await?;
        connection::close(&self.line).await;
        Ok(())
    }

    async fn forget(&self, letter: &DeadLetter) -> Result<(), AmqpError> {
        let one = BasicAckOptions::default();
        Ok(letter.delivery.acker.ack(one).await.map(drop)?)
    }

    /// Publishes a copy straight to a queue, by the exchange that every queue is bound to by its name.
    async fn place(
        &self,
        letter: &DeadLetter,
        queue: &str,
        keeps: fn(&str) -> bool,
    ) -> Result<Placed, AmqpError> {
        let properties = copied(&letter.delivery, keeps);
        let body = &letter.delivery.data;
        let sent = self
            .copies
            .send("".into(), short(queue)?, body, properties)
            .await;
        Ok(sent.await)
    }
}

/// Without what says why it is here.
fn as_it_was(header: &str) -> bool {
    as_it_is(header)
        && !OURS.contains(&header)
        && !BROKERS.iter().any(|theirs| header.starts_with(theirs))
}

/// Without what the broker counted.
fn as_it_is(header: &str) -> bool {
    header != copy::DELIVERY_COUNT
}

fn copied(delivery: &Delivery, keeps: fn(&str) -> bool) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(own) = delivery.properties.headers() {
        for (name, value) in own.inner() {
            if keeps(name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
    copy::lasting(&delivery.properties).with_headers(headers)
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    let headers = delivery.properties.headers().as_ref()?;
    headers.inner().get(name).map(text)
}

/// A header's value for people.
fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[(&str, &str)], body: &str) -> DeadLetter {
        let mut delivery = Delivery::mock(
            1,
            "x".into(),
            "edition.submitted".into(),
            true,
            body.as_bytes().to_vec(),
        );
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        delivery.properties = BasicProperties::default().with_headers(table);
        DeadLetter::new(1, delivery)
    }

    #[test]
    fn an_id_tells_letters_apart_and_stays() {
        let id = |at, body| letter(&[(AT, at), ("x-delivery-count", at)], body).id;
        assert_eq!(id("1", "{}"), id("1", "{}"));
        assert_ne!(id("1", "{}"), id("2", "{}"));
        assert_ne!(id("1", "{}"), id("1", "[]"));
        let counted = |count| letter(&[(AT, "1"), ("x-delivery-count", count)], "{}").id;
        assert_eq!(counted("1"), counted("2"));
    }

    #[test]
    fn what_the_broker_dead_lettered_itself_is_told_in_the_same_words() {
        let letter = letter(
            &[(BROKERS_QUEUE, "q"), (BROKERS_REASON, "delivery_limit")],
            "{}",
        );
        assert_eq!(letter.queue().as_deref(), Some("q"));
        assert_eq!(
            letter.reason().as_deref(),
            Some("the broker: delivery_limit")
        );
    }

    #[test]
    fn a_message_goes_back_as_it_came() {
        let letter = letter(
            &[
                (REASON, "r"),
                (AT, "a"),
                (QUEUE, "q"),
                ("x-delivery-count", "3"),
                ("x-first-death-queue", "q"),
                ("x-death", "…"),
                ("traceparent", "00-1-2-01"),
            ],
            "{}",
        );
        let names = |keeps| -> Vec<String> {
            let properties = copied(&letter.delivery, keeps);
            let headers = properties.headers().clone().unwrap();
            headers.inner().keys().map(ToString::to_string).collect()
        };
        assert_eq!(names(as_it_was), ["traceparent"]);
        assert_eq!(names(as_it_is).len(), 6);
    }
}
