//! What is exported to a collector, and what is not.

mod away;
mod metrics;
mod names;
mod traces;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::receiver::{Received, Receiver};
use crate::harness::simple::{PATIENCE, event};

/// A trace that its producer sampled, and the producer's span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCER: &str = "00f067aa0ba902b7";

/// As the producer tells of it.
fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PRODUCER}-{flags}")
}

/// An event that came with a trace.
fn traced(id: &str, traceparent: &str) -> Vec<u8> {
    let mut envelope: Value = serde_json::from_slice(&event(id)).unwrap();
    envelope["traceparent"] = json!(traceparent);
    envelope.to_string().into_bytes()
}

/// The requests for the events with these ids, in their order.
async fn webhooks(receiver: &Receiver, ids: &[&str]) -> Vec<Arc<Received>> {
    let of = |requests: &[Arc<Received>], id: &str| {
        let mut requests = requests.iter();
        requests
            .find(|it| it.json()["data"]["id"] == id)
            .map(Arc::clone)
    };
    let all = |requests: &[Arc<Received>]| ids.iter().all(|id| of(requests, id).is_some());
    let requests = receiver.wait_for(all, PATIENCE).await;
    let requests = requests.expect("every event is delivered");
    ids.iter().filter_map(|id| of(&requests, id)).collect()
}
