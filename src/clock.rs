//! Time, as a thing that is handed in: nothing else in the crate reads an ambient clock.

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

/// Where the time comes from.
pub trait Clock: Debug + Send + Sync {
    /// The wall clock, in whole milliseconds (what both databases keep).
    fn now(&self) -> DateTime<Utc>;

    /// Time that only grows, and grows while the machine is suspended too (`CLOCK_BOOTTIME`):
    /// what a lease is measured with. Its zero means nothing.
    fn monotonic(&self) -> Duration;
}

/// Waits, where the passing of time is itself the event: a linger, a poll, a backoff.
#[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::from(std::time::SystemTime::now()).trunc_subsecs(3)
    }

    fn monotonic(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanos)
    }
}

/// A clock that stands until a test moves it.
#[derive(Debug)]
pub struct ManualClock(Mutex<(DateTime<Utc>, Duration)>);

impl ManualClock {
    /// Starts at an instant.
    pub fn at(now: DateTime<Utc>) -> Self {
        Self(Mutex::new((now, Duration::from_secs(1_000))))
    }

    /// Moves both readings forward.
    pub fn advance(&self, by: Duration) {
        let mut reading = self.reading();
        reading.0 += by;
        reading.1 += by;
    }

    fn reading(&self) -> std::sync::MutexGuard<'_, (DateTime<Utc>, Duration)> {
        // A poisoned reading is still a reading: nothing is half written under this lock.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.reading().0
    }

    fn monotonic(&self) -> Duration {
        self.reading().1
    }
}
