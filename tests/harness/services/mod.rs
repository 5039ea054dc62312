//! Real servers for the tests: a RabbitMQ and a Postgres, started from the programs on this
//! machine, in a temporary directory, on free ports of the loopback.
//!
//! - [`amqp_url`] and [`postgres_url`]: one instance of each, shared by the whole test run. Tests
//!   keep apart by the names of their queues and databases.
//! - [`Broker`] and [`PostgresServer`]: an instance that one test owns, to stop, kill and restart.
//!
//! Whatever ends the run (success, a panic, Ctrl-C, SIGKILL), nothing stays behind: beside each
//! server runs a small shell (`services/watchdog.sh`) that waits for the runner's end.

#![expect(
    clippy::expect_used,
    reason = "a test ends where its server is not as it should be"
)]

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process;

mod postgres;
mod rabbitmq;
mod server;

use postgres::Postgres;
use rabbitmq::RabbitMq;
use server::{Program, Server};

/// A broker that one test owns.
pub(crate) type Broker = Server<RabbitMq>;

/// A database server that one test owns.
pub(crate) type PostgresServer = Server<Postgres>;

/// The broker that this run shares: `TEST_AMQP_URL` where it is set, else a private one.
pub(crate) async fn amqp_url() -> String {
    match named_server("TEST_AMQP_URL") {
        Some(url) => url,
        None => shared::<RabbitMq>().await,
    }
}

/// The superuser's URL of the Postgres that this run shares: `TEST_POSTGRES_URL` where it is set,
/// else a private one.
pub(crate) async fn postgres_url() -> String {
    match named_server("TEST_POSTGRES_URL") {
        Some(url) => url,
        None => shared::<Postgres>().await,
    }
}

fn named_server(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|url| !url.is_empty())
}

/// The test run: what it is called, and the process whose end is its end.
///
/// Under cargo-nextest each test is a process of its own and the runner is their parent; under
/// `cargo test` all tests are threads of this process.
fn run() -> (String, u32) {
    match env::var("NEXTEST_RUN_ID") {
        Ok(id) => (id, std::os::unix::process::parent_id()),
        Err(_) => (process::id().to_string(), process::id()),
    }
}

/// The URL of the run's instance. The first to come starts it; the others wait for the lock and
/// read the URL that the first left behind, or its failure, so that a broken machine fails once
/// and not once per test.
async fn shared<P: Program>() -> String {
    let (name, runner) = run();
    let dir = env::temp_dir().join(format!("forge-dispatch-{}-{name}", P::NAME));
    fs::create_dir_all(&dir).expect("the temporary directory can be written");
    let _lock = locked(&dir).await;
    if let Ok(url) = fs::read_to_string(dir.join("url")) {
        return url;
    }
    if let Ok(reason) = fs::read_to_string(dir.join("failed")) {
        panic!("{reason}");
    }
    match Server::<P>::start_in(dir.clone(), runner).await {
        Ok(server) => {
            let url = server.url().to_owned();
            server.leave_to_watchdog();
            fs::write(dir.join("url"), &url).expect("the server's directory can be written");
            url
        }
        Err(reason) => {
            fs::write(dir.join("failed"), &reason).expect("the server's directory can be written");
            panic!("{reason}");
        }
    }
}

/// Waits for the directory's lock; dropping the file frees it, and so does the process's end.
async fn locked(dir: &Path) -> File {
    let file = File::create(dir.join("lock")).expect("the server's directory can be written");
    tokio::task::spawn_blocking(move || file.lock().map(|()| file))
        .await
        .expect("locking does not panic")
        .expect("the temporary directory knows locks")
}
