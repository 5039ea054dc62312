//! What the demo shows: a live table on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use console::Term;

use super::receiver::Tally;

/// One row: a subscription and what its hook saw.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) wants: String,
    pub(super) format: &'static str,
    pub(super) tally: Tally,
}

/// Draws over what it drew before.
pub(super) struct View {
    term: Term,
    live: bool,
    lines: usize,
}

impl View {
    pub(super) fn new() -> Self {
        Self {
            term: Term::stdout(),
            live: std::io::stdout().is_terminal(),
            lines: 0,
        }
    }

    /// How long to wait between two pictures.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(if self.live { 250 } else { 5_000 })
    }

    /// Draws the picture of this moment.
    pub(super) fn draw(
        &mut self,
        events: u64,
        elapsed: Duration,
        rows: &[Row],
    ) -> std::io::Result<()> {
        let verified: u64 = rows.iter().map(|row| row.tally.verified).sum();
        let summary = format!(
            "{events} events, {verified} deliveries verified, {:.0} s",
            elapsed.as_secs_f64()
        );
        if !self.live {
            return self.term.write_line(&summary);
        }
        let table = table(rows);
        self.term.clear_last_lines(self.lines)?;
        self.term.write_line(&table)?;
        self.term
            .write_line(&format!("{summary}   (Ctrl-C ends it)"))?;
        self.lines = table.lines().count() + 1;
        Ok(())
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
        "subscription",
        "wants",
        "format",
        "requests",
        "refused once",
        "verified",
        "bad signature",
    ]);
    for row in rows {
        table.add_row([
            row.name.to_owned(),
            row.wants.clone(),
            row.format.to_owned(),
            row.tally.requests.to_string(),
            row.tally.refused.to_string(),
            row.tally.verified.to_string(),
            row.tally.forged.to_string(),
        ]);
    }
    for column in 3..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}
