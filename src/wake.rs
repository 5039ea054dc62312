//! "Work may be ready": one bell that commits, notifications and freed permits ring.

use tokio::sync::Notify;

/// Rings gathered into one: however often it is rung while nobody listens, the next listener is
/// woken once and at once, and no ring is lost between looking and listening.
#[derive(Debug, Default)]
pub struct Wake(Notify);

impl Wake {
    /// Says that there may be work.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits for a ring, or takes the one that came meanwhile.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}
