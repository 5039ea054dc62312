//! What a client meets that speaks in clear.

use tokio::io::AsyncWriteExt;

use super::{Port, exchange, problem, rest, soon};

#[tokio::test]
async fn a_request_in_clear_is_told_to_use_https() {
    let port = Port::start().await;
    let mut stream = port.connect().await;
    let answer = exchange(&mut stream, "GET /v1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let (head, body) = problem(&answer);
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    for line in [
        "content-type: application/problem+json",
        "connection: close",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        "cache-control: no-store",
    ] {
        assert!(head.lines().any(|it| it == line), "{line}\n{head}");
    }
    assert!(!head.contains("strict-transport"), "RFC 6797 §7.2: {head}");
    assert_eq!(body["type"], "/problems/tls-required");
    assert_eq!(body["title"], "TLS is required");
    assert_eq!(body["status"], 403);
    assert!(body["detail"].as_str().unwrap().contains("https"));
}

#[tokio::test]
async fn the_answer_arrives_although_the_client_is_still_sending() {
    let port = Port::start().await;
    let (mut reading, mut writing) = port.connect().await.into_split();
    let sending = tokio::spawn(async move {
        let head = "POST /v1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900000\r\n\r\n";
        writing.write_all(head.as_bytes()).await?;
        writing.write_all(&vec![b'x'; 900_000]).await
    });
    let answer = rest(&mut reading).await;
    assert!(answer.contains("tls-required"), "{answer}");
    soon(sending).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_head_request_gets_no_body() {
    let port = Port::start().await;
    let mut stream = port.connect().await;
    let answer = exchange(&mut stream, "HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_1_is_closed_without_a_word() {
    let port = Port::start().await;
    for junk in [
        "\0\u{1}\u{2}",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "EHLO mail.example\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}junk in the record of a handshake",
    ] {
        let mut stream = port.connect().await;
        let answer = exchange(&mut stream, junk).await;
        assert!(!answer.contains("HTTP"), "{junk:?}: {answer}");
    }
    let mut stream = port.connect().await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}
