//! The editions, and what the core tells of them.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use forge_dispatch::config;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// Each so many-th edit is a webhook event.
const EVENT_EVERY: usize = 4;

/// Where an edition stands before any event told otherwise.
const FIRST_STATUS: &str = "draft";

/// What is known of an edition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) version: i64,
    pub(crate) status: &'static str,
}

/// The core, connected to the broker.
pub(crate) struct Core {
    /// Dropped, it would close the channel.
    _connection: Connection,
    channel: Channel,
    settings: config::Amqp,
    states: Vec<State>,
    edits: usize,
}

impl Core {
    /// The core of so many editions.
    pub(crate) async fn connect(settings: &config::Amqp, editions: usize) -> Self {
        let url = settings.url.as_ref().expect("a broker").expose_secret();
        let connection = Connection::connect(url, ConnectionProperties::default());
        let connection = connection.await.expect("the broker serves");
        let channel = connection.create_channel().await.expect("a channel");
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.expect("the broker confirms");
        let first = State {
            version: 1,
            status: FIRST_STATUS,
        };
        Self {
            _connection: connection,
            channel,
            settings: settings.clone(),
            states: vec![first; editions],
            edits: 0,
        }
    }

    /// Tells of the blueprint, and of each edition for the first time.
    pub(crate) async fn begin(&self) {
        self.snapshot("blueprint.snapshot", &blueprint()).await;
        for (number, state) in self.states.iter().enumerate() {
            let edition = edition(number, state.version);
            self.snapshot("edition.snapshot", &edition).await;
        }
    }

    /// Makes so many edits, at a steady rate.
    pub(crate) async fn edit(&mut self, count: usize, per_second: u32) {
        let mut due = tokio::time::interval(Duration::from_secs(1) / per_second);
        for _ in 0..count {
            due.tick().await;
            self.edit_one().await;
        }
    }

    /// What the editions are now.
    pub(crate) fn states(&self) -> Arc<[State]> {
        self.states.as_slice().into()
    }

    /// Some editions are changed often and most are not, which is what tags are for.
    async fn edit_one(&mut self) {
        self.edits += 1;
        let number = self.edits * self.edits % self.states.len();
        let state = &mut self.states[number];
        if self.edits.is_multiple_of(EVENT_EVERY) {
            let (kind, data) = event(number, self.edits);
            state.status = kind.rsplit('.').next().unwrap_or_default();
            let body = envelope(self.edits, kind, at(self.edits), &data);
            let exchange = &self.settings.events_exchange;
            self.publish(exchange, kind, body).await;
        } else {
            state.version += 1;
            let edition = edition(number, state.version);
            self.snapshot("edition.snapshot", &edition).await;
        }
    }

    async fn snapshot(&self, kind: &str, data: &Value) {
        let body = envelope(0, kind, at(0), data);
        let exchange = &self.settings.snapshots_exchange;
        self.publish(exchange, kind, body).await;
    }

    /// Returns when the broker has it.
    async fn publish(&self, exchange: &str, kind: &str, body: String) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let body = body.as_bytes();
        let sent =
            self.channel
                .basic_publish(exchange.into(), kind.into(), options, body, persistent);
        let confirm = sent.await.expect("it is sent").await;
        assert!(confirm.expect("it is confirmed").is_ack(), "{kind}");
    }
}

/// How many rows an edition has at a version.
pub(super) fn rows_at(version: i64) -> usize {
    usize::try_from(10 + version % 4).unwrap_or_default()
}

/// What is told by so many-th edit happens after what was told before it.
fn at(edit: usize) -> DateTime<Utc> {
    let seconds = TimeDelta::seconds(i64::try_from(edit).unwrap_or(i64::MAX));
    DateTime::from_timestamp_nanos(1_777_626_000_000_000_000) + seconds
}

fn envelope(id: usize, kind: &str, time: DateTime<Utc>, data: &Value) -> String {
    json!({
        "specversion": "1.0", "id": id.to_string(), "source": "/report-forge", "type": kind,
        "time": time.to_rfc3339(), "data": data,
    })
    .to_string()
}

fn blueprint() -> Value {
    let fields = json!([{"name": "first", "type": "integer"}, {"name": "last", "type": "integer"}]);
    json!({
        "id": "bp_1", "version": 1, "project_id": "pr_1", "name": "Polled",
        "sections": [
            {"name": "summary", "kind": "single", "fields": fields},
            {"name": "lines", "kind": "repeating", "fields": fields},
        ],
    })
}

/// All of it says its version.
fn edition(number: usize, version: i64) -> Value {
    let values = json!({"first": version, "last": version});
    let rows: Vec<Value> = (0..rows_at(version))
        .map(|row| json!({"id": format!("row_{row}"), "values": values}))
        .collect();
    let name = format!("version {version}");
    json!({
        "id": format!("ed_{number}"), "version": version, "project_id": "pr_1",
        "blueprint_id": "bp_1", "name": name, "period": name, "status": FIRST_STATUS,
        "status_changed_at": "2026-04-01T00:00:00Z", "created_at": "2026-04-01T00:00:00Z",
        "sections": {"summary": {"values": values}, "lines": {"rows": rows}},
    })
}

/// What moves an edition's status.
fn event(number: usize, edit: usize) -> (&'static str, Value) {
    let mut data = json!({
        "edition_id": format!("ed_{number}"), "blueprint_id": "bp_1", "project_id": "pr_1",
        "timestamp": at(edit).to_rfc3339(),
    });
    let kind = match edit / EVENT_EVERY % 3 {
        0 => "edition.submitted",
        1 => {
            data["comment_count"] = 1.into();
            "edition.changes_requested"
        }
        _ => {
            data["approved_by"] = json!({"id": "u_1", "name": "Ada"});
            "edition.approved"
        }
    };
    (kind, data)
}
