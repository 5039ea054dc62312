//! Asking the name server.
//!
//! The machine's resolver blocks a thread for each question, for many seconds if the name's own
//! server is dead. So a question that is being asked is not asked again: all connections to one
//! name wait for one thread, and a receiver with a dead name server cannot take them all. An
//! answer goes to those who were waiting for it and is not kept.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

/// Where addresses come from.
#[async_trait]
pub trait Lookup: fmt::Debug + Send + Sync {
    /// The addresses of a name, in the order in which they should be tried. A name that does not
    /// exist may be an error or an empty list.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The machine's own resolver: hosts file, search domains and all.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0))
            .await?
            .map(|socket| socket.ip())
            .collect())
    }
}

type Answer = Result<Vec<IpAddr>, Arc<io::Error>>;
type Running = HashMap<String, Shared<BoxFuture<'static, Answer>>>;

/// Asks each name once at a time.
#[derive(Debug)]
pub(super) struct SharedLookup {
    inner: Arc<dyn Lookup>,
    running: Arc<Mutex<Running>>,
}

impl SharedLookup {
    /// Shares the questions put to `inner`.
    pub(super) fn new(inner: Arc<dyn Lookup>) -> Self {
        Self {
            inner,
            running: Arc::default(),
        }
    }

    /// Joins the question for this name, or asks it. It stays the same question when those who
    /// wait for it give up.
    fn answer(&self, host: &str) -> Shared<BoxFuture<'static, Answer>> {
        let mut running = lock(&self.running);
        if let Some(answer) = running.get(host) {
            return answer.clone();
        }
        let inner = Arc::clone(&self.inner);
        // Dropped when the question ends, however it does; not before the lock above is released.
        let question = Question {
            host: host.to_owned(),
            running: Arc::clone(&self.running),
        };
        let task = tokio::spawn(async move {
            let answer = inner.lookup(&question.host).await;
            drop(question);
            answer.map_err(Arc::new)
        });
        let answer = async { task.await.unwrap_or_else(|lost| Err(Arc::new(lost.into()))) };
        let answer = answer.boxed().shared();
        running.insert(host.to_owned(), answer.clone());
        answer
    }
}

#[async_trait]
impl Lookup for SharedLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let answer = self.answer(host);
        answer
            .await
            .map_err(|error| io::Error::new(error.kind(), error))
    }
}

/// A name that is being asked for.
struct Question {
    host: String,
    running: Arc<Mutex<Running>>,
}

impl Drop for Question {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.host);
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    // Whole entries come and go under this lock: a poisoned map is a sound one.
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    /// Answers one question for each permit.
    #[derive(Debug)]
    struct Gated {
        asked: AtomicUsize,
        permits: Semaphore,
    }

    #[async_trait]
    impl Lookup for Gated {
        async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.permits.acquire().await.unwrap().forget();
            assert_ne!(host, "panic.example");
            match host {
                "missing.example" => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                _ => Ok(vec![[192, 0, 2, 1].into()]),
            }
        }
    }

    fn gated() -> (Arc<Gated>, SharedLookup) {
        let inner = Arc::new(Gated {
            asked: AtomicUsize::new(0),
            permits: Semaphore::new(0),
        });
        (Arc::clone(&inner), SharedLookup::new(inner))
    }

    #[tokio::test]
    async fn a_name_is_asked_for_once_at_a_time_and_anew_afterwards() {
        let (inner, shared) = gated();
        for round in 1..=3 {
            let both =
                futures::future::join(shared.lookup("a.example"), shared.lookup("a.example"));
            inner.permits.add_permits(1);
            let (first, second) = both.await;
            assert_eq!(first.unwrap(), second.unwrap());
            assert_eq!(inner.asked.load(Ordering::SeqCst), round);
        }
        assert!(lock(&shared.running).is_empty());
    }

    #[tokio::test]
    async fn names_do_not_wait_for_each_other() {
        let (inner, shared) = gated();
        let mut slow = shared.lookup("slow.example");
        assert!(futures::poll!(&mut slow).is_pending());
        inner.permits.add_permits(2);
        shared.lookup("fast.example").await.unwrap();
        slow.await.unwrap();
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_is_not_asked_twice() {
        let (inner, shared) = gated();
        for _ in 0..3 {
            let patience = Duration::from_millis(5);
            let answer = tokio::time::timeout(patience, shared.lookup("slow.example")).await;
            assert!(answer.is_err());
        }
        assert_eq!(inner.asked.load(Ordering::SeqCst), 1);
        inner.permits.add_permits(1);
        shared.lookup("slow.example").await.unwrap();
        assert_eq!(inner.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn errors_and_panics_end_the_question() {
        let (inner, shared) = gated();
        inner.permits.add_permits(2);
        let missing = shared.lookup("missing.example").await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        shared.lookup("panic.example").await.unwrap_err();
        assert!(lock(&shared.running).is_empty());
    }
}
