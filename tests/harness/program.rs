//! The program under test: inside this process, or as the real binary that can be killed.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forge_dispatch::app::{App, AppError, Entrance, Surroundings};
use forge_dispatch::config::Config;
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::Store;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

use super::receiver::wait_until;

/// The master key of all tests: 32 bytes of `7`.
pub(crate) const MASTER_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// How long a program may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Settings for tests: the loopback may be dialled, retries come within a second, and a lease is
/// as short as the rules allow, so that a killed program's work is taken over soon.
pub(crate) fn settings(database_url: SecretString) -> Config {
    let mut config = Config {
        master_key: Some(SecretString::from(MASTER_KEY)),
        ..Config::default()
    };
    config.database.url = database_url;
    if !config.database.url.expose_secret().starts_with("sqlite:") {
        // There is no file to keep them beside. Tests share it: files have keys of their own.
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outputs");
        config.outputs.directory = Some(place);
    }
    config.api.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    // In clear, so that no certificate is made where no test asks for the API.
    config.api.behind_proxy = vec!["127.0.0.0/8".parse().expect("a network")];
    config.ops.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.egress.allow_http = true;
    config.egress.allow = vec!["127.0.0.0/8".parse().expect("a rule")];
    config.egress.timeout = Duration::from_secs(2);
    config.egress.connect_timeout = Duration::from_secs(1);
    config.dispatch.lease = Duration::from_secs(9);
    config.dispatch.lease_grace = Duration::from_millis(500);
    // Tests of single attempts are not to be left alone; those of circuits say when.
    config.dispatch.circuit.failures_in_row = 1_000_000;
    config.dispatch.circuit.least_attempts = 1_000_000;
    config.retry.schedule = [100, 300, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]
        .map(Duration::from_millis)
        .to_vec();
    config
}

/// The program inside this process.
pub(crate) struct InProcess {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) entrance: Entrance,
    pub(crate) shutdown: Shutdown,
    /// Where `/readyz` and `/metrics` are.
    pub(crate) ops: SocketAddr,
    /// Where the API is.
    pub(crate) api: SocketAddr,
    running: JoinHandle<Result<(), AppError>>,
}

impl InProcess {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_in(config, Surroundings::default()).await
    }

    pub(crate) async fn start_in(config: Config, surroundings: Surroundings) -> Self {
        let shutdown = Shutdown::default();
        let app = App::build(config, surroundings, shutdown.clone())
            .await
            .expect("the program is built");
        let program = Self {
            store: app.store(),
            entrance: app.entrance(),
            shutdown,
            ops: app.ops_address().expect("the port is open"),
            api: app
                .api_address()
                .expect("the port is open")
                .expect("the role serves it"),
            running: tokio::spawn(app.run()),
        };
        program.store.migrate().await.expect("the schema is made");
        program
    }

    /// Stops it gracefully and says how it ended.
    pub(crate) async fn stop(self) -> Result<(), AppError> {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("the program ends when it is told to")
            .expect("the program does not panic")
    }
}

/// The real binary, serving.
pub(crate) struct Binary {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    file: PathBuf,
}

impl Binary {
    /// Starts `serve` with this configuration, written to `dir`.
    pub(crate) fn serve(config: &Config, dir: &Path) -> Self {
        let file = dir.join("forge-dispatch.toml");
        std::fs::write(&file, toml(config)).expect("the directory can be written");
        Self::start(file)
    }

    /// The same with a log that nobody reads: the other end of its pipe is closed.
    pub(crate) fn serve_unread(config: &Config, dir: &Path) -> Self {
        let file = dir.join("forge-dispatch.toml");
        std::fs::write(&file, toml(config)).expect("the directory can be written");
        let mut child = Self::spawn(&file);
        drop(child.stderr.take());
        Self {
            child,
            log: Arc::default(),
            file,
        }
    }

    /// Starts a `serve` of the test's own making, which is not started again.
    pub(crate) fn run(command: &mut Command) -> Self {
        Self::attend(spawn(command), PathBuf::new())
    }

    fn start(file: PathBuf) -> Self {
        Self::attend(Self::spawn(&file), file)
    }

    fn attend(mut child: Child, file: PathBuf) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("it is piped");
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Self { child, log, file }
    }

    fn spawn(file: &Path) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge-dispatch"));
        command.args(["serve", "--config"]).arg(file);
        // What it makes beside its database.
        command.current_dir(file.parent().expect("it lies in a directory"));
        spawn(command.env("FORGE_MASTER_KEY", MASTER_KEY))
    }

    /// Waits for a line of the log that holds this text, and gives it.
    pub(crate) async fn logged(&self, text: &str) -> String {
        let find = || {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.iter().find(|line| line.contains(text)).cloned()
        };
        let logged = wait_until(PATIENCE, || find().is_some()).await;
        let tail = self.tail();
        assert!(
            logged.is_ok(),
            "no `{text}` was logged; the end of the log:\n{tail}"
        );
        find().expect("it was just found")
    }

    /// How many lines of the log hold all of these texts.
    pub(crate) fn lines_with(&self, texts: &[&str]) -> usize {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = log.iter();
        lines
            .filter(|line| texts.iter().all(|text| line.contains(text)))
            .count()
    }

    /// The last lines of the log.
    pub(crate) fn tail(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let first = log.len().saturating_sub(30);
        log[first..].join("\n")
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no line of the program runs after it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// The same program again, on the same files.
    pub(crate) fn start_again(&mut self) {
        let again = Self::start(self.file.clone());
        drop(std::mem::replace(self, again));
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let ends = std::time::Duration::from_secs(40);
        let child = Mutex::new(&mut self.child);
        let found = Mutex::new(&mut status);
        let waited = wait_until(ends, || {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            **found = child.try_wait().expect("it can be asked");
            found.is_some()
        })
        .await;
        let tail = self.tail();
        assert!(
            waited.is_ok(),
            "it did not end; the end of the log:\n{tail}"
        );
        status.expect("it ended")
    }
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

impl Drop for Binary {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The parts of a configuration that tests set, as a file.
fn toml(config: &Config) -> String {
    let ms = |duration: Duration| format!("\"{}ms\"", duration.as_millis());
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("text can be written");
    line(format!("role = \"{}\"", config.role));
    line("[database]".to_owned());
    line(format!("url = {:?}", config.database.url.expose_secret()));
    line(format!(
        "[log]\nformat = \"json\"\nfilter = {:?}",
        config.log.filter
    ));
    line(format!("[api]\nlisten = \"{}\"", config.api.listen));
    let proxies: Vec<String> = config
        .api
        .behind_proxy
        .iter()
        .map(|net| format!("\"{net}\""))
        .collect();
    line(format!("behind_proxy = [{}]", proxies.join(", ")));
    line(format!(
        "requests_per_minute = {}\nrequests_per_hour = {}",
        config.api.requests_per_minute, config.api.requests_per_hour
    ));
    line(format!(
        "concurrent_requests = {}\nfailed_authentications_per_minute = {}",
        config.api.concurrent_requests, config.api.failed_authentications_per_minute
    ));
    line(format!("[ops]\nlisten = \"{}\"", config.ops.listen));
    line("[amqp]".to_owned());
    if let Some(url) = &config.amqp.url {
        line(format!("url = {:?}", url.expose_secret()));
    }
    line(format!(
        "events_exchange = {:?}",
        config.amqp.events_exchange
    ));
    line(format!("events_queue = {:?}", config.amqp.events_queue));
    line(format!(
        "snapshots_exchange = {:?}",
        config.amqp.snapshots_exchange
    ));
    line(format!(
        "snapshots_queue = {:?}",
        config.amqp.snapshots_queue
    ));
    line(format!(
        "dispatch_exchange = {:?}",
        config.amqp.dispatch_exchange
    ));
    line(format!(
        "dead_letter_exchange = {:?}",
        config.amqp.dead_letter_exchange
    ));
    line(format!(
        "dead_letter_queue = {:?}",
        config.amqp.dead_letter_queue
    ));
    if let Some(directory) = &config.outputs.directory {
        line(format!("[outputs]\ndirectory = '{}'", directory.display()));
    }
    line("[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]".to_owned());
    line(format!("timeout = {}", ms(config.egress.timeout)));
    line(format!(
        "connect_timeout = {}",
        ms(config.egress.connect_timeout)
    ));
    line("[dispatch]".to_owned());
    line(format!("concurrency = {}", config.dispatch.concurrency));
    let of_one = config.dispatch.subscription_concurrency;
    line(format!("subscription_concurrency = {of_one}"));
    line(format!("settle_batch = {}", config.dispatch.settle_batch));
    line(format!("lease = {}", ms(config.dispatch.lease)));
    line(format!("lease_grace = {}", ms(config.dispatch.lease_grace)));
    line(format!(
        "drain_timeout = {}",
        ms(config.dispatch.drain_timeout)
    ));
    let circuit = &config.dispatch.circuit;
    line("[dispatch.circuit]".to_owned());
    line(format!("failures_in_row = {}", circuit.failures_in_row));
    line(format!("least_attempts = {}", circuit.least_attempts));
    line(format!("first_pause = {}", ms(circuit.first_pause)));
    line(format!("longest_pause = {}", ms(circuit.longest_pause)));
    line(format!("ramp = {}", ms(circuit.ramp)));
    let delays: Vec<String> = config.retry.schedule.iter().copied().map(ms).collect();
    line(format!("[retry]\nschedule = [{}]", delays.join(", ")));
    if let Some(endpoint) = &config.telemetry.otlp_endpoint {
        line(format!("[telemetry]\notlp_endpoint = \"{endpoint}\""));
        let telemetry = &config.telemetry;
        line(format!(
            "export_interval = {}\nexport_timeout = {}",
            ms(telemetry.export_interval),
            ms(telemetry.export_timeout)
        ));
        if let Some(headers) = &telemetry.otlp_headers {
            line(format!("otlp_headers = {:?}", headers.expose_secret()));
        }
    }
    text
}
