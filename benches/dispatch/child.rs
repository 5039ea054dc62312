//! This executable as another process, which takes orders on its standard input and answers each
//! with a line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;

/// A process of ours. Dropping it ends it.
pub(crate) struct Child {
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this executable in another role.
    pub(crate) fn start(role: &str, args: &[String]) -> anyhow::Result<Self> {
        Self::start_logging(role, args, Stdio::inherit())
    }

    /// The same, with its standard error going elsewhere.
    pub(crate) fn start_logging(
        role: &str,
        args: &[String],
        log: impl Into<Stdio>,
    ) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(role)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting the {role}"))?;
        let orders = process.stdin.take().context("its standard input")?;
        let answers = process.stdout.take().context("its standard output")?;
        Ok(Self {
            process,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends an order; its answer is the next line.
    pub(crate) fn order(&mut self, order: &str) -> anyhow::Result<()> {
        writeln!(self.orders, "{order}")?;
        Ok(self.orders.flush()?)
    }

    /// Waits for the next line.
    pub(crate) fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line)?;
        anyhow::ensure!(read > 0, "the process has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Sends an order and waits for its answer, without holding up the others of this runtime.
    pub(crate) fn ask(&mut self, order: &str) -> anyhow::Result<String> {
        tokio::task::block_in_place(|| {
            self.order(order)?;
            self.answer()
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
