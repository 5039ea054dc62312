//! `events publish` through a real broker.

use forge_dispatch::domain::event::Event;
use forge_dispatch::domain::snapshot::Snapshot;
use forge_dispatch::entropy::Entropy;
use insta::assert_snapshot;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};

use super::Home;
use crate::harness::services;

/// An exchange and a queue on it, of the test's own.
struct Exchange {
    connection: Connection,
    channel: Channel,
    name: String,
    url: String,
}

impl Exchange {
    /// The queue gets what matches the pattern.
    async fn bound(pattern: &str) -> Self {
        let url = services::amqp_url().await;
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let random = uuid::Uuid::from_bytes(Entropy::system().bytes());
        let name = format!("cli-{}", random.simple());
        let options = ExchangeDeclareOptions {
            auto_delete: true,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default;
        channel
            .exchange_declare(name.as_str().into(), ExchangeKind::Topic, options, none())
            .await
            .unwrap();
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.as_str().into(), options, none())
            .await
            .unwrap();
        channel
            .queue_bind(
                name.as_str().into(),
                name.as_str().into(),
                pattern.into(),
                QueueBindOptions::default(),
                none(),
            )
            .await
            .unwrap();
        Self {
            connection,
            channel,
            name,
            url,
        }
    }

    fn home(&self) -> Home {
        Home::new()
            .with("FORGE_AMQP__URL", &self.url)
            .with("FORGE_AMQP__EVENTS_EXCHANGE", &self.name)
    }

    /// The content type and the body of the next message; they were confirmed, so they are there.
    async fn next(&self) -> Option<(String, Vec<u8>)> {
        let options = BasicGetOptions { no_ack: true };
        let got = self
            .channel
            .basic_get(self.name.as_str().into(), options)
            .await
            .unwrap()?;
        let content_type = got.delivery.properties.content_type().clone().unwrap();
        Some((content_type.to_string(), got.delivery.data))
    }

    async fn close(self) {
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

#[tokio::test]
async fn an_event_goes_to_the_broker_as_the_core_would_send_it() {
    let exchange = Exchange::bound("edition.#").await;
    let home = exchange.home();
    let args = [
        "events",
        "publish",
        "--type",
        "edition.archived",
        "--data",
        "{\"n\": 1.50}",
        "--id",
        "7",
        "--project",
        "pr_1",
        "--workspace",
        "ws_1",
        "--subject",
        "ed_1",
    ];
    assert_snapshot!(home.ok(&args), @"published 7 (edition.archived) to the broker");
    assert!(
        !home.path().join("data").exists(),
        "the store is not touched"
    );

    let (content_type, body) = exchange.next().await.expect("the message was confirmed");
    assert_eq!(content_type, "application/cloudevents+json");
    let now = chrono::DateTime::UNIX_EPOCH;
    let event = Event::decode(&body, Entropy::system().id(now), now).unwrap();
    assert_eq!(event.external_id, "7");
    assert_eq!(event.workspace.as_str(), "ws_1");
    assert_eq!(event.project.unwrap().as_str(), "pr_1");
    assert_eq!(event.edition.unwrap().as_str(), "ed_1");
    assert!(
        event.envelope.contains("{\"n\": 1.50}"),
        "{}",
        event.envelope
    );

    let document = home.json(&["events", "publish", "--type", "edition.x", "--data", "1"]);
    assert_eq!(document["to"], "broker");
    assert_eq!(document["outcome"], "published");
    exchange.close().await;
}

#[tokio::test]
async fn a_snapshot_goes_to_the_exchange_of_snapshots() {
    let exchange = Exchange::bound("#").await;
    let home = exchange
        .home()
        .with("FORGE_AMQP__EVENTS_EXCHANGE", "no-such-exchange")
        .with("FORGE_AMQP__SNAPSHOTS_EXCHANGE", &exchange.name);
    // More than an event may have.
    let data = format!(
        r#"{{"id":"pr_1","version":1,"name":"P","unknown":"{}"}}"#,
        "x".repeat(2 * 1024 * 1024)
    );
    std::fs::write(home.path().join("large.json"), data).unwrap();
    let what = ["--type", "project.snapshot", "--data", "@large.json"];
    let told = home.ok(&[&["events", "publish", "--id", "7"], what.as_slice()].concat());
    assert_snapshot!(told, @"published 7 (project.snapshot) to the broker");
    let (_, body) = exchange.next().await.expect("the message was confirmed");
    Snapshot::decode(&body, chrono::DateTime::UNIX_EPOCH).unwrap();

    let gone = [
        "--type",
        "project.deleted",
        "--data",
        r#"{"id":"pr_1","version":2}"#,
    ];
    home.ok(&[&["events", "publish"], gone.as_slice()].concat());
    let (_, body) = exchange.next().await.expect("the message was confirmed");
    Snapshot::decode(&body, chrono::DateTime::UNIX_EPOCH).unwrap();
    exchange.close().await;
}

#[tokio::test]
async fn what_goes_nowhere_is_a_failure() {
    let exchange = Exchange::bound("edition.#").await;
    let unbound = ["events", "publish", "--type", "output.x", "--data", "1"];
    let told = exchange.home().fails(1, &unbound);
    assert!(told.contains("no queue is bound to exchange"), "{told}");

    let home = exchange
        .home()
        .with("FORGE_AMQP__EVENTS_EXCHANGE", "no-such-exchange");
    let told = home.fails(1, &unbound);
    assert!(
        told.contains("there is no exchange `no-such-exchange`"),
        "{told}"
    );
    exchange.close().await;
}

#[tokio::test]
async fn a_wrong_event_never_reaches_the_broker() {
    let exchange = Exchange::bound("#").await;
    let args = [
        "events",
        "publish",
        "--type",
        "edition.submitted",
        "--data",
        "{}",
    ];
    let told = exchange.home().fails(2, &args);
    assert_snapshot!(told, @"error: data: missing field `edition_id`");
    assert!(exchange.next().await.is_none());
    exchange.close().await;
}

#[test]
fn a_broker_that_is_away_is_code_1_and_its_password_is_not_told() {
    let home = Home::new().with("FORGE_AMQP__URL", "amqp://forge:s3cret@127.0.0.1:1/%2f");
    let told = home.fails(1, &["events", "publish", "--type", "a", "--data", "1"]);
    assert!(told.starts_with("error: publishing: "), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
}
