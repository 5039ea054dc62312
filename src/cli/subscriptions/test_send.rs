//! `subscriptions test`

use serde::Serialize;

use super::{OneArgs, missing};
use crate::app::{self, Surroundings};
use crate::cli::deliveries::AttemptView;
use crate::cli::output::fields;
use crate::cli::{CliError, Context, parse};
use crate::store::TestSent;

/// What came of a test, as it is printed.
#[derive(Serialize)]
struct View {
    event_id: String,
    delivery_id: String,
    attempt: AttemptView,
}

/// Sends a `ping` out of this process, as the service would, and keeps what came of it. A failed
/// attempt is shown like any other, and then it is the command that failed.
pub(super) async fn run(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = parse::id("id", &args.id)?;
    let surroundings = Surroundings {
        clock: context.clock.clone(),
        entropy: context.entropy.clone(),
        ..Surroundings::default()
    };
    let sent = context
        .with_store(async |store| {
            let target = store.target(&reach, id).await?;
            let target = target.ok_or_else(|| missing(&args.id, &args.workspace))?;
            let tester = app::tester(&context.config, &surroundings, store)?;
            Ok(tester.send(target).await?)
        })
        .await?;
    let view = View::new(sent);
    context.output.print(&view, View::describe)?;
    if view.attempt.succeeded() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("the receiver did not take the test").into())
    }
}

impl View {
    fn new(sent: TestSent) -> Self {
        Self {
            event_id: sent.event.to_string(),
            delivery_id: sent.delivery.to_string(),
            attempt: sent.attempt.into(),
        }
    }

    fn describe(&self) -> String {
        let ids = fields(&[
            ("event", self.event_id.clone()),
            ("delivery", self.delivery_id.clone()),
        ]);
        format!("{ids}\n{}", AttemptView::table([&self.attempt]))
    }
}
