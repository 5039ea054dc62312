//! Work that keeps a thread busy for milliseconds, and what waits for that thread meanwhile.

use tokio::runtime::{Handle, RuntimeFlavor};

/// From so many bytes on, work that looks at each of them is heavy: with less, handing over what else
/// the thread has to do would take longer than the work.
const HEAVY_BYTES: usize = 256 * 1024;

/// Does work that takes as long as these bytes are many. Where that is long, what else this thread has
/// to do goes on elsewhere meanwhile; but not what shares a task with it. (A runtime of one thread has
/// nowhere to go on.)
pub fn heavy<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes >= HEAVY_BYTES && has_other_threads() {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

fn has_other_threads() -> bool {
    let handle = Handle::try_current();
    handle.is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Work that ends when another task of its only thread has run.
    async fn waits_for_a_neighbour(bytes: usize) -> bool {
        let (tell, hear) = mpsc::channel();
        let at_work = tokio::spawn(async move {
            tokio::spawn(async move { tell.send(()) });
            heavy(bytes, || hear.recv_timeout(PATIENCE).is_ok())
        });
        at_work.await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_else_a_thread_has_to_do_goes_on_during_heavy_work() {
        assert!(waits_for_a_neighbour(HEAVY_BYTES).await);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_does_the_work_itself() {
        assert_eq!(heavy(usize::MAX, || 7), 7);
    }

    #[test]
    fn no_runtime_is_needed() {
        assert_eq!(heavy(usize::MAX, || 7), 7);
    }
}
