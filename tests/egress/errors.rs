//! What goes wrong on the way, told apart by class.

use std::future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Egress;
use forge_dispatch::domain::attempt::ErrorClass;
use forge_dispatch::egress::{Lookup, SendError, WebhookClient};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::{Names, allowing, client, local_client, post};
use crate::harness::receiver::{RawReceiver, Receiver, Reply, read_request, refusing, wait_until};

/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(500);

/// A client whose deadline for everything is short.
fn hasty() -> WebhookClient {
    let config = Egress {
        timeout: SHORT,
        ..allowing(&["127.0.0.0/8"])
    };
    client(&config, &Arc::default())
}

/// A client whose deadline for connecting is short.
fn hasty_to_connect() -> WebhookClient {
    let config = Egress {
        connect_timeout: SHORT,
        ..allowing(&["127.0.0.0/8"])
    };
    client(&config, &Arc::default())
}

async fn fails(client: &WebhookClient, url: &str) -> SendError {
    let error = post(client, url).await.unwrap_err();
    assert!(!error.detail.is_empty());
    assert!(!error.detail.contains("token"), "{}", error.detail);
    error
}

#[tokio::test]
async fn a_name_without_address_is_dns() {
    let names = Arc::new(Names::default().with("empty.example", &[&[]]));
    let client = client(&allowing(&[]), &names);
    for host in ["missing.example", "empty.example"] {
        let error = fails(&client, &format!("https://{host}/?token=1")).await;
        assert_eq!(error.class, ErrorClass::Dns, "{error}");
    }
}

#[derive(Debug)]
struct NoNameServer;

#[async_trait]
impl Lookup for NoNameServer {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        future::pending().await
    }
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_is_dns() {
    let config = Egress {
        connect_timeout: SHORT,
        ..allowing(&[])
    };
    let client = WebhookClient::new(&config, Arc::new(NoNameServer), Arc::new(SystemClock));
    let error = fails(&client.unwrap(), "https://slow.example/?token=1").await;
    assert_eq!(error.class, ErrorClass::Dns, "{error}");
}

#[tokio::test]
async fn a_refused_connection_is_connect() {
    let (_socket, address) = refusing();
    for scheme in ["http", "https"] {
        let error = fails(&local_client(), &format!("{scheme}://{address}/?token=1")).await;
        assert_eq!(error.class, ErrorClass::Connect, "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_is_not_taken_is_a_timeout() {
    // With room for one connection that nobody accepts, the system leaves others unanswered.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    let error = fails(&hasty_to_connect(), &format!("http://{address}/?token=1")).await;
    assert_eq!(error.class, ErrorClass::Timeout, "{error}");
}

#[tokio::test]
async fn a_handshake_that_does_not_begin_is_a_timeout() {
    let receiver = RawReceiver::silent();
    let url = format!("https://{}/?token=1", receiver.address());
    let error = fails(&hasty_to_connect(), &url).await;
    assert_eq!(error.class, ErrorClass::Timeout, "{error}");
}

#[tokio::test]
async fn a_receiver_that_says_nothing_is_a_timeout_and_loses_its_connection() {
    let receiver = Receiver::start(|_| Reply::hang());
    let error = fails(&hasty(), &receiver.url("/?token=1")).await;
    assert_eq!(error.class, ErrorClass::Timeout, "{error}");
    assert!(error.answer.is_none());
    wait_until(Duration::from_secs(10), || receiver.open_connections() == 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_body_that_stalls_or_drips_is_a_timeout_and_what_came_is_kept() {
    let receiver = Receiver::start(|request| {
        let reply = Reply::status(200).header("x-seen", "1").body("begun");
        match &*request.path {
            "/stall" => reply.then_stalls(),
            _ => reply.then_drips(Duration::from_millis(5)),
        }
    });
    for path in ["/stall", "/drip"] {
        let error = fails(&hasty(), &receiver.url(path)).await;
        assert_eq!(error.class, ErrorClass::Timeout, "{error}");
        let answer = error.answer.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.headers.contains(&("x-seen".into(), "1".into())));
        assert!(answer.excerpt.starts_with("begun"), "{}", answer.excerpt);
    }
}

#[tokio::test]
async fn a_head_that_drips_is_a_timeout() {
    let receiver = RawReceiver::start(|mut stream| async move {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let head = b"HTTP/1.1 200 OK\r\nx: ".iter().chain(b"y".iter().cycle());
        for byte in head {
            tick.tick().await;
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    });
    let error = fails(&hasty(), &format!("http://{}/", receiver.address())).await;
    assert_eq!(error.class, ErrorClass::Timeout, "{error}");
}

#[tokio::test]
async fn a_connection_cut_in_the_body_is_body() {
    let receiver = Receiver::start(|_| Reply::status(200).body("begun").then_cuts());
    let short = RawReceiver::saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun");
    let chunked = RawReceiver::saying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\nnonsense\r\n",
    );
    for url in [
        receiver.url("/?token=1"),
        format!("http://{}/?token=1", short.address()),
        format!("http://{}/?token=1", chunked.address()),
    ] {
        let error = fails(&local_client(), &url).await;
        assert_eq!(error.class, ErrorClass::Body, "{error}");
        let answer = error.answer.unwrap();
        assert_eq!((answer.status, &*answer.excerpt), (200, "begun"));
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_protocol() {
    let receiver = Receiver::start(|_| Reply::close());
    let error = fails(&local_client(), &receiver.url("/?token=1")).await;
    assert_eq!(error.class, ErrorClass::Protocol, "{error}");
    // The request may have been taken: it is not sent again behind the caller's back.
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn what_is_no_http_is_protocol() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "220 mail.example ESMTP\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "\0\0\0\0\0\0",
        "",
    ] {
        let receiver = RawReceiver::saying(answer);
        let url = format!("http://{}/?token=1", receiver.address());
        let error = fails(&local_client(), &url).await;
        assert_eq!(error.class, ErrorClass::Protocol, "{answer:?}: {error}");
        assert_eq!(receiver.connections(), 1, "{answer:?} was asked for again");
    }
}

#[tokio::test]
async fn a_head_without_end_is_protocol() {
    let receiver = RawReceiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        let mut next = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while next.is_ok() {
            next = stream
                .write_all(b"x-more: and more and more and more\r\n")
                .await;
        }
    });
    let url = format!("http://{}/?token=1", receiver.address());
    let error = fails(&local_client(), &url).await;
    assert_eq!(error.class, ErrorClass::Protocol, "{error}");
}

#[tokio::test]
async fn a_reset_connection_is_protocol() {
    let receiver = RawReceiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        // With this set, closing resets.
        stream.set_zero_linger().unwrap();
    });
    let url = format!("http://{}/?token=1", receiver.address());
    let error = fails(&local_client(), &url).await;
    assert_eq!(error.class, ErrorClass::Protocol, "{error}");
}
