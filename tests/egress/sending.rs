//! What goes out, what comes back, and how much of it is kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::domain::attempt::{ErrorClass, MAX_EXCERPT_BYTES};
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::signature::{SigningKey, webhook_signature};
use forge_dispatch::egress::outcome::{MAX_HEADER_BYTES, MAX_HEADERS};
use forge_dispatch::egress::{SystemLookup, WebhookClient};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

use super::{allowing, local_client, post};
use crate::harness::receiver::{Receiver, Reply, wait_until};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_exact_bytes_and_headers_arrive() {
    let receiver = Receiver::ok();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
    let body = Bytes::from_static("{\"a\": \"\u{fc}\\u0000\" }\n".as_bytes());
    let url = receiver.url("/hook?token=x%20y").parse().unwrap();
    let sent = local_client().post(&url, headers, body.clone()).await;
    assert_eq!(sent.answer.unwrap().status, 200);
    let request = &receiver.received()[0];
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/hook?token=x%20y");
    assert_eq!(request.body, body);
    assert_eq!(request.webhook_id(), "evt_1");
    let mut names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "content-length",
            "content-type",
            "host",
            "webhook-id"
        ]
    );
    assert_eq!(request.header("host"), receiver.address().to_string());
}

#[tokio::test]
async fn any_status_is_an_answer_and_redirects_are_not_followed() {
    let receiver = Receiver::start(|request| {
        Reply::status(request.path[1..].parse().unwrap())
            .header("location", "/200")
            .header("retry-after", "120")
            .body("because")
    });
    let client = local_client();
    for status in [201, 301, 302, 307, 308, 404, 410, 429, 500, 503] {
        let answer = post(&client, &receiver.url(&format!("/{status}")))
            .await
            .unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.retry_after.as_deref(), Some("120"));
        assert_eq!(answer.excerpt, "because");
        assert!(answer.headers.contains(&("location".into(), "/200".into())));
    }
    assert_eq!(receiver.count(), 10);
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let receiver = Receiver::start(|_| Reply::status(200).body("ok"));
    let client = local_client();
    for _ in 0..50 {
        assert_eq!(
            post(&client, &receiver.url("/")).await.unwrap().excerpt,
            "ok"
        );
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_closed_connection_is_replaced() {
    let receiver = Receiver::start(|_| Reply::status(200).header("connection", "close"));
    let client = local_client();
    for _ in 0..5 {
        post(&client, &receiver.url("/")).await.unwrap();
    }
    assert_eq!(receiver.connections(), 5);
}

#[tokio::test]
async fn of_a_body_without_end_the_beginning_is_kept_and_the_connection_dropped() {
    let receiver = Receiver::start(|_| Reply::status(200).body("x").then_never_ends());
    let client = local_client();
    let answer = post(&client, &receiver.url("/")).await.unwrap();
    assert_eq!(answer.status, 200);
    // Zeros become replacement characters of three bytes, and the cap holds all the same.
    assert!(answer.excerpt.starts_with("x\u{fffd}"));
    assert_eq!(answer.excerpt.len(), MAX_EXCERPT_BYTES);
    wait_until(DEADLINE, || receiver.open_connections() == 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_body_of_just_the_cap_is_kept_whole() {
    let body = "y".repeat(MAX_EXCERPT_BYTES);
    let reply = body.clone();
    let receiver = Receiver::start(move |_| Reply::status(200).body(reply.clone()));
    let answer = post(&local_client(), &receiver.url("/")).await.unwrap();
    assert_eq!(answer.excerpt, body);
}

#[tokio::test]
async fn of_many_and_large_headers_a_bounded_part_is_kept() {
    const NAMES: [&str; 3] = ["x-one", "x-two", "x-three"];
    let receiver = Receiver::start(|request| match &*request.path {
        "/many" => (0..90).fold(Reply::status(200), |reply, _| reply.header("x-many", "1")),
        _ => NAMES.into_iter().fold(Reply::status(200), |reply, name| {
            reply.header(name, "v".repeat(10_000))
        }),
    });
    let client = local_client();
    let many = post(&client, &receiver.url("/many")).await.unwrap();
    assert_eq!(many.headers.len(), MAX_HEADERS);
    let large = post(&client, &receiver.url("/large")).await.unwrap();
    let kept: usize = large
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(kept > 10_000 && kept <= MAX_HEADER_BYTES, "{kept}");
}

#[tokio::test]
async fn what_is_no_text_is_kept_as_text_without_nul() {
    let receiver = Receiver::start(|_| Reply::status(200).body(&b"a\0\xffb"[..]));
    let answer = post(&local_client(), &receiver.url("/")).await.unwrap();
    assert_eq!(answer.excerpt, "a\u{fffd}\u{fffd}b");
}

#[tokio::test]
async fn a_signed_message_is_taken_by_the_published_library() {
    let secret = SigningSecret::generate([7; 32]);
    let body = Bytes::from_static(br#"{"type":"edition.submitted"}"#);
    let now = SystemClock.now().timestamp();
    let keys = [SigningKey::new(&secret)];
    let signature = webhook_signature(&keys, "evt_1", now, &body);
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
    headers.insert("webhook-timestamp", now.into());
    headers.insert("webhook-signature", signature.parse().unwrap());
    let receiver = Receiver::ok();
    let url = receiver.url("/").parse().unwrap();
    let sent = local_client().post(&url, headers, body).await;
    sent.answer.unwrap();
    let requests = receiver.wait_for_count(1, DEADLINE).await.unwrap();
    requests[0].verify(secret.expose()).unwrap();
    assert!(requests[0].verify("another secret, not ours").is_err());
    assert_eq!(requests[0].json()["type"], "edition.submitted");
}

#[tokio::test]
async fn a_receiver_that_comes_back_is_reached_again() {
    let first = Receiver::ok();
    let client = local_client();
    post(&client, &first.url("/")).await.unwrap();
    first.stop().await;
    let error = post(&client, &first.url("/")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect, "{error}");
    let second = Receiver::start_at(first.address(), |_| Reply::status(200));
    post(&client, &first.url("/")).await.unwrap();
    second.behave(|_| Reply::status(503));
    assert_eq!(post(&client, &first.url("/")).await.unwrap().status, 503);
    assert_eq!((first.count(), second.count()), (1, 2));
}

#[tokio::test]
async fn a_slow_answer_holds_up_no_other() {
    let gate = CancellationToken::new();
    let held = gate.clone();
    let receiver = Receiver::start(move |request| match &*request.path {
        "/slow" => Reply::status(200).held_until(&held),
        _ => Reply::status(200),
    });
    let client = local_client();
    let slow_url = receiver.url("/slow");
    let slow = post(&client, &slow_url);
    let others = async {
        receiver.wait_for_count(1, DEADLINE).await.unwrap();
        for _ in 0..10 {
            post(&client, &receiver.url("/fast")).await.unwrap();
        }
        gate.cancel();
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert_eq!(slow.unwrap().status, 200);
    let requests = receiver.received();
    assert_eq!(requests.len(), 11);
    assert!(
        requests[1..]
            .iter()
            .all(|fast| fast.connection != requests[0].connection)
    );
    assert!(requests.is_sorted_by_key(|request| request.arrived));
}

#[tokio::test]
async fn the_duration_is_taken_to_the_end_of_the_answer() {
    let clock = Arc::new(ManualClock::at(DateTime::UNIX_EPOCH));
    let ticking = Arc::clone(&clock);
    let receiver = Receiver::start(move |_| {
        ticking.advance(Duration::from_millis(250));
        Reply::status(200)
    });
    let config = allowing(&["127.0.0.0/8"]);
    let client = WebhookClient::new(&config, Arc::new(SystemLookup), clock).unwrap();
    let url = receiver.url_at("localhost", "/").parse().unwrap();
    let sent = client.post(&url, HeaderMap::new(), Bytes::new()).await;
    sent.answer.unwrap();
    assert_eq!(sent.at, DateTime::UNIX_EPOCH);
    assert_eq!(sent.duration, Duration::from_millis(250));
}
