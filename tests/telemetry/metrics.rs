//! Metrics over OTLP: in a process of its own, since what counts them is the process's.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use secrecy::SecretString;

use super::names::LABELS;
use super::{traced, traceparent, webhooks};
use crate::harness::collector::Collector;
use crate::harness::databases::TestDatabase;
use crate::harness::program::{Binary, settings};
use crate::harness::publisher::publish_to;
use crate::harness::queues;
use crate::harness::receiver::Receiver;
use crate::harness::simple::{PATIENCE, subscribe};

on_both_databases!(metrics_are_those_of_the_scrape_and_no_secret_is_logged,);

async fn metrics_are_those_of_the_scrape_and_no_secret_is_logged(db: &TestDatabase) {
    let collector = Collector::start();
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    config.telemetry = collector.settings();
    config.telemetry.otlp_headers = Some(SecretString::from("authorization=Bearer s3cret"));
    "trace".clone_into(&mut config.log.filter);
    let amqp = config.amqp.clone();
    let receiver = Receiver::ok();
    subscribe(&*db.store, &receiver.url("/hook")).await;
    let dir = tempfile::tempdir().unwrap();
    let mut program = Binary::serve(&config, dir.path());
    queues::declared(&amqp).await;
    let body = traced("1", &traceparent("01"));
    publish_to(&amqp, &amqp.events_exchange, &[("edition.archived", &body)]).await;
    webhooks(&receiver, &["1"]).await;
    let scraped = scraped(&program).await;
    program.terminate();
    let status = program.ended().await;
    assert!(status.success(), "{status}: {}", program.tail());

    let metrics = collector.metrics();
    let exported: BTreeSet<_> = metrics.keys().cloned().collect();
    let missing: Vec<_> = scraped.difference(&exported).collect();
    assert!(missing.is_empty(), "{missing:?} of {scraped:?}");
    assert!(scraped.contains("forge_attempt_duration_seconds"));
    let labels = metrics.values().flat_map(labels);
    let labels: BTreeSet<_> = labels.collect();
    let unknown: Vec<_> = labels
        .iter()
        .filter(|it| !LABELS.contains(&it.as_str()))
        .collect();
    assert!(
        labels.contains("outcome") && unknown.is_empty(),
        "{labels:?}"
    );
    assert_eq!(value(&metrics["forge_events_total"], "accepted"), "1");
    assert_eq!(value(&metrics["forge_attempts_total"], "succeeded"), "1");
    assert!(metrics.contains_key("forge_database_up"));
    for request in collector.receiver.received() {
        assert_eq!(request.header("authorization"), "Bearer s3cret");
        assert_eq!(request.header("content-type"), "application/x-protobuf");
    }
    assert_eq!(program.lines_with(&["s3cret"]), 0);
    assert!(program.lines_with(&["DEBUG"]) > 0, "all else is logged");
}

/// The names that `/metrics` shows.
async fn scraped(program: &Binary) -> BTreeSet<String> {
    let starting = program.logged("\"starting\"").await;
    let starting: serde_json::Value = serde_json::from_str(&starting).unwrap();
    let ops = starting["ops"].as_str().unwrap();
    let http = plain_client();
    let answer = http.get(format!("http://{ops}/metrics")).send();
    let text = answer.await.unwrap().text().await.unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = names.filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// What a metric is told apart by.
fn labels(metric: &Metric) -> BTreeSet<String> {
    let attributes: Vec<_> = match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum
            .data_points
            .iter()
            .flat_map(|it| &it.attributes)
            .collect(),
        Data::Gauge(gauge) => gauge
            .data_points
            .iter()
            .flat_map(|it| &it.attributes)
            .collect(),
        Data::Histogram(all) => all
            .data_points
            .iter()
            .flat_map(|it| &it.attributes)
            .collect(),
        other => panic!("not made here: {other:?}"),
    };
    attributes.iter().map(|it| it.key.clone()).collect()
}

/// What a metric counts of this outcome; of all, where it knows none.
fn value(metric: &Metric, outcome: &str) -> String {
    let points: &[NumberDataPoint] = match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic);
            &sum.data_points
        }
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("no number: {other:?}"),
    };
    let wanted = points.iter().filter(|point| {
        let labels = format!("{:?}", point.attributes);
        labels.contains(outcome)
    });
    let number = |point: &NumberDataPoint| match point.value {
        Some(Number::AsDouble(number)) => number,
        #[expect(clippy::cast_precision_loss, reason = "a test counts to one")]
        Some(Number::AsInt(number)) => number as f64,
        None => 0.0,
    };
    wanted.map(number).sum::<f64>().to_string()
}

/// A client that shows nothing, to what is served in clear on this machine.
fn plain_client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    #[expect(
        clippy::disallowed_methods,
        reason = "a client of the ops port, which is on this machine"
    )]
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build();
    client.expect("a client")
}
