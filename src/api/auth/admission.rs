//! The way into `/v1`: a request is judged by its key, counted, and given its caller.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::caller::Identity;
use super::failures::Failures;
use super::rate_headers::Standing;
use super::slots::{Slot, Slots};
use crate::api::problem_type::ProblemType;
use crate::api::trace::{self, Traced};
use crate::api::{Api, Problem, Recorder};
use crate::domain::key_text::KeyText;

/// The longest `Authorization` that is looked at: a key has 79 characters.
const MAX_CREDENTIALS: usize = 256;

/// What judges requests.
#[derive(Clone, Debug)]
pub struct Admission {
    api: Api,
    failures: Arc<Failures>,
    slots: Slots,
    recorder: Recorder,
}

impl Admission {
    /// For this API; uses of keys go to `recorder`.
    pub fn new(api: Api, recorder: Recorder) -> Self {
        let failures = Arc::new(Failures::new(
            api.settings().failed_authentications_per_minute,
        ));
        Self {
            api,
            failures,
            slots: Slots::default(),
            recorder,
        }
    }
}

/// Lets a request through to its handler, or answers in its place. Every answer to a valid key
/// carries its limits and goes to the audit log, errors included, and so does a use that the client
/// did not wait for.
pub async fn admit(
    State(admission): State<Admission>,
    mut request: Request,
    next: Next,
) -> Response {
    let traced = Traced::of(&request);
    let key = match shown(request.headers()) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let room = match admission.recorder.room().await {
        Ok(room) => room,
        Err(problem) => return problem.into_response(),
    };
    let (identity, standing, outcome) = match admission.judge(key.as_ref(), &traced).await {
        Ok(judged) => judged,
        Err(problem) => return problem.into_response(),
    };
    let used = room.begin(&identity.key, &request, &traced, &admission.api);
    let mut response = match outcome {
        Ok(slot) => {
            request.extensions_mut().insert(identity.clone());
            request.extensions_mut().insert(slot.clone());
            slot.until_sent(next.run(request).await)
        }
        Err(problem) => problem.into_response(),
    };
    standing.insert(response.headers_mut());
    trace::note_key(&mut response, identity.key.id);
    used.answered(response.status());
    response
}

/// Whom a valid key belongs to, where it stands, and its place among the requests under way or why it
/// has none.
type Judged = (Identity, Standing, Result<Slot, Problem>);

impl Admission {
    async fn judge(&self, key: Option<&KeyText>, traced: &Traced) -> Result<Judged, Problem> {
        let now = self.api.clock().monotonic();
        let address = traced.address;
        if let Some(wait) = self.failures.wait(address, key, now) {
            return Err(Problem::new(ProblemType::TooManyFailedAuthentications)
                .header(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1)));
        }
        let Some(key) = key else {
            return Err(self.refuse(None, address));
        };
        let defaults = self.api.rate_limits();
        let admitted = self
            .api
            .store()
            .admit(key.id(), &key.digest(), defaults)
            .await?;
        let Some(admitted) = admitted else {
            return Err(self.refuse(Some(key), address));
        };
        self.failures.succeeded(key, now);

        let limits = admitted.key.spec.limits.rate(defaults);
        let mut usage = admitted.usage;
        let at_once = admitted.key.spec.limits.concurrent;
        let at_once = at_once.map_or(self.api.settings().concurrent_requests, NonZeroU32::get);
        let mut outcome = Err(ProblemType::RateLimited);
        if admitted.allowed {
            outcome = self
                .slots
                .take(key.id(), at_once)
                .ok_or(ProblemType::TooManyConcurrentRequests);
            if outcome.is_err() {
                // It was counted with the look at the key, and a 429 does not count.
                match self.api.store().give_back(key.id(), usage).await {
                    Ok(()) => usage = usage.less_one(),
                    // It stays counted, and the answer is what it is.
                    Err(error) => {
                        tracing::warn!(%error, "a refused request could not be given back");
                    }
                }
            }
        }
        let standing = Standing::new(usage, limits, admitted.at);
        let outcome = outcome.map_err(|kind| {
            let wait = match kind {
                ProblemType::RateLimited => standing.wait_secs(),
                _ => 1,
            };
            Problem::new(kind).header(RETRY_AFTER, HeaderValue::from(wait))
        });
        let identity = Identity {
            key: Arc::new(admitted.key),
            address,
            request_id: traced.request_id.clone(),
        };
        Ok((identity, standing, outcome))
    }

    fn refuse(&self, key: Option<&KeyText>, address: IpAddr) -> Problem {
        let now = self.api.clock().monotonic();
        self.failures.failed(address, key, now);
        let key = key.map(|key| key.id().to_string());
        tracing::info!(%address, key, "a key was refused");
        Problem::unauthorized(true)
    }
}

/// The key that a request shows (RFC 6750 §2.1): `None` where what it shows cannot be one.
fn shown(headers: &HeaderMap) -> Result<Option<KeyText>, Problem> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = shown.next() else {
        return Err(Problem::unauthorized(false));
    };
    if shown.next().is_some() || value.len() > MAX_CREDENTIALS {
        return Ok(None);
    }
    let key = value.to_str().ok().and_then(|text| {
        let (scheme, credentials) = text.split_once(' ')?;
        let bearer = scheme.eq_ignore_ascii_case("bearer");
        bearer.then(|| KeyText::parse(credentials.trim())).flatten()
    });
    Ok(key)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::ids::new_id;

    #[test]
    fn a_key_is_read_out_of_one_authorization_header() {
        let key = KeyText::generate(new_id(DateTime::UNIX_EPOCH, [1; 10]), [2; 20]);
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::try_from(*value).unwrap());
            }
            headers
        };
        let text = key.expose();
        for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
            let shown = shown(&headers(&[&format!("{scheme} {text}")])).unwrap();
            assert_eq!(shown.unwrap().expose(), text, "{scheme}");
        }
        let good = format!("Bearer {text}");
        for wrong in [
            text,
            "Basic dXNlcjpwdw==",
            "Bearer",
            "Bearer rfk_x",
            &good[..70],
        ] {
            assert!(shown(&headers(&[wrong])).unwrap().is_none(), "{wrong}");
        }
        assert!(shown(&headers(&[&good, &good])).unwrap().is_none());
        assert!(shown(&headers(&[])).is_err());
    }
}
