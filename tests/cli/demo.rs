//! The demo, as the README's first command runs it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Config;
use forge_dispatch::domain::hex::hex;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{self, EditionFilter, FeedFilter, FeedRequest, FeedStart, PageRequest};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Home, text};
use crate::harness::simple::PATIENCE;

#[test]
fn a_bounded_demo_delivers_and_verifies_everything_and_shows_retries() {
    let summary = Home::new().json(&["demo", "--events", "200", "--exit"]);
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(number("events"), 200);
    assert!(number("deliveries") > 200, "{summary}");
    assert_eq!(number("succeeded"), number("deliveries"));
    assert_eq!(number("verified"), number("deliveries"));
    assert_eq!(number("failed"), 0);
    assert!(number("attempts") > number("deliveries"), "{summary}");
    assert!(summary["seconds"].is_f64());
    let standing = summary["editions"].as_object().unwrap();
    let editions: u64 = standing.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(editions, 12, "{summary}");
}

#[tokio::test]
async fn the_editions_of_a_demo_stand_where_its_events_left_them() {
    let home = Home::new();
    let summary = home.json(&["demo", "--events", "120", "--exit", "--data", "kept"]);
    let mut config = Config::default();
    let database = home.path().join("kept/forge-dispatch.db");
    config.database.url = format!("sqlite://{}", database.display()).into();
    let store = store::open(&config, Arc::new(SystemClock), &Entropy::system())
        .await
        .unwrap();
    let reach = Reach::all(&WorkspaceId::new(&text(&summary["workspace"])).unwrap());

    let mut last = BTreeMap::new();
    let request = FeedRequest {
        start: FeedStart::Oldest,
        limit: 500,
        max_bytes: 1_000_000,
    };
    let page = store.feed(&reach, &FeedFilter::default(), request).await;
    let page = page.unwrap().expect("nothing was removed");
    assert_eq!(page.items.len(), 120);
    for item in page.items {
        let edition = item.event.edition.expect("each is of an edition");
        last.insert(edition, item.event.event_type.to_string());
    }
    let request = PageRequest {
        limit: 500,
        after: None,
    };
    let answer = store
        .editions(&reach, &EditionFilter::default(), request)
        .await;
    let editions = answer.unwrap().page.items;
    assert_eq!(editions.len(), 12);
    let mut moved = 0;
    for record in &editions {
        let status = record.edition.status.as_str();
        let Some(event) = last.get(&record.edition.id) else {
            continue;
        };
        moved += 1;
        // What follows without an event: a review begins, an edition is closed, or opened again.
        let allowed: &[&str] = match event.as_str() {
            "edition.submitted" => &["submitted", "in_review"],
            "edition.changes_requested" => &["changes_requested"],
            "edition.approved" => &["approved"],
            "output.generated" => &["approved", "closed", "draft"],
            other => panic!("{other}"),
        };
        assert!(allowed.contains(&status), "{event}: {status}");
    }
    assert_eq!(moved, 6, "all of this quarter's");
    store.close().await;
}

#[test]
fn a_demo_directory_can_be_used_again() {
    let home = Home::new();
    for _ in 0..2 {
        let summary = home.json(&["demo", "--events", "20", "--exit", "--data", "kept"]);
        assert_eq!(summary["verified"], summary["deliveries"]);
    }
    assert!(home.path().join("kept/forge-dispatch.db").exists());
}

#[tokio::test]
async fn a_running_demo_is_read_as_it_says_and_ends_with_success_when_it_is_interrupted() {
    let home = Home::new();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_forge-dispatch"))
        .args(["demo", "--data", "kept"])
        .env("FORGE_API__LISTEN", "127.0.0.1:0")
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    while told
        .last()
        .is_none_or(|line: &String| !line.contains(" editions: "))
    {
        told.push(output.next().expect("it goes on").unwrap());
    }
    // But for the path of a certificate, which is this test's.
    let mut lines = told.iter().filter(|line| !line.starts_with("CERT="));
    assert!(lines.all(|line| line.len() < 80), "{told:#?}");

    let answers = look(&told).await;
    let [edition, rows, next, output, workbook] = &answers[..] else {
        panic!("{told:#?}");
    };
    let edition: Value = serde_json::from_slice(edition).unwrap();
    assert!(rows.starts_with(b"id,milestone,due,"), "{rows:?}");
    let next: Value = serde_json::from_slice(next).unwrap();
    assert_eq!(next["data"][0]["edition_id"], edition["id"], "{next}");
    let output: Value = serde_json::from_slice(output).unwrap();
    assert_eq!(output["sha256"], hex(&Sha256::digest(workbook)), "{output}");
    let address = output["download_url"].as_str().unwrap();
    assert!(address.starts_with("https://localhost:"), "{output}");

    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(demo.wait().unwrap().success());
}

/// What the lines to copy answer, one after the other; before a file, its output.
#[expect(
    clippy::disallowed_methods,
    reason = "a client of the API, which is on this machine"
)]
async fn look(told: &[String]) -> Vec<Vec<u8>> {
    let whole = told.join("\n").replace("\\\n", "");
    let behind = |prefix: &str| whole.lines().find_map(|line| line.strip_prefix(prefix));
    let certificate = behind("CERT=").unwrap().trim_matches('\'');
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let (key, api) = (behind("KEY=").unwrap(), behind("API=").unwrap());
    let mut answers = Vec::new();
    for line in whole.lines().filter(|line| line.starts_with("curl ")) {
        let (_, path) = line.trim_end_matches('"').rsplit_once('"').unwrap();
        for path in path.strip_suffix("/download").into_iter().chain([path]) {
            let mut request = client.get(path.replace("$API", api)).bearer_auth(key);
            if line.contains("-H 'Accept: text/csv'") {
                request = request.header("accept", "text/csv");
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{line}");
            answers.push(answer.bytes().await.unwrap().to_vec());
        }
    }
    answers
}
