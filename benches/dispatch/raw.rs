//! The limit: the program's own client sends signed requests to the same receiver, and nothing is
//! read, kept or settled. What the program does beside this is what is measured.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use forge_dispatch::clock::{Clock, SystemClock, pause};
use forge_dispatch::config;
use forge_dispatch::domain::event::Event;
use forge_dispatch::domain::ids::EventId;
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::signature::{SigningKey, webhook_signature};
use forge_dispatch::domain::subscription::BodyFormat;
use forge_dispatch::egress::{SystemLookup, WebhookClient};
use forge_dispatch::entropy::Entropy;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use url::Url;

use crate::child::Child;
use crate::envelope::envelope;
use crate::program::egress;

/// The word that starts this executable as the sender.
pub(crate) const ROLE: &str = "role:raw";

/// Requests in flight: the limit of one subscription. (The program keeps a quarter of it for retries.)
const SENDERS: usize = 64;

/// Sends for so long, and says how many requests were answered per second.
pub(crate) fn measure(url: &str, data_bytes: usize, duration: Duration) -> anyhow::Result<f64> {
    let args = [
        url.to_owned(),
        data_bytes.to_string(),
        duration.as_millis().to_string(),
    ];
    tokio::task::block_in_place(|| Ok(Child::start(ROLE, &args)?.answer()?.parse()?))
}

/// Prints requests per second.
#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(2);
    let url = Url::parse(&args.next().context("a URL")?)?;
    let data_bytes = args.next().context("a size")?.parse()?;
    let duration = Duration::from_millis(args.next().context("a time")?.parse()?);

    let sender = Arc::new(Sender::new(url, data_bytes)?);
    let mut senders = tokio::task::JoinSet::new();
    let begun = SystemClock.monotonic();
    for _ in 0..SENDERS {
        senders.spawn(Arc::clone(&sender).run());
    }
    pause(duration).await;
    sender.ends.store(true, Ordering::Relaxed);
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    let seconds = SystemClock.monotonic().saturating_sub(begun).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let sent = sender.sent.load(Ordering::Relaxed) as f64;
    println!("{}", sent / seconds);
    Ok(ExitCode::SUCCESS)
}

struct Sender {
    client: WebhookClient,
    url: Url,
    body: Bytes,
    key: SigningKey,
    entropy: Entropy,
    sent: AtomicUsize,
    ends: AtomicBool,
}

impl Sender {
    fn new(url: Url, data_bytes: usize) -> anyhow::Result<Self> {
        let entropy = Entropy::system();
        let now = SystemClock.now();
        let event = Event::decode(&envelope(0, 0, data_bytes), entropy.id(now), now)?;
        let config: config::Egress = egress();
        Ok(Self {
            client: WebhookClient::new(&config, Arc::new(SystemLookup), Arc::new(SystemClock))?,
            url,
            body: Payload::new(event).body(BodyFormat::Standard),
            key: SigningKey::new(&SigningSecret::generate(entropy.bytes())),
            entropy,
            sent: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
        })
    }

    async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        while !self.ends.load(Ordering::Relaxed) {
            let sent = self
                .client
                .post(&self.url, self.headers()?, self.body.clone())
                .await;
            anyhow::ensure!(
                sent.answer.map_err(|error| error.class).is_ok(),
                "the receiver takes everything"
            );
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What every webhook carries.
    fn headers(&self) -> anyhow::Result<HeaderMap> {
        let now = SystemClock.now();
        let id: EventId = self.entropy.id(now);
        let (id, timestamp) = (id.to_string(), now.timestamp());
        let signature =
            webhook_signature(std::slice::from_ref(&self.key), &id, timestamp, &self.body);
        let mut headers = HeaderMap::with_capacity(8);
        let named = HeaderName::from_static;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("forge-dispatch/bench"));
        headers.insert(
            named("webhook-signature"),
            HeaderValue::try_from(signature)?,
        );
        headers.insert(named("webhook-timestamp"), HeaderValue::from(timestamp));
        headers.insert(named("webhook-id"), HeaderValue::try_from(id)?);
        Ok(headers)
    }
}
