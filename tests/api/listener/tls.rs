//! What a client meets that does as it should.

use axum::http::Version;

use tokio::io::AsyncWriteExt;

use super::{BIG, Port, ok, soon};

#[tokio::test]
async fn http_1_and_http_2_are_chosen_in_the_handshake() {
    let port = Port::start().await;
    for (client, version) in [
        (port.client(), Version::HTTP_2),
        (port.http1_client(), Version::HTTP_11),
    ] {
        let answer = client.get(port.url("/who")).send().await.unwrap();
        assert_eq!(answer.version(), version);
        assert_eq!(answer.text().await.unwrap(), "127.0.0.1");
        let body = "x".repeat(1_000_000);
        let echo = client.post(port.url("/echo")).body(body.clone());
        assert_eq!(echo.send().await.unwrap().text().await.unwrap(), body);
        let big = client.get(port.url("/big")).send().await.unwrap();
        assert_eq!(big.content_length(), Some(BIG as u64));
        assert_eq!(big.bytes().await.unwrap().len(), BIG);
    }
}

#[tokio::test]
async fn an_answer_arrives_although_the_client_is_still_sending() {
    let port = Port::start().await;
    let (mut reading, mut writing) = tokio::io::split(port.shaken("http/1.1").await);
    let sending = tokio::spawn(async move {
        let head = "POST /early HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000000\r\n\r\n";
        writing.write_all(head.as_bytes()).await?;
        writing.write_all(&vec![b'x'; 5_000_000]).await?;
        writing.shutdown().await
    });
    let answer = ok(&mut reading).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    soon(sending).await.unwrap().unwrap();
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let port = Port::start().await;
    let client = port.client();
    for path in ["/", "/nowhere"] {
        let answer = client.get(port.url(path)).send().await.unwrap();
        for (name, value) in [
            ("strict-transport-security", "max-age=63072000"),
            ("x-content-type-options", "nosniff"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
    }
}

#[tokio::test]
async fn what_a_handler_says_itself_stays() {
    let port = Port::start().await;
    let client = port.client();
    let answer = client.get(port.url("/own")).send().await.unwrap();
    let headers = answer.headers();
    assert_eq!(headers["cache-control"], "max-age=5");
    assert_eq!(headers["content-security-policy"], "default-src 'self'");
    assert_eq!(headers.get_all("cache-control").iter().count(), 1);
    assert_eq!(headers["x-frame-options"], "DENY");
}

#[tokio::test]
async fn without_a_proxy_nobody_may_say_who_the_client_is() {
    let port = Port::start().await;
    let client = port.client();
    let request = client
        .get(port.url("/who"))
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-forwarded-proto", "http");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "127.0.0.1");
}
