//! The real program, each time in an empty directory and an empty environment.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it should be"
)]

use std::path::Path;

use assert_cmd::Command;
use chrono::DateTime;
use serde_json::Value;
use tempfile::TempDir;

mod broker;
mod config;
mod deliveries;
mod demo;
mod events;
mod keys;
mod openapi;
mod postgres;
mod replay;
mod served;
mod starting;
mod subscriptions;

/// A public address that nothing is ever sent to: registering does not dial.
const URL: &str = "https://9.9.9.9/hook";

/// An empty directory to run the program in.
struct Home {
    dir: TempDir,
    environment: Vec<(String, String)>,
}

/// What a run left.
#[derive(Debug)]
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn run(&self, args: &[&str]) -> Run {
        self.run_with_input(args, "")
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_forge-dispatch"))
            .current_dir(self.path())
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(args)
            .write_stdin(input)
            .output()
            .unwrap();
        Run {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs what must work, and gives its output.
    fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        run.stdout
    }

    /// Runs what must work with `--json`, and gives its one document.
    fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).expect("one JSON document")
    }

    /// Runs what must fail with this code, and gives what it says.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (code, ""),
            "{args:?}: {run:?}"
        );
        run.stderr
    }

    /// Registers a subscription and gives its id.
    fn subscribe(&self, event_type: &str) -> String {
        let args = [
            "subscriptions",
            "create",
            "--url",
            URL,
            "--event-type",
            event_type,
        ];
        text(&self.json(&args)["id"])
    }

    /// Publishes an event and gives our id of it.
    fn publish(&self, event_type: &str) -> String {
        let args = ["events", "publish", "--type", event_type, "--data", "{}"];
        text(&self.json(&args)["event_id"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// The text with what differs from run to run (ids, times, secrets, widths) made the same.
fn stable(text: &str) -> String {
    let mut stable = String::new();
    let mut word = String::new();
    for char in text.chars() {
        if char.is_ascii_alphanumeric() || "_-:.+/=".contains(char) {
            word.push(char);
            continue;
        }
        stable.push_str(&stable_word(&word));
        word.clear();
        // Columns are as wide as what they hold; an indent is what it is.
        let line = stable.rsplit('\n').next().unwrap_or_default();
        if !(char == ' ' && line.ends_with("  ") && !line.trim().is_empty()) {
            stable.push(char);
        }
    }
    stable.push_str(&stable_word(&word));
    stable
}

fn stable_word(word: &str) -> String {
    for prefix in ["evt_", "sub_", "dlv_", "key_", "rpl_"] {
        if word
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 26)
        {
            return format!("{prefix}ID");
        }
    }
    if word.starts_with("whsec_") {
        return "whsec_SECRET".to_owned();
    }
    if word.starts_with("rfk_") {
        return "rfk_KEY".to_owned();
    }
    if DateTime::parse_from_rfc3339(word).is_ok() {
        return "TIME".to_owned();
    }
    if word.parse::<uuid::Uuid>().is_ok() {
        return "UUID".to_owned();
    }
    word.to_owned()
}
