//! What the demo shows: a live table on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::iter;
use std::time::Duration;

use console::Term;

use super::receiver::Tally;
use super::summary::{Statuses, describe};

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

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) -> std::io::Result<()> {
        self.term.write_line(text)
    }

    /// Draws the picture of this moment.
    pub(super) fn draw(
        &mut self,
        events: u64,
        elapsed: Duration,
        rows: &[Row],
        statuses: &Statuses,
    ) -> std::io::Result<()> {
        let verified: u64 = rows.iter().map(|row| row.tally.verified).sum();
        let summary = format!(
            "{events} events, {verified} deliveries verified, {:.0} s",
            elapsed.as_secs_f64()
        );
        let editions = describe(statuses);
        if !self.live {
            return self.term.write_line(&format!("{summary}\n{editions}"));
        }
        let (height, width) = self.term.size();
        let (height, width) = (usize::from(height), usize::from(width));
        let summary = format!("{summary}   (Ctrl-C ends it)");
        // Only what fits is drawn: what has scrolled away cannot be drawn over.
        let mut lines = table(rows);
        if lines.len() + 3 > height {
            lines.clear();
        }
        lines.push(editions);
        lines.push(summary);
        self.term.clear_last_lines(self.lines)?;
        for line in &lines {
            self.term
                .write_line(&console::truncate_str(line, width.max(1) - 1, "…"))?;
        }
        self.lines = lines.len();
        Ok(())
    }
}

/// A header and a line each, without rules: with the guide above, it fits a terminal of 24 lines.
fn table(rows: &[Row]) -> Vec<String> {
    let header = format!(
        "{:12}  {:15}  {:11}  {:>7}  {:>8}  {:>6}",
        "subscription", "wants", "format", "refused", "verified", "forged"
    );
    let lines = rows.iter().map(|row| {
        let Tally {
            refused,
            verified,
            forged,
        } = row.tally;
        let Row {
            name,
            wants,
            format,
            ..
        } = row;
        format!("{name:12}  {wants:15}  {format:11}  {refused:7}  {verified:8}  {forged:6}")
    });
    iter::once(header).chain(lines).collect()
}
