//! What one connection is doing, so that one that does nothing can be ended.
//!
//! The parts of a connection write down what they see (bytes read, bytes that nobody takes, requests
//! begun and answered); the connection's own loop asks for a verdict now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Version;
use tokio::time::Instant;

use super::Limits;

/// The notes about one connection; clones share them.
#[derive(Clone)]
pub(super) struct Watch(Arc<Mutex<Notes>>);

struct Notes {
    /// Requests begun, by number; for each, since when its answer waits to be taken.
    requests: HashMap<u64, Option<Instant>>,
    begun: u64,
    /// Since when there is no request.
    quiet_since: Instant,
    /// Since when the header of a request after the first one comes in (HTTP/1: in HTTP/2, what
    /// comes in may be many other things).
    header_since: Option<Instant>,
    version: Option<Version>,
    /// Since when the system takes no bytes from us.
    blocked_since: Option<Instant>,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// It has had no request for long: it may be asked to end.
    Idle,
    /// The header of a request does not come.
    SlowHeader,
    /// The client does not take what it asked for.
    Stalled,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Notes {
            requests: HashMap::new(),
            begun: 0,
            quiet_since: Instant::now(),
            header_since: None,
            version: None,
            blocked_since: None,
        })))
    }

    /// The client has been let in: its time for the first request begins.
    pub(super) fn start(&self) {
        self.notes().quiet_since = Instant::now();
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's header is whole.
    pub(super) fn begin(&self, version: Version) -> UnderWay {
        let mut notes = self.notes();
        notes.begun += 1;
        notes.version = Some(version);
        notes.header_since = None;
        let number = notes.begun;
        notes.requests.insert(number, None);
        UnderWay {
            number,
            watch: self.clone(),
        }
    }

    /// Bytes came in.
    pub(super) fn read(&self) {
        let mut notes = self.notes();
        let http1 = notes.version.is_some_and(|it| it < Version::HTTP_2);
        if http1 && notes.requests.is_empty() {
            notes.header_since.get_or_insert_with(Instant::now);
        }
    }

    /// The system took bytes, or has none to take.
    pub(super) fn flowing(&self) {
        self.notes().blocked_since = None;
    }

    /// The system takes no bytes.
    pub(super) fn blocked(&self) {
        self.notes().blocked_since.get_or_insert_with(Instant::now);
    }

    /// How the connection does at `now`.
    pub(super) fn verdict(&self, now: Instant, limits: &Limits) -> Verdict {
        let notes = self.notes();
        let beyond = |since: Instant, limit| now.saturating_duration_since(since) > limit;
        let stalled = notes
            .requests
            .values()
            .chain([&notes.blocked_since])
            .flatten()
            .any(|since| beyond(*since, limits.stall));
        if stalled {
            Verdict::Stalled
        } else if !notes.requests.is_empty() {
            Verdict::Fine
        } else if notes.begun == 0 && beyond(notes.quiet_since, limits.header)
            || notes
                .header_since
                .is_some_and(|since| beyond(since, limits.header))
        {
            Verdict::SlowHeader
        } else if notes.begun > 0 && beyond(notes.quiet_since, limits.idle) {
            Verdict::Idle
        } else {
            Verdict::Fine
        }
    }

    /// Whether it has had no request for at least the linger: of one that was asked to end, nothing
    /// more is to be waited for.
    pub(super) fn has_nothing_left(&self, now: Instant, limits: &Limits) -> bool {
        let notes = self.notes();
        notes.requests.is_empty()
            && now.saturating_duration_since(notes.quiet_since) > limits.linger
    }
}

/// A request that was begun and not wholly answered: over when it is dropped.
pub(super) struct UnderWay {
    number: u64,
    watch: Watch,
}

impl UnderWay {
    /// A part of the answer is ready, and waits for the client to take it.
    pub(super) fn offered(&self) {
        let since = Some(Instant::now());
        self.watch.notes().requests.insert(self.number, since);
    }

    /// What was offered was taken.
    pub(super) fn taken(&self) {
        self.watch.notes().requests.insert(self.number, None);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut notes = self.watch.notes();
        notes.requests.remove(&self.number);
        if notes.requests.is_empty() {
            notes.quiet_since = Instant::now();
        }
    }
}
