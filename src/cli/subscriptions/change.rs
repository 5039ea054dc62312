//! `subscriptions update` and `subscriptions rotate-secret`.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{View, check_target, event_types, missing, print_with_secret};
use crate::cli::parse::{self, WorkspaceArgs};
use crate::cli::{CliError, Context};
use crate::domain::headers::CustomHeaders;
use crate::domain::secret::{MAX_OVERLAP, SigningSecret};
use crate::domain::subscription::{
    FieldError, Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl,
};
use crate::store::replays::missed;
use crate::store::{Rotation, Window};

/// What an admin changes; something at least.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args([
    "url", "event_types", "projects", "all_projects", "format", "headers", "clear_headers", "max_concurrency",
    "default_concurrency", "rate_limit", "no_rate_limit", "retry_schedule", "default_retry_schedule",
    "ordering", "description", "enable", "disable",
]))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and clap wants them so"
)]
pub struct UpdateArgs {
    /// The subscription (`sub_…`).
    id: String,

    /// Send there from now on, what waits included.
    #[arg(long)]
    url: Option<String>,

    /// These events instead. May be repeated.
    #[arg(long = "event-type", value_name = "TYPE")]
    event_types: Vec<String>,

    /// Only events of this project instead. May be repeated.
    #[arg(long = "project", value_name = "ID", conflicts_with = "all_projects")]
    projects: Vec<String>,

    /// Events of all projects.
    #[arg(long)]
    all_projects: bool,

    /// Another body.
    #[arg(long)]
    format: Option<String>,

    /// These headers instead, as in `create`. May be repeated.
    #[arg(
        long = "header",
        value_name = "HEADER",
        conflicts_with = "clear_headers"
    )]
    headers: Vec<String>,

    /// No headers any more but our own.
    #[arg(long)]
    clear_headers: bool,

    /// So many requests in flight at once, from all replicas together.
    #[arg(long, value_name = "N", conflicts_with = "default_concurrency")]
    max_concurrency: Option<NonZeroU32>,

    /// As many requests in flight at once as the deployment allows.
    #[arg(long)]
    default_concurrency: bool,

    /// So many deliveries a second, from all replicas together.
    #[arg(long, value_name = "N", conflicts_with = "no_rate_limit")]
    rate_limit: Option<NonZeroU32>,

    /// As many deliveries a second as it takes.
    #[arg(long)]
    no_rate_limit: bool,

    /// Other delays before it is tried again (`5s,5m,1h`), or `none`.
    #[arg(long, value_name = "DELAYS", conflicts_with = "default_retry_schedule")]
    retry_schedule: Option<String>,

    /// The deployment's delays before it is tried again.
    #[arg(long)]
    default_retry_schedule: bool,

    /// `edition`: what is accepted from now on is sent edition by edition in its order; `none`: no
    /// longer.
    #[arg(long)]
    ordering: Option<String>,

    /// Another note.
    #[arg(long)]
    description: Option<String>,

    /// Serve it again, also after its receiver answered 410.
    #[arg(long, conflicts_with = "disable")]
    enable: bool,

    /// Serve it no more, for this reason: new events are not kept for it, what waits stays.
    #[arg(long, value_name = "REASON")]
    disable: Option<String>,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// Which subscription gets which secret.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// The subscription (`sub_…`).
    id: String,

    /// How long the old secret signs beside the new one: 0s to 7d.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    overlap: String,

    /// The new secret, if you bring one, as in `create`.
    #[arg(long)]
    secret: Option<String>,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

pub(super) async fn update(args: UpdateArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = parse::id("id", &args.id)?;
    let act = context.act();
    let (updated, back) = context
        .with_store(async |store| {
            let found = store.subscription(&reach, id).await?;
            let found = found.ok_or_else(|| missing(&args.id, &args.workspace))?;
            let (spec, status) = changed(&args, &found)?;
            if spec.url != found.spec.url {
                check_target(&spec.url, context).await?;
            }
            // Somebody else's change in between is not overwritten: it is an error, and a second
            // try begins with what is there by then.
            let updated = store
                .update_subscription(&reach, id, found.version, &spec, &status, &act)
                .await?;
            let updated = updated.ok_or_else(|| missing(&args.id, &args.workspace))?;
            let missed = missed(&**store, &reach, &found, &updated, &*context.clock).await?;
            let pending = if missed.is_some() {
                store.subscription_stats(&reach, id, Window::NOW).await?
            } else {
                None
            };
            let pending = pending.map(|stats| stats.pending);
            Ok((updated, pending.zip(missed)))
        })
        .await?;
    let view = View::new(&updated, context.clock.now()).back(back.as_ref());
    context.output.print(&view, View::describe)
}

/// What the subscription is to become.
fn changed(
    args: &UpdateArgs,
    found: &Subscription,
) -> Result<(SubscriptionSpec, SubscriptionStatus), FieldError> {
    let mut spec = found.spec.clone();
    if let Some(url) = &args.url {
        spec.url = TargetUrl::new(url)?;
    }
    if !args.event_types.is_empty() {
        spec.event_types = event_types(&args.event_types)?;
    }
    if args.all_projects {
        spec.project_ids = None;
    } else if let Some(projects) = parse::project_ids(&args.projects)? {
        spec.project_ids = Some(projects);
    }
    if let Some(format) = &args.format {
        spec.format = format.parse()?;
    }
    if args.clear_headers {
        spec.headers = CustomHeaders::default();
    } else if !args.headers.is_empty() {
        spec.headers = parse::headers(&args.headers)?;
    }
    if args.default_concurrency {
        spec.max_concurrency = None;
    } else if let Some(count) = args.max_concurrency {
        spec.max_concurrency = Some(count);
    }
    if args.no_rate_limit {
        spec.rate_limit = None;
    } else if let Some(rate) = args.rate_limit {
        spec.rate_limit = Some(rate);
    }
    if args.default_retry_schedule {
        spec.retry_schedule = None;
    } else if let Some(text) = &args.retry_schedule {
        spec.retry_schedule = Some(parse::retry_schedule(text)?);
    }
    if let Some(ordering) = &args.ordering {
        spec.ordering = ordering.parse()?;
    }
    if let Some(description) = &args.description {
        spec.description.clone_from(description);
    }
    spec.check()?;
    let status = match &args.disable {
        Some(reason) => SubscriptionStatus::disabled(reason)?,
        None if args.enable => SubscriptionStatus::Active,
        None => found.status.clone(),
    };
    Ok((spec, status))
}

pub(super) async fn rotate_secret(args: RotateArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = parse::id("id", &args.id)?;
    let act = context.act();
    let overlap = overlap(&args.overlap)?;
    let (rotated, secret) = context
        .with_store(async |store| {
            let found = store.subscription(&reach, id).await?;
            let found = found.ok_or_else(|| missing(&args.id, &args.workspace))?;
            let secret = match &args.secret {
                Some(text) => SigningSecret::bring(text, found.spec.format)?,
                None => SigningSecret::generate(context.entropy.bytes()),
            };
            let rotation = Rotation {
                secret_id: context.entropy.id(context.clock.now()),
                secret: secret.clone(),
                overlap,
            };
            let rotated = store
                .rotate_secret(&reach, id, None, &rotation, &act)
                .await?;
            let rotated = rotated.ok_or_else(|| missing(&args.id, &args.workspace))?;
            Ok((rotated, secret))
        })
        .await?;
    print_with_secret(&rotated, &secret, context)
}

/// How long two secrets sign (product.md §4).
fn overlap(text: &str) -> Result<Duration, FieldError> {
    let wrong = || {
        FieldError::new(
            "overlap",
            format!("`{text}` must be a duration of 0s to 7d"),
        )
    };
    let overlap = humantime::parse_duration(text).map_err(|_| wrong())?;
    if overlap > MAX_OVERLAP {
        return Err(wrong());
    }
    Ok(overlap)
}
