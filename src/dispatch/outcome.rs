//! What an answer means for a delivery (product.md §4). Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::domain::attempt::{Attempt, ErrorClass, Trigger};
use crate::domain::delivery::Verdict;
use crate::domain::replay::Was;
use crate::domain::retry::{MAX_RETRY_AFTER, RetrySchedule};
use crate::egress::{Answer, Sent};

/// What to judge by, beside the answer.
pub struct Judge<'a> {
    /// The subscription's schedule, or the deployment's.
    pub schedule: &'a RetrySchedule,
    /// Attempts of the schedule made before this one.
    pub attempts_before: u32,
    /// What the delivery was, where the attempt is a replay's.
    pub was: Option<Was>,
    /// A random number in `0.0..1.0`, for the jitter.
    pub unit: f64,
    /// The time, for a `Retry-After` that names a date.
    pub now: DateTime<Utc>,
}

impl Judge<'_> {
    /// Turns what was sent and answered into the attempt's record and the delivery's fate.
    pub fn judge(&self, sent: Sent) -> (Attempt, Verdict) {
        let mut attempt = Attempt {
            at: sent.at,
            duration: sent.duration,
            trigger: self.trigger(),
            status: None,
            error: None,
            response_headers: Vec::new(),
            response_excerpt: String::new(),
        };
        let (answer, class) = match sent.answer {
            Ok(answer) => (Some(answer), None),
            // What had arrived when the answer broke off is kept too.
            Err(error) => (error.answer.map(|answer| *answer), Some(error.class)),
        };
        let verdict = match (&answer, class) {
            // A 2xx that broke off is not known to be one that the receiver meant.
            (Some(answer), Some(_)) if (200..300).contains(&answer.status) => self.again(None),
            (Some(answer), _) => self.answered(answer),
            (None, _) => self.again(None),
        };
        attempt.error = match class {
            None => (verdict != Verdict::Succeeded).then_some(ErrorClass::HttpStatus),
            broken => broken,
        };
        if let Some(answer) = answer {
            attempt.status = Some(answer.status);
            attempt.response_headers = answer.headers;
            attempt.response_excerpt = answer.excerpt;
        }
        (attempt, verdict)
    }

    /// An attempt that was never made, or broke inside this program.
    pub fn failed(&self, class: ErrorClass, at: DateTime<Utc>) -> (Attempt, Verdict) {
        let attempt = Attempt {
            at,
            duration: Duration::ZERO,
            trigger: self.trigger(),
            status: None,
            error: Some(class),
            response_headers: Vec::new(),
            response_excerpt: String::new(),
        };
        (attempt, self.again(None))
    }

    fn answered(&self, answer: &Answer) -> Verdict {
        match answer.status {
            200..=299 => Verdict::Succeeded,
            410 => Verdict::Gone,
            429 | 503 => self.again(
                answer
                    .retry_after
                    .as_deref()
                    .and_then(|text| retry_after(text, self.now)),
            ),
            _ => self.again(None),
        }
    }

    fn trigger(&self) -> Trigger {
        match self.was {
            Some(_) => Trigger::Replay,
            None => Trigger::Schedule,
        }
    }

    /// What a failed attempt comes to. A replay spends no step of a schedule that runs, and takes
    /// nothing back that had succeeded.
    fn again(&self, retry_after: Option<Duration>) -> Verdict {
        match self.was {
            Some(Was::Pending) => {
                let not_before = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                return Verdict::Resumed { not_before };
            }
            Some(Was::Succeeded) => return Verdict::Repeated,
            Some(Was::Failed | Was::Unmade) | None => {}
        }
        let attempts = self.attempts_before.saturating_add(1);
        match self.schedule.delay_after(attempts, retry_after, self.unit) {
            Some(delay) => Verdict::Retry { delay },
            None => Verdict::Failed,
        }
    }
}

/// `Retry-After` as RFC 9110 §10.2.3 has it: seconds, or a date. A date in the past is no wait;
/// what is neither is as if it were not there.
fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time; the schedule caps it.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = DateTime::<Utc>::from(httpdate::parse_http_date(text).ok()?);
    Some((date - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::SendError;

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-05-01T09:00:00Z")
            .unwrap()
            .to_utc()
    }

    fn judge(attempts_before: u32, answer: Result<Answer, SendError>) -> (Attempt, Verdict) {
        let schedule = RetrySchedule::default();
        let judge = Judge {
            schedule: &schedule,
            attempts_before,
            was: None,
            unit: 0.5,
            now: now(),
        };
        judge.judge(Sent {
            at: now(),
            duration: Duration::from_millis(7),
            answer,
        })
    }

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        Answer {
            status,
            headers: vec![("server".into(), "x".into())],
            excerpt: "body".into(),
            retry_after: retry_after.map(str::to_owned),
        }
    }

    fn seconds(delay: u64) -> Verdict {
        Verdict::Retry {
            delay: Duration::from_secs(delay),
        }
    }

    #[test]
    fn success_is_2xx_and_nothing_else() {
        for status in 100..=599 {
            let (attempt, verdict) = judge(0, Ok(answer(status, None)));
            assert_eq!(
                verdict == Verdict::Succeeded,
                (200..300).contains(&status),
                "{status}"
            );
            assert_eq!(attempt.succeeded(), (200..300).contains(&status));
            assert_eq!(attempt.status, Some(status));
        }
    }

    #[test]
    fn gone_ends_it_at_once() {
        assert_eq!(judge(0, Ok(answer(410, None))).1, Verdict::Gone);
    }

    #[test]
    fn the_last_failure_is_final() {
        assert_eq!(judge(8, Ok(answer(500, None))).1, seconds(86_400));
        assert_eq!(judge(9, Ok(answer(500, None))).1, Verdict::Failed);
        assert_eq!(judge(9, Ok(answer(503, Some("5")))).1, Verdict::Failed);
    }

    #[test]
    fn retry_after_counts_on_429_and_503_only() {
        assert_eq!(judge(0, Ok(answer(429, Some("120")))).1, seconds(120));
        assert_eq!(
            judge(0, Ok(answer(503, Some("Fri, 01 May 2026 09:01:00 GMT")))).1,
            seconds(60)
        );
        assert_eq!(judge(0, Ok(answer(500, Some("120")))).1, seconds(5));
        assert_eq!(
            judge(0, Ok(answer(503, Some("99999999999999999999999")))).1,
            seconds(86_400)
        );
        for nonsense in ["", "-1", "soon", "Fri, 01 May 1970 09:01:00 GMT", "1.5"] {
            assert_eq!(
                judge(0, Ok(answer(503, Some(nonsense)))).1,
                seconds(5),
                "{nonsense:?}"
            );
        }
    }

    #[test]
    fn a_replay_that_fails_leaves_a_running_schedule_and_a_success_as_they_were() {
        let schedule = RetrySchedule::default();
        let judge = |was, status, retry_after| {
            let judge = Judge {
                schedule: &schedule,
                attempts_before: 0,
                was: Some(was),
                unit: 0.5,
                now: now(),
            };
            let (attempt, verdict) = judge.judge(Sent {
                at: now(),
                duration: Duration::ZERO,
                answer: Ok(answer(status, retry_after)),
            });
            assert_eq!(attempt.trigger, Trigger::Replay);
            verdict
        };
        let resumed = |seconds| Verdict::Resumed {
            not_before: Duration::from_secs(seconds),
        };
        assert_eq!(judge(Was::Pending, 500, None), resumed(0));
        assert_eq!(judge(Was::Pending, 503, Some("120")), resumed(120));
        assert_eq!(judge(Was::Pending, 429, Some("999999")), resumed(86_400));
        assert_eq!(judge(Was::Succeeded, 500, None), Verdict::Repeated);
        for was in [Was::Failed, Was::Unmade] {
            assert_eq!(judge(was, 500, None), seconds(5), "a fresh schedule");
        }
        for was in Was::ALL {
            assert_eq!(judge(was, 200, None), Verdict::Succeeded);
            assert_eq!(judge(was, 410, None), Verdict::Gone);
        }
    }

    fn broken(class: ErrorClass, answer: Option<Answer>) -> SendError {
        SendError {
            class,
            detail: "as it happened".into(),
            answer: answer.map(Box::new),
        }
    }

    #[test]
    fn a_transport_error_keeps_its_class() {
        let (attempt, verdict) = judge(0, Err(broken(ErrorClass::Dns, None)));
        assert_eq!(
            (attempt.error, attempt.status),
            (Some(ErrorClass::Dns), None)
        );
        assert_eq!(verdict, seconds(5));
    }

    #[test]
    fn an_answer_that_broke_off_is_no_success_but_what_came_of_it_is_kept() {
        let half = Some(answer(200, None));
        let (attempt, verdict) = judge(0, Err(broken(ErrorClass::Body, half)));
        assert_eq!(
            (attempt.error, attempt.status),
            (Some(ErrorClass::Body), Some(200))
        );
        assert_eq!(attempt.response_excerpt, "body");
        assert_eq!(verdict, seconds(5));

        let gone = Some(answer(410, None));
        assert_eq!(
            judge(0, Err(broken(ErrorClass::Timeout, gone))).1,
            Verdict::Gone
        );
    }
}
