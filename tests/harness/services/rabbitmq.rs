//! RabbitMQ as the tests run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use rustix::process::Signal;

use super::server::{Program, find_program, free_port};

/// A node of its own: own name, ports, cookie, data and port mapper, so that it meets neither a
/// broker of the machine nor one of another test.
pub(crate) struct RabbitMq {
    server: PathBuf,
    epmd: PathBuf,
    dir: PathBuf,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    url: String,
}

/// Erlang's port mapper, in the foreground beside the node: started by the node it would be a
/// daemon that nobody ends. Then the server in this shell's place, so that it gets the signals (as
/// it does under systemd; otherwise its script stays in front and translates them).
const LAUNCH: &str = r#""$EPMD" -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec "$RABBITMQ""#;

impl Program for RabbitMq {
    const NAME: &'static str = "rabbitmq";

    const QUIT: &'static str = "KILL";

    fn on_free_ports(dir: &Path) -> Result<Self, String> {
        let missing = "no RabbitMQ on this machine: run scripts/test, or set TEST_AMQP_URL";
        // Debian's /usr/sbin/rabbitmq-server is a wrapper that wants to become user `rabbitmq`.
        let debian = [PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server")];
        let port = free_port();
        Ok(Self {
            server: find_program(&debian, "rabbitmq-server").ok_or(missing)?,
            epmd: find_program(&[], "epmd").ok_or("no `epmd` (of Erlang) on the PATH")?,
            dir: dir.to_owned(),
            port,
            distribution_port: free_port(),
            epmd_port: free_port(),
            url: format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
        })
    }

    fn prepare(&self) -> Result<(), String> {
        // The small write-ahead log keeps a short-lived node from writing half a gigabyte; where
        // its speed matters, the broker's own default is asked for.
        let wal_bytes = std::env::var("TEST_RABBITMQ_WAL_BYTES");
        let wal_bytes = wal_bytes.as_deref().unwrap_or("33554432");
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\n\
             raft.wal_max_size_bytes = {wal_bytes}\n\
             disk_free_limit.absolute = 50MB\n\
             log.file = false\n\
             log.console = true\n\
             log.console.level = info\n",
            self.port
        );
        let write = |name: &str, text: &str| {
            fs::write(self.dir.join(name), text).map_err(|error| format!("{name}: {error}"))
        };
        write("rabbitmq.conf", &configuration)?;
        // A rejected message that has nowhere to go is tried again after this, not after minutes.
        write(
            "advanced.config",
            "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n",
        )?;
        // No plugins: none is needed, and each listens on a port of its own.
        write("enabled_plugins", "[].\n")?;
        // Keeps out the machine's own settings.
        write("rabbitmq-env.conf", "")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", LAUNCH])
            .current_dir(&self.dir)
            .env("RABBITMQ", &self.server)
            .env("EPMD", &self.epmd)
            .env("RUNNING_UNDER_SYSTEMD", "1")
            // The Erlang cookie is made here.
            .env("HOME", &self.dir)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_NODENAME",
                format!("forge-{}@localhost", self.port),
            )
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", self.dir.join("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", self.dir.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ADVANCED_CONFIG_FILE",
                self.dir.join("advanced.config"),
            )
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                self.dir.join("enabled_plugins"),
            )
            .env("RABBITMQ_MNESIA_BASE", self.dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.dir.join("logs"))
            .env("RABBITMQ_PID_FILE", self.dir.join("rabbitmq.pid"))
            // Erlang's schedulers spin while they wait, which costs the tests their processor; one
            // test's broker needs no more than two of them.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none +sbwtdcpu none +sbwtdio none +S 2:2 \
                 -kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }

    fn graceful(&self) -> Signal {
        Signal::TERM
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.port, self.distribution_port, self.epmd_port]
    }

    async fn answers(&self) -> Result<(), String> {
        // A node that is still starting can take the connection and then say nothing.
        let attempt = async {
            let connection =
                Connection::connect(&self.url, ConnectionProperties::default()).await?;
            let _channel = connection.create_channel().await?;
            // Served: how the farewell goes does not matter.
            connection.close(200, "".into()).await.ok();
            Ok::<(), lapin::Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(5), attempt).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}
