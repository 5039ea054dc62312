//! Clients of the API that ask often, and their keys. (The bench has them too.)

#![expect(
    clippy::expect_used,
    reason = "a client that cannot be made ends what needs it"
)]

use std::num::NonZeroU32;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::{ApiKeySpec, KeyLimits, Scope};
use forge_dispatch::domain::audit::Act;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{NewApiKey, Store};
use http::{HeaderMap, HeaderValue};

/// How long the answer to one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a key of workspace `default` without a limit that anybody here reaches.
pub(crate) async fn key(store: &dyn Store, scopes: &[Scope]) -> KeyText {
    let entropy = Entropy::system();
    let text = KeyText::generate(entropy.id(SystemClock.now()), entropy.bytes());
    let unreached = NonZeroU32::new(1_000_000);
    let new = NewApiKey {
        id: text.id(),
        workspace: WorkspaceId::default(),
        spec: ApiKeySpec {
            name: "test".to_owned(),
            scopes: scopes.iter().copied().collect(),
            project_ids: None,
            expires_at: None,
            limits: KeyLimits {
                per_minute: unreached,
                per_hour: unreached,
                concurrent: None,
            },
        },
        digest: text.digest(),
    };
    let act = Act::on_command_line(entropy.id(SystemClock.now()));
    let made = store.create_api_key(&new, &act, None).await;
    made.expect("the key is made");
    text
}

/// A client that shows this key, to a program on this machine: over TLS with the certificate that the
/// program made itself, or in clear as a proxy before it does.
pub(crate) fn client(key: &KeyText) -> reqwest::Client {
    // Another test of this process may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
    headers.insert("authorization", bearer.expect("a key is a header's value"));
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    #[expect(
        clippy::disallowed_methods,
        reason = "a client of the API, which is on this machine"
    )]
    let client = reqwest::Client::builder()
        .default_headers(headers)
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .timeout(PATIENCE)
        .build();
    client.expect("a client")
}
