//! The way out, through the real client and against real receivers.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its work ends the test"
)]

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Egress;
use forge_dispatch::egress::{Answer, Lookup, SendError, WebhookClient};
use reqwest::header::HeaderMap;

mod errors;
mod sending;
mod ssrf;
mod target;
pub(crate) mod tls;

/// A name server whose answers the test writes: one list for each look at a name, and the last
/// list for all looks after that. Names that it does not know do not exist.
#[derive(Debug, Default)]
pub(crate) struct Names {
    answers: HashMap<String, Vec<Vec<IpAddr>>>,
    looks: Mutex<HashMap<String, usize>>,
}

impl Names {
    pub(crate) fn with(mut self, host: &str, answers: &[&[&str]]) -> Self {
        let answers = answers
            .iter()
            .map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect())
            .collect();
        self.answers.insert(host.to_owned(), answers);
        self
    }

    pub(crate) fn looks(&self, host: &str) -> usize {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.get(host).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let answers = self
            .answers
            .get(host)
            .ok_or_else(|| io::Error::other("no such name"))?;
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let look = looks.entry(host.to_owned()).or_default();
        *look += 1;
        Ok(answers[(*look).min(answers.len()) - 1].clone())
    }
}

/// Limits that no local test should ever meet, with these exceptions to the guard and `http`.
pub(crate) fn allowing(allow: &[&str]) -> Egress {
    Egress {
        allow: allow.iter().map(|rule| rule.parse().unwrap()).collect(),
        allow_http: true,
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        ca_file: None,
    }
}

pub(crate) fn client(config: &Egress, names: &Arc<Names>) -> WebhookClient {
    let lookup = Arc::clone(names) as Arc<dyn Lookup>;
    WebhookClient::new(config, lookup, Arc::new(SystemClock)).unwrap()
}

/// A client to whom the whole loopback network is open.
pub(crate) fn local_client() -> WebhookClient {
    client(&allowing(&["127.0.0.0/8"]), &Arc::default())
}

/// Posts `{}`.
pub(crate) async fn post(client: &WebhookClient, url: &str) -> Result<Answer, SendError> {
    let url = url.parse().unwrap();
    let body = Bytes::from_static(b"{}");
    client.post(&url, HeaderMap::new(), body).await.answer
}
