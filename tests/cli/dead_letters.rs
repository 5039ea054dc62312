//! `events dead-letters`, over a real broker.

use std::time::Duration;

use forge_dispatch::config::Amqp;
use insta::assert_snapshot;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret;

use super::{Home, text};
use crate::harness::{eventually, queues};

const PATIENCE: Duration = Duration::from_mins(1);

/// Messages and routing keys of those whose queue was this one.
const LIST: [&str; 3] = ["events", "dead-letters", "list"];

/// A broker's queues: one for dead letters, and the one that they came by.
struct Post {
    amqp: Amqp,
    connection: Connection,
    channel: Channel,
}

impl Post {
    async fn new() -> Self {
        let amqp = queues::unique().await;
        let url = amqp.url.as_ref().unwrap().expose_secret();
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        for queue in [&amqp.dead_letter_queue, &amqp.events_queue] {
            let durable = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            let mut arguments = FieldTable::default();
            let quorum = AMQPValue::LongString("quorum".into());
            arguments.insert("x-queue-type".into(), quorum);
            channel
                .queue_declare(queue.as_str().into(), durable, arguments)
                .await
                .unwrap();
        }
        Self {
            amqp,
            connection,
            channel,
        }
    }

    fn home(&self) -> Home {
        let url = self.amqp.url.as_ref().unwrap().expose_secret();
        Home::new()
            .with("FORGE_AMQP__URL", url)
            .with("FORGE_AMQP__EVENTS_QUEUE", &self.amqp.events_queue)
            .with(
                "FORGE_AMQP__DEAD_LETTER_QUEUE",
                &self.amqp.dead_letter_queue,
            )
    }

    /// Puts a dead letter there, as one that came by this queue.
    async fn bury(&self, queue: &str, body: &[u8]) {
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("x-forge-reason", "not JSON: expected value at line 1"),
            ("x-forge-dead-lettered-at", "2026-05-01T09:00:00Z"),
            ("x-forge-queue", queue),
            ("traceparent", "00-1-2-01"),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_message_id("m1".into())
            .with_content_type("application/json".into());
        self.channel
            .basic_publish(
                "".into(),
                self.amqp.dead_letter_queue.as_str().into(),
                BasicPublishOptions::default(),
                body,
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }

    /// Puts so many there, numbered from 1 on, which came by the events queue.
    async fn bury_numbered(&self, count: usize) {
        for number in 1..=count {
            let body = format!("letter {number}");
            self.bury(&self.amqp.events_queue, body.as_bytes()).await;
        }
    }

    /// Waits until the queue has so many messages ready.
    async fn has(&self, queue: &str, count: u32) {
        let what = format!("{queue} has {count}");
        eventually(PATIENCE, &what, async || {
            queues::look(&self.amqp, queue).await == Some((count, 0))
        })
        .await;
    }

    /// Takes what is in a queue: body and headers.
    async fn take(&self, queue: &str) -> Vec<(String, FieldTable)> {
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = self.channel.basic_get(queue.into(), options).await.unwrap() {
            let headers = got.delivery.properties.headers().clone();
            let body = String::from_utf8(got.delivery.data).unwrap();
            taken.push((body, headers.unwrap_or_default()));
        }
        taken
    }

    async fn bodies(&self, queue: &str) -> Vec<String> {
        let taken = self.take(queue).await.into_iter();
        taken.map(|(body, _)| body).collect()
    }

    async fn close(self) {
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

fn numbered(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let numbers = numbers.into_iter();
    numbers.map(|number| format!("letter {number}")).collect()
}

/// The text without what differs from run to run: the ids of letters and the names of queues.
fn stable(post: &Post, id: &str, text: &str) -> String {
    text.replace(&post.amqp.events_queue, "QUEUE")
        .replace(&post.amqp.dead_letter_queue, "DEAD")
        .replace(id, "ID")
        .split_inclusive('\n')
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.join(" ") + "\n"
        })
        .collect()
}

#[tokio::test]
async fn looking_leaves_every_letter_where_it_is() {
    let post = Post::new().await;
    let home = post.home();
    assert_snapshot!(home.ok(&LIST), @"no dead letters");
    post.bury_numbered(5).await;
    let dead = post.amqp.dead_letter_queue.clone();
    post.has(&dead, 5).await;
    // Often, and more often than a broker would bear that drops what came back twenty times.
    for _ in 0..25 {
        let listed = home.json(&LIST);
        assert_eq!(listed["waiting"], 5);
        let numbers = listed["data"].as_array().unwrap();
        let numbers: Vec<_> = numbers
            .iter()
            .map(|it| it["number"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        post.has(&dead, 5).await;
    }
    let few = home.ok(&[&LIST as &[&str], &["--limit", "2"]].concat());
    assert!(few.contains("2 of 5: --limit shows more"), "{few}");
    post.has(&dead, 5).await;
    let counts: Vec<_> = post
        .take(&dead)
        .await
        .into_iter()
        .map(|(body, headers)| {
            let count = headers.inner().get("x-delivery-count").cloned();
            assert!(
                !matches!(count, Some(AMQPValue::LongLongInt(11..))),
                "{count:?}"
            );
            body
        })
        .collect();
    assert_eq!(counts, numbered(1..=5));
    post.close().await;
}

#[tokio::test]
async fn one_is_shown_by_its_number_or_its_id_and_cannot_command_a_terminal() {
    let post = Post::new().await;
    let home = post.home();
    post.bury(&post.amqp.events_queue, b"first").await;
    post.bury(&post.amqp.events_queue, b"{\"a\":\n\x1b[2J\xe2\x80\xae1}")
        .await;
    let dead = post.amqp.dead_letter_queue.clone();
    post.has(&dead, 2).await;
    let list = home.json(&LIST);
    let id = text(&list["data"][1]["id"]);
    post.has(&dead, 2).await;
    let table = home.ok(&LIST);
    let first = text(&list["data"][0]["id"]);
    assert_snapshot!(stable(&post, &id, &table.replace(&first, "FIRST")), @r"
    # ID SINCE QUEUE ROUTING KEY BYTES REASON
    1 FIRST 2026-05-01T09:00:00Z QUEUE DEAD 5 not JSON: expected value at line 1
    2 ID 2026-05-01T09:00:00Z QUEUE DEAD 15 not JSON: expected value at line 1
    ");
    post.has(&dead, 2).await;
    let shown = home.ok(&["events", "dead-letters", "show", &id]);
    assert_snapshot!(stable(&post, &id, &shown), @r#"
    number 2
    id ID
    since 2026-05-01T09:00:00Z
    reason not JSON: expected value at line 1
    queue QUEUE
    routing key DEAD
    content type application/json
    bytes 15
    traceparent 00-1-2-01
    x-delivery-count 2
    x-forge-dead-lettered-at 2026-05-01T09:00:00Z
    x-forge-queue QUEUE
    x-forge-reason not JSON: expected value at line 1

    body:
    {"a":
    \u{1b}[2J\u{202e}1}
    "#);
    post.has(&dead, 2).await;
    let document = home.json(&["events", "dead-letters", "show", "2"]);
    assert_eq!(document["id"], id);
    assert_eq!(document["headers"]["traceparent"], "00-1-2-01");
    assert_eq!(document["body"], "{\"a\":\n\u{1b}[2J\u{202e}1}");
    post.has(&dead, 2).await;
    for which in ["3", "0123456789ab"] {
        let told = home.fails(3, &["events", "dead-letters", "show", which]);
        assert!(
            told.contains(&format!("no dead letter {which} in queue")),
            "{told}"
        );
        post.has(&dead, 2).await;
    }
    post.close().await;
}

#[tokio::test]
async fn a_letter_goes_back_to_the_queue_that_it_came_by_as_it_came() {
    let post = Post::new().await;
    let home = post.home();
    post.bury_numbered(3).await;
    let (dead, events) = (
        post.amqp.dead_letter_queue.clone(),
        post.amqp.events_queue.clone(),
    );
    post.has(&dead, 3).await;
    let second = home.json(&LIST)["data"][1]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let told = home.ok(&["events", "dead-letters", "requeue", "2"]);
    assert!(
        told.starts_with(&format!("1 requeued\n{second}  ")),
        "{told}"
    );
    post.has(&dead, 2).await;
    post.has(&events, 1).await;
    let back = post.take(&events).await.remove(0);
    assert_eq!(back.0, "letter 2");
    let headers = back.1.inner().keys().map(ToString::to_string);
    // The broker counts how often it came back, from anew.
    let own: Vec<_> = headers.filter(|name| name != "x-delivery-count").collect();
    assert_eq!(own, ["traceparent"]);
    let done = home.json(&["events", "dead-letters", "requeue", "--all"]);
    assert_eq!(done["requeued"], 2);
    post.has(&dead, 0).await;
    post.has(&events, 2).await;
    assert_eq!(post.bodies(&events).await, numbered([1, 3]));
    post.close().await;
}

#[tokio::test]
async fn a_letter_that_cannot_go_back_stays_and_is_told() {
    let post = Post::new().await;
    let home = post.home();
    post.bury("no.such.queue", b"letter 1").await;
    post.bury_numbered(2).await;
    let dead = post.amqp.dead_letter_queue.clone();
    post.has(&dead, 3).await;
    let run = home.run(&["events", "dead-letters", "requeue", "--all"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.starts_with("2 requeued\n"), "{run:?}");
    let told = "stays: there is no queue `no.such.queue`";
    assert!(run.stdout.contains(told), "{run:?}");
    assert!(run.stderr.contains("1 could not be requeued"), "{run:?}");
    post.has(&dead, 1).await;
    assert_eq!(post.bodies(&dead).await, ["letter 1"]);
    post.close().await;
}

#[tokio::test]
async fn what_is_dropped_is_gone_and_only_after_a_yes() {
    let post = Post::new().await;
    let home = post.home();
    post.bury_numbered(4).await;
    let dead = post.amqp.dead_letter_queue.clone();
    post.has(&dead, 4).await;
    let told = home.fails(2, &["events", "dead-letters", "drop", "--all"]);
    assert_snapshot!(told, @"error: --yes: is needed to drop all dead letters for good");
    post.has(&dead, 4).await;
    let drop = ["events", "dead-letters", "drop", "3", "--yes"];
    let third = home.json(&LIST)["data"][2].clone();
    let told = home.ok(&drop);
    let line = format!("1 dropped\n{}  ", third["id"].as_str().unwrap());
    assert!(told.starts_with(&line), "{told}");
    post.has(&dead, 3).await;
    assert_eq!(home.json(&LIST)["waiting"], 3);
    post.has(&dead, 3).await;
    let nobody = ["events", "dead-letters", "drop", "9", "--yes"];
    home.fails(3, &nobody);
    post.has(&dead, 3).await;
    let done = home.json(&["events", "dead-letters", "drop", "--all", "--yes"]);
    assert_eq!(
        (&done["dropped"], &done["requeued"]),
        (&3.into(), &0.into())
    );
    assert_eq!(done["letters"].as_array().unwrap().len(), 3);
    post.has(&dead, 0).await;
    post.close().await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let told = Home::new().fails(2, &LIST);
    assert!(told.contains("amqp.url"), "{told}");
    let amqp = queues::unique().await;
    let home = Home::new()
        .with(
            "FORGE_AMQP__URL",
            amqp.url.as_ref().unwrap().expose_secret(),
        )
        .with("FORGE_AMQP__DEAD_LETTER_QUEUE", &amqp.dead_letter_queue);
    let told = home.fails(1, &LIST);
    let expected = format!("there is no queue `{}`", amqp.dead_letter_queue);
    assert!(told.contains(&expected), "{told}");
    let told = home.fails(2, &["events", "dead-letters", "drop"]);
    assert!(told.contains("--all"), "{told}");
}
