//! What a bounded demo came to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::{CliError, Context};
use crate::domain::delivery::DeliveryState;
use crate::domain::reach::Reach;
use crate::store::{DeliveryFilter, EditionFilter, PageRequest, Store};

/// How many editions stand where.
pub(super) type Statuses = BTreeMap<String, u64>;

/// What a bounded run came to.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    /// The tenant of this run.
    pub(super) workspace: String,
    pub(super) events: u64,
    pub(super) deliveries: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) attempts: u64,
    pub(super) verified: u64,
    pub(super) editions: Statuses,
    pub(super) seconds: f64,
}

impl Summary {
    /// Counts what is in the store.
    pub(super) async fn count(store: &dyn Store, reach: &Reach) -> anyhow::Result<Self> {
        let mut summary = Self {
            workspace: reach.workspace.to_string(),
            editions: statuses(store, reach).await?,
            ..Self::default()
        };
        let mut after = None;
        loop {
            let page = PageRequest { limit: 500, after };
            let filter = DeliveryFilter::default();
            let page = store.deliveries(reach, &filter, page).await?;
            for delivery in &page.items {
                summary.deliveries += 1;
                summary.attempts += u64::from(delivery.attempts);
                match delivery.state {
                    DeliveryState::Succeeded => summary.succeeded += 1,
                    DeliveryState::Failed => summary.failed += 1,
                    _ => {}
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(summary);
            }
        }
    }

    /// Whether everything was delivered, and every delivery verified by the receiver.
    fn is_whole(&self) -> bool {
        self.succeeded == self.deliveries && self.verified == self.deliveries
    }

    /// Prints it, and fails if it is not whole.
    pub(super) fn report(&self, context: &Context) -> Result<(), CliError> {
        context.output.print(self, |summary| {
            format!(
                "{} events in {:.1} s, {} deliveries: {} succeeded, {} failed,\n\
                 in {} attempts; {} verified by the receiver\n{}",
                summary.events,
                summary.seconds,
                summary.deliveries,
                summary.succeeded,
                summary.failed,
                summary.attempts,
                summary.verified,
                describe(&summary.editions),
            )
        })?;
        if self.is_whole() {
            return Ok(());
        }
        Err(CliError::Failure(anyhow::anyhow!(
            "not every delivery was made and verified"
        )))
    }
}

/// Counts the editions of a workspace by their status.
pub(super) async fn statuses(store: &dyn Store, reach: &Reach) -> anyhow::Result<Statuses> {
    let mut statuses = Statuses::new();
    let mut after = None;
    loop {
        let page = PageRequest { limit: 500, after };
        let list = store
            .editions(reach, &EditionFilter::default(), page)
            .await?;
        for record in &list.page.items {
            *statuses
                .entry(record.edition.status.to_string())
                .or_default() += 1;
        }
        after = list.page.next;
        if after.is_none() {
            return Ok(statuses);
        }
    }
}

/// The same in a line, in the order of an edition's life.
pub(super) fn describe(statuses: &Statuses) -> String {
    const LIFE: [&str; 6] = [
        "draft",
        "submitted",
        "in_review",
        "changes_requested",
        "approved",
        "closed",
    ];
    let total: u64 = statuses.values().sum();
    let counts: Vec<String> = LIFE
        .iter()
        .filter_map(|status| Some(format!("{} {status}", statuses.get(*status)?)))
        .collect();
    format!("{total} editions: {}", counts.join(", "))
}
