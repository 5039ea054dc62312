//! The program as README runs it: served over TLS, the first key from the command line, calls with it.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use forge_dispatch::clock::{Clock, SystemClock};
use http::StatusCode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Home, text};
use crate::harness::databases::TestDatabase;
use crate::harness::program::{Binary, MASTER_KEY};
use crate::harness::simple::PATIENCE;

on_both_databases!(
    the_first_key_is_made_and_used_until_it_is_revoked,
    the_sixty_first_call_of_a_minute_waits,
    a_call_in_clear_is_told_to_use_tls,
);

/// The running program, and commands beside it.
struct Served {
    home: Home,
    program: Binary,
    address: SocketAddr,
    /// Of its certificate, as it was logged.
    fingerprint: String,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_forge-dispatch");

/// Where the program listens wherever there is room.
fn home() -> Home {
    Home::new()
        .with("FORGE_API__LISTEN", "127.0.0.1:0")
        .with("FORGE_OPS__LISTEN", "127.0.0.1:0")
        .with("FORGE_LOG__FORMAT", "json")
}

/// Starts what is to become the program.
fn start(home: &Home, command: &[&str]) -> Binary {
    let mut serve = Command::new(command[0]);
    serve
        .args(&command[1..])
        .current_dir(home.path())
        .env_clear();
    Binary::run(serve.envs(home.environment.iter().cloned()))
}

impl Served {
    /// Starts it on an empty database.
    async fn on(database: &TestDatabase) -> Self {
        let home = home()
            .with("FORGE_DATABASE__URL", database.url().expose_secret())
            .with("FORGE_MASTER_KEY", MASTER_KEY);
        let program = start(&home, &[PROGRAM, "serve"]);
        let starting = program.logged("\"starting\"").await;
        let starting: Value = serde_json::from_str(&starting).unwrap();
        Self {
            home,
            program,
            address: text(&starting["api"]).parse().unwrap(),
            fingerprint: text(&starting["certificate"]),
        }
    }

    /// The key's id and text, as a script reads them.
    fn key(&self) -> (String, String) {
        let args = ["keys", "create", "--name", "admin", "--scope", "admin"];
        let made = self.home.json(&args);
        (text(&made["id"]), text(&made["key"]))
    }

    /// README's call.
    async fn projects(&self, client: &reqwest::Client, key: &str) -> reqwest::Response {
        let port = self.address.port();
        let url = format!("https://localhost:{port}/report-forge/v1/projects");
        client.get(url).bearer_auth(key).send().await.unwrap()
    }

    async fn stop(mut self) {
        self.program.terminate();
        let status = self.program.ended().await;
        assert!(status.success(), "{status}: {}", self.program.tail());
        assert!(self.program.tail().contains("\"stopped\""));
    }
}

/// A client that knows the certificate by its fingerprint and by nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "a client of the API, which is on this machine"
)]
fn client(fingerprint: &str) -> reqwest::Client {
    let provider = Arc::new(ring::default_provider());
    let pinned = Pinned {
        fingerprint: fingerprint.to_owned(),
        provider: Arc::clone(&provider),
    };
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

async fn the_first_key_is_made_and_used_until_it_is_revoked(database: &TestDatabase) {
    let served = Served::on(database).await;
    let invited = served.program.logged("there is no API key yet").await;
    let made_by = "forge-dispatch keys create --name admin --scope admin";
    assert!(invited.contains(made_by), "{invited}");

    let (id, key) = served.key();
    let stranger = client("00:11");
    let url = format!("https://localhost:{}/v1/projects", served.address.port());
    let distrusted = stranger.get(url).bearer_auth(&key).send().await;
    assert!(distrusted.unwrap_err().is_connect(), "another certificate");

    let client = client(&served.fingerprint);
    let answer = served.projects(&client, &key).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let headers = answer.headers();
    assert_eq!(headers["x-ratelimit-limit"], "60");
    assert_eq!(headers["x-ratelimit-remaining"], "59");
    assert!(headers.contains_key("strict-transport-security"));
    let document: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(
        document,
        serde_json::json!({"data": [], "next_cursor": null})
    );

    served.home.ok(&["keys", "revoke", &id]);
    let answer = served.projects(&client, &key).await;
    assert_eq!(
        answer.status(),
        StatusCode::UNAUTHORIZED,
        "the next request"
    );
    let told = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(told.contains("error=\"invalid_token\""), "{told}");
    assert!(!served.program.tail().contains(&key));
    served.stop().await;
}

async fn the_sixty_first_call_of_a_minute_waits(database: &TestDatabase) {
    let served = Served::on(database).await;
    let (_, key) = served.key();
    let client = client(&served.fingerprint);
    let began = SystemClock.now().timestamp();
    // Where the machine is so slow that a minute passes meanwhile, the next one begins anew.
    let mut windows = Vec::new();
    let refused = loop {
        let answer = served.projects(&client, &key).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        windows.push(answer.headers()["x-ratelimit-reset"].clone());
        assert!(windows.len() < 600, "there is no limit");
    };
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = refused.headers();
    let reset = &headers["x-ratelimit-reset"];
    let in_window = windows.iter().filter(|window| *window == reset).count();
    assert_eq!(in_window, 60);
    assert_eq!(headers["x-ratelimit-limit"], "60");
    assert_eq!(headers["x-ratelimit-remaining"], "0");
    let number = |name: &str| headers[name].to_str().unwrap().parse::<i64>().unwrap();
    let wait = number("retry-after");
    assert!((1..=60).contains(&wait), "{wait}");
    let (ends, now) = (number("x-ratelimit-reset"), SystemClock.now().timestamp());
    // Told in whole seconds, and rounded up.
    assert!(began < ends && ends <= now + 61, "{began} {now} {ends}");
    assert_eq!(
        headers["ratelimit"].to_str().unwrap(),
        format!("\"minute\";r=0;t={wait}")
    );
    assert_eq!(headers["content-type"], "application/problem+json");
    served.stop().await;
}

async fn a_call_in_clear_is_told_to_use_tls(database: &TestDatabase) {
    let served = Served::on(database).await;
    served.program.logged("\"ready\"").await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let call = "GET /report-forge/v1/projects HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(call.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("/problems/tls-required"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn as_many_files_may_be_open_as_the_configuration_needs() {
    let home = home();
    let program = start(
        &home,
        &["sh", "-c", "ulimit -Sn 300; exec \"$0\" serve", PROGRAM],
    );
    program.logged("\"ready\"").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let limit = |column| {
        let text = files.unwrap().split_whitespace().nth(column).unwrap();
        text.parse().unwrap_or(u64::MAX)
    };
    let (soft, hard) = (limit(3), limit(4));
    // 512 connections of clients and 512 requests to receivers, and more.
    assert!(soft > 512 + 512 || soft == hard, "{soft} of {hard}");
    assert!(soft > 300);
    drop(program);

    let program = start(
        &home,
        &["sh", "-c", "ulimit -n 300; exec \"$0\" serve", PROGRAM],
    );
    program.logged("fewer files may be open").await;
    program.logged("\"ready\"").await;
}

/// Takes the one certificate whose SHA-256 is written so, whoever vouches for it.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest = Sha256::digest(certificate);
        let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        if pairs.join(":") == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
