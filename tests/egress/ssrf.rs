//! Requests that somebody would like us to make to our own network.
//!
//! The receiver that must not be reached is real and listens on every loopback address; addresses
//! that are not here at all must be refused before anything is dialled, which the class tells.

use std::net::SocketAddr;
use std::sync::Arc;

use forge_dispatch::config::Egress;
use forge_dispatch::domain::attempt::ErrorClass;
use forge_dispatch::egress::{Answer, SendError};
use tokio::net::TcpStream;

use super::{Names, allowing, client, post};
use crate::harness::receiver::{Receiver, Reply};

/// Addresses of every special range: the first, the last, or one inside.
const SPECIAL_V4: &[&str] = &[
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.10",
    "192.0.0.170",
    "192.0.0.171",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.88.99.2",
    "192.168.0.0",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
];

const SPECIAL_V6: &[&str] = &[
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:1::1",
    "2001:1::2",
    "2001:1::3",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:db8::1",
    "2001:1ff:ffff::",
    "2002:7f00:1::",
    "2002:808:808::",
    "2400:cb00::5efe:127.0.0.1",
    "2400:cb00::200:5efe:10.0.0.1",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "febf:ffff::",
    "fec0::1",
    "ff02::1",
];

fn class(answer: Result<Answer, SendError>) -> ErrorClass {
    answer.unwrap_err().class
}

/// A receiver on all addresses of this machine that must stay alone.
fn forbidden() -> Receiver {
    Receiver::start_at(SocketAddr::from(([0, 0, 0, 0], 0)), |_| Reply::status(200))
}

/// Connections are accepted in the order in which they were made: once the test's own is the first
/// to be counted, there was none before it.
async fn assert_untouched(receiver: &Receiver) {
    let address = SocketAddr::from(([127, 0, 0, 1], receiver.address().port()));
    let own = TcpStream::connect(address).await.unwrap();
    receiver.wait_for_connections(1).await;
    assert_eq!(receiver.connections(), 1, "somebody connected");
    drop(own);
}

#[tokio::test]
async fn no_special_address_is_dialled_when_it_is_written_out() {
    let client = client(&allowing(&[]), &Arc::default());
    let v4 = SPECIAL_V4.iter().map(|ip| (*ip).to_owned());
    let mapped = SPECIAL_V4.iter().map(|ip| format!("[::ffff:{ip}]"));
    let v6 = SPECIAL_V6.iter().map(|ip| format!("[{ip}]"));
    for host in v4.chain(mapped).chain(v6) {
        for url in [format!("http://{host}/"), format!("https://{host}:8443/")] {
            let class = class(post(&client, &url).await);
            assert_eq!(class, ErrorClass::BlockedAddress, "{url}");
        }
    }
}

#[tokio::test]
async fn no_special_address_is_dialled_when_a_name_leads_to_it() {
    let mapped: Vec<String> = SPECIAL_V4.iter().map(|ip| format!("::ffff:{ip}")).collect();
    let mapped = mapped.iter().map(String::as_str);
    for address in SPECIAL_V4.iter().chain(SPECIAL_V6).copied().chain(mapped) {
        let names = Arc::new(Names::default().with("hook.example", &[&[address]]));
        let client = client(&allowing(&[]), &names);
        for url in ["http://hook.example/", "https://hook.example:8443/"] {
            let class = class(post(&client, url).await);
            assert_eq!(class, ErrorClass::BlockedAddress, "{address} by {url}");
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_private_address_gets_through() {
    let receiver = forbidden();
    let client = client(&allowing(&[]), &Arc::default());
    for host in [
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f.0.0.0x1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "0",
        "0x0",
        "%31%32%37.0.0.1",
        "１２７.０.０.１",
        "127。0。0。1",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::]",
        "[::1]",
        "public.example@127.0.0.1",
        "user:secret@127.0.0.1",
    ] {
        let url = format!("http://{host}:{}/", receiver.address().port());
        let class = class(post(&client, &url).await);
        assert_eq!(class, ErrorClass::BlockedAddress, "{url}");
    }
    assert_untouched(&receiver).await;
}

#[tokio::test]
async fn no_private_name_gets_through_with_or_without_its_dot() {
    let receiver = forbidden();
    let names = Names::default()
        .with("localhost", &[&["127.0.0.1", "::1"]])
        .with("localhost.", &[&["127.0.0.1", "::1"]])
        .with("inside.example", &[&["10.0.0.1"]])
        .with("inside.example.", &[&["10.0.0.1"]]);
    let client = client(&allowing(&[]), &Arc::new(names));
    for host in [
        "localhost",
        "LOCALHOST.",
        "inside.example",
        "inside.example.",
    ] {
        let class = class(post(&client, &receiver.url_at(host, "/")).await);
        assert_eq!(class, ErrorClass::BlockedAddress, "{host}");
    }
    assert_untouched(&receiver).await;
}

#[tokio::test]
async fn of_a_name_with_an_allowed_and_a_private_address_only_the_allowed_one_is_dialled() {
    // 127.0.0.2 stands for a public address: a rule opens it.
    let public = Receiver::start_at(SocketAddr::from(([127, 0, 0, 2], 0)), |_| {
        Reply::status(200)
    });
    let private = Receiver::start_at(
        SocketAddr::from(([127, 0, 0, 1], public.address().port())),
        |_| Reply::status(200),
    );
    for answer in [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]] {
        let names = Arc::new(Names::default().with("both.example", &[&answer]));
        let client = client(&allowing(&["127.0.0.2/32"]), &names);
        post(&client, &public.url_at("both.example", "/"))
            .await
            .unwrap();
    }
    assert_eq!(public.count(), 2);
    assert_untouched(&private).await;
}

#[tokio::test]
async fn when_the_allowed_address_does_not_answer_the_private_one_is_not_tried() {
    let private = forbidden();
    let port = private.address().port();
    // Nobody listens on ::1 at this port, and a rule opens it.
    let names = Names::default().with("both.example", &[&["::1", "127.0.0.1"]]);
    let client = client(&allowing(&["::1/128"]), &Arc::new(names));
    let class = class(post(&client, &format!("http://both.example:{port}/")).await);
    assert_eq!(class, ErrorClass::Connect);
    assert_untouched(&private).await;
}

#[tokio::test]
async fn a_name_that_turns_private_after_its_check_reaches_nobody() {
    let private = forbidden();
    let names = Names::default().with("rebind.example", &[&["93.184.215.14"], &["127.0.0.1"]]);
    let names = Arc::new(names);
    let client = client(&allowing(&[]), &names);
    let url = private.url_at("rebind.example", "/");
    let target = forge_dispatch::domain::subscription::TargetUrl::new(&url).unwrap();
    client.check_target(&target).await.unwrap();
    let class = class(post(&client, &url).await);
    assert_eq!(class, ErrorClass::BlockedAddress);
    assert_eq!(names.looks("rebind.example"), 2);
    assert_untouched(&private).await;
}

#[tokio::test]
async fn every_connection_looks_the_name_up_once_and_dials_what_that_look_gave() {
    let public = Receiver::start_at(SocketAddr::from(([127, 0, 0, 2], 0)), |_| {
        Reply::status(200).header("connection", "close")
    });
    let private = Receiver::start_at(
        SocketAddr::from(([127, 0, 0, 1], public.address().port())),
        |_| Reply::status(200),
    );
    let names = Names::default().with("rebind.example", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let names = Arc::new(names);
    let client = client(&allowing(&["127.0.0.2/32"]), &names);
    let url = public.url_at("rebind.example", "/");
    post(&client, &url).await.unwrap();
    assert_eq!(names.looks("rebind.example"), 1);
    let class = class(post(&client, &url).await);
    assert_eq!(class, ErrorClass::BlockedAddress);
    assert_eq!(names.looks("rebind.example"), 2);
    assert_eq!(public.count(), 1);
    assert_untouched(&private).await;
}

#[tokio::test]
async fn redirects_to_private_addresses_are_not_followed() {
    let private = forbidden();
    let inside = format!("http://127.0.0.1:{}/", private.address().port());
    let public = Receiver::start(move |request| {
        let status = request.path[1..].parse().unwrap();
        Reply::status(status).header("location", inside.clone())
    });
    let rule = format!("127.0.0.1/32:{}", public.address().port());
    let client = client(&allowing(&[&rule]), &Arc::default());
    for status in [301, 302, 303, 307, 308] {
        let answer = post(&client, &public.url(&format!("/{status}")))
            .await
            .unwrap();
        assert_eq!(answer.status, status);
    }
    assert_untouched(&private).await;
}

#[tokio::test]
async fn a_rule_with_a_port_opens_that_port_by_address_and_by_name() {
    let open = Receiver::ok();
    let also_open = Receiver::ok();
    let closed = forbidden();
    let rules =
        [&open, &also_open].map(|receiver| format!("127.0.0.1/32:{}", receiver.address().port()));
    let names = Arc::new(Names::default().with("local.example", &[&["127.0.0.1"]]));
    let client = client(&allowing(&[&rules[0], &rules[1]]), &names);
    for receiver in [&open, &also_open] {
        post(&client, &receiver.url("/")).await.unwrap();
        post(&client, &receiver.url_at("local.example", "/"))
            .await
            .unwrap();
        assert_eq!(receiver.count(), 2);
    }
    for host in ["127.0.0.1", "local.example"] {
        let class = class(post(&client, &closed.url_at(host, "/")).await);
        assert_eq!(class, ErrorClass::BlockedAddress, "{host}");
    }
    assert_untouched(&closed).await;
}

#[tokio::test]
async fn http_is_refused_unless_it_is_allowed() {
    let receiver = Receiver::ok();
    let config = Egress {
        allow_http: false,
        ..allowing(&["127.0.0.0/8"])
    };
    let client = client(&config, &Arc::default());
    let error = post(&client, &receiver.url("/")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::BlockedAddress);
    assert_eq!(error.detail, "http is not allowed");
    assert_untouched(&receiver).await;
}

#[tokio::test]
async fn other_schemes_are_refused() {
    let client = client(&allowing(&["127.0.0.0/8"]), &Arc::default());
    for url in [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        "data:,x",
    ] {
        let class = class(post(&client, url).await);
        assert_eq!(class, ErrorClass::BlockedAddress, "{url}");
    }
}

#[tokio::test]
async fn the_machines_proxy_settings_are_ignored() {
    // A proxy would dial for us, past the guard. The settings come from the environment, so this
    // test runs itself in a process whose environment names one.
    const CHILD: &str = "EGRESS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let receiver = Receiver::ok();
        let client = client(&allowing(&["127.0.0.0/8"]), &Arc::default());
        post(&client, &receiver.url("/")).await.unwrap();
        assert_eq!(receiver.count(), 1);
        return;
    }
    let proxy = Receiver::ok();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "egress::ssrf::the_machines_proxy_settings_are_ignored",
        ])
        .env(CHILD, "1");
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        child.env(name, proxy.url("/"));
    }
    let output = child.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert_untouched(&proxy).await;
}
