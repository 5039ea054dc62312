//! What goes out, what comes back, and how much of it is kept.

use std::time::Duration;

use bytes::Bytes;
use forge_dispatch::domain::attempt::MAX_EXCERPT_BYTES;
use forge_dispatch::egress::outcome::{MAX_HEADER_BYTES, MAX_HEADERS};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{local_client, post};
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
