//! The receiver: as cheap as an HTTP/1.1 server can be that still reads every request, so that what
//! is measured is the sender. One thread, no verification (the tests do that), and it counts.
//!
//! The path says what the answer is: `/ok/NAME` 200, `/fail/NAME` 503, `/hang/NAME` none.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::envelope::{STAMP, now_us};

/// The word that starts this executable as the receiver.
pub(crate) const ROLE: &str = "role:receiver";

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAIL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// What one path saw since it was last asked.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Seen {
    /// Requests.
    pub(crate) requests: usize,
    /// Different `webhook-id`s.
    pub(crate) distinct: usize,
    /// From the publication to the receipt, in milliseconds, at these shares of all requests.
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
}

#[derive(Default)]
struct Tally {
    requests: usize,
    ids: HashSet<Box<[u8]>>,
    latencies_us: Vec<u64>,
}

type Tallies = Rc<RefCell<HashMap<String, Tally>>>;

/// Says its port, then answers orders: `reset`, `requests PATH` (how many), `report PATH`.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    say(&listener.local_addr()?.port().to_string())?;
    let tallies = Tallies::default();
    let serving = tokio::task::LocalSet::new();
    let accepted = Rc::clone(&tallies);
    serving.spawn_local(async move {
        loop {
            // One that was gone before it was taken is no reason to stop.
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            stream.set_nodelay(true).ok();
            let tallies = Rc::clone(&accepted);
            tokio::task::spawn_local(async move {
                // A connection that breaks is the sender's affair.
                serve(stream, &tallies).await.ok();
            });
        }
    });
    let mut orders = orders();
    let answering = async {
        while let Some(order) = orders.recv().await {
            say(&answer(&order, &mut tallies.borrow_mut())?)?;
        }
        anyhow::Ok(())
    };
    serving.run_until(answering).await?;
    Ok(ExitCode::SUCCESS)
}

/// Orders, read by a thread of their own until nobody can give any more.
fn orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn answer(order: &str, tallies: &mut HashMap<String, Tally>) -> anyhow::Result<String> {
    match order.split_once(' ') {
        None if order == "reset" => {
            tallies.clear();
            Ok("done".to_owned())
        }
        Some(("requests", path)) => {
            let requests = tallies.get(path).map_or(0, |tally| tally.requests);
            Ok(requests.to_string())
        }
        Some(("report", path)) => {
            let seen = tallies.get_mut(path).map(Tally::seen).unwrap_or_default();
            Ok(serde_json::to_string(&seen)?)
        }
        _ => anyhow::bail!("the receiver does not know `{order}`"),
    }
}

impl Tally {
    fn seen(&mut self) -> Seen {
        self.latencies_us.sort_unstable();
        let at = |permille: usize| {
            let last = self.latencies_us.len().saturating_sub(1);
            let micros = self.latencies_us.get(last * permille / 1_000).copied();
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let micros = micros.unwrap_or_default() as f64;
            micros / 1_000.0
        };
        Seen {
            requests: self.requests,
            distinct: self.ids.len(),
            p50_ms: at(500),
            p95_ms: at(950),
            p99_ms: at(990),
            p999_ms: at(999),
        }
    }
}

async fn serve(mut stream: TcpStream, tallies: &Tallies) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    while stream.read_buf(&mut buffer).await? > 0 {
        while let Some(request) = Request::parse(&buffer) {
            let reply = note(&request, &mut tallies.borrow_mut());
            let length = request.length;
            match reply {
                Some(reply) => stream.write_all(reply).await?,
                None => return hang(stream).await,
            }
            buffer.drain(..length);
        }
    }
    Ok(())
}

/// Says nothing until the sender gives up, and keeps nothing of it then.
async fn hang(mut stream: TcpStream) -> std::io::Result<()> {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Counts a request; what to answer, if anything.
fn note(request: &Request<'_>, tallies: &mut HashMap<String, Tally>) -> Option<&'static [u8]> {
    if !tallies.contains_key(request.path) {
        tallies.insert(request.path.to_owned(), Tally::default());
    }
    if let Some(tally) = tallies.get_mut(request.path) {
        tally.requests += 1;
        if !tally.ids.contains(request.webhook_id) {
            tally.ids.insert(request.webhook_id.into());
        }
        if let Some(at) = stamp(request.body) {
            tally.latencies_us.push(now_us().saturating_sub(at));
        }
    }
    match request.path.split('/').nth(1) {
        Some("hang") => None,
        Some("fail") => Some(FAIL),
        _ => Some(OK),
    }
}

/// One whole request at the beginning of a buffer.
struct Request<'a> {
    path: &'a str,
    webhook_id: &'a [u8],
    body: &'a [u8],
    /// Head and body.
    length: usize,
}

impl<'a> Request<'a> {
    fn parse(buffer: &'a [u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(body_at) = head.parse(buffer).ok()? else {
            return None;
        };
        let (mut webhook_id, mut body_length) = (&b""[..], 0);
        for header in head.headers.iter() {
            match header.name {
                "content-length" => {
                    body_length = std::str::from_utf8(header.value).ok()?.parse().ok()?;
                }
                "webhook-id" => webhook_id = header.value,
                _ => {}
            }
        }
        let length = body_at + body_length;
        Some(Self {
            path: head.path?,
            webhook_id,
            body: buffer.get(body_at..length)?,
            length,
        })
    }
}

/// The time that the body carries. It is among the first members.
fn stamp(body: &[u8]) -> Option<u64> {
    let start = &body[..body.len().min(256)];
    let at = start
        .windows(STAMP.len())
        .position(|window| window == STAMP.as_bytes())?;
    let digits = &start[at + STAMP.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
