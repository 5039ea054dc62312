//! What the scenarios stand on: the servers, the receiver, and programs on fresh databases.

use std::fmt;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::child::Child;
use crate::machine;
use crate::process::Usage;
use crate::program::{Entry, Place, Program, until};
use crate::raw;
use crate::receiver::{self, Seen};
use crate::services::{Broker, PostgresServer};

/// How long a scenario's work may take.
const LONG: Duration = Duration::from_mins(15);

/// The databases that the program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// How events get to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Handed in without a broker.
    Direct,
    /// Over RabbitMQ.
    Amqp,
}

/// Everything that runs beside the program.
pub(crate) struct Rig {
    directory: TempDir,
    postgres: Option<PostgresServer>,
    receiver: Child,
    receiver_port: u16,
    made: u32,
    quick: bool,
    pub(crate) rounds: u32,
    data_bytes: Option<usize>,
}

/// A program with what else works for it.
pub(crate) struct Bench {
    pub(crate) program: Program,
    /// A broker of its own, so that the queue of one does not feed another.
    broker: Option<Broker>,
    database: Option<u32>,
}

/// Processor time per delivery, by who spent it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    pub(crate) program: Usage,
    pub(crate) database: Usage,
    pub(crate) broker: Usage,
    pub(crate) receiver: Usage,
}

/// One round: how many were delivered, in how long, at which cost.
pub(crate) struct Round {
    pub(crate) deliveries: usize,
    pub(crate) seconds: f64,
    pub(crate) costs: Costs,
}

impl Round {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.deliveries as f64 / self.seconds
    }
}

impl Rig {
    pub(crate) fn new(quick: bool, rounds: u32, data_bytes: Option<usize>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("forge-bench-").tempdir()?;
        eprintln!("{}", machine::disk(directory.path())?);
        let mut receiver = Child::start(receiver::ROLE, &[])?;
        let receiver_port = receiver.answer()?.parse()?;
        Ok(Self {
            directory,
            postgres: None,
            receiver,
            receiver_port,
            made: 0,
            quick,
            rounds: if quick { rounds.min(3) } else { rounds },
            data_bytes,
        })
    }

    /// Whether events of this size are to be measured.
    pub(crate) fn measures(&self, data_bytes: usize) -> bool {
        self.data_bytes.is_none_or(|only| only == data_bytes)
    }

    /// So many, or a tenth of it for a quick look.
    pub(crate) fn scaled(&self, count: usize) -> usize {
        if self.quick { count / 10 } else { count }
    }

    /// The same of a time.
    pub(crate) fn scaled_time(&self, duration: Duration) -> Duration {
        if self.quick { duration / 5 } else { duration }
    }

    /// A path of the receiver.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.receiver_port)
    }

    /// A fresh database with no program on it yet.
    pub(crate) async fn place(&mut self, database: Database) -> anyhow::Result<Place> {
        self.made += 1;
        let directory = self.directory.path().join(self.made.to_string());
        let url = match database {
            Database::Sqlite => format!("sqlite://{}", directory.join("forge.db").display()),
            Database::Postgres => self.create_database().await?,
        };
        Place::new(SecretString::from(url), directory).await
    }

    /// A program on a fresh database with one subscription at the path.
    pub(crate) async fn bench(
        &mut self,
        way: Way,
        database: Database,
        path: &str,
    ) -> anyhow::Result<Bench> {
        let place = self.place(database).await?;
        place.subscribe(&self.url(path), "*").await?;
        self.start(place, way, database).await
    }

    /// A program where a database waits for it.
    pub(crate) async fn start(
        &mut self,
        place: Place,
        way: Way,
        database: Database,
    ) -> anyhow::Result<Bench> {
        let (broker, entry) = match way {
            Way::Direct => (None, Entry::Feeder),
            Way::Amqp => {
                let broker = Broker::start().await;
                let url = SecretString::from(broker.url().to_owned());
                (Some(broker), Entry::Amqp(url))
            }
        };
        let database = match database {
            Database::Sqlite => None,
            Database::Postgres => self.postgres.as_ref().and_then(PostgresServer::id),
        };
        Ok(Bench {
            program: place.start(entry).await?,
            broker,
            database,
        })
    }

    async fn create_database(&mut self) -> anyhow::Result<String> {
        let server = match &mut self.postgres {
            Some(server) => server,
            none => none.insert(PostgresServer::start().await),
        };
        let name = format!("bench_{}", self.made);
        let mut connection = PgConnection::connect(server.url()).await?;
        connection
            .execute(AssertSqlSafe(format!("create database {name}")))
            .await?;
        let base = server.url().rsplit_once('/').map_or("", |(base, _)| base);
        Ok(format!("{base}/{name}"))
    }

    /// The limit at this moment.
    pub(crate) fn raw(&mut self, data_bytes: usize) -> anyhow::Result<f64> {
        let duration = if self.quick { 1 } else { 3 };
        let url = self.url("/ok/raw");
        let rate = raw::measure(&url, data_bytes, Duration::from_secs(duration))?;
        self.forget()?;
        Ok(rate)
    }

    /// Feeds the program events that each go to `fan_out` subscriptions at the path, and waits until
    /// everything is delivered and settled.
    pub(crate) async fn round(
        &mut self,
        bench: &mut Bench,
        events: usize,
        data_bytes: usize,
        path: &str,
        fan_out: usize,
    ) -> anyhow::Result<Round> {
        self.forget()?;
        let before = self.used_by(bench);
        let begun = SystemClock.monotonic();
        bench.program.feed(events, data_bytes).await?;
        let round = self
            .delivered(bench, before, begun, events * fan_out, path)
            .await?;
        let distinct = self.report(path)?.distinct;
        anyhow::ensure!(distinct == events, "{distinct} of {events} events arrived");
        Ok(round)
    }

    /// Waits until so many deliveries have arrived and are settled, none of them twice.
    pub(crate) async fn delivered(
        &mut self,
        bench: &Bench,
        before: Costs,
        begun: Duration,
        deliveries: usize,
        path: &str,
    ) -> anyhow::Result<Round> {
        self.arrived(path, deliveries).await?;
        bench.program.settled().await?;
        let seconds = SystemClock.monotonic().saturating_sub(begun).as_secs_f64();
        let requests = self.report(path)?.requests;
        anyhow::ensure!(
            requests == deliveries,
            "{requests} requests for {deliveries} deliveries"
        );
        Ok(Round {
            deliveries,
            seconds,
            costs: self.used_by(bench).since(before),
        })
    }

    /// Waits until so many requests have arrived at the path.
    pub(crate) async fn arrived(&mut self, path: &str, requests: usize) -> anyhow::Result<()> {
        let arrived = async || {
            let so_far: usize = self.receiver.ask(&format!("requests {path}"))?.parse()?;
            Ok(so_far >= requests)
        };
        until(LONG, "everything has arrived", arrived).await
    }

    /// What the path saw.
    pub(crate) fn report(&mut self, path: &str) -> anyhow::Result<Seen> {
        let answer = self.receiver.ask(&format!("report {path}"))?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Lets the receiver forget.
    pub(crate) fn forget(&mut self) -> anyhow::Result<()> {
        self.receiver.ask("reset").map(drop)
    }

    /// What the program and all that serves it have used so far.
    pub(crate) fn used_by(&self, bench: &Bench) -> Costs {
        let of = |process: Option<u32>| process.map(Usage::of_tree).unwrap_or_default();
        Costs {
            program: Usage::of_tree(bench.program.id()),
            database: of(bench.database),
            broker: of(bench.broker.as_ref().and_then(Broker::id)),
            receiver: Usage::of_tree(self.receiver.id()),
        }
    }
}

impl Costs {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            program: self.program - before.program,
            database: self.database - before.database,
            broker: self.broker - before.broker,
            receiver: self.receiver - before.receiver,
        }
    }
}
