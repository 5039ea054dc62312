//! How long to wait before trying a broker or a database again.
//!
//! The one place that knows the `backoff` crate (it is unmaintained; see deny.toml).

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Delays that grow from 100 ms to 10 s, spread by a half, and never end.
#[derive(Debug)]
pub struct Reconnect(ExponentialBackoff);

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

impl Default for Reconnect {
    fn default() -> Self {
        let mut backoff = ExponentialBackoff {
            initial_interval: FIRST,
            max_interval: LONGEST,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        backoff.reset();
        Self(backoff)
    }
}

impl Reconnect {
    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(LONGEST)
    }

    /// Begins anew, after something worked.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// Waits for the next delay.
    pub async fn pause(&mut self) {
        crate::clock::pause(self.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_ceiling_and_never_end() {
        let mut reconnect = Reconnect::default();
        assert!(reconnect.next_delay() < Duration::from_millis(200));
        for _ in 0..1_000 {
            assert!(reconnect.next_delay() <= LONGEST.mul_f64(1.5));
        }
        assert!(reconnect.next_delay() >= LONGEST.mul_f64(0.5));
        reconnect.reset();
        assert!(reconnect.next_delay() < Duration::from_millis(200));
    }
}
