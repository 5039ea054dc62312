//! The program under measurement, and everything that is said to it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forge_dispatch::clock::{Clock, SystemClock, pause};
use forge_dispatch::config::{self, Config};
use forge_dispatch::domain::audit::Act;
use forge_dispatch::domain::headers::CustomHeaders;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::subscription::{BodyFormat, Ordering, SubscriptionSpec, TargetUrl};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{self, NewSubscription, Store};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::child::Child;
use crate::envelope::EDITIONS;
use crate::feeder;
use crate::publisher::Publisher;

/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where events come from.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A broker at this URL.
    Amqp(SecretString),
    /// The feeder's own hands.
    Feeder,
}

/// A program on a database of its own. Dropping it ends it.
pub(crate) struct Program {
    process: Running,
    /// The same database, for what the bench itself reads and writes.
    pub(crate) store: Arc<dyn Store>,
    publisher: Option<Publisher>,
    /// Where its API is.
    pub(crate) api: SocketAddr,
    /// Its exchanges and queues, and its broker if it has one.
    pub(crate) amqp: config::Amqp,
    runs: u32,
    /// How many editions its events are of.
    pub(crate) editions: usize,
    /// From its start until it said that it was ready.
    pub(crate) start: Duration,
}

enum Running {
    Serve(Served),
    Feeder(Child),
}

/// The real binary, kept by a shell that ends it when this process is gone, however it went.
struct Served {
    shell: Process,
    id: u32,
}

/// Starts the program, says its process id, and ends it with its own standard input.
const KEEPER: &str = r#""$@" </dev/null >/dev/null & echo $!; cat >/dev/null; kill -KILL $!"#;

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().ok();
    }
}

/// What the client may dial here.
pub(crate) fn egress() -> config::Egress {
    config::Egress {
        allow: vec!["127.0.0.0/8".parse().expect("a rule")],
        allow_http: true,
        ..config::Egress::default()
    }
}

/// More failures than there are.
const NEVER: u32 = 1_000_000;

/// A place for a program that is not started yet: its database is there and can be filled.
pub(crate) struct Place {
    directory: PathBuf,
    config: Config,
    pub(crate) store: Arc<dyn Store>,
}

impl Place {
    /// A fresh database at `url`; files go to `directory`.
    pub(crate) async fn new(url: SecretString, directory: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory)?;
        let mut config = Config {
            master_key: Some(SecretString::from(
                "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            )),
            egress: egress(),
            ..Config::default()
        };
        config.database.url = url;
        let store = store::open(&config, Arc::new(SystemClock), &Entropy::system()).await?;
        store.migrate().await?;
        Ok(Self {
            directory,
            config,
            store,
        })
    }

    /// No receiver is left alone, however many requests it fails.
    pub(crate) fn without_circuits(&mut self) {
        let circuit = &mut self.config.dispatch.circuit;
        (circuit.failures_in_row, circuit.least_attempts) = (NEVER, NEVER);
    }

    /// Registers a subscription to these types.
    pub(crate) async fn subscribe(&self, url: &str, event_type: &str) -> anyhow::Result<()> {
        self.register(url, event_type, Ordering::Unordered).await
    }

    /// The same, in order.
    pub(crate) async fn subscribe_in_order(
        &self,
        url: &str,
        event_type: &str,
    ) -> anyhow::Result<()> {
        self.register(url, event_type, Ordering::ByEdition).await
    }

    async fn register(
        &self,
        url: &str,
        event_type: &str,
        ordering: Ordering,
    ) -> anyhow::Result<()> {
        let (entropy, now) = (Entropy::system(), SystemClock.now());
        let new = NewSubscription {
            id: entropy.id(now),
            workspace: WorkspaceId::default(),
            spec: SubscriptionSpec {
                url: TargetUrl::new(url)?,
                description: String::new(),
                event_types: vec![event_type.parse()?],
                project_ids: None,
                format: BodyFormat::Standard,
                headers: CustomHeaders::default(),
                max_concurrency: None,
                rate_limit: None,
                retry_schedule: None,
                ordering,
            },
            secret_id: entropy.id(now),
            secret: SigningSecret::generate(entropy.bytes()),
        };
        let act = Act::on_command_line(entropy.id(now));
        self.store.create_subscription(&new, &act, None).await?;
        Ok(())
    }

    /// Starts the program here and waits until it is ready.
    pub(crate) async fn start(self, entry: Entry) -> anyhow::Result<Program> {
        let file = self.directory.join("forge-dispatch.toml");
        let (api, ops) = (free_address()?, free_address()?);
        fs::write(&file, toml(&self.config, &entry, api, ops))?;
        let log = File::create(self.directory.join("log"))?;
        let begun = SystemClock.monotonic();
        let process = match &entry {
            Entry::Amqp(_) => Running::Serve(serve(&self.config, &file, log)?),
            Entry::Feeder => Running::Feeder(Child::start_logging(
                feeder::ROLE,
                &[file.display().to_string()],
                log,
            )?),
        };
        until(PATIENCE, "the program is ready", async || {
            Ok(ready(ops).await)
        })
        .await?;
        let start = SystemClock.monotonic().saturating_sub(begun);
        let mut amqp = self.config.amqp;
        let publisher = match entry {
            Entry::Amqp(url) => {
                amqp.url = Some(url.clone());
                Some(Publisher::new(url, amqp.clone()).await?)
            }
            Entry::Feeder => None,
        };
        Ok(Program {
            start,
            process,
            store: self.store,
            publisher,
            api,
            amqp,
            runs: 0,
            editions: EDITIONS,
        })
    }
}

impl Program {
    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        match &self.process {
            Running::Serve(served) => served.id,
            Running::Feeder(child) => child.id(),
        }
    }

    /// Gives it events as fast as it, or the broker, takes them.
    pub(crate) async fn feed(&mut self, count: usize, data_bytes: usize) -> anyhow::Result<()> {
        self.runs += 1;
        match (&mut self.process, &self.publisher) {
            (_, Some(publisher)) => publisher.publish(self.runs, count, data_bytes).await,
            (Running::Feeder(child), None) => {
                let answer = child.ask(&format!(
                    "{} {count} {data_bytes} {}",
                    self.runs, self.editions
                ))?;
                anyhow::ensure!(answer == "fed", "feeding: {answer}");
                Ok(())
            }
            (Running::Serve(_), None) => anyhow::bail!("there is no broker"),
        }
    }

    /// Gives it events at a steady rate, for so long.
    pub(crate) async fn feed_at(
        &mut self,
        per_second: u32,
        duration: Duration,
        data_bytes: usize,
    ) -> anyhow::Result<usize> {
        self.runs += 1;
        let publisher = self.publisher.as_ref().context("a broker")?;
        let run = self.runs;
        publisher
            .publish_at(run, per_second, duration, data_bytes)
            .await
    }

    /// Waits until nothing waits and nothing is in flight: all that was accepted is settled.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        until(
            Duration::from_mins(10),
            "everything is settled",
            async || {
                let depth = self.store.queue_depth().await?;
                Ok(depth.pending == 0 && depth.in_flight == 0)
            },
        )
        .await
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.id())?).context("a process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let path = PathBuf::from(format!("/proc/{}/exe", self.id()));
        until(PATIENCE, "the program has ended", async || {
            // A process that nobody has waited for yet has no executable any more.
            Ok(fs::read_link(&path).is_err())
        })
        .await?;
        self.store.close().await;
        Ok(())
    }
}

/// The real binary.
fn serve(config: &Config, file: &Path, log: File) -> anyhow::Result<Served> {
    let key = config.master_key.as_ref().context("a key")?;
    let mut shell = Command::new("sh")
        .args(["-c", KEEPER, "sh", env!("CARGO_BIN_EXE_forge-dispatch")])
        .args(["serve", "--config"])
        .arg(file)
        .env("FORGE_MASTER_KEY", key.expose_secret())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut id = String::new();
    let out = shell.stdout.take().context("its standard output")?;
    BufReader::new(out).read_line(&mut id)?;
    Ok(Served {
        shell,
        id: id.trim().parse()?,
    })
}

/// The defaults, but for what the machine makes necessary.
fn toml(config: &Config, entry: &Entry, api: SocketAddr, ops: SocketAddr) -> String {
    let database = config.database.url.expose_secret();
    let key = config
        .master_key
        .as_ref()
        .map_or("", |key| key.expose_secret());
    let broker = match entry {
        Entry::Amqp(url) => format!("[amqp]\nurl = {:?}\n", url.expose_secret()),
        Entry::Feeder => String::new(),
    };
    let circuit = &config.dispatch.circuit;
    let (in_row, attempts) = (circuit.failures_in_row, circuit.least_attempts);
    format!(
        "master_key = {key:?}\n[database]\nurl = {database:?}\n{broker}[api]\nlisten = \"{api}\"\n[ops]\nlisten = \"{ops}\"\n\
         [egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n[log]\nformat = \"json\"\n\
         [dispatch.circuit]\nfailures_in_row = {in_row}\nleast_attempts = {attempts}\n"
    )
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Whether the health port says that the program is ready.
pub(crate) async fn ready(ops: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(ops).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.contains(" 200 ") && !answer.contains("degraded"))
    };
    ask.await.unwrap_or(false)
}

/// Looks every few milliseconds until the condition holds, for so long.
pub(crate) async fn until(
    patience: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let look = async {
        while !condition().await? {
            pause(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    tokio::time::timeout(patience, look)
        .await
        .with_context(|| format!("not within {patience:?}: {what}"))?
}
