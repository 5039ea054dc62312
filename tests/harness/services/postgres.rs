//! Postgres as the tests run it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use sqlx::{Connection, PgConnection};

use super::server::{Program, find_program, free_port};

/// A cluster in a directory, listening on a port of the loopback.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    url: String,
    /// Postgres refuses to run as root: then it runs as the user that its package made.
    user: Option<(u32, u32)>,
}

impl Postgres {
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir(&self.dir);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl Program for Postgres {
    const NAME: &'static str = "postgres";

    // "Immediate shutdown": it kills its own processes and frees its shared memory, which a
    // SIGKILL would leave to the kernel for ever.
    const QUIT: &'static str = "QUIT";

    fn on_free_ports(dir: &Path) -> Result<Self, String> {
        let port = free_port();
        Ok(Self {
            bin: programs()
                .ok_or("no Postgres on this machine: run scripts/test, or set TEST_POSTGRES_URL")?,
            dir: dir.to_owned(),
            port,
            url: format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            user: if rustix::process::geteuid().is_root() {
                Some(user_of_the_package()?)
            } else {
                None
            },
        })
    }

    fn prepare(&self) -> Result<(), String> {
        if self.data().join("PG_VERSION").exists() {
            return Ok(());
        }
        if let Some((user, group)) = self.user {
            chown(&self.dir, Some(user), Some(group)).map_err(|error| error.to_string())?;
        }
        let output = self
            .program("initdb")
            .arg("--pgdata")
            .arg(self.data())
            .args(["--username=postgres", "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C"])
            // Nothing is in it yet that a power cut could take.
            .arg("--no-sync")
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!(
                "initdb: {}",
                String::from_utf8_lossy(&output.stderr)
            ))
        }
    }

    fn command(&self) -> Command {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data());
        for setting in [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            // A socket's path has a length limit that a temporary directory can pass.
            "unix_socket_directories=".to_owned(),
            // Every test has its own database and pools, and nextest runs many at a time.
            "max_connections=400".to_owned(),
            // Durability is part of what the tests are about.
            "fsync=on".to_owned(),
            // Room for a statement's own comment, to be found in the log.
            "log_line_prefix=%m [%p] %d ".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        command
    }

    // "Fast shutdown": clients are cut off, everything is written.
    fn graceful(&self) -> Signal {
        Signal::INT
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    async fn answers(&self) -> Result<(), String> {
        let connection = PgConnection::connect(&self.url)
            .await
            .map_err(|error| error.to_string())?;
        connection.close().await.map_err(|error| error.to_string())
    }
}

/// Where `initdb` and `postgres` are: the newest of Debian's, else those on the PATH.
fn programs() -> Option<PathBuf> {
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin/initdb")))
        })
        .collect();
    debian.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let candidates: Vec<PathBuf> = debian.into_iter().map(|(_, path)| path).collect();
    let initdb = find_program(&candidates, "initdb")?;
    // A name on the PATH is often a link to where the programs really live.
    Some(initdb.canonicalize().ok()?.parent()?.to_owned())
}

fn user_of_the_package() -> Result<(u32, u32), String> {
    let users = fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    users
        .lines()
        .find_map(|line| {
            let mut fields = line.strip_prefix("postgres:")?.split(':');
            let user = fields.nth(1)?.parse().ok()?;
            let group = fields.next()?.parse().ok()?;
            Some((user, group))
        })
        .ok_or_else(|| {
            "run as root, Postgres needs a user `postgres`, and there is none".to_owned()
        })
}
