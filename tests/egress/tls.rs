//! TLS: whom the client trusts, and what it makes of those that it does not.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use forge_dispatch::config::Egress;
use forge_dispatch::domain::attempt::ErrorClass;
use forge_dispatch::egress::{SendError, WebhookClient};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use super::{Names, allowing, client, local_client, post};
use crate::harness::receiver::{RawReceiver, Receiver, Reply};

/// A certificate authority of an operator's own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Inside");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        Self { issuer, file }
    }

    /// A server with a certificate for this name.
    pub(crate) fn server(&self, name: &str, alpn: &[&str]) -> rustls::ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut server = builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private(&key))
            .unwrap();
        server.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        server
    }

    /// Where its own certificate lies.
    pub(crate) fn file(&self) -> &Path {
        self.file.path()
    }

    /// A client that trusts it and knows `inside.example` as this machine.
    pub(crate) fn client(&self) -> WebhookClient {
        let config = Egress {
            ca_file: Some(self.file.path().to_owned()),
            ..allowing(&["127.0.0.0/8"])
        };
        client(&config, &names())
    }
}

fn names() -> Arc<Names> {
    Arc::new(Names::default().with("inside.example", &[&["127.0.0.1"]]))
}

fn builder() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

async fn fails(client: &WebhookClient, url: &str) -> SendError {
    post(client, url).await.unwrap_err()
}

#[tokio::test]
async fn an_operators_own_authority_is_trusted_over_http_1_and_2() {
    let authority = Authority::new();
    for alpn in [&["http/1.1"][..], &["h2"], &["h2", "http/1.1"], &[]] {
        let tls = authority.server("inside.example", alpn);
        let receiver = Receiver::start_tls(tls, |_| Reply::status(200).body("ok"));
        let client = authority.client();
        for _ in 0..3 {
            let answer = post(&client, &receiver.url_at("inside.example", "/")).await;
            assert_eq!(answer.unwrap().excerpt, "ok", "{alpn:?}");
        }
        assert_eq!(receiver.connections(), 1, "{alpn:?}");
    }
}

#[tokio::test]
async fn over_http_2_a_slow_answer_holds_up_no_other() {
    let authority = Authority::new();
    let gate = tokio_util::sync::CancellationToken::new();
    let held = gate.clone();
    let tls = authority.server("inside.example", &["h2"]);
    let receiver = Receiver::start_tls(tls, move |request| match &*request.path {
        "/slow" => Reply::status(200).held_until(&held),
        _ => Reply::status(200),
    });
    let client = authority.client();
    let url = |path| receiver.url_at("inside.example", path);
    let (slow_url, fast_url) = (url("/slow"), url("/fast"));
    let slow = post(&client, &slow_url);
    let fast = async {
        for _ in 0..10 {
            post(&client, &fast_url).await.unwrap();
        }
        gate.cancel();
    };
    let (slow, ()) = tokio::join!(slow, fast);
    assert_eq!(slow.unwrap().status, 200);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_tls() {
    let tls = Authority::new().server("inside.example", &[]);
    let receiver = Receiver::start_tls(tls, |_| Reply::status(200));
    let client = client(&allowing(&["127.0.0.0/8"]), &names());
    let error = fails(&client, &receiver.url_at("inside.example", "/")).await;
    assert_eq!(error.class, ErrorClass::Tls, "{error}");
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn a_self_signed_certificate_is_tls() {
    let own = rcgen::generate_simple_self_signed(vec!["inside.example".to_owned()]).unwrap();
    let tls = builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], private(&own.signing_key))
        .unwrap();
    let receiver = Receiver::start_tls(tls, |_| Reply::status(200));
    let client = client(&allowing(&["127.0.0.0/8"]), &names());
    let error = fails(&client, &receiver.url_at("inside.example", "/")).await;
    assert_eq!(error.class, ErrorClass::Tls, "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_tls() {
    let authority = Authority::new();
    let tls = authority.server("other.example", &[]);
    let receiver = Receiver::start_tls(tls, |_| Reply::status(200));
    for url in [receiver.url_at("inside.example", "/"), receiver.url("/")] {
        let error = fails(&authority.client(), &url).await;
        assert_eq!(error.class, ErrorClass::Tls, "{error}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_tls() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["inside.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let tls = builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private(&key))
        .unwrap();
    let receiver = Receiver::start_tls(tls, |_| Reply::status(200));
    let url = receiver.url_at("inside.example", "/");
    let error = fails(&authority.client(), &url).await;
    assert_eq!(error.class, ErrorClass::Tls, "{error}");
}

#[tokio::test]
async fn a_receiver_that_wants_a_client_certificate_is_tls() {
    let authority = Authority::new();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["inside.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let tls = builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], private(&key))
        .unwrap();
    let receiver = Receiver::start_tls(tls, |_| Reply::status(200));
    let url = receiver.url_at("inside.example", "/");
    let error = fails(&authority.client(), &url).await;
    assert_eq!(error.class, ErrorClass::Tls, "{error}");
}

#[tokio::test]
async fn a_plain_listener_behind_https_is_tls() {
    let speaking = RawReceiver::start(|mut stream| async move {
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
    });
    let closing = RawReceiver::start(|stream| async move { drop(stream) });
    for receiver in [&speaking, &closing] {
        let url = format!("https://{}/?token=1", receiver.address());
        let error = fails(&local_client(), &url).await;
        assert_eq!(error.class, ErrorClass::Tls, "{error}");
        assert!(!error.detail.contains("token"));
    }
}

#[tokio::test]
async fn a_file_of_authorities_that_cannot_be_used_is_named() {
    let empty = NamedTempFile::new().unwrap();
    for path in [empty.path(), "/nonexistent/ca.pem".as_ref()] {
        let config = Egress {
            ca_file: Some(path.to_owned()),
            ..allowing(&[])
        };
        let clock = Arc::new(forge_dispatch::clock::SystemClock);
        let error = WebhookClient::new(&config, names(), clock).unwrap_err();
        let expected = format!("egress.ca_file {}: ", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
