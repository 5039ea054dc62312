//! Behind a proxy, which speaks to us in clear.

use super::{Port, exchange, problem};

const TRUSTED: &str = "127.0.0.0/8";

async fn behind(nets: &[&str]) -> Port {
    let nets = nets.iter().map(|net| net.parse().unwrap()).collect();
    Port::with(|api| api.behind_proxy = nets, |_| {}).await
}

async fn who(port: &Port, headers: &str) -> String {
    let mut stream = port.connect().await;
    let request =
        format!("GET /who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    exchange(&mut stream, &request).await
}

#[tokio::test]
async fn the_client_is_whom_the_proxies_vouch_for() {
    let port = behind(&[TRUSTED, "10.0.0.0/8"]).await;
    for (forwarded, client) in [
        ("", "127.0.0.1"),
        ("x-forwarded-for: 203.0.113.7\r\n", "203.0.113.7"),
        (
            "x-forwarded-for: 6.6.6.6, 203.0.113.7, 10.1.1.1\r\n",
            "203.0.113.7",
        ),
        (
            "x-forwarded-for: 6.6.6.6\r\nx-forwarded-for: 203.0.113.7\r\n",
            "203.0.113.7",
        ),
        ("x-forwarded-for: <script>\r\n", "127.0.0.1"),
    ] {
        let answer = who(&port, &format!("X-Forwarded-Proto: https\r\n{forwarded}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("strict-transport-security: "), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, client, "{forwarded}");
    }
}

#[tokio::test]
async fn a_request_that_the_proxy_did_not_take_over_https_is_refused() {
    let port = behind(&[TRUSTED]).await;
    for header in [
        "",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-proto: https, http\r\n",
    ] {
        let answer = who(&port, header).await;
        let (head, body) = problem(&answer);
        assert!(head.starts_with("HTTP/1.1 403 "), "{header}: {head}");
        assert!(head.contains("x-frame-options: DENY"), "{head}");
        assert!(!head.contains("strict-transport"), "{head}");
        assert_eq!(body["type"], "/problems/tls-required");
    }
}

#[tokio::test]
async fn whoever_is_no_trusted_proxy_is_refused_whatever_it_says() {
    let port = behind(&["10.0.0.0/8"]).await;
    let headers = "x-forwarded-proto: https\r\nx-forwarded-for: 10.0.0.1\r\n";
    let answer = who(&port, headers).await;
    let (head, body) = problem(&answer);
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(body["type"], "/problems/tls-required");
}

#[tokio::test]
async fn behind_a_proxy_no_certificate_is_made() {
    let port = behind(&[TRUSTED]).await;
    assert_eq!(std::fs::read_dir(port.dir.path()).unwrap().count(), 0);
}
