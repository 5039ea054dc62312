//! How long a client may take, and how much it may hold.

use std::time::Duration;

use crate::config::Api;

/// The limits of a listener; those that are no keys of the configuration have values that suit
/// everybody, and tests that cannot wait for them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the TLS handshake, or the first line of who speaks in clear.
    pub handshake: Duration,
    /// For the header of a request.
    pub header: Duration,
    /// For a request's body, from its header to its last byte.
    pub body: Duration,
    /// Within this, [`Limits::body_step`] bytes of a body must have come.
    pub body_pace: Duration,
    /// What a client must send of a body, or take of an answer, to count as alive, in bytes.
    pub body_step: usize,
    /// How long a client may take nothing of an answer that is ready for it.
    pub stall: Duration,
    /// How long a connection is kept without a request. Longer than the 60 s that load balancers
    /// keep theirs, so that it is they who close, and never while they send.
    pub idle: Duration,
    /// How long a connection that was told to end may still hold on.
    pub linger: Duration,
    /// How long requests under way may take after the end was asked for.
    pub goodbye: Duration,
    /// How often the certificate's files are looked at.
    pub reload: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
}

impl Limits {
    pub(super) fn new(settings: &Api) -> Self {
        Self {
            handshake: settings.header_timeout,
            header: settings.header_timeout,
            body: settings.request_timeout,
            body_pace: Duration::from_secs(10),
            body_step: 4 * 1024,
            stall: Duration::from_mins(1),
            idle: Duration::from_secs(75),
            linger: Duration::from_secs(2),
            goodbye: Duration::from_secs(20),
            reload: Duration::from_secs(5),
            connections: settings.max_connections,
            connections_per_address: settings.max_connections_per_address,
        }
    }

    /// How often a connection is looked at: often enough for the shortest limit.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.header.min(self.stall).min(self.idle).min(self.linger);
        (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}
