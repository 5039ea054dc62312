//! Configuration: built-in defaults < TOML file < `FORGE_…` environment < flags (product.md §8).
//!
//! The sections are plain structs that each part takes as it is. Unknown and wrong keys are errors
//! that name the key; durations are written `100ms`, `5s`, `2h`. A configuration that is written
//! out ([`serde::Serialize`]) never holds a secret: that is how it is shown.
//!
//! - [`load`]: the layers, laid over each other.
//! - [`shape`]: which keys there are, and what kind of value each takes.
//! - [`check`]: what the values must be among themselves.
//! - [`redact`]: URLs without their passwords.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub mod allow;
pub mod api;
pub mod check;
pub mod circuit;
pub mod duration;
pub mod load;
pub mod outputs;
pub mod redact;
pub mod retention;
pub mod role;
pub mod shape;
pub mod telemetry;

pub use allow::AllowRule;
pub use api::Api;
pub use circuit::Circuit;
pub use load::{ConfigError, KeyError, Origin};
pub use outputs::Outputs;
pub use retention::Retention;
pub use role::Role;
pub use telemetry::Telemetry;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The master key in base64 (`FORGE_MASTER_KEY`); goes before [`Secrets::master_key_file`].
    #[serde(serialize_with = "redact::hidden")]
    pub master_key: Option<SecretString>,
    /// Which part of the work `serve` does.
    pub role: Role,
    /// Where things are kept.
    pub database: Database,
    /// The broker; without a URL there is none.
    pub amqp: Amqp,
    /// The Report Forge API.
    pub api: Api,
    /// Health and metrics.
    pub ops: Ops,
    /// What may be dialled, and how long it may take.
    pub egress: Egress,
    /// Sending.
    pub dispatch: Dispatch,
    /// Trying again.
    pub retry: Retry,
    /// How long things are kept.
    pub retention: Retention,
    /// Files of outputs.
    pub outputs: Outputs,
    /// The master key's file.
    pub secrets: Secrets,
    /// Logs.
    pub log: Log,
    /// Traces and metrics to a collector.
    pub telemetry: Telemetry,
}

impl Config {
    /// Where files of our own are kept: beside the database file; with a database server, beside
    /// the master key's file, else where the database file would be by default.
    pub fn data_directory(&self) -> PathBuf {
        let database = self.database.url.expose_secret().strip_prefix("sqlite://");
        let beside = database
            .map(Path::new)
            .or(self.secrets.master_key_file.as_deref());
        match beside.and_then(Path::parent) {
            Some(directory) if directory.as_os_str().is_empty() => PathBuf::from("."),
            Some(directory) => directory.to_owned(),
            None => PathBuf::from("data"),
        }
    }

    /// Where files of outputs are kept, unless an S3-compatible store keeps them, and made.
    pub fn outputs_directory(&self) -> PathBuf {
        let named = self.outputs.directory.clone();
        named.unwrap_or_else(|| self.data_directory().join("outputs"))
    }
}

/// `[database]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite://PATH` or `postgres://…`. May hold a password: never printed.
    #[serde(serialize_with = "redact::url")]
    pub url: SecretString,
    /// Connections on Postgres, readers on SQLite.
    pub max_connections: u32,
}

impl Database {
    /// Whether it is a file of this machine.
    pub fn is_sqlite(&self) -> bool {
        self.url.expose_secret().starts_with("sqlite:")
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: SecretString::from("sqlite://data/forge-dispatch.db"),
            max_connections: 10,
        }
    }
}

/// `[amqp]`: product.md §3.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amqp {
    /// `amqp://` or `amqps://`. Absent: no broker. May hold a password: never printed.
    #[serde(serialize_with = "redact::optional_url")]
    pub url: Option<SecretString>,
    /// The topic exchange that the core publishes events to.
    pub events_exchange: String,
    /// Our quorum queue on it.
    pub events_queue: String,
    /// The routing patterns that the queue is bound with.
    pub bindings: Vec<String>,
    /// The topic exchange that the core publishes state to.
    pub snapshots_exchange: String,
    /// Our quorum queue on it: another one, since large state must not hold up small events.
    pub snapshots_queue: String,
    /// The routing patterns that this queue is bound with.
    pub snapshots_bindings: Vec<String>,
    /// Its messages unacknowledged at once: each may have 16 MiB.
    pub snapshots_prefetch: u16,
    /// The topic exchange that we publish what we originate to.
    pub dispatch_exchange: String,
    /// Where messages go that cannot be used.
    pub dead_letter_exchange: String,
    /// The quorum queue that keeps them.
    pub dead_letter_queue: String,
    /// Messages unacknowledged at once.
    pub prefetch: u16,
    /// The most events that one transaction takes.
    pub batch_events: usize,
    /// How long a batch waits for more.
    #[serde(with = "duration")]
    pub batch_linger: Duration,
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            url: None,
            events_exchange: "report-forge.events".to_owned(),
            events_queue: "forge-dispatch.events".to_owned(),
            bindings: vec!["edition.#".to_owned(), "output.#".to_owned()],
            snapshots_exchange: "report-forge.snapshots".to_owned(),
            snapshots_queue: "forge-dispatch.snapshots".to_owned(),
            snapshots_bindings: vec!["#".to_owned()],
            snapshots_prefetch: 8,
            dispatch_exchange: "report-forge.dispatch".to_owned(),
            dead_letter_exchange: "report-forge.dead-letter".to_owned(),
            dead_letter_queue: "forge-dispatch.dead-letter".to_owned(),
            prefetch: 2_000,
            batch_events: 1_000,
            batch_linger: Duration::from_millis(1),
        }
    }
}

/// `[ops]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Where `/healthz`, `/readyz` and `/metrics` listen.
    pub listen: SocketAddr,
}

impl Default for Ops {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
        }
    }
}

/// `[egress]`: product.md §4, targets.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Special ranges that may be dialled all the same.
    pub allow: Vec<AllowRule>,
    /// Whether `http` targets are taken.
    pub allow_http: bool,
    /// For one attempt in all.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// For the connection, TLS included.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Certificate authorities (PEM) that are trusted beside the public ones, for receivers inside.
    pub ca_file: Option<PathBuf>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_http: false,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            ca_file: None,
        }
    }
}

/// `[dispatch]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// Requests in flight at once, in this process.
    pub concurrency: usize,
    /// Requests in flight at once to one subscription that sets no limit of its own, from all processes.
    pub subscription_concurrency: usize,
    /// Event text held for deliveries in flight, in bytes.
    pub max_bytes_in_flight: usize,
    /// How long a lease holds.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How long after its end a lease is left alone.
    #[serde(with = "duration")]
    pub lease_grace: Duration,
    /// The most outcomes that one transaction writes.
    pub settle_batch: usize,
    /// How long outcomes wait for more.
    #[serde(with = "duration")]
    pub settle_linger: Duration,
    /// How often the queue is looked at when nothing rings.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How long a graceful stop may take.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// When receivers are left alone.
    pub circuit: Circuit,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self {
            concurrency: 512,
            subscription_concurrency: 64,
            max_bytes_in_flight: 64 * 1024 * 1024,
            lease: Duration::from_mins(1),
            lease_grace: Duration::from_secs(5),
            settle_batch: 2_000,
            settle_linger: Duration::from_millis(20),
            poll_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            circuit: Circuit::default(),
        }
    }
}

/// `[retry]`: product.md §4.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The delays after the first attempt, the second, and so on, for subscriptions without a
    /// schedule of their own.
    #[serde(with = "duration::list")]
    pub schedule: Vec<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            schedule: crate::domain::retry::RetrySchedule::default()
                .delays()
                .to_vec(),
        }
    }
}

/// `[secrets]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// The file that holds the master key. On SQLite it is made on first start, beside the
    /// database by default; on Postgres it must exist, or `FORGE_MASTER_KEY` be set.
    pub master_key_file: Option<PathBuf>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("must be `human` or `json`"),
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// A filter as `tracing-subscriber` reads it: `info`, `forge_dispatch=debug,lapin=warn`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info".to_owned(),
        }
    }
}
