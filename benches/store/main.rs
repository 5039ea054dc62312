//! What one delivery costs in the store: processor time and rows per second, through the [`Store`]
//! trait alone.
//!
//! ```text
//! cargo bench --bench store                                    a fresh SQLite file
//! cargo bench --bench store -- --postgres postgres://…/empty   an empty Postgres database
//! ```
//!
//! Two roads, each with small and with large events: accepted born leased and settled, and accepted
//! to wait, then claimed and settled. Everything succeeds, since that is the road that must be
//! cheap. Behind them accepts that move editions, and the rows of a large edition's snapshots. Making the events is not measured. The processor's time is this process's own, user and
//! system: all of `SQLite`, but only our side of Postgres. It says more than rows per second where
//! other programs run beside this one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::audit::Act;
use forge_dispatch::domain::delivery::{Lane, Verdict};
use forge_dispatch::domain::ids::SubscriptionId;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::postgres::PostgresStore;
use forge_dispatch::store::sqlite::SqliteStore;
use forge_dispatch::store::vault::{MasterKey, Vault};
use forge_dispatch::store::{Claim, LeasedDelivery, Leasing, SettleOutcome, Settlement, Store};
use secrecy::SecretString;

use fixture::{AlwaysFree, EDITIONS, events, registration, submissions, taken};
use meter::Meter;

mod editions;
mod fixture;
mod meter;

/// Events in one accept, and deliveries in one claim or settle: what the program aims at.
const BATCH: usize = 500;

#[derive(Parser)]
struct Options {
    /// An empty database to use instead of a `SQLite` file.
    #[arg(long, value_name = "URL")]
    postgres: Option<SecretString>,
    /// Where the `SQLite` file is made; the system's directory for temporary files unless given.
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    /// How many deliveries each figure is taken from.
    #[arg(long, default_value_t = 100_000)]
    deliveries: usize,
    /// Bytes of `data` in an event: a change notice, and a report in full.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 10_000])]
    data_bytes: Vec<usize>,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let parent = options.directory.unwrap_or_else(std::env::temp_dir);
    let place = tempfile::tempdir_in(parent)?;
    let entropy = Entropy::system();
    let key = MasterKey::create(&place.path().join("master.key"), &entropy)?;
    let vault = Vault::new(&key, entropy.clone());
    let clock = Arc::new(SystemClock);
    let store: Arc<dyn Store> = match &options.postgres {
        Some(url) => Arc::new(PostgresStore::connect(url, 4, vault, clock, &entropy)?),
        None => Arc::new(SqliteStore::open(&place.path().join("bench.db"), 4, vault, clock).await?),
    };
    store.migrate().await?;
    let act = Act::on_command_line(entropy.id(SystemClock.now()));
    let subscription = store
        .create_subscription(&registration(&entropy)?, &act, None)
        .await?
        .created()?
        .id;
    let bench = Bench {
        subscription,
        leasing: Leasing {
            owner: entropy.id(SystemClock.now()),
            lease: Duration::from_hours(1),
        },
        entropy,
        store,
    };
    // Where the program's own tasks run: this function's thread costs more to wake.
    tokio::spawn(async move {
        for data_bytes in options.data_bytes {
            bench.born_leased(options.deliveries, data_bytes).await?;
            bench.claimed(options.deliveries, data_bytes).await?;
        }
        bench.moving(options.deliveries / 5).await?;
        editions::measure(&bench.store).await?;
        bench.store.close().await;
        Ok(())
    })
    .await?
}

struct Bench {
    store: Arc<dyn Store>,
    subscription: SubscriptionId,
    leasing: Leasing,
    entropy: Entropy,
}

impl Bench {
    async fn born_leased(&self, deliveries: usize, data_bytes: usize) -> anyhow::Result<()> {
        let (mut accepting, mut settling) = (Meter::default(), Meter::default());
        while settling.deliveries < deliveries {
            let events = events(&self.entropy, BATCH, data_bytes)?;
            let call = self.store.accept(&events, self.leasing, &AlwaysFree);
            let accepted = accepting.time(call).await?;
            accepting.deliveries += accepted.leased.len();
            let leased: Vec<_> = accepted.leased.into_iter().map(|(one, _)| one).collect();
            self.settle(&leased, &mut settling).await?;
        }
        accepting.print("accept, born leased", data_bytes);
        settling.print("settle", data_bytes);
        Ok(())
    }

    async fn claimed(&self, deliveries: usize, data_bytes: usize) -> anyhow::Result<()> {
        let (mut accepting, mut claiming) = (Meter::default(), Meter::default());
        let mut settling = Meter::default();
        while accepting.deliveries < deliveries {
            let events = events(&self.entropy, BATCH, data_bytes)?;
            let call = self.store.accept(&events, self.leasing, &NoDispatch);
            accepting.deliveries += accepting.time(call).await?.pending;
        }
        let claim = Claim {
            leasing: self.leasing,
            grace: Duration::ZERO,
            lane: Lane::Fresh,
            wants: vec![(self.subscription, BATCH)],
            max_bytes: usize::MAX,
        };
        while settling.deliveries < accepting.deliveries {
            let leased = claiming.time(self.store.claim(&claim)).await?;
            claiming.deliveries += leased.len();
            self.settle(&leased, &mut settling).await?;
        }
        accepting.print("accept, to wait", data_bytes);
        claiming.print("claim", data_bytes);
        settling.print("settle", data_bytes);
        Ok(())
    }

    /// Each event moves the status of an edition: of one that only events told of, and then of one that
    /// is seen.
    async fn moving(&self, deliveries: usize) -> anyhow::Result<()> {
        for what in ["accept, editions unknown", "accept, editions known"] {
            let mut accepting = Meter::default();
            while accepting.deliveries < deliveries {
                let events = submissions(&self.entropy, BATCH)?;
                let call = self.store.accept(&events, self.leasing, &NoDispatch);
                accepting.deliveries += accepting.time(call).await?.pending;
            }
            accepting.print(what, 200);
            editions::tell(&self.store, EDITIONS).await?;
        }
        Ok(())
    }

    async fn settle(&self, leased: &[LeasedDelivery], meter: &mut Meter) -> anyhow::Result<()> {
        let settlements: Vec<_> = leased
            .iter()
            .map(|delivery| Settlement::of(delivery, Verdict::Succeeded, Some(taken())))
            .collect();
        let call = self.store.settle(self.leasing.owner, &settlements);
        let outcomes = meter.time(call).await?;
        meter.deliveries += outcomes.len();
        let settled = |outcome: &SettleOutcome| *outcome == SettleOutcome::Settled;
        anyhow::ensure!(!outcomes.is_empty() && outcomes.iter().all(settled));
        Ok(())
    }
}
