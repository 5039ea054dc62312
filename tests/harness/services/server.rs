//! A server program, run in a directory of its own for as long as a test or a run needs it.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// What the programs differ in.
pub(crate) trait Program: Sized {
    /// The name in directories and messages.
    const NAME: &'static str;

    /// Ends it at once and leaves nothing in the kernel.
    const QUIT: &'static str;

    /// Finds the program and free ports for it; nothing is started yet.
    fn on_free_ports(dir: &Path) -> Result<Self, String>;

    /// Makes what the first start needs in the directory. May be asked again.
    fn prepare(&self) -> Result<(), String>;

    /// The program in the foreground. Its output is redirected by the caller.
    fn command(&self) -> Command;

    /// Asks it to stop in good order.
    fn graceful(&self) -> Signal;

    /// Where clients find it.
    fn url(&self) -> &str;

    /// All ports that it listens on.
    fn ports(&self) -> Vec<u16>;

    /// Whether clients are served. The reason is kept for the message of a start that failed.
    fn answers(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// A running server, or one that was stopped and can be started again. Dropping it ends it.
pub(crate) struct Server<P: Program> {
    program: P,
    dir: PathBuf,
    child: Option<Child>,
    /// What to do with the directory and the process in the end.
    on_drop: OnDrop,
}

enum OnDrop {
    End,
    Leave,
}

/// Generous, since the machine may be running everything else at the same time.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A server that was asked to stop and does not is a fault of the harness, told by a panic.
const STOP_LIMIT: Duration = Duration::from_mins(1);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl<P: Program> Server<P> {
    /// Starts an instance of this test's own.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("forge-dispatch-{}-", P::NAME))
            .tempdir()
            .expect("the temporary directory can be written")
            .keep();
        match Self::start_in(dir.clone(), std::process::id()).await {
            Ok(server) => server,
            Err(reason) => {
                fs::remove_dir_all(dir).ok();
                panic!("{reason}");
            }
        }
    }

    /// Starts an instance that ends with the process `runner`.
    pub(super) async fn start_in(dir: PathBuf, runner: u32) -> Result<Self, String> {
        watch(&dir, runner, P::QUIT).map_err(|error| format!("the watchdog: {error}"))?;
        let mut reason = String::new();
        // A port that was free can be taken before the server has it; then others are tried.
        for _ in 0..3 {
            let mut server = Self {
                program: P::on_free_ports(&dir)?,
                dir: dir.clone(),
                child: None,
                on_drop: OnDrop::Leave,
            };
            server.program.prepare()?;
            match server.launch().await {
                Ok(()) => {
                    server.on_drop = OnDrop::End;
                    return Ok(server);
                }
                Err(failure) => reason = failure,
            }
        }
        Err(reason)
    }

    /// Where clients find it: the same after every restart.
    pub(crate) fn url(&self) -> &str {
        self.program.url()
    }

    /// Its process, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops it in good order.
    pub(crate) async fn stop(&mut self) {
        self.end(self.program.graceful()).await;
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// Starts it again, on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} is running", P::NAME);
        let mut outcome = self.launch().await;
        // What was killed may hold on to its memory or its port for a moment longer.
        for _ in 0..5 {
            if outcome.is_ok() {
                return;
            }
            outcome = self.launch().await;
        }
        outcome.expect("the server starts again");
    }

    /// Gives the server to the watchdog: it lives on when this process ends.
    pub(super) fn leave_to_watchdog(mut self) {
        self.on_drop = OnDrop::Leave;
    }

    async fn launch(&mut self) -> Result<(), String> {
        let log = self.dir.join("log");
        let mut child = spawn(self.program.command(), &log)
            .map_err(|error| format!("{} cannot be started: {error}", P::NAME))?;
        fs::write(self.dir.join("pid"), child.id().to_string())
            .map_err(|error| format!("{}: {error}", self.dir.display()))?;
        let mut seen = "nothing".to_owned();
        let answered = tokio::time::timeout(START_LIMIT, async {
            while let Err(reason) = self.program.answers().await {
                seen = reason;
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("ended by itself ({status})"));
                }
                look_again().await;
            }
            Ok(())
        });
        let failure = match answered.await {
            Ok(Ok(())) => {
                self.child = Some(child);
                return Ok(());
            }
            Ok(Err(failure)) => failure,
            Err(_) => format!("does not serve after {START_LIMIT:?} (a client saw: {seen})"),
        };
        signal(&child, Signal::KILL);
        child.wait().ok();
        Err(format!(
            "{} {failure}; the end of its log:\n{}",
            P::NAME,
            tail(&log)
        ))
    }

    async fn end(&mut self, how: Signal) {
        let mut child = self.child.take().expect("the server is running");
        signal(&child, how);
        let ended = tokio::time::timeout(STOP_LIMIT, async {
            while !matches!(child.try_wait(), Ok(Some(_))) {
                look_again().await;
            }
            // Its helpers go with it.
            signal(&child, Signal::KILL);
            while !self.program.ports().into_iter().all(is_free) {
                look_again().await;
            }
        });
        assert!(ended.await.is_ok(), "{} does not stop", P::NAME);
    }
}

impl<P: Program> Drop for Server<P> {
    fn drop(&mut self) {
        if matches!(self.on_drop, OnDrop::Leave) {
            return;
        }
        if let Some(mut child) = self.child.take() {
            // The program's own immediate stop first: a killed Postgres leaves its shared memory.
            let quit = match P::QUIT {
                "QUIT" => Signal::QUIT,
                _ => Signal::KILL,
            };
            signal(&child, quit);
            child.wait().ok();
            signal(&child, Signal::KILL);
        }
        // The watchdog sees that the directory is gone, and goes too.
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Starts a program in a process group of its own: Ctrl-C and the runner's clean-up, which go to
/// the test's group, do not reach it. Its output goes to a file; a pipe that outlives the test
/// would count as a leak.
fn spawn(mut command: Command, log: &Path) -> io::Result<Child> {
    let output = OpenOptions::new().create(true).append(true).open(log)?;
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
}

/// Starts the watchdog, before the server, so that there is no moment without one.
fn watch(dir: &Path, runner: u32, quit: &str) -> io::Result<()> {
    let script = dir.join("watchdog.sh");
    fs::write(&script, include_str!("watchdog.sh"))?;
    Command::new("sh")
        .arg(script)
        .arg(runner.to_string())
        .arg(dir)
        .arg(quit)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

/// Signals the program and the helpers in its group.
fn signal(child: &Child, signal: Signal) {
    // The group may be gone already, which is what is wanted.
    rustix::process::kill_process_group(Pid::from_child(child), signal).ok();
}

#[expect(
    clippy::disallowed_methods,
    reason = "polls a process that tells nobody when it is ready"
)]
async fn look_again() {
    tokio::time::sleep(LOOK_AGAIN).await;
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A port that nobody listens on. Below the range that outgoing connections are given (from 32768
/// on Linux), so that a server which is started again finds its port still free.
pub(super) fn free_port() -> u16 {
    let mut number = RandomState::new().hash_one("port");
    loop {
        let port = 10_000 + u16::try_from(number % 20_000).unwrap_or_default();
        if is_free(port) {
            return port;
        }
        number = number.wrapping_add(1);
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The first of these paths that is an executable file, else the name on the PATH.
pub(super) fn find_program(candidates: &[PathBuf], name: &str) -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default()
        .into_iter()
        .map(|dir| dir.join(name));
    candidates
        .iter()
        .cloned()
        .chain(on_path)
        .find(|path| File::open(path).is_ok() && path.is_file())
}
