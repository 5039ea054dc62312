//! A collector that is not there, not named, or of no use.

use std::process::Command;
use std::time::Duration;

use forge_dispatch::config::Telemetry;
use secrecy::ExposeSecret;

use super::{traced, traceparent, webhooks};
use crate::harness::collector::{Collector, exported_to};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::program::{Binary, InProcess, MASTER_KEY, settings};
use crate::harness::receiver::{Receiver, Reply, refusing};
use crate::harness::simple::{PATIENCE, events, subscribe};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_unless_our_configuration_names_a_collector() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let collector = Collector::start();
    let dir = tempfile::tempdir().unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_forge-dispatch"));
    let endpoint = collector.receiver.url("/");
    serve
        .arg("serve")
        .current_dir(dir.path())
        .env("FORGE_DATABASE__URL", db.url().expose_secret())
        .env("FORGE_MASTER_KEY", MASTER_KEY)
        .env("FORGE_API__LISTEN", "127.0.0.1:0")
        .env("FORGE_OPS__LISTEN", "127.0.0.1:0")
        .env("FORGE_LOG__FORMAT", "json")
        // What the library would take its own configuration from.
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1")
        .env("OTEL_BSP_SCHEDULE_DELAY", "1");
    let mut program = Binary::run(&mut serve);
    program.logged("\"ready\"").await;
    program.terminate();
    assert!(program.ended().await.success(), "{}", program.tail());
    assert_eq!(collector.receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_another_collector_is_not_told_to_ours() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let collector = Collector::start();
    let dir = tempfile::tempdir().unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_forge-dispatch"));
    serve
        .arg("serve")
        .current_dir(dir.path())
        .env("FORGE_DATABASE__URL", db.url().expose_secret())
        .env("FORGE_MASTER_KEY", MASTER_KEY)
        .env("FORGE_API__LISTEN", "127.0.0.1:0")
        .env("FORGE_OPS__LISTEN", "127.0.0.1:0")
        .env(
            "FORGE_TELEMETRY__OTLP_ENDPOINT",
            collector.receiver.url("/"),
        )
        .env("FORGE_TELEMETRY__OTLP_HEADERS", "x-our-key=ours")
        .env("FORGE_TELEMETRY__EXPORT_INTERVAL", "50ms")
        // What the library would add.
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-other-key=theirs")
        .env("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-other-key=theirs");
    let mut program = Binary::run(&mut serve);
    let asked = collector.receiver.wait_for_count(1, PATIENCE).await;
    assert!(asked.is_ok(), "{}", program.tail());
    program.terminate();
    assert!(program.ended().await.success(), "{}", program.tail());
    for request in collector.receiver.received() {
        assert_eq!(request.header("x-our-key"), "ours");
        assert_eq!(request.header("content-type"), "application/x-protobuf");
        let is_told = request.headers.contains_key("x-other-key");
        assert!(!is_told, "{:?}", request.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_an_event_keeps_its_trace_as_it_came() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let receiver = Receiver::ok();
    subscribe(&*db.store, &receiver.url("/hook")).await;
    let program = InProcess::start(settings(db.url())).await;
    let came = traceparent("01");
    let event = traced("1", &came);
    program.entrance.publish(&[event]).await.unwrap();
    let requests = webhooks(&receiver, &["1"]).await;
    assert_eq!(requests[0].header("traceparent"), came);
    program.stop().await.unwrap();
}

/// Delivers through a program that exports to a collector of no use, and ends it.
async fn deliver_beside(telemetry: Telemetry) {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let receiver = Receiver::ok();
    subscribe(&*db.store, &receiver.url("/hook")).await;
    let mut config = settings(db.url());
    config.telemetry = Telemetry {
        // As often as it can.
        export_interval: Duration::from_millis(1),
        export_timeout: Duration::from_secs(1),
        ..telemetry
    };
    let program = InProcess::start(config).await;
    // Two spans for each are more than their queue holds, were each kept.
    for batch in 0..10 {
        let batch = events(batch * 500..(batch + 1) * 500);
        program.entrance.publish(&batch).await.unwrap();
    }
    let delivered = receiver.wait_for_count(5_000, 4 * PATIENCE).await;
    assert!(delivered.is_ok(), "deliveries go on");
    program.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_beside_a_collector_that_is_away() {
    let (_socket, address) = refusing();
    deliver_beside(exported_to(address)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_beside_a_collector_that_says_nothing() {
    let silent = Receiver::start(|_| Reply::hang());
    deliver_beside(exported_to(silent.address())).await;
    assert!(silent.connections() > 0, "it was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_goes_and_comes_is_told_of_once_each_time() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let collector = Collector::start();
    collector.receiver.behave(|_| Reply::status(503));
    let mut config = settings(db.url());
    config.telemetry = Telemetry {
        export_interval: Duration::from_millis(50),
        ..collector.settings()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut program = Binary::serve(&config, dir.path());
    let asked = collector.receiver.wait_for_count(10, PATIENCE).await;
    assert!(asked.is_ok(), "it is asked again and again");
    let away = ["WARN", "the collector does not take", "\"metrics\"", "503"];
    let back = ["INFO", "the collector takes", "\"metrics\""];
    program.logged("the collector does not take").await;
    assert_eq!(
        (program.lines_with(&away), program.lines_with(&back)),
        (1, 0)
    );
    collector.receiver.behave(|_| Reply::status(200));
    program.logged("the collector takes").await;
    program.terminate();
    assert!(program.ended().await.success(), "{}", program.tail());
    assert_eq!(
        (program.lines_with(&away), program.lines_with(&back)),
        (1, 1)
    );
}
