//! What is printed: a table for people, JSON for everyone else.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::rig::Round;

/// One measurement. What a scenario does not measure is absent.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(default)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) data_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliveries_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_per_second: Option<f64>,
    /// Of the rate to raw, or to what the scenario compares itself with; the median of the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// The smallest and the largest of the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_range: Option<(f64, f64)>,
    /// What `ratio` is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compared_with: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p95_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p999_ms: Option<f64>,
    /// The most memory that the program ever had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rss_mb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_ms: Option<f64>,
    /// Of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<Cost>,
}

/// What one delivery, or one read, costs, by who pays.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) program_us: f64,
    pub(crate) database_us: f64,
    pub(crate) broker_us: f64,
    pub(crate) receiver_us: f64,
    /// Given to the disk by all of them.
    pub(crate) written_bytes: f64,
}

impl Cost {
    /// The mean over rounds.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn of(rounds: &[Round]) -> Self {
        let deliveries = rounds.iter().map(|round| round.deliveries).sum::<usize>() as f64;
        let sum = |of: fn(&Round) -> f64| rounds.iter().map(of).sum::<f64>() / deliveries;
        Self {
            program_us: sum(|round| round.costs.program.cpu_secs) * 1e6,
            database_us: sum(|round| round.costs.database.cpu_secs) * 1e6,
            broker_us: sum(|round| round.costs.broker.cpu_secs) * 1e6,
            receiver_us: sum(|round| round.costs.receiver.cpu_secs) * 1e6,
            written_bytes: sum(|round| {
                round.costs.program.written_bytes
                    + round.costs.database.written_bytes
                    + round.costs.broker.written_bytes
            }),
        }
    }
}

/// The middle one; the mean of the two middle ones where there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The time that this share of them took at most, in milliseconds.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
pub(crate) fn percentile_ms(took: &[Duration], share: f64) -> Option<f64> {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(at).map(|took| took.as_secs_f64() * 1_000.0)
}

/// The smallest and the largest.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}

/// All rows so far.
pub(crate) struct Report {
    rows: Vec<Row>,
    json: Option<PathBuf>,
}

impl Report {
    pub(crate) fn new(json: Option<PathBuf>) -> Self {
        Self {
            rows: Vec::new(),
            json,
        }
    }

    /// Adds rows, and writes what there is: a run that is broken off leaves what it measured.
    pub(crate) fn add(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        eprintln!("{}", table(&rows));
        self.rows.extend(rows);
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&self.rows)?;
            fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    pub(crate) fn print(&self) {
        println!("{}", table(&self.rows));
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "SCENARIO",
        "BYTES",
        "PER SECOND",
        "RAW",
        "RATIO",
        "P50",
        "P95",
        "P99",
        "P99.9",
        "MEMORY",
        "CPU EACH (program, database, broker, receiver)",
    ]);
    for row in rows {
        let number = |value: Option<f64>, digits: usize, unit: &str| {
            value.map_or_else(String::new, |value| format!("{value:.digits$}{unit}"))
        };
        let range = row.ratio_range.map_or_else(String::new, |(low, high)| {
            format!(" ({low:.2} to {high:.2})")
        });
        let mut last = row.cost.map_or_else(String::new, |cost| {
            format!(
                "{:.1} + {:.1} + {:.1} + {:.1} us, {:.0} bytes written",
                cost.program_us,
                cost.database_us,
                cost.broker_us,
                cost.receiver_us,
                cost.written_bytes
            )
        });
        for (value, digits, what) in [
            (row.start_ms, 0, " ms to ready"),
            (row.cpu_percent, 2, " % of a core"),
        ] {
            last.push_str(&number(value, digits, what));
        }
        table.add_row([
            row.scenario.clone(),
            row.data_bytes.to_string(),
            number(row.deliveries_per_second, 0, ""),
            number(row.raw_per_second, 0, ""),
            number(row.ratio, 2, &range),
            number(row.p50_ms, 1, " ms"),
            number(row.p95_ms, 1, " ms"),
            number(row.p99_ms, 1, " ms"),
            number(row.p999_ms, 1, " ms"),
            number(row.rss_mb, 0, " MB"),
            last,
        ]);
    }
    table
}
