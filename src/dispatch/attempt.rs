//! One attempt: sign, send, judge. Whatever happens in it, there is an outcome.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use super::outcome::Judge;
use super::{Parts, traced};
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::delivery::{MAX_LOST_LEASES, Verdict};
use crate::domain::payload::{Payload, content_type};
use crate::domain::signature::webhook_signature;
use crate::domain::subscription::BodyFormat;
use crate::egress::{Sent, WebhookClient};
use crate::store::targets::Target;
use crate::store::{LeasedDelivery, Settlement};
use crate::telemetry::{metric, trace};

const AGENT: &str = concat!("forge-dispatch/", env!("CARGO_PKG_VERSION"));

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);
const KAZINEX_SIGNATURE: HeaderName = HeaderName::from_static("x-kazinex-signature");

/// Makes one attempt at a leased delivery and says what is to be written.
pub async fn run(parts: &Parts, delivery: &LeasedDelivery) -> Settlement {
    let verdict = if too_late(parts, delivery) {
        // Another process may have it by now: sending would be a second receipt for nothing.
        (None, Verdict::Released)
    } else if delivery.lost_leases > MAX_LOST_LEASES {
        // Taken for one that kills its process: not sent, but counted as a failed attempt.
        let (attempt, verdict) = failed(parts, delivery, ErrorClass::Lost);
        (Some(attempt), verdict)
    } else {
        let caught = AssertUnwindSafe(send(parts, delivery)).catch_unwind().await;
        let (attempt, verdict) =
            caught.unwrap_or_else(|_| failed(parts, delivery, ErrorClass::Internal));
        (Some(attempt), verdict)
    };
    let (attempt, verdict) = verdict;
    log(delivery, attempt.as_ref(), &verdict);
    count(attempt.as_ref(), &verdict);
    Settlement::of(delivery, verdict, attempt)
}

/// Whether an attempt begun now could still be without a settled outcome when the lease ends. The
/// configuration keeps a lease longer than this by `LEASE_MARGIN`: the time in which to begin.
fn too_late(parts: &Parts, delivery: &LeasedDelivery) -> bool {
    let needed = parts.attempt_timeout + parts.settings.settle_linger;
    parts.clock.monotonic() + needed > delivery.leased_until
}

async fn send(parts: &Parts, delivery: &LeasedDelivery) -> (Attempt, Verdict) {
    let now = parts.clock.now();
    let mut span = traced::begin(&parts.tracer, delivery);
    let message = Message {
        payload: &delivery.payload,
        traceparent: traced::outgoing(&span, delivery),
    };
    let sent = post(&parts.client, &delivery.target, &message, now).await;
    traced::sent(&mut span, sent.as_ref());
    match sent {
        Some(sent) => judge(parts, delivery, |judge| judge.judge(sent)),
        None => failed(parts, delivery, ErrorClass::Internal),
    }
}

/// What is sent.
pub(super) struct Message<'a> {
    /// The event.
    pub(super) payload: &'a Payload,
    /// The trace that the receiver is told of.
    pub(super) traceparent: Option<Cow<'a, str>>,
}

/// Signs an event as of `now` and sends it to a subscription; `None` where it could not be signed.
pub(super) async fn post(
    client: &WebhookClient,
    target: &Target,
    message: &Message<'_>,
    now: DateTime<Utc>,
) -> Option<Sent> {
    let spec = &target.subscription.spec;
    let body = message.payload.body(spec.format);
    let headers = headers(target, message, &body, now)?;
    Some(client.post(spec.url.as_url(), headers, body).await)
}

/// The headers of Standard Webhooks 1.0 and our own; `None` if no key is live or a value is no
/// header, neither of which an accepted subscription can cause.
fn headers(
    target: &Target,
    message: &Message<'_>,
    body: &[u8],
    now: DateTime<Utc>,
) -> Option<HeaderMap> {
    let format = target.subscription.spec.format;
    let keys = target.signing_keys(now);
    let id = message.payload.event().id.to_string();
    let timestamp = now.timestamp();
    let oldest = keys.last()?;

    // The admin's own come first, so that ours replace them, whatever was taken once.
    let custom = &target.subscription.spec.headers;
    let mut headers = HeaderMap::with_capacity(8 + custom.iter().len());
    for (name, value) in custom.iter() {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name).ok()?, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(format)));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let signature = webhook_signature(&keys, &id, timestamp, body);
    headers.insert(WEBHOOK_SIGNATURE, HeaderValue::try_from(signature).ok()?);
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
    headers.insert(WEBHOOK_ID, HeaderValue::try_from(id).ok()?);
    if format == BodyFormat::Kazinex {
        // One value only: during an overlap the receiver still has the old secret.
        let signature = oldest.kazinex(body);
        headers.insert(KAZINEX_SIGNATURE, HeaderValue::try_from(signature).ok()?);
    }
    if let Some(traceparent) = message.traceparent.as_deref() {
        headers.insert(TRACEPARENT, HeaderValue::try_from(traceparent).ok()?);
    }
    Some(headers)
}

fn failed(parts: &Parts, delivery: &LeasedDelivery, class: ErrorClass) -> (Attempt, Verdict) {
    let at = parts.clock.now();
    judge(parts, delivery, |judge| judge.failed(class, at))
}

fn judge<T>(parts: &Parts, delivery: &LeasedDelivery, ask: impl FnOnce(&Judge<'_>) -> T) -> T {
    let own = delivery.target.subscription.spec.retry_schedule.as_ref();
    ask(&Judge {
        schedule: own.unwrap_or(&parts.schedule),
        attempts_before: delivery.attempts.saturating_sub(delivery.base),
        was: delivery.replaying.map(|replaying| replaying.was),
        unit: parts.entropy.unit(),
        now: parts.clock.now(),
    })
}

/// One wide line per attempt: everything an operator filters by, nothing secret (the host, not
/// the URL: paths and queries may hold tokens). What went well is told at `debug`: it is counted,
/// and recorded in the database, and writing a line costs a quarter of what sending costs.
fn log(delivery: &LeasedDelivery, attempt: Option<&Attempt>, verdict: &Verdict) {
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "forge_dispatch::attempt",
                delivery = %delivery.id,
                event = %delivery.payload.event().id,
                r#type = %delivery.payload.event().event_type,
                workspace = %delivery.payload.event().workspace,
                subscription = %delivery.target.id(),
                host = delivery.target.subscription.spec.url.host(),
                lane = delivery.lane.as_str(),
                attempt = delivery.attempts + 1,
                epoch = delivery.epoch,
                status = attempt.and_then(|attempt| attempt.status),
                error = attempt.and_then(|attempt| attempt.error).map(ErrorClass::as_str),
                duration_ms = attempt.and_then(|attempt| millis(attempt.duration)),
                retry_in_ms = match verdict {
                    Verdict::Retry { delay } => millis(*delay),
                    _ => None,
                },
                "{}", name(verdict),
            )
        };
    }
    match verdict {
        Verdict::Succeeded | Verdict::Released => line!(debug),
        Verdict::Retry { .. }
        | Verdict::Resumed { .. }
        | Verdict::Repeated
        | Verdict::Failed
        | Verdict::Gone => line!(info),
    }
}

fn millis(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}

/// Failures are counted from the start, so that the first one is seen to be one more than before.
pub(super) fn begin_at_zero() {
    for class in ErrorClass::ALL {
        let class = class.as_str();
        for outcome in ["retried", "failed"] {
            metrics::counter!(metric::ATTEMPTS, "outcome" => outcome, "class" => class)
                .increment(0);
        }
    }
}

fn count(attempt: Option<&Attempt>, verdict: &Verdict) {
    let Some(attempt) = attempt else { return };
    let class = attempt.error.map_or("none", ErrorClass::as_str);
    metrics::counter!(metric::ATTEMPTS, "outcome" => name(verdict), "class" => class).increment(1);
    metrics::histogram!(metric::ATTEMPT_DURATION).record(attempt.duration);
}

/// The name of an outcome in logs and metrics.
fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeded => "succeeded",
        Verdict::Retry { .. } => "retried",
        Verdict::Failed | Verdict::Gone => "failed",
        Verdict::Released => "released",
        Verdict::Resumed { .. } => "resumed",
        Verdict::Repeated => "repeated",
    }
}
