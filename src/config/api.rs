//! `[api]`: where the Report Forge API listens, and how it is protected.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use super::duration;

/// `[api]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where clients reach it, if that is another name than this machine's. Port 0 is the port that
    /// the system chooses for `listen`.
    pub public_url: Option<Url>,
    /// The certificate and its chain (PEM). Absent: one is made.
    pub certificate_file: Option<PathBuf>,
    /// The certificate's private key (PEM).
    pub key_file: Option<PathBuf>,
    /// The proxies that end TLS before us. Not empty: we listen in clear, and answer only them.
    pub behind_proxy: Vec<IpNet>,
    /// For the TLS handshake, and for the header of a request.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// For a request's body, from its header to its last byte.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Connections at once from one address (a /64 of IPv6); further ones are closed. Trusted
    /// proxies are not counted.
    pub max_connections_per_address: usize,
    /// Requests that a key may make in 60 s, where it has no limit of its own.
    pub requests_per_minute: u32,
    /// Requests that a key may make in 3,600 s, where it has no limit of its own.
    pub requests_per_hour: u32,
    /// Requests of a key under way at once, in each replica, where it has no limit of its own.
    pub concurrent_requests: u32,
    /// Wrong keys that an address may show in 60 s, to each replica.
    pub failed_authentications_per_minute: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            public_url: None,
            certificate_file: None,
            key_file: None,
            behind_proxy: Vec::new(),
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_mins(1),
            max_connections: 512,
            max_connections_per_address: 128,
            requests_per_minute: 60,
            requests_per_hour: 1_000,
            concurrent_requests: 5,
            failed_authentications_per_minute: 20,
        }
    }
}
