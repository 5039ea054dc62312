//! An API over a store, behind a listener without TLS, and a client for it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use forge_dispatch::api::listener::ClientAddress;
use forge_dispatch::api::{Api, Outputs, Parts, Recorder, router};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::{self, Config};
use forge_dispatch::dispatch::Tester;
use forge_dispatch::domain::api_key::{ApiKeySpec, KeyLimits, Scope};
use forge_dispatch::domain::audit::{Act, Actor};
use forge_dispatch::domain::ids::{ProjectId, WorkspaceId};
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::egress::{SystemLookup, WebhookClient};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::outputs::FileStore;
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{Leasing, NewApiKey, Store};
use forge_dispatch::telemetry::Tracer;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Has a request come from another address.
pub(crate) const FROM: &str = "x-test-address";

/// A running API.
pub(crate) struct Rig {
    pub(crate) store: Arc<dyn Store>,
    base: String,
    client: reqwest::Client,
    server: JoinHandle<()>,
    recording: JoinHandle<()>,
    shutdown: Shutdown,
    /// Where files of outputs are kept.
    pub(crate) files: Arc<FileStore>,
    _directory: TempDir,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Which key to make.
#[derive(Clone)]
pub(crate) struct Key<'a> {
    pub(crate) workspace: &'a str,
    pub(crate) scopes: &'a [Scope],
    pub(crate) projects: Option<&'a [&'a str]>,
    pub(crate) limits: KeyLimits,
}

impl<'a> Key<'a> {
    /// One of workspace `default` that sees all of it.
    pub(crate) fn with(scopes: &'a [Scope]) -> Self {
        Self {
            workspace: "default",
            scopes,
            projects: None,
            limits: KeyLimits::default(),
        }
    }
}

impl Rig {
    /// With limits that nothing here reaches.
    pub(crate) async fn over(store: &Arc<dyn Store>) -> Self {
        Self::with(store, |_| {}).await
    }

    /// With settings of the test's own.
    pub(crate) async fn with(
        store: &Arc<dyn Store>,
        change: impl FnOnce(&mut config::Api),
    ) -> Self {
        let change = |config: &mut Config| change(&mut config.api);
        Self::serve(store, Config::default(), change).await
    }

    /// One that reads the files of a program with this configuration, and asks the core where that does.
    pub(crate) async fn beside(store: &Arc<dyn Store>, program: &Config) -> Self {
        let outputs = config::Outputs {
            directory: Some(program.outputs_directory()),
            ..program.outputs.clone()
        };
        let amqp = program.amqp.clone();
        let public_url = program.api.public_url.clone();
        let change = |config: &mut Config| {
            config.outputs = outputs;
            config.amqp = amqp;
            config.api.public_url = public_url;
        };
        Self::serve(store, Config::default(), change).await
    }

    async fn serve(
        store: &Arc<dyn Store>,
        mut config: Config,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        config.egress.allow_http = true;
        config.egress.allow = vec!["127.0.0.1/32".parse().unwrap()];
        config.api.requests_per_minute = 100_000;
        config.api.requests_per_hour = 100_000;
        config.api.concurrent_requests = 1_000;
        config.api.failed_authentications_per_minute = 100_000;
        change(&mut config);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let client =
            WebhookClient::new(&config.egress, Arc::new(SystemLookup), Arc::clone(&clock)).unwrap();
        let client = Arc::new(client);
        let tester = Tester::new(
            Arc::clone(store),
            Arc::clone(&client),
            Arc::clone(&clock),
            Entropy::system(),
        );
        let shutdown = Shutdown::default();
        let directory = tempfile::tempdir().unwrap();
        let place = config.outputs.directory.clone();
        let place = place.unwrap_or_else(|| directory.path().to_owned());
        let files = FileStore::open(&config.outputs, &place, &config.egress, Arc::clone(&clock));
        let files = Arc::new(files.unwrap());
        let asks = config.amqp.url.is_some() && !config.outputs.core_hosts.is_empty();
        let outputs = Outputs {
            files: Arc::clone(&files) as _,
            core_timeout: asks.then_some(config.outputs.core_timeout),
        };
        let api = Api::new(Parts {
            outputs: Some(outputs),
            store: Arc::clone(store),
            client,
            tester: Arc::new(tester),
            leasing: Leasing {
                owner: Entropy::system().id(clock.now()),
                lease: Duration::from_mins(1),
            },
            intake: Arc::new(NoDispatch),
            clock,
            entropy: Entropy::system(),
            settings: config.api,
            stop: shutdown.soft.clone(),
            tracer: Tracer::default(),
        });
        let (recorder, recording) = Recorder::new();
        let recording = tokio::spawn(recording.run(Arc::clone(store), shutdown.clone()));
        let router = router(api, recorder).layer(from_fn(address));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let end = shutdown.soft.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(end);
            served.await.unwrap();
        });
        // Another test of this process may have been first.
        drop(rustls::crypto::ring::default_provider().install_default());
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's client speaks to the test's own server"
        )]
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Self {
            store: Arc::clone(store),
            base,
            client,
            server,
            recording,
            shutdown,
            files,
            _directory: directory,
        }
    }

    /// Makes a key and answers with its text.
    pub(crate) async fn key(&self, key: Key<'_>) -> KeyText {
        let entropy = Entropy::system();
        let text = KeyText::generate(entropy.id(SystemClock.now()), entropy.bytes());
        let projects = key.projects.map(|projects| {
            let ids = projects.iter().map(|id| ProjectId::new(id).unwrap());
            ids.collect()
        });
        let new = NewApiKey {
            id: text.id(),
            workspace: WorkspaceId::new(key.workspace).unwrap(),
            spec: ApiKeySpec {
                name: "test".to_owned(),
                scopes: key.scopes.iter().copied().collect::<BTreeSet<_>>(),
                project_ids: projects,
                expires_at: None,
                limits: key.limits,
            },
            digest: text.digest(),
        };
        let act = Act {
            id: entropy.id(SystemClock.now()),
            actor: Actor::CommandLine,
            address: None,
            request_id: None,
        };
        self.store.create_api_key(&new, &act, None).await.unwrap();
        text
    }

    /// A key that may do everything in workspace `default`.
    pub(crate) async fn admin(&self) -> KeyText {
        self.key(Key::with(&[Scope::Admin])).await
    }

    /// A request, to be sent with [`Ask::send`].
    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        Ask(self.client.request(method, format!("{}{path}", self.base)))
    }

    pub(crate) async fn get(&self, key: &KeyText, path: &str) -> Answer {
        self.ask(Method::GET, path).key(key).send().await
    }

    pub(crate) async fn post(&self, key: &KeyText, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path)
            .key(key)
            .json(body)
            .send()
            .await
    }

    pub(crate) async fn patch(&self, key: &KeyText, path: &str, body: &Value) -> Answer {
        self.ask(Method::PATCH, path)
            .key(key)
            .json(body)
            .send()
            .await
    }

    pub(crate) async fn delete(&self, key: &KeyText, path: &str) -> Answer {
        self.ask(Method::DELETE, path).key(key).send().await
    }

    /// Where it listens.
    pub(crate) fn authority(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// Ends it gracefully: what waits for the audit log is written.
    pub(crate) async fn stop(self) {
        drop(self.client);
        self.shutdown.begin();
        self.server.await.unwrap();
        self.recording.await.unwrap();
    }
}

/// A request that is being put together.
pub(crate) struct Ask(reqwest::RequestBuilder);

impl Ask {
    pub(crate) fn key(self, key: &KeyText) -> Self {
        self.header("authorization", &format!("Bearer {}", key.expose()))
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .bytes(body.to_string())
    }

    pub(crate) fn bytes(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    pub(crate) async fn begin(self) -> reqwest::Response {
        self.0.send().await.unwrap()
    }

    pub(crate) async fn send(self) -> Answer {
        let response = self.begin().await;
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        }
    }
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().unwrap()
    }

    /// The slug of the problem that this is.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16());
        let kind = document["type"].as_str().unwrap();
        kind.strip_prefix("/problems/").unwrap().to_owned()
    }
}

async fn address(mut request: Request, next: Next) -> axum::response::Response {
    let named = request.headers().get(FROM);
    let address = named.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |value| {
        value.to_str().unwrap().parse().unwrap()
    });
    request.extensions_mut().insert(ClientAddress(address));
    next.run(request).await
}
