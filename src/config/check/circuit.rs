//! What the values of `[dispatch.circuit]` must be.

use std::time::Duration;

use super::Problems;
use crate::config::Circuit;

/// The most failures or attempts that make sense: beyond it a circuit never opens.
const MOST: u32 = 1_000_000;

/// The longest that a rate may grow: it is remembered for as long, in memory.
const LONGEST_RAMP: Duration = Duration::from_mins(10);

/// The longest that a receiver is tried in vain.
const LONGEST_PATIENCE: Duration = Duration::from_hours(365 * 24);

pub(super) fn circuit(circuit: &Circuit, found: &mut Problems) {
    for (key, number) in [
        ("dispatch.circuit.failures_in_row", circuit.failures_in_row),
        ("dispatch.circuit.least_attempts", circuit.least_attempts),
    ] {
        found.require((1..=MOST).contains(&number), key, "must be 1 to 1000000");
    }
    found.require(
        (1..=100).contains(&circuit.failure_percent),
        "dispatch.circuit.failure_percent",
        "must be 1 to 100",
    );
    found.duration("dispatch.circuit.window", circuit.window);
    found.duration("dispatch.circuit.first_pause", circuit.first_pause);
    found.duration("dispatch.circuit.longest_pause", circuit.longest_pause);
    found.require(
        circuit.longest_pause >= circuit.first_pause,
        "dispatch.circuit.longest_pause",
        "must not be shorter than `dispatch.circuit.first_pause`",
    );
    found.duration("dispatch.circuit.ramp", circuit.ramp);
    found.require(
        circuit.ramp <= LONGEST_RAMP,
        "dispatch.circuit.ramp",
        "must be at most 10m",
    );
    found.require(
        !circuit.disable_after.is_zero() && circuit.disable_after <= LONGEST_PATIENCE,
        "dispatch.circuit.disable_after",
        "must be more than 0s and at most 365d",
    );
}
