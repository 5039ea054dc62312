//! What this program tells of its own work (product.md §4): a subscription that was disabled, a circuit
//! that opened, a delivery that was given up. Of a URL it tells the host only: the rest may hold a token.

use serde::Serialize;

use super::ids::SubscriptionId;

/// What happened, as the event's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Operational {
    /// `delivery.failed`
    DeliveryFailed {
        /// The delivery.
        delivery_id: String,
        /// The event that it carried.
        event_id: String,
        /// That one's type.
        event_type: String,
        /// Where it went.
        subscription_id: String,
        /// To whom, where that is known still.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// How often it was tried.
        attempts: u32,
        /// The last answer's status.
        status: Option<u16>,
        /// What was wrong with the last attempt.
        error: Option<&'static str>,
    },
    /// `subscription.circuit_opened`
    CircuitOpened {
        /// The subscription.
        subscription_id: String,
        /// Its receiver.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Failures since the last success.
        failures_in_row: u32,
        /// When it is tried next.
        until: Option<String>,
    },
    /// `subscription.disabled`
    SubscriptionDisabled {
        /// The subscription.
        subscription_id: String,
        /// Its receiver.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Why.
        reason: String,
    },
}

impl Operational {
    /// All types: of a delivery that failed, a circuit that opened, a subscription that was disabled.
    pub const TYPES: [&str; 3] = [
        "delivery.failed",
        "subscription.circuit_opened",
        "subscription.disabled",
    ];

    /// Its type.
    pub fn event_type(&self) -> &'static str {
        let [failed, opened, disabled] = Self::TYPES;
        match self {
            Self::DeliveryFailed { .. } => failed,
            Self::CircuitOpened { .. } => opened,
            Self::SubscriptionDisabled { .. } => disabled,
        }
    }

    /// A subscription that was disabled.
    pub fn disabled(subscription: SubscriptionId, reason: &str) -> Self {
        Self::SubscriptionDisabled {
            subscription_id: subscription.to_string(),
            host: None,
            reason: reason.to_owned(),
        }
    }

    /// The same, with the receiver's host.
    #[must_use]
    pub fn at(mut self, receiver: Option<&str>) -> Self {
        let (Self::DeliveryFailed { host, .. }
        | Self::CircuitOpened { host, .. }
        | Self::SubscriptionDisabled { host, .. }) = &mut self;
        *host = receiver.map(str::to_owned);
        self
    }
}
