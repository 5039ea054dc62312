//! A line between the program and a server that a test can cut, or hold up one way.

#![expect(
    clippy::expect_used,
    reason = "a test ends where something is not as it should be"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use url::Url;

/// A way over the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToProgram,
}

/// Passes TCP connections on to a server. Dropping it cuts them all, and takes no more.
pub(crate) struct Proxy {
    url: String,
    lines: Arc<Mutex<Vec<AbortHandle>>>,
    held: watch::Sender<Option<Way>>,
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
        let (held, gate) = watch::channel(None);
        let listening = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let line = tokio::spawn(pass_on(near, target.clone(), gate.clone()));
                hold(&accepted).push(line.abort_handle());
            }
        });
        Self {
            url: url.to_string(),
            lines,
            held,
            listening,
        }
    }

    /// The server's URL, by way of this line.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on nothing passes this way; what comes waits.
    pub(crate) fn hold_up(&self, way: Way) {
        self.held.send_replace(Some(way));
    }

    /// Cuts every connection, what waits in them is lost; new ones are passed on both ways.
    pub(crate) fn cut_and_let_pass(&self) {
        self.cut();
        self.held.send_replace(None);
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

async fn pass_on(mut near: TcpStream, target: String, held: watch::Receiver<Option<Way>>) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        let (from_near, to_near) = near.split();
        let (from_far, to_far) = far.split();
        let there = carry(from_near, to_far, Way::ToServer, held.clone());
        let back = carry(from_far, to_near, Way::ToProgram, held);
        // Where one way breaks, both do.
        tokio::try_join!(there, back).ok();
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    mut held: watch::Receiver<Option<Way>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let passes = held.wait_for(|held| *held != Some(way)).await;
        passes.map_err(std::io::Error::other)?;
        to.write_all(&buffer[..read]).await?;
    }
}

fn hold(lines: &Mutex<Vec<AbortHandle>>) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
