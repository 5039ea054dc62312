//! The end of serving, with requests under way.

use std::time::Duration;

use tokio::net::TcpStream;

use super::{Port, soon};
use crate::harness::eventually;

fn clients(port: &Port) -> [reqwest::Client; 2] {
    [port.client(), port.http1_client()]
}

#[tokio::test]
async fn a_graceful_stop_lets_a_request_end() {
    for protocol in [0, 1] {
        let port = Port::start().await;
        let client = clients(&port)[protocol].clone();
        let request = tokio::spawn(client.get(port.url("/hold")).send());
        soon(port.hands.held.cancelled()).await;
        port.shutdown.begin();
        eventually(super::PATIENCE, "the port is closed", async || {
            TcpStream::connect(port.address).await.is_err()
        })
        .await;
        assert!(!port.served.is_finished());
        port.hands.gate.cancel();
        let answer = soon(request).await.unwrap().unwrap();
        assert_eq!(answer.text().await.unwrap(), "ok");
        port.ended().await.unwrap();
    }
}

#[tokio::test]
async fn connections_without_a_request_do_not_hold_the_stop_up() {
    let port = Port::start().await;
    for client in clients(&port) {
        client.get(port.url("/")).send().await.unwrap();
    }
    let _silent = port.connect().await;
    let _shaken = port.shaken("h2").await;
    port.shutdown.begin();
    port.ended().await.unwrap();
}

#[tokio::test]
async fn a_hard_stop_waits_for_nothing() {
    for protocol in [0, 1] {
        let port = Port::start().await;
        let client = clients(&port)[protocol].clone();
        let request = tokio::spawn(client.get(port.url("/hold")).send());
        soon(port.hands.held.cancelled()).await;
        port.shutdown.abort();
        assert!(soon(request).await.unwrap().is_err());
        soon(port.hands.gone.cancelled()).await;
        port.ended().await.unwrap();
    }
}

#[tokio::test]
async fn a_graceful_stop_is_bounded() {
    let short = Duration::from_millis(100);
    let port = Port::with(|_| {}, |limits| limits.goodbye = short).await;
    let client = port.client();
    let request = tokio::spawn(client.get(port.url("/hold")).send());
    soon(port.hands.held.cancelled()).await;
    port.shutdown.begin();
    assert!(soon(request).await.unwrap().is_err());
    port.ended().await.unwrap();
}
