//! What is measured.

use std::fmt;

use clap::ValueEnum;

use crate::report::Row;
use crate::rig::{Database, Rig, Way};

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
}

impl Scenario {
    pub(crate) const ALL: [Self; 5] = [
        Self::Raw,
        Self::Sqlite,
        Self::Postgres,
        Self::AmqpSqlite,
        Self::AmqpPostgres,
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
    }
}
