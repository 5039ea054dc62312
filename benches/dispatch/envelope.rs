//! The events that are published: `edition.approved`, padded to a size, with the time in them.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};

/// What the receiver looks for in a body: the microseconds at which its event was published.
pub(crate) const STAMP: &str = r#""at_us":"#;

/// How many editions the events are of, unless a scenario says.
pub(crate) const EDITIONS: usize = 1_000;

/// The time that all processes of this machine agree on, in microseconds.
pub(crate) fn now_us() -> u64 {
    micros(SystemClock.monotonic())
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Number `number` of `run`, its `data` of about so many bytes, stamped with the time of now.
pub(crate) fn envelope(run: u32, number: usize, data_bytes: usize) -> Vec<u8> {
    envelope_at(now_us(), run, number, data_bytes)
}

/// The same, of as many editions as are said.
pub(crate) fn envelope_of(editions: usize, run: u32, number: usize, data_bytes: usize) -> Vec<u8> {
    build(now_us(), run, number, (data_bytes, editions))
}

/// The same, stamped with the microsecond at which it was to be published.
pub(crate) fn envelope_at(at_us: u64, run: u32, number: usize, data_bytes: usize) -> Vec<u8> {
    build(at_us, run, number, (data_bytes, EDITIONS))
}

fn build(at_us: u64, run: u32, number: usize, (data_bytes, editions): (usize, usize)) -> Vec<u8> {
    let edition = number % editions.max(1);
    let data = format!(
        r#"{STAMP}{at_us},"edition_id":"ed_{edition}","approved_by":{{"id":"usr_1","name":"Amara Okafor"}},"timestamp":"2026-05-01T09:00:00Z","note":""#
    );
    let padding = data_bytes.saturating_sub(data.len() + 3);
    let mut text = format!(
        r#"{{"specversion":"1.0","id":"{run}-{number}","source":"/report-forge","type":"{TYPE}","time":"2026-05-01T09:00:00Z","subject":"ed_{edition}","workspaceid":"default","projectid":"pr_1","data":{{{data}"#
    );
    text.extend(std::iter::repeat_n('n', padding));
    text.push_str(r#""}}"#);
    text.into_bytes()
}

/// The type of all of them, which is also their routing key.
pub(crate) const TYPE: &str = "edition.approved";
