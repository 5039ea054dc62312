//! The certificate: made, kept, renewed, exchanged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use forge_dispatch::api::listener::{Fingerprint, Front, Limits};
use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::config::Api;
use forge_dispatch::entropy::Entropy;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};

use super::{PATIENCE, Port, prepare, shake, trusting};
use crate::harness::eventually;

fn start() -> DateTime<Utc> {
    "2026-05-01T09:00:00Z".parse().unwrap()
}

fn prepared_at(now: DateTime<Utc>, api: &Api, dir: &Path) -> Fingerprint {
    let clock = Arc::new(ManualClock::at(now));
    let front = Front::prepare(api, dir, clock, &Entropy::system()).unwrap();
    front.fingerprint().unwrap()
}

/// Whether a client that trusts the certificate takes it for this name.
async fn is_taken_for(port: &Port, name: &str) -> bool {
    let tls = trusting(&[port.certificate()], &["h2"]);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    connector.connect(name, port.connect().await).await.is_ok()
}

#[tokio::test]
async fn a_certificate_is_made_for_the_names_that_the_api_may_have() {
    let url = "https://forge.example:8443/api".parse().unwrap();
    let listen = "192.0.2.7:8443".parse().unwrap();
    let settings = |api: &mut Api| {
        api.public_url = Some(url);
        api.listen = listen;
    };
    let port = Port::with(settings, |_| {}).await;
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_str().unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "192.0.2.7",
        "forge.example",
        machine,
    ] {
        assert!(is_taken_for(&port, name).await, "{name}");
    }
    assert!(!is_taken_for(&port, "other.example").await);
}

#[test]
fn the_next_start_uses_the_same_and_the_key_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("not/there/yet");
    let first = prepare(&Api::default(), &data).unwrap().fingerprint();
    let second = prepare(&Api::default(), &data).unwrap().fingerprint();
    assert!(first.is_some());
    assert_eq!(first, second);
    let mode = |name: &str| {
        let metadata = fs::metadata(data.join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("api-key.pem"), 0o600);
    assert_eq!(mode(""), 0o700);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "no draft is left");
}

#[test]
fn starts_at_the_same_time_agree() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let prints: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| prepare(&Api::default(), dir.path())))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap().unwrap().fingerprint().unwrap())
                .collect()
        });
        assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn a_certificate_is_renewed_before_its_end_and_its_key_stays() {
    let dir = tempfile::tempdir().unwrap();
    let api = Api::default();
    let first = prepared_at(start(), &api, dir.path());
    let before = prepared_at(start() + TimeDelta::days(817), &api, dir.path());
    assert_eq!(before, first);
    let after = prepared_at(start() + TimeDelta::days(819), &api, dir.path());
    assert_ne!(after.to_string(), first.to_string());
    assert_eq!(after.pin(), first.pin());
}

#[test]
fn a_new_public_url_gets_a_certificate_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut api = Api::default();
    let first = prepared_at(start(), &api, dir.path());
    api.public_url = Some("https://forge.example".parse().unwrap());
    let named = prepared_at(start(), &api, dir.path());
    assert_ne!(named, first);
    assert_eq!(named.pin(), first.pin());
    assert_eq!(prepared_at(start(), &api, dir.path()), named);
}

#[test]
fn a_fingerprint_is_written_as_openssl_and_curl_do() {
    let dir = tempfile::tempdir().unwrap();
    let print = prepared_at(start(), &Api::default(), dir.path());
    let text = print.to_string();
    let pairs: Vec<&str> = text.split(':').collect();
    assert_eq!(pairs.len(), 32);
    assert!(pairs.iter().all(|pair| {
        pair.len() == 2 && pair.bytes().all(|byte| b"0123456789ABCDEF".contains(&byte))
    }));
    assert!(print.pin().starts_with("sha256//") && print.pin().ends_with('='));
}

/// Writes a pair for `localhost` and gives its certificate.
fn write_pair(dir: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = params.self_signed(&key).unwrap();
    fs::write(dir.join("own.crt"), own.pem()).unwrap();
    fs::write(dir.join("own.key"), key.serialize_pem()).unwrap();
    own.der().clone()
}

fn named(api: &mut Api, dir: &Path) {
    api.certificate_file = Some(dir.join("own.crt"));
    api.key_file = Some(dir.join("own.key"));
}

async fn shows(port: &Port, certificate: &CertificateDer<'static>) -> bool {
    let tls = trusting(std::slice::from_ref(certificate), &["http/1.1"]);
    shake(port.connect().await, tls).await.is_ok()
}

#[tokio::test]
async fn a_new_pair_is_used_while_serving_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_pair(dir.path());
    let port = Port::with(
        |api| named(api, dir.path()),
        |limits| limits.reload = Duration::from_millis(10),
    )
    .await;
    assert!(shows(&port, &first).await);

    let open = port.connect().await;
    let open = shake(open, trusting(std::slice::from_ref(&first), &["http/1.1"])).await;
    let mut open = open.unwrap();
    let second = write_pair(dir.path());
    eventually(PATIENCE, "the new certificate", async || {
        shows(&port, &second).await
    })
    .await;
    assert!(!shows(&port, &first).await);
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = super::exchange(&mut open, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    // Whether it was looked at is seen by what comes after it.
    fs::write(dir.path().join("own.key"), "no key").unwrap();
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..20 {
        looks.tick().await;
        assert!(shows(&port, &second).await);
    }
    let third = write_pair(dir.path());
    eventually(PATIENCE, "the third certificate", async || {
        shows(&port, &third).await
    })
    .await;
}

#[tokio::test]
async fn a_certificate_of_our_own_is_renewed_while_serving() {
    // Clients look at the real time: the first certificate is an old one that still holds.
    let now = SystemClock.now();
    let clock = Arc::new(ManualClock::at(now - TimeDelta::days(819)));
    let settings = |api: &mut Api| api.listen = "127.0.0.1:0".parse().unwrap();
    let reload = |limits: &mut Limits| limits.reload = Duration::from_millis(10);
    let port = Port::at(clock.clone(), settings, reload).await;
    let first = port.certificate();
    assert!(shows(&port, &first).await);
    clock.advance(Duration::from_hours(819 * 24));
    eventually(PATIENCE, "a new certificate", async || {
        let second = port.certificate();
        second != first && shows(&port, &second).await
    })
    .await;
}

#[test]
fn a_pair_that_cannot_be_used_is_an_error_that_names_its_key() {
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path());
    let mut api = Api::default();
    named(&mut api, dir.path());
    let [crt, key] = ["own.crt", "own.key"].map(|name| dir.path().join(name));
    let [good_crt, good_key] = [&crt, &key].map(|path| fs::read_to_string(path).unwrap());
    let told = |crt_text: &str, key_text: &str| {
        fs::write(&crt, crt_text).unwrap();
        fs::write(&key, key_text).unwrap();
        prepare(&api, dir.path()).unwrap_err().to_string()
    };
    let of_crt = format!("api.certificate_file {}: ", crt.display());
    let of_key = format!("api.key_file {}: ", key.display());
    let other = KeyPair::generate().unwrap().serialize_pem();
    for (crt_text, key_text, expected) in [
        ("", &*good_key, &of_crt),
        ("-----BEGIN CERTIFICATE-----\nnonsense", &good_key, &of_crt),
        (&good_key, &good_key, &of_crt),
        (&good_crt, &other, &of_crt),
        (&good_crt, "", &of_key),
        (&good_crt, &good_crt, &of_key),
    ] {
        let told = told(crt_text, key_text);
        assert!(told.starts_with(expected), "{told}");
        assert!(
            !told.contains("BEGIN") && !told.contains("nonsense"),
            "{told}"
        );
    }
    fs::remove_file(&key).unwrap();
    let told = prepare(&api, dir.path()).unwrap_err().to_string();
    assert!(told.starts_with(&of_key), "{told}");
}

#[test]
fn a_pair_of_our_own_that_was_spoilt_is_an_error_too() {
    let dir = tempfile::tempdir().unwrap();
    prepare(&Api::default(), dir.path()).unwrap();
    let key = dir.path().join("api-key.pem");
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let told = prepare(&Api::default(), dir.path())
        .unwrap_err()
        .to_string();
    assert!(told.contains("does not belong to"), "{told}");
    assert!(told.contains("`api.certificate_file`"), "{told}");
}
