//! How many messages to have unacknowledged at once.
//!
//! - After a start it is few, and grows as they are done with: when a message kills the process,
//!   each start costs every message in the window one of its redeliveries, the innocent too.
//! - Quorum queues know no limit by size, so that large messages must make the window small:
//!   [`MAX_HELD_BYTES`] is what they may take together. It is a target and not a wall: a window
//!   that was made for small messages may once be filled with large ones, before it is narrowed.

/// The window of a start.
const FIRST: u16 = 20;

/// How much more it becomes after each window that was done with.
const GROWTH: u16 = 5;

/// What unacknowledged messages may take of memory, about.
pub(super) const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;

/// The window of one session.
#[derive(Debug)]
pub(super) struct Window {
    size: u16,
    most: u16,
    /// Delivered and not done with.
    held: Messages,
    /// Done with since the window has this size.
    done: Messages,
}

#[derive(Clone, Copy, Debug, Default)]
struct Messages {
    count: usize,
    bytes: usize,
}

impl Window {
    /// Begins small, to become `most`.
    pub(super) fn new(most: u16) -> Self {
        let most = most.max(1);
        Self {
            size: FIRST.min(most),
            most,
            held: Messages::default(),
            done: Messages::default(),
        }
    }

    /// How many the broker may send ahead.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// A message came.
    pub(super) fn delivered(&mut self, bytes: usize) {
        self.held.count += 1;
        self.held.bytes += bytes;
    }

    /// A message is done with.
    pub(super) fn done(&mut self, bytes: usize) {
        self.held.count = self.held.count.saturating_sub(1);
        self.held.bytes = self.held.bytes.saturating_sub(bytes);
        self.done.count += 1;
        self.done.bytes += bytes;
    }

    /// The size to go on with, where that is another.
    pub(super) fn due(&mut self) -> Option<u16> {
        let fits_held = fitting(self.held).min(self.most);
        if self.held.bytes > MAX_HELD_BYTES && fits_held < self.size {
            return Some(fits_held);
        }
        if self.done.count < usize::from(self.size) {
            return None;
        }
        // The next window is judged by its own messages.
        let done = std::mem::take(&mut self.done);
        let next = self
            .size
            .saturating_mul(GROWTH)
            .min(self.most)
            .min(fitting(done));
        (next > self.size).then_some(next)
    }

    /// The subscription has this size now.
    pub(super) fn resized(&mut self, size: u16) {
        self.size = size;
        self.done = Messages::default();
    }
}

/// How many messages like these are within the bytes.
fn fitting(messages: Messages) -> u16 {
    let count = MAX_HELD_BYTES.saturating_mul(messages.count) / messages.bytes.max(1);
    u16::try_from(count).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn pass(window: &mut Window, count: usize, bytes: usize) {
        for _ in 0..count {
            window.delivered(bytes);
        }
        for _ in 0..count {
            window.done(bytes);
        }
    }

    #[test]
    fn a_start_is_careful_and_grows_with_each_window_that_is_done_with() {
        let mut window = Window::new(500);
        let mut sizes = vec![window.size()];
        while let Some(size) = {
            pass(&mut window, usize::from(sizes[sizes.len() - 1]), 200);
            window.due()
        } {
            window.resized(size);
            sizes.push(size);
        }
        assert_eq!(sizes, [20, 100, 500]);
    }

    #[test]
    fn a_window_that_is_not_done_with_does_not_grow() {
        let mut window = Window::new(500);
        pass(&mut window, 19, 200);
        assert_eq!(window.due(), None);
    }

    #[test]
    fn a_configured_window_below_the_first_is_kept() {
        let mut window = Window::new(5);
        assert_eq!(window.size(), 5);
        pass(&mut window, 50, 200);
        assert_eq!(window.due(), None);
    }

    #[test]
    fn large_messages_keep_the_window_small() {
        let mut window = Window::new(500);
        pass(&mut window, 20, MIB);
        assert_eq!(window.due(), Some(64));
        window.resized(64);
        pass(&mut window, 64, MIB);
        assert_eq!(window.due(), None);
    }

    #[test]
    fn a_wide_window_that_fills_with_large_messages_is_narrowed_once() {
        let mut window = Window::new(500);
        window.resized(500);
        (0..100).for_each(|_| window.delivered(2 * MIB));
        assert_eq!(window.due(), Some(32));
        window.resized(32);
        assert_eq!(window.due(), None, "what is on its way comes all the same");
    }
}
