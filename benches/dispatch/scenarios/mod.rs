//! What is measured.

use std::fmt;

use clap::ValueEnum;

use crate::report::Row;
use crate::rig::{Database, Rig, Way};

mod backlog;
mod fanout;
mod history;
mod idle;
mod latency;
mod ordered;
mod pollers;
mod put;
mod replay;
mod throughput;

/// By name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The limit alone.
    Raw,
    /// Events handed in, kept in SQLite.
    Sqlite,
    /// Events handed in, kept in Postgres.
    Postgres,
    /// Events over RabbitMQ, kept in SQLite.
    #[value(name = "amqp+sqlite")]
    AmqpSqlite,
    /// Events over RabbitMQ, kept in Postgres.
    #[value(name = "amqp+postgres")]
    AmqpPostgres,
    /// One event to 1,000 subscriptions.
    Fanout,
    /// Publication to receipt at 200 and 1,000 events a second.
    Latency,
    /// 1,000,000 deliveries that are due when the program starts.
    Backlog,
    /// 5,000,000 settled deliveries that are kept.
    History,
    /// Beside a subscription that hangs.
    Neighbour,
    /// One subscription in order: events of 1,000 editions, and of one.
    Ordered,
    /// 100,000 retries that are due at once, while fresh events arrive.
    RetryStorm,
    /// 1,000,000 failed deliveries that are replayed.
    Replay,
    /// 50 clients that poll 200 editions while 20 edits a second come.
    Pollers,
    /// 20,000 rows put over HTTP.
    Put,
    /// Nothing happens.
    Idle,
}

impl Scenario {
    pub(crate) const ALL: [Self; 16] = [
        Self::Raw,
        Self::Sqlite,
        Self::Postgres,
        Self::AmqpSqlite,
        Self::AmqpPostgres,
        Self::Fanout,
        Self::Latency,
        Self::Backlog,
        Self::History,
        Self::Neighbour,
        Self::Ordered,
        Self::RetryStorm,
        Self::Replay,
        Self::Pollers,
        Self::Put,
        Self::Idle,
    ];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Measures one; a row for each size or side of it.
pub(crate) async fn run(scenario: Scenario, rig: &mut Rig) -> anyhow::Result<Vec<Row>> {
    use Database::{Postgres, Sqlite};
    let name = scenario.to_string();
    match scenario {
        Scenario::Raw => throughput::raw(&name, rig),
        Scenario::Sqlite => throughput::run(&name, rig, Way::Direct, Sqlite).await,
        Scenario::Postgres => throughput::run(&name, rig, Way::Direct, Postgres).await,
        Scenario::AmqpSqlite => throughput::run(&name, rig, Way::Amqp, Sqlite).await,
        Scenario::AmqpPostgres => throughput::run(&name, rig, Way::Amqp, Postgres).await,
        Scenario::Fanout => Ok(vec![
            fanout::run(&name, rig, Sqlite).await?,
            fanout::run(&name, rig, Postgres).await?,
        ]),
        Scenario::Latency => latency::rates(&name, rig, &[200, 1_000]).await,
        Scenario::Backlog => Ok(vec![
            backlog::drain(&name, rig, Sqlite).await?,
            backlog::drain(&name, rig, Postgres).await?,
        ]),
        Scenario::History => Ok(vec![
            history::run(&name, rig, Sqlite).await?,
            history::run(&name, rig, Postgres).await?,
        ]),
        Scenario::Neighbour => latency::neighbour(&name, rig).await,
        Scenario::Ordered => Ok([
            ordered::run(&name, rig, Sqlite).await?,
            ordered::run(&name, rig, Postgres).await?,
        ]
        .concat()),
        Scenario::RetryStorm => backlog::retry_storm(&name, rig).await,
        Scenario::Replay => Ok(vec![
            replay::run(&name, rig, Sqlite).await?,
            replay::run(&name, rig, Postgres).await?,
        ]),
        Scenario::Pollers => Ok([
            pollers::run(&name, rig, Sqlite).await?,
            pollers::run(&name, rig, Postgres).await?,
        ]
        .concat()),
        Scenario::Put => Ok([
            put::run(&name, rig, Sqlite).await?,
            put::run(&name, rig, Postgres).await?,
        ]
        .concat()),
        Scenario::Idle => Ok(vec![
            idle::run("idle sqlite", rig, Way::Direct, Sqlite).await?,
            idle::run("idle amqp+postgres", rig, Way::Amqp, Postgres).await?,
        ]),
    }
}
