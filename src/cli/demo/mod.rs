//! `forge-dispatch demo`: the whole road on one machine with nothing installed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{CliError, Context};
use crate::app::{App, AppError, Surroundings};
use crate::config::Config;
use crate::domain::ids::{OwnerId, WorkspaceId};
use crate::shutdown::Shutdown;

mod guide;
mod making;
mod plan;
mod receiver;
mod seed;
mod stage;
mod story;
mod summary;
mod view;

use guide::Door;
use receiver::Receiver;
use stage::Stage;
use summary::Summary;

/// How much to show.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Keep the database in this directory (a temporary one otherwise).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Send this many events (without end otherwise).
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,

    /// End when all is settled, and say what came of it.
    #[arg(long, requires = "events")]
    pub exit: bool,
}

/// A temporary SQLite database with a workspace, a local receiver that verifies every signature, three
/// subscriptions, a stream of events, and the API to look on; until Ctrl-C, or until so many are settled.
pub async fn run(args: DemoArgs, context: &Context) -> Result<(), CliError> {
    match play(&args, context).await? {
        None => Ok(()),
        Some(summary) => summary.report(context),
    }
}

async fn play(args: &DemoArgs, context: &Context) -> anyhow::Result<Option<Summary>> {
    let temporary = tempfile::tempdir().context("a temporary directory")?;
    let data = args.data.as_deref().unwrap_or(temporary.path());
    let receiver_end = CancellationToken::new();
    let receiver = Receiver::start(receiver_end.clone()).await?;
    let shutdown = Shutdown::default();
    shutdown.watch_signals()?;
    let surroundings = Surroundings {
        clock: context.clock.clone(),
        entropy: context.entropy.clone(),
        ..Surroundings::default()
    };
    let mut config = config(data, &receiver)?;
    if !args.exit {
        config.api.listen = local(context.config.api.listen.port())?;
        let port = config.api.listen.port();
        config.api.public_url = Some(Url::parse(&format!("https://localhost:{port}"))?);
    }
    // A signal ends the show; the program behind it ends when its subscriptions are gone.
    let behind = Shutdown {
        soft: CancellationToken::new(),
        hard: shutdown.hard.clone(),
    };
    let app = App::build(config, surroundings.clone(), behind.clone()).await?;
    let door = Door {
        port: app.api_address()?.port(),
        certificate: std::path::absolute(data.join("api-cert.pem"))?,
    };
    let stage = Stage {
        store: app.store(),
        entrance: app.entrance(),
        receiver,
        shutdown,
        // A directory that is used again holds the runs before; each is a tenant of its own.
        workspace: run_workspace(&surroundings)?,
        started: surroundings.clock.monotonic(),
        surroundings,
    };
    stage.store.migrate().await?;
    let subscriptions = stage.subscribe().await?;

    let running: JoinHandle<Result<(), AppError>> = tokio::spawn(app.run());
    let summary = stage.play(args, &door).await;
    // The receiver goes with this run: what is left over must not be tried for ever.
    for id in subscriptions {
        stage
            .store
            .delete_subscription(&stage.reach(), id, None, &stage.act())
            .await?;
    }
    behind.begin();
    running.await??;
    receiver_end.cancel();
    summary
}

fn run_workspace(surroundings: &Surroundings) -> anyhow::Result<WorkspaceId> {
    let run: OwnerId = surroundings.entropy.id(surroundings.clock.now());
    Ok(WorkspaceId::new(&format!("demo_{run}"))?)
}

/// The defaults, but for what the demo needs: its own directory, its own receiver as the one
/// address that may be dialled, free ports, and retries within seconds.
fn config(data: &std::path::Path, receiver: &Receiver) -> anyhow::Result<Config> {
    let mut config = Config::default();
    let database = data.join("forge-dispatch.db");
    config.database.url = SecretString::from(format!("sqlite://{}", database.display()));
    config.api.listen = ([127, 0, 0, 1], 0).into();
    config.ops.listen = ([127, 0, 0, 1], 0).into();
    config.egress.allow_http = true;
    config.egress.allow = vec![
        format!("127.0.0.1/32:{}", receiver.address().port())
            .parse()
            .map_err(anyhow::Error::msg)?,
    ];
    config.retry.schedule = [200, 1_000, 5_000].map(Duration::from_millis).to_vec();
    Ok(config)
}

/// This port of the loopback, or where that is taken a free one: it is part of the addresses that are
/// told, so it has to be known before anything listens.
fn local(port: u16) -> std::io::Result<SocketAddr> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bind(port).or_else(|_| bind(0))?.local_addr()
}
