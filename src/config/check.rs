//! What the values must be among themselves, beyond what their types say.

use std::time::Duration;

use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::outputs::S3;
use super::{Amqp, Api, Config, Dispatch, Egress, Outputs, Retention, Role};
use crate::domain::event::MAX_EVENT_BYTES;
use crate::domain::retry::RetrySchedule;

/// What a lease must outlive an attempt and the flush of its outcome by: the time that a slow
/// database takes to write it.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// The longest duration that makes sense in any key but the retry schedule; far beyond it, sums of
/// durations would no longer fit.
const LONGEST: Duration = Duration::from_hours(24);

/// The most of anything that is done at once: requests, events or outcomes of one transaction.
const MOST_AT_ONCE: usize = 10_000;
/// The most snapshots that are held at once.
const MOST_SNAPSHOTS: u16 = 64;

/// The shortest time that anything is kept for: there is always one to look at what went wrong.
const SHORTEST_KEPT: Duration = Duration::from_hours(1);
/// The longest; beyond it, for ever is meant.
const LONGEST_KEPT: Duration = Duration::from_hours(36_500 * 24);

const BETWEEN: &str = "must be 1 to 10000";

/// The longest that a file may be on its way: less than the sweep leaves an unknown one alone.
const LONGEST_FETCH: Duration = Duration::from_mins(30);

/// The longest that the core may take to make a file.
const LONGEST_MAKING: Duration = Duration::from_hours(30 * 24);

/// The longest name that AMQP can carry (a short string), in bytes.
const MAX_NAME_BYTES: usize = 255;

mod circuit;

/// A key and the rule that its value breaks.
pub type Problem = (&'static str, String);

/// All that is wrong, in the order of the sections.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Problems(Vec::new());
    role(config, &mut found);
    database(config, &mut found);
    amqp(&config.amqp, &mut found);
    api(&config.api, &mut found);
    egress(&config.egress, &mut found);
    dispatch(&config.dispatch, &config.egress, &mut found);
    retention(&config.retention, &mut found);
    circuit::circuit(&config.dispatch.circuit, &mut found);
    outputs(&config.outputs, &mut found);
    config.telemetry.check(&mut found);
    if let Err(error) = RetrySchedule::new(config.retry.schedule.clone()) {
        found.add("retry.schedule", error.to_string());
    }
    if config.ops.listen == config.api.listen && config.ops.listen.port() != 0 {
        found.add("ops.listen", "must be another address than `api.listen`");
    }
    if EnvFilter::try_new(&config.log.filter).is_err() {
        found.add(
            "log.filter",
            "must be a filter such as `info` or `forge_dispatch=debug,lapin=warn`",
        );
    }
    found.0
}

/// What is wrong, as far as it was looked at.
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &'static str, reason: impl Into<String>) {
        self.0.push((key, reason.into()));
    }

    pub(super) fn require(&mut self, holds: bool, key: &'static str, reason: &str) {
        if !holds {
            self.add(key, reason);
        }
    }

    /// More than nothing, and no more than a day.
    pub(super) fn duration(&mut self, key: &'static str, duration: Duration) {
        self.require(!duration.is_zero(), key, "must be more than 0s");
        self.require(duration <= LONGEST, key, "must be at most 24h");
    }

    fn name(&mut self, key: &'static str, name: &str) {
        self.require(!name.is_empty(), key, "must not be empty");
        self.require(
            name.len() <= MAX_NAME_BYTES,
            key,
            "must be at most 255 bytes",
        );
    }
}

fn role(config: &Config, found: &mut Problems) {
    found.require(
        config.role == Role::All || !config.database.is_sqlite(),
        "role",
        "must be `all` with SQLite: one file, one process",
    );
    found.require(
        config.role != Role::Ingest || config.amqp.url.is_some(),
        "amqp.url",
        "must be set where `role` is `ingest`: there is nothing else to take events from",
    );
}

fn database(config: &Config, found: &mut Problems) {
    if !is_database_url(&config.database.url) {
        found.add(
            "database.url",
            "must be `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`",
        );
    }
    found.require(
        config.database.max_connections >= 1,
        "database.max_connections",
        "must be at least 1",
    );
}

fn is_database_url(url: &SecretString) -> bool {
    let url = url.expose_secret();
    if let Some(path) = url.strip_prefix("sqlite://") {
        // In memory, everything would be lost at the end; `?` options are not ours to pass on.
        return !path.is_empty() && path != ":memory:" && !path.contains('?');
    }
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"))
}

fn amqp(amqp: &Amqp, found: &mut Problems) {
    if let Some(url) = &amqp.url
        && url.expose_secret().parse::<AMQPUri>().is_err()
    {
        found.add(
            "amqp.url",
            "must be `amqp://USER:PASSWORD@HOST/VHOST` or `amqps://…`",
        );
    }
    found.name("amqp.events_exchange", &amqp.events_exchange);
    found.name("amqp.events_queue", &amqp.events_queue);
    found.name("amqp.snapshots_exchange", &amqp.snapshots_exchange);
    found.name("amqp.snapshots_queue", &amqp.snapshots_queue);
    found.name("amqp.dispatch_exchange", &amqp.dispatch_exchange);
    found.name("amqp.dead_letter_exchange", &amqp.dead_letter_exchange);
    found.name("amqp.dead_letter_queue", &amqp.dead_letter_queue);
    found.require(
        amqp.dead_letter_queue != amqp.events_queue,
        "amqp.dead_letter_queue",
        "must be another queue than `amqp.events_queue`",
    );
    found.require(
        amqp.dead_letter_exchange != amqp.events_exchange,
        "amqp.dead_letter_exchange",
        "must be another exchange than `amqp.events_exchange`",
    );
    found.require(
        amqp.dispatch_exchange != amqp.events_exchange,
        "amqp.dispatch_exchange",
        "must be another exchange than `amqp.events_exchange`: what we publish would come back",
    );
    found.require(
        amqp.dispatch_exchange != amqp.dead_letter_exchange,
        "amqp.dispatch_exchange",
        "must be another exchange than `amqp.dead_letter_exchange`",
    );
    found.require(
        !amqp.bindings.is_empty(),
        "amqp.bindings",
        "must name at least one pattern, or nothing ever arrives",
    );
    for pattern in &amqp.bindings {
        found.name("amqp.bindings", pattern);
    }
    // A prefetch of 0 means "without limit" to a broker.
    found.require(amqp.prefetch >= 1, "amqp.prefetch", "must be at least 1");
    snapshots(amqp, found);
    found.require(
        (1..=MOST_AT_ONCE).contains(&amqp.batch_events),
        "amqp.batch_events",
        BETWEEN,
    );
    found.require(
        amqp.batch_linger <= LONGEST,
        "amqp.batch_linger",
        "must be at most 24h",
    );
}

fn snapshots(amqp: &Amqp, found: &mut Problems) {
    found.require(
        ![&amqp.events_queue, &amqp.dead_letter_queue].contains(&&amqp.snapshots_queue),
        "amqp.snapshots_queue",
        "must be another queue than `amqp.events_queue` and `amqp.dead_letter_queue`",
    );
    let others = [
        &amqp.events_exchange,
        &amqp.dead_letter_exchange,
        &amqp.dispatch_exchange,
    ];
    found.require(
        !others.contains(&&amqp.snapshots_exchange),
        "amqp.snapshots_exchange",
        "must be another exchange than those of events, dead letters and `amqp.dispatch_exchange`",
    );
    found.require(
        !amqp.snapshots_bindings.is_empty(),
        "amqp.snapshots_bindings",
        "must name at least one pattern, or nothing ever arrives",
    );
    for pattern in &amqp.snapshots_bindings {
        found.name("amqp.snapshots_bindings", pattern);
    }
    found.require(
        (1..=MOST_SNAPSHOTS).contains(&amqp.snapshots_prefetch),
        "amqp.snapshots_prefetch",
        "must be 1 to 64: each message may have 16 MiB",
    );
}

fn api(api: &Api, found: &mut Problems) {
    if let Some(url) = &api.public_url {
        found.require(
            url.scheme() == "https" && url.query().is_none() && url.fragment().is_none(),
            "api.public_url",
            "must be `https://HOST`, perhaps with a port and a path",
        );
    }
    found.require(
        api.key_file.is_some() || api.certificate_file.is_none(),
        "api.certificate_file",
        "needs `api.key_file` too",
    );
    found.require(
        api.certificate_file.is_some() || api.key_file.is_none(),
        "api.key_file",
        "needs `api.certificate_file` too",
    );
    found.require(
        api.behind_proxy.is_empty() || api.certificate_file.is_none(),
        "api.behind_proxy",
        "must be empty where `api.certificate_file` is set: behind a proxy we listen in clear",
    );
    for (key, limit) in [
        ("api.requests_per_minute", api.requests_per_minute),
        ("api.requests_per_hour", api.requests_per_hour),
        ("api.concurrent_requests", api.concurrent_requests),
        (
            "api.failed_authentications_per_minute",
            api.failed_authentications_per_minute,
        ),
    ] {
        found.require(limit >= 1, key, "must be at least 1");
    }
    found.duration("api.header_timeout", api.header_timeout);
    found.duration("api.request_timeout", api.request_timeout);
    found.require(
        (1..=MOST_AT_ONCE).contains(&api.max_connections),
        "api.max_connections",
        BETWEEN,
    );
    found.require(
        (1..=MOST_AT_ONCE).contains(&api.max_connections_per_address),
        "api.max_connections_per_address",
        BETWEEN,
    );
}

fn egress(egress: &Egress, found: &mut Problems) {
    found.duration("egress.timeout", egress.timeout);
    found.duration("egress.connect_timeout", egress.connect_timeout);
    found.require(
        egress.connect_timeout <= egress.timeout,
        "egress.connect_timeout",
        "must not be longer than `egress.timeout`",
    );
}

fn dispatch(dispatch: &Dispatch, egress: &Egress, found: &mut Problems) {
    found.require(
        (1..=MOST_AT_ONCE).contains(&dispatch.concurrency),
        "dispatch.concurrency",
        BETWEEN,
    );
    found.require(
        (1..=dispatch.concurrency.max(1)).contains(&dispatch.subscription_concurrency),
        "dispatch.subscription_concurrency",
        "must be at least 1 and at most `dispatch.concurrency`",
    );
    found.require(
        dispatch.max_bytes_in_flight >= MAX_EVENT_BYTES,
        "dispatch.max_bytes_in_flight",
        "must be at least 1048576, the size of the largest event",
    );
    found.require(
        (1..=MOST_AT_ONCE).contains(&dispatch.settle_batch),
        "dispatch.settle_batch",
        BETWEEN,
    );
    found.duration("dispatch.lease", dispatch.lease);
    found.duration("dispatch.poll_interval", dispatch.poll_interval);
    found.duration("dispatch.drain_timeout", dispatch.drain_timeout);
    found.require(
        dispatch.settle_linger <= LONGEST,
        "dispatch.settle_linger",
        "must be at most 24h",
    );
    found.require(
        dispatch.lease_grace <= LONGEST,
        "dispatch.lease_grace",
        "must be at most 24h",
    );
    let attempt = egress
        .timeout
        .saturating_add(dispatch.settle_linger)
        .saturating_add(LEASE_MARGIN);
    if dispatch.lease <= attempt {
        found.add(
            "dispatch.lease",
            format!(
                "must be longer than `egress.timeout` and `dispatch.settle_linger` together and {} \
                 more: a lease that ends while its request is under way is sent twice",
                humantime::format_duration(LEASE_MARGIN)
            ),
        );
    }
}

fn retention(retention: &Retention, found: &mut Problems) {
    for (key, age) in [
        ("retention.events", retention.events),
        ("retention.answers", retention.answers),
        ("retention.audit", retention.audit),
        ("retention.event_keys", retention.event_keys),
        ("retention.replays", retention.replays),
        ("retention.rollup_minutes", retention.rollup_minutes),
        ("retention.rollup_hours", retention.rollup_hours),
    ] {
        found.require(
            age.is_zero() || (SHORTEST_KEPT..=LONGEST_KEPT).contains(&age),
            key,
            "must be 1h to 36500d, or 0s to keep for ever",
        );
    }
    let outlived = retention.events.is_zero() || retention.event_keys >= retention.events;
    found.require(
        outlived || retention.event_keys.is_zero(),
        "retention.event_keys",
        "must not be shorter than `retention.events`: an event that comes again would count as new",
    );
}

fn outputs(outputs: &Outputs, found: &mut Problems) {
    found.require(
        outputs.max_file_bytes >= 1,
        "outputs.max_file_bytes",
        "must be at least 1",
    );
    found.require(
        (1..=64).contains(&outputs.concurrency),
        "outputs.concurrency",
        "must be 1 to 64: each takes a thread",
    );
    found.require(
        (1..=64).contains(&outputs.fetch_concurrency),
        "outputs.fetch_concurrency",
        "must be 1 to 64",
    );
    found.duration("outputs.fetch_timeout", outputs.fetch_timeout);
    found.require(
        outputs.fetch_timeout <= LONGEST_FETCH,
        "outputs.fetch_timeout",
        "must be at most 30m",
    );
    found.require(
        (Duration::from_secs(1)..=LONGEST_MAKING).contains(&outputs.core_timeout),
        "outputs.core_timeout",
        "must be 1s to 30d",
    );
    s3(&outputs.s3, found);
}

/// Whether it can stand before the names of files in a bucket, and means the same everywhere.
fn is_prefix(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.bytes().all(plain);
    text.len() <= 200 && text.split('/').all(is_name)
}

/// All that an S3-compatible store needs, or nothing of it.
fn s3(s3: &S3, found: &mut Problems) {
    if let Some(endpoint) = &s3.endpoint {
        found.require(
            is_bare(endpoint),
            "outputs.s3.endpoint",
            "must be `https://HOST`, perhaps with a port (or `http://…`, inside)",
        );
    }
    found.require(
        !s3.region.is_empty(),
        "outputs.s3.region",
        "must not be empty",
    );
    found.require(
        s3.prefix.as_deref().is_none_or(is_prefix),
        "outputs.s3.prefix",
        "must be names of letters, digits, `.`, `_` and `-` with a `/` between them, 200 bytes at most",
    );
    let is_used = s3.bucket.is_some()
        || s3.prefix.is_some()
        || s3.endpoint.is_some()
        || s3.access_key_id.is_some()
        || s3.secret_access_key.is_some();
    for (key, is_there) in [
        ("outputs.s3.bucket", s3.bucket.is_some()),
        ("outputs.s3.access_key_id", s3.access_key_id.is_some()),
        (
            "outputs.s3.secret_access_key",
            s3.secret_access_key.is_some(),
        ),
    ] {
        found.require(
            is_there || !is_used,
            key,
            "must be set, as other keys of `outputs.s3` are",
        );
    }
}

/// An address of HTTP without a query, a fragment or a user: nothing that it holds is a secret.
pub(super) fn is_bare(endpoint: &Url) -> bool {
    matches!(endpoint.scheme(), "https" | "http")
        && endpoint.has_host()
        && endpoint.query().is_none()
        && endpoint.fragment().is_none()
        && endpoint.username().is_empty()
        && endpoint.password().is_none()
}
