//! Wall clock and processor time of calls.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use rustix::time::{ClockId, clock_gettime};

/// What calls of one kind took, and how many deliveries they were for.
#[derive(Default)]
pub(crate) struct Meter {
    /// Deliveries, or rows.
    pub(crate) deliveries: usize,
    wall: Duration,
    processor: Duration,
}

impl Meter {
    /// Measures one call, from its first poll to its answer.
    pub(crate) async fn time<T>(&mut self, call: impl Future<Output = T>) -> T {
        let (wall, processor) = (SystemClock.monotonic(), processor_time());
        let answer = call.await;
        self.wall += SystemClock.monotonic().saturating_sub(wall);
        self.processor += processor_time().saturating_sub(processor);
        answer
    }

    pub(crate) fn print(&self, what: &str, data_bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
        let deliveries = self.deliveries as f64;
        println!(
            "{what:26} {data_bytes:6} bytes {:8.0} per second {:6.1} us of processor each",
            deliveries / self.wall.as_secs_f64(),
            self.processor.as_secs_f64() * 1e6 / deliveries,
        );
    }
}

/// User and system time of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
