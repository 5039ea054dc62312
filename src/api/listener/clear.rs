//! What a client is told that speaks in clear where it may not.
//!
//! A reset would leave it guessing. Whoever speaks HTTP/1 gets an answer that says what to do;
//! anything else is closed without a word.

use std::io;

use axum::body::to_bytes;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue};
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Limits, problem};
use crate::clock::Clock;

/// The longest request line that is looked at, in bytes.
const MAX_LINE_BYTES: u64 = 8 * 1024;
/// The most that is read after the answer, in bytes.
const MAX_DRAINED_BYTES: u64 = 1024 * 1024;

/// Whether the next byte begins a record of TLS (RFC 8446 §5.1); `false` too where nothing comes.
pub(super) async fn speaks_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let length = stream.peek(&mut first).await?;
    Ok(length == 1 && (0x14..=0x17).contains(&first[0]))
}

/// Answers a request in clear with `tls-required` and closes.
pub(super) async fn refuse(
    mut stream: TcpStream,
    detail: &str,
    limits: &Limits,
    clock: &dyn Clock,
) -> io::Result<()> {
    let Ok(line) = timeout(limits.handshake, request_line(&mut stream)).await else {
        return Ok(());
    };
    let Some(method) = line?.as_deref().and_then(method).map(<[u8]>::to_vec) else {
        return Ok(());
    };
    let mut response = problem::tls_required(detail);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let now = httpdate::fmt_http_date(clock.now().into());
    if let Ok(now) = HeaderValue::try_from(now) {
        headers.insert(DATE, now);
    }
    let text = written(response, &method).await;
    let tell = async {
        stream.write_all(&text).await?;
        stream.shutdown().await?;
        // What still comes is read, for a while: bytes left unread turn the close into a reset,
        // and a reset may take the answer with it.
        let mut rest = (&mut stream).take(MAX_DRAINED_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    match timeout(limits.linger, tell).await {
        Ok(told) => told.map(|_| ()),
        Err(_) => Ok(()),
    }
}

/// The first line, without its end; `None` where there is none.
async fn request_line(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut stream = stream.take(MAX_LINE_BYTES);
    loop {
        if stream.read_buf(&mut line).await? == 0 {
            return Ok(None);
        }
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(Some(line));
        }
        // Junk need not go on for long.
        if !line.first().is_some_and(u8::is_ascii_uppercase) {
            return Ok(None);
        }
    }
}

/// The method, if this is the first line of an HTTP/1 request.
fn method(line: &[u8]) -> Option<&[u8]> {
    let mut parts = line.trim_ascii_end().split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_request = !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && !target.is_empty()
        && version.starts_with(b"HTTP/1.")
        && parts.next().is_none();
    is_request.then_some(method)
}

/// A response as HTTP/1.1 writes it.
async fn written(response: Response, method: &[u8]) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    // It is made of a text that is there.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    let mut text = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    if method != b"HEAD" {
        text.extend_from_slice(&body);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_1_has_a_method() {
        for (line, expected) in [
            ("GET / HTTP/1.1\r", Some("GET")),
            ("HEAD /v1?x=1 HTTP/1.0", Some("HEAD")),
            ("OPTIONS * HTTP/1.1", Some("OPTIONS")),
            ("PRI * HTTP/2.0\r", None),
            ("GET /", None),
            ("GET  HTTP/1.1", None),
            ("GET / x HTTP/1.1", None),
            ("EHLO mail.example", None),
            ("SSH-2.0-OpenSSH_9.6", None),
            ("", None),
        ] {
            let found = method(line.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{line}");
        }
    }
}
