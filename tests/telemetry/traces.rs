//! One trace from the broker, or from a request, to the receiver.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forge_dispatch::domain::api_key::Scope;
use http::StatusCode;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::{PRODUCER, TRACE, traced, traceparent, webhooks};
use crate::api::told::{blueprint, edition, tell};
use crate::harness::collector::{Collector, Told};
use crate::harness::databases::TestDatabase;
use crate::harness::keys::{client, key};
use crate::harness::program::{InProcess, settings};
use crate::harness::publisher::publish_to;
use crate::harness::receiver::{Received, Receiver, Reply};
use crate::harness::simple::{PATIENCE, event, subscribe};
use crate::harness::{eventually, queues};
use crate::outbox::rig::Core;

on_both_databases!(
    an_event_of_the_broker_is_one_trace_to_the_receiver,
    what_is_not_sampled_goes_on_as_it_came,
    a_message_may_name_the_trace_in_its_header,
    a_write_over_the_api_is_one_trace_to_the_broker_and_the_receiver,
);

/// The one span of this name.
fn one<'a>(spans: &'a [Told], name: &str) -> &'a Told {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

/// The span of the attempt that a request was, which is what its receiver is told.
fn attempt<'a>(spans: &'a [Told], request: &Received) -> &'a Told {
    let told = request.header("traceparent");
    let is_told = |span: &&Told| format!("00-{}-{}-01", span.trace, span.id) == told;
    let found = spans.iter().find(is_told);
    let found = found.unwrap_or_else(|| panic!("{told} is none of {spans:#?}"));
    assert_eq!((&*found.name, found.kind), ("POST", SpanKind::Client));
    let id = &found.attributes["forge.event.id"];
    assert_eq!(id, request.webhook_id());
    found
}

async fn an_event_of_the_broker_is_one_trace_to_the_receiver(db: &TestDatabase) {
    let collector = Collector::start();
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    config.telemetry = collector.settings();
    // On a busy machine too, no attempt but the first fails.
    config.egress.timeout = Duration::from_secs(20);
    config.dispatch.lease = Duration::from_secs(30);
    let amqp = config.amqp.clone();
    // The first attempt fails: each is a span.
    let failed = AtomicBool::new(false);
    let receiver = Receiver::start(move |_| {
        let first = !failed.swap(true, Ordering::Relaxed);
        Reply::status(if first { 503 } else { 200 })
    });
    let target = receiver.url("/secret-path?token=s3cret");
    subscribe(&*db.store, &target).await;
    let program = InProcess::start(config).await;
    queues::declared(&amqp).await;
    let body = traced("1", &traceparent("01"));
    publish_to(&amqp, &amqp.events_exchange, &[("edition.archived", &body)]).await;
    let requests = receiver.wait_for_count(2, PATIENCE).await.unwrap();
    program.stop().await.unwrap();

    let spans = collector.spans();
    let process = one(&spans, "process edition.archived");
    assert_eq!(process.kind, SpanKind::Consumer);
    assert_eq!(process.attributes["forge.outcome"], "accepted");
    let attempts = requests.iter().map(|request| attempt(&spans, request));
    let attempts: Vec<_> = attempts.collect();
    assert_ne!(attempts[0].id, attempts[1].id);
    assert_eq!(attempts[0].attributes["error.type"], "http_status");
    let last = &attempts[1].attributes;
    assert!(!last.contains_key("error.type"), "{last:?}");
    for span in &spans {
        assert_eq!((&*span.trace, &*span.parent), (TRACE, PRODUCER));
        assert!(span.took < PATIENCE, "{span:?}");
    }
    let all = format!("{spans:?}");
    assert!(!all.contains("s3cret") && !all.contains("secret-path"));
}

async fn what_is_not_sampled_goes_on_as_it_came(db: &TestDatabase) {
    let collector = Collector::start();
    let mut config = settings(db.url());
    config.telemetry = collector.settings();
    let receiver = Receiver::ok();
    subscribe(&*db.store, &receiver.url("/hook")).await;
    let program = InProcess::start(config).await;
    let unsampled = traceparent("00");
    let events = [traced("unsampled", &unsampled), event("untraced")];
    program.entrance.publish(&events).await.unwrap();
    let requests = webhooks(&receiver, &["unsampled", "untraced"]).await;
    program.stop().await.unwrap();

    assert_eq!(requests[0].header("traceparent"), unsampled);
    let made_up = requests[1].headers.contains_key("traceparent");
    assert!(!made_up, "an event without a trace has none");
    // It is traced all the same, for those who look from here.
    let spans = collector.spans();
    let id = requests[1].webhook_id();
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "POST").collect();
    assert!(!attempts.is_empty(), "{spans:#?}");
    for attempt in attempts {
        assert_eq!(attempt.attributes["forge.event.id"], id);
    }
    assert!(spans.iter().all(|span| span.trace != TRACE), "{spans:#?}");
}

async fn a_message_may_name_the_trace_in_its_header(db: &TestDatabase) {
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    let amqp = config.amqp.clone();
    let receiver = Receiver::ok();
    subscribe(&*db.store, &receiver.url("/hook")).await;
    let program = InProcess::start(config).await;
    queues::declared(&amqp).await;
    let url = amqp.url.as_ref().unwrap().expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let header = traceparent("01");
    let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for body in [event("named"), traced("own", own)] {
        let mut headers = FieldTable::default();
        let value = AMQPValue::LongString(header.as_str().into());
        headers.insert("traceparent".into(), value);
        let sent = channel.basic_publish(
            amqp.events_exchange.as_str().into(),
            "edition.archived".into(),
            BasicPublishOptions::default(),
            &body,
            BasicProperties::default().with_headers(headers),
        );
        sent.await.unwrap().await.unwrap();
    }
    let requests = webhooks(&receiver, &["named", "own"]).await;
    assert_eq!(requests[0].header("traceparent"), header);
    assert_eq!(requests[1].header("traceparent"), own);
    program.stop().await.unwrap();
}

async fn a_write_over_the_api_is_one_trace_to_the_broker_and_the_receiver(db: &TestDatabase) {
    let collector = Collector::start();
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    config.telemetry = collector.settings();
    let exchange = config.amqp.dispatch_exchange.clone();
    let core = Core::bound(&config.amqp, "edition.submitted", FieldTable::default()).await;
    let receiver = Receiver::ok();
    subscribe(&*db.store, &receiver.url("/hook")).await;
    tell(&db.store, &[blueprint("default", "pr_1", "bp_1")]).await;
    let filled = r#"{"summary":{"values":{"rate":1.50}}}"#;
    let told = edition("default", "pr_1", "bp_1", "ed_1", 1, filled);
    tell(&db.store, &[told]).await;
    let http = client(&key(&*db.store, &[Scope::ReadEditions, Scope::WriteEditions]).await);
    let program = InProcess::start(config).await;
    let url = format!("http://{}/v1/editions/ed_1/submit", program.api);
    let submit = http.post(url).header("traceparent", traceparent("01"));
    assert_eq!(submit.send().await.unwrap().status(), StatusCode::OK);
    let requests = receiver.wait_for_count(1, PATIENCE).await.unwrap();
    let messages = core.take(1).await;
    let nothing_waits = async || {
        let depth = db.store.outbox_depth().await;
        depth.is_ok_and(|depth| depth.waiting == 0)
    };
    eventually(PATIENCE, "the outbox is empty", nothing_waits).await;
    program.stop().await.unwrap();

    let spans = collector.spans();
    let request = one(&spans, "POST /v1/editions/{id}/submit");
    assert_eq!(request.kind, SpanKind::Server);
    assert_eq!((&*request.trace, &*request.parent), (TRACE, PRODUCER));
    let envelope: Value = serde_json::from_slice(&messages[0].data).unwrap();
    let told = format!("00-{TRACE}-{}-01", request.id);
    assert_eq!(envelope["traceparent"], told);
    let publication = one(&spans, &format!("publish {exchange}"));
    assert_eq!(publication.kind, SpanKind::Producer);
    for span in [publication, attempt(&spans, &requests[0])] {
        assert_eq!((&span.trace, &span.parent), (&request.trace, &request.id));
    }
}
