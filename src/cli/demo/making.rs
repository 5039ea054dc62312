//! The files of the demo: outputs that are asked for as over the API, and made by the same runner.

use std::time::Duration;

use anyhow::bail;

use super::stage::Stage;
use crate::clock::pause;
use crate::domain::ids::OutputId;
use crate::domain::output::{OutputFormat, OutputStatus};
use crate::domain::snapshot::{Snapshot, State};
use crate::store::{OutputAsk, OutputAsked, OutputRecord};

/// How often it is looked whether a file is there.
const LOOK: Duration = Duration::from_millis(10);

impl Stage {
    /// Has the outputs made that this program makes, of the editions that are closed; waits for their
    /// files, and answers with those that have one.
    pub(super) async fn make_outputs(
        &self,
        seed: &[Snapshot],
    ) -> anyhow::Result<Vec<OutputRecord>> {
        let outputs = seed.iter().filter_map(|told| match &told.state {
            State::Output(output) => Some(output),
            _ => None,
        });
        let ours = outputs.filter(|output| {
            output.status == OutputStatus::NotGenerated
                && matches!(output.format, OutputFormat::Csv | OutputFormat::Xlsx)
        });
        let mut asked = Vec::new();
        for output in ours {
            if self.ask_for(&output.id).await? {
                asked.push(output.id.clone());
            }
        }
        let mut made = Vec::new();
        for id in asked {
            made.extend(self.made(&id).await?);
        }
        Ok(made)
    }

    /// Whether it will be made: not of an edition that is still on its way.
    async fn ask_for(&self, id: &OutputId) -> anyhow::Result<bool> {
        let entropy = &self.surroundings.entropy;
        let ask = OutputAsk {
            reach: &self.reach(),
            once: None,
            core_timeout: None,
            answer: &|_| String::new(),
            event: entropy.id(self.surroundings.clock.now()),
        };
        match self.store.ask_output(id, &ask).await? {
            OutputAsked::Done(_) => Ok(true),
            OutputAsked::NotReady(_) => Ok(false),
            other => bail!("the output {id} cannot be made: {other:?}"),
        }
    }

    /// The output with its file; `None` where the demo is ended before.
    async fn made(&self, id: &OutputId) -> anyhow::Result<Option<OutputRecord>> {
        loop {
            let found = self.store.output(&self.reach(), id).await?;
            match found {
                Some(record) if record.output.status == OutputStatus::Generated => {
                    return Ok(Some(record));
                }
                Some(record) if record.output.status == OutputStatus::Failed => {
                    bail!("the output {id} failed: {:?}", record.output.failure);
                }
                _ => {}
            }
            tokio::select! {
                () = pause(LOOK) => {}
                () = self.shutdown.soft.cancelled() => return Ok(None),
            }
        }
    }
}
