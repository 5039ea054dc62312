//! A line between the program and a server that a test can cut.

#![expect(
    clippy::expect_used,
    reason = "a test ends where something is not as it should be"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use url::Url;

/// Passes TCP connections on to a server. Dropping it cuts them all, and takes no more.
pub(crate) struct Proxy {
    url: String,
    lines: Arc<Mutex<Vec<AbortHandle>>>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Stands in front of the server that this URL names.
    pub(crate) async fn to(server: &str) -> Self {
        let mut url = Url::parse(server).expect("a URL");
        let target = format!(
            "{}:{}",
            url.host_str().expect("a host"),
            url.port().expect("a port")
        );
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        url.set_host(Some("127.0.0.1")).expect("a host fits");
        url.set_port(Some(port)).expect("a port fits");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::clone(&lines);
        let listening = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let line = tokio::spawn(pass_on(near, target.clone()));
                hold(&accepted).push(line.abort_handle());
            }
        });
        Self {
            url: url.to_string(),
            lines,
            listening,
        }
    }

    /// The server's URL, by way of this line.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Cuts every connection of this moment, without a word to either side. New ones are taken.
    pub(crate) fn cut(&self) {
        for line in hold(&self.lines).drain(..) {
            line.abort();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn pass_on(mut near: TcpStream, target: String) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        tokio::io::copy_bidirectional(&mut near, &mut far)
            .await
            .ok();
    }
}

fn hold(lines: &Mutex<Vec<AbortHandle>>) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
