//! Clients that take their time, and their connections.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forge_dispatch::api::listener::Limits;
use hyper::body::{Body, Frame};
use tokio::io::AsyncWriteExt;
use tokio::time::interval;

use super::{Port, exchange, ok, problem, rest, soon};

const SHORT: Duration = Duration::from_millis(300);
const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn limited(limits: impl FnOnce(&mut Limits)) -> Port {
    Port::with(|_| {}, limits).await
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut_off() {
    let port = limited(|limits| limits.handshake = SHORT).await;
    // Nothing; the beginning of a record of TLS; the beginning of a request in clear.
    for text in ["", "\u{16}\u{3}\u{1}\u{2}", "GET /v1"] {
        let mut stream = port.connect().await;
        assert_eq!(exchange(&mut stream, text).await, "", "{text:?}");
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_is_cut_off() {
    let port = limited(|limits| limits.header = SHORT).await;
    let half = "GET / HTTP/1.1\r\nhost: local";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    for (protocol, text) in [
        ("http/1.1", ""),
        ("http/1.1", half),
        ("h2", ""),
        ("h2", "PRI * HT"),
        ("h2", preface),
    ] {
        let mut stream = port.shaken(protocol).await;
        let answer = exchange(&mut stream, text).await;
        assert!(!answer.contains("200"), "{text:?}: {answer}");
    }
}

#[tokio::test]
async fn a_header_that_trickles_is_cut_off() {
    let port = limited(|limits| limits.header = SHORT).await;
    let (mut reading, mut writing) = tokio::io::split(port.shaken("http/1.1").await);
    let sending = tokio::spawn(async move {
        let mut pace = interval(SHORT / 10);
        writing.write_all(b"GET / HTTP/1.1\r\n").await?;
        loop {
            pace.tick().await;
            writing.write_all(b"x: y\r\n").await?;
            writing.flush().await?;
        }
        #[expect(unreachable_code, reason = "says what the block gives")]
        std::io::Result::Ok(())
    });
    assert_eq!(rest(&mut reading).await, "");
    soon(sending).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_second_header_has_no_more_time_than_the_first() {
    let port = limited(|limits| limits.header = SHORT).await;
    let mut stream = port.shaken("http/1.1").await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    ok(&mut stream).await;
    assert_eq!(exchange(&mut stream, "GET / HTTP/1.1\r\nho").await, "");
}

#[tokio::test]
async fn a_connection_without_requests_lasts_longer_than_a_header_and_not_for_ever() {
    let port = limited(|limits| {
        limits.header = SHORT;
        limits.idle = SHORT * 5;
    })
    .await;
    let mut stream = port.shaken("http/1.1").await;
    let began = tokio::time::Instant::now();
    stream.write_all(GET.as_bytes()).await.unwrap();
    ok(&mut stream).await;
    assert_eq!(rest(&mut stream).await, "");
    assert!(began.elapsed() >= SHORT * 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let port = limited(|limits| limits.body_pace = SHORT).await;
    let mut stream = port.shaken("http/1.1").await;
    let request = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf";
    let answer = exchange(&mut stream, request).await;
    let (head, body) = problem(&answer);
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    for line in [
        "content-type: application/problem+json",
        "connection: close",
        "strict-transport-security: max-age=63072000",
        "cache-control: no-store",
    ] {
        assert!(head.lines().any(|it| it == line), "{line}\n{head}");
    }
    assert_eq!(body["type"], "/problems/request-timeout");
    assert_eq!(body["status"], 408);
}

/// One piece, and then never another.
struct Unending(Option<Bytes>);

impl Body for Unending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn over_http_2_a_slow_body_ends_its_own_request_only() {
    let port = limited(|limits| limits.body_pace = SHORT).await;
    let client = port.client();
    let unending = reqwest::Body::wrap(Unending(Some(Bytes::from_static(b"half"))));
    let slow = client.post(port.url("/echo")).body(unending).send();
    let other = client.get(port.url("/hold")).send();
    let gate = port.hands.gate.clone();
    let slow = async {
        let answer = slow.await.unwrap();
        gate.cancel();
        answer
    };
    let (slow, other) = tokio::join!(slow, other);
    assert_eq!(slow.status(), 408);
    assert!(!slow.headers().contains_key("connection"));
    assert_eq!(other.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_trickles_is_408_and_one_that_is_steady_only_when_it_takes_too_long() {
    // Ten steps fit into the pace; a byte each is too little of it, a step's worth is enough.
    let port = limited(|limits| {
        limits.body = SHORT * 10;
        limits.body_pace = SHORT;
        limits.body_step = 100;
    })
    .await;
    for (piece, least) in [(1, SHORT), (100, SHORT * 10)] {
        let (mut reading, mut writing) = tokio::io::split(port.shaken("http/1.1").await);
        let began = tokio::time::Instant::now();
        let sending = tokio::spawn(async move {
            let head = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999\r\n\r\n";
            let mut pace = interval(SHORT / 10);
            writing.write_all(head.as_bytes()).await?;
            loop {
                pace.tick().await;
                writing.write_all(&vec![b'x'; piece]).await?;
                writing.flush().await?;
            }
            #[expect(unreachable_code, reason = "says what the block gives")]
            std::io::Result::Ok(())
        });
        let answer = rest(&mut reading).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{piece}: {answer}");
        assert!(began.elapsed() >= least, "{piece}: {:?}", began.elapsed());
        soon(sending).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_dropped() {
    let port = limited(|limits| limits.stall = SHORT).await;
    let mut stream = port.shaken("http/1.1").await;
    let request = GET.replace("/ ", "/big ");
    stream.write_all(request.as_bytes()).await.unwrap();
    soon(port.hands.gone.cancelled()).await;
}

#[tokio::test]
async fn over_http_2_an_answer_that_nobody_takes_is_dropped() {
    let port = limited(|limits| limits.stall = SHORT).await;
    let client = port.client();
    let answer = client.get(port.url("/big")).send().await.unwrap();
    soon(port.hands.gone.cancelled()).await;
    drop(answer);
}

#[tokio::test]
async fn an_answer_that_is_not_ready_is_waited_for() {
    let port = limited(|limits| {
        limits.header = SHORT;
        limits.idle = SHORT;
        limits.stall = SHORT;
    })
    .await;
    let mut stream = port.shaken("http/1.1").await;
    let request = GET.replace("/ ", "/hold ");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut pace = interval(SHORT);
    for _ in 0..5 {
        pace.tick().await;
    }
    assert!(!port.hands.gone.is_cancelled());
    port.hands.gate.cancel();
    ok(&mut stream).await;
}

#[tokio::test]
async fn a_connection_too_many_waits_for_one_to_end() {
    let port = limited(|limits| limits.connections = 1).await;
    let mut first = port.shaken("http/1.1").await;
    let waiting = port.shaken("http/1.1");
    let mut waiting = std::pin::pin!(waiting);
    for _ in 0..20 {
        first.write_all(GET.as_bytes()).await.unwrap();
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there was no seat"),
            _ = ok(&mut first) => {}
        }
    }
    drop(first);
    let mut second = waiting.await;
    second.write_all(GET.as_bytes()).await.unwrap();
    ok(&mut second).await;
}

#[tokio::test]
async fn one_address_gets_no_more_than_its_share() {
    let port = limited(|limits| limits.connections_per_address = 1).await;
    let mut first = port.shaken("http/1.1").await;
    let mut second = port.connect().await;
    assert_eq!(rest(&mut second).await, "");
    first.write_all(GET.as_bytes()).await.unwrap();
    ok(&mut first).await;
}
