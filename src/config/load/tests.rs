//! The layers, and what is wrong with them.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

fn load(toml: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forge.toml");
    fs::write(&path, toml).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Config::load(Some(&path), environment, &flags).map_err(|error| {
        error
            .to_string()
            .replace(&path.display().to_string(), "FILE")
    })
}

fn error(toml: &str, environment: &[(&str, &str)], flags: &[&str]) -> String {
    load(toml, environment, flags).unwrap_err()
}

#[test]
fn each_layer_goes_over_the_one_before_it() {
    let toml = "[dispatch]\nconcurrency = 100\nsettle_batch = 7\nlease = '2m'";
    let environment = [
        ("FORGE_DISPATCH__CONCURRENCY", "200"),
        ("FORGE_DISPATCH__SETTLE_BATCH", "8"),
        ("PATH", "/bin"),
    ];
    let config = load(toml, &environment, &["dispatch.settle_batch=9"]).unwrap();
    assert_eq!(config.dispatch.lease, Duration::from_mins(2));
    assert_eq!(config.dispatch.concurrency, 200);
    assert_eq!(config.dispatch.settle_batch, 9);
    assert_eq!(config.dispatch.poll_interval, Duration::from_secs(1));
}

#[test]
fn a_list_replaces_the_one_below_it_and_may_be_empty() {
    let toml = "[egress]\nallow = ['10.0.0.0/8', '172.16.0.0/12', 'fd00::/8']";
    let variable = ("FORGE_EGRESS__ALLOW", "127.0.0.0/8, 10.0.0.0/8:8080");
    let config = load(toml, &[variable], &["retry.schedule="]).unwrap();
    let rules: Vec<String> = config
        .egress
        .allow
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(rules, ["127.0.0.0/8", "10.0.0.0/8:8080"]);
    assert!(config.retry.schedule.is_empty());
    let config = load("", &[("FORGE_RETRY__SCHEDULE", "5s,5m")], &[]).unwrap();
    assert_eq!(
        config.retry.schedule,
        [Duration::from_secs(5), Duration::from_mins(5)]
    );
}

#[test]
fn text_that_looks_like_something_else_stays_text() {
    let environment = [
        ("FORGE_AMQP__EVENTS_QUEUE", "007"),
        ("FORGE_AMQP__EVENTS_EXCHANGE", "true"),
        ("FORGE_MASTER_KEY", "1e5"),
    ];
    let config = load("", &environment, &[]).unwrap();
    assert_eq!(config.amqp.events_queue, "007");
    assert_eq!(config.amqp.events_exchange, "true");
    assert_eq!(config.master_key.unwrap().expose_secret(), "1e5");
}

#[test]
fn nothing_at_all_unsets_what_is_optional() {
    let toml = "[amqp]\nurl = 'amqp://mq'";
    assert!(load(toml, &[], &[]).unwrap().amqp.url.is_some());
    let config = load(toml, &[("FORGE_AMQP__URL", "")], &[]).unwrap();
    assert!(config.amqp.url.is_none());
}

#[test]
fn the_environment_may_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forge.toml");
    fs::write(&path, "[log]\nfilter = 'debug'").unwrap();
    let variable = ("FORGE_CONFIG".to_owned(), path.display().to_string());
    let config = Config::load(None, [variable], &[]).unwrap();
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn an_unknown_key_is_named_in_full_with_its_place() {
    assert_eq!(
        error("[ops]\nlissen = 'x'", &[], &[]),
        "`ops.lissen` (in FILE): no such key; in `ops` there are listen"
    );
    assert_eq!(
        error("", &[("FORGE_OPS__LISSEN", "x")], &[]),
        "`ops.lissen` (in FORGE_OPS__LISSEN): no such key; in `ops` there are listen"
    );
    assert!(error("", &[], &["opps.listen=x"]).starts_with("`opps.listen` (in --set): no such"));
    assert!(error("lease = '1s'", &[], &[]).starts_with("`lease` (in FILE): no such key"));
    assert!(error("", &[], &["nonsense"]).contains("must be written KEY=VALUE"));
}

#[test]
fn all_unknown_keys_are_told_at_once() {
    let told = error("[ops]\na = 1\n[api]\nb = 2", &[("FORGE_C", "3")], &[]);
    assert_eq!(told.lines().count(), 3, "{told}");
}

#[test]
fn a_value_of_another_kind_is_refused_not_converted() {
    for (toml, expected) in [
        (
            "[dispatch]\nconcurrency = true",
            "`dispatch.concurrency` (in FILE): must be a whole number",
        ),
        (
            "[dispatch]\nconcurrency = 1.6",
            "`dispatch.concurrency` (in FILE): must be a whole number",
        ),
        (
            "[egress]\nallow_http = 'yes'",
            "`egress.allow_http` (in FILE): must be `true` or `false`",
        ),
        (
            "[retry]\nschedule = '5s'",
            "`retry.schedule` (in FILE): must be a list of texts",
        ),
        (
            "dispatch = 3",
            "`dispatch` (in FILE): is a section, not a value",
        ),
        (
            "[dispatch]\nlease = '5 parsecs'",
            "`dispatch.lease` (in FILE): `5 parsecs` is no duration; write it as `100ms`, `5s` or `2h`",
        ),
        (
            "[retry]\nschedule = ['5s', 'soon']",
            "`retry.schedule` (in FILE): `soon` is no duration; write it as `100ms`, `5s` or `2h`",
        ),
        (
            "[amqp]\nprefetch = 70000",
            "`amqp.prefetch` (in FILE): must be an unsigned 16 bit integer",
        ),
        (
            "[dispatch]\nconcurrency = -1",
            "`dispatch.concurrency` (in FILE): must be an unsigned 64 bit or less integer",
        ),
        (
            "[log]\nformat = 'xml'",
            "`log.format` (in FILE): must be `human` or `json`",
        ),
        (
            "role = 'sender'",
            "`role` (in FILE): must be `all`, `api`, `dispatch` or `ingest`",
        ),
        (
            "[ops]\nlisten = 'localhost'",
            "`ops.listen` (in FILE): invalid socket address syntax",
        ),
    ] {
        assert_eq!(error(toml, &[], &[]), expected, "{toml}");
    }
    let told = error("", &[], &["egress.allow=10.0.0.0/8,10.0.0.1"]);
    assert!(told.starts_with("`egress.allow[1]` (in --set): "), "{told}");
}

#[test]
fn values_that_do_not_fit_together_are_named() {
    for (key, value) in [
        ("role", "api"),
        ("database.url", "mysql://db/forge"),
        ("database.url", "sqlite://"),
        ("database.max_connections", "0"),
        ("amqp.url", "http://mq"),
        ("amqp.events_queue", ""),
        ("amqp.dead_letter_queue", "forge-dispatch.events"),
        ("amqp.bindings", ""),
        ("amqp.prefetch", "0"),
        ("amqp.dispatch_exchange", "report-forge.events"),
        ("amqp.snapshots_exchange", "report-forge.dispatch"),
        ("amqp.snapshots_queue", "forge-dispatch.events"),
        ("amqp.snapshots_bindings", ""),
        ("amqp.snapshots_prefetch", "0"),
        ("amqp.batch_events", "0"),
        ("api.certificate_file", "api.crt"),
        ("api.key_file", "api.key"),
        ("api.public_url", "http://forge.example"),
        ("api.header_timeout", "0s"),
        ("api.request_timeout", "25h"),
        ("api.max_connections", "0"),
        ("api.max_connections_per_address", "0"),
        ("egress.timeout", "0s"),
        ("egress.connect_timeout", "11s"),
        ("dispatch.concurrency", "0"),
        ("dispatch.subscription_concurrency", "513"),
        ("dispatch.subscription_concurrency", "0"),
        ("dispatch.max_bytes_in_flight", "1000"),
        ("dispatch.settle_batch", "0"),
        ("dispatch.lease", "15s"),
        ("dispatch.poll_interval", "0s"),
        ("dispatch.drain_timeout", "0s"),
        ("retention.events", "59m"),
        ("retention.answers", "36501d"),
        ("retention.audit", "1ms"),
        ("retention.event_keys", "29d"),
        ("retention.replays", "1m"),
        ("retention.rollup_minutes", "30m"),
        ("retention.rollup_hours", "36501d"),
        ("dispatch.circuit.failures_in_row", "0"),
        ("dispatch.circuit.failure_percent", "101"),
        ("dispatch.circuit.least_attempts", "0"),
        ("dispatch.circuit.window", "0s"),
        ("dispatch.circuit.first_pause", "0s"),
        ("dispatch.circuit.longest_pause", "29s"),
        ("dispatch.circuit.ramp", "11m"),
        ("dispatch.circuit.disable_after", "366d"),
        ("outputs.max_file_bytes", "0"),
        ("outputs.concurrency", "0"),
        ("outputs.fetch_concurrency", "65"),
        ("outputs.fetch_timeout", "31m"),
        ("outputs.core_timeout", "31d"),
        ("outputs.core_hosts", "https://files.example"),
        ("outputs.s3.endpoint", "ftp://files.example"),
        ("outputs.s3.region", ""),
        ("outputs.s3.prefix", "reports//forge"),
        ("outputs.s3.prefix", "/forge"),
        ("outputs.s3.prefix", "../forge"),
        ("retry.schedule", "8days"),
        ("ops.listen", "127.0.0.1:8443"),
        ("log.filter", "forge=loud"),
        ("telemetry.otlp_endpoint", "http://collector:4318?key=1"),
        ("telemetry.otlp_endpoint", "http://user@collector:4318"),
        ("telemetry.otlp_endpoint", "grpc://collector:4317"),
        ("telemetry.otlp_headers", "authorization"),
        ("telemetry.service_name", ""),
        ("telemetry.sample_ratio", "1.5"),
        ("telemetry.export_interval", "0s"),
        ("telemetry.export_timeout", "25h"),
    ] {
        let told = error("", &[], &[&format!("{key}={value}")]);
        // An item of a list is named with its place.
        let told = told.replace("[0]`", "`");
        assert!(
            told.contains(&format!("`{key}` (in --set): ")),
            "{key}={value}: {told}"
        );
    }
}

#[test]
fn a_lease_is_measured_against_an_attempt_and_its_flush() {
    let lease = |text: &str| load("", &[], &[&format!("dispatch.lease={text}")]);
    assert!(lease("15s 20ms").is_err(), "10 s + 20 ms + 5 s is not more");
    assert!(lease("15s 21ms").is_ok());
}

#[test]
fn what_is_kept_for_ever_needs_no_key_that_outlives_it() {
    let load = |flags: &[&str]| load("", &[], flags);
    for flags in [
        &["retention.events=0s", "retention.event_keys=1h"] as &[&str],
        &["retention.event_keys=0s"],
        &["retention.events=1h", "retention.event_keys=1h"],
    ] {
        assert!(load(flags).is_ok(), "{flags:?}");
    }
    let kept = load(&["retention.events=45d", "retention.answers=36h"]).unwrap();
    let shown = serde_json::to_value(&kept.retention).unwrap();
    assert_eq!(shown["events"], "45d");
    assert_eq!(shown["answers"], "1day 12h");
}

#[test]
fn a_certificate_has_no_place_behind_a_proxy() {
    let pair = ["api.certificate_file=a.crt", "api.key_file=a.key"];
    assert!(load("", &[], &pair).is_ok());
    let told = error(
        "",
        &[],
        &[&pair[..], &["api.behind_proxy=10.0.0.0/8"]].concat(),
    );
    assert!(
        told.starts_with("`api.behind_proxy` (in --set): "),
        "{told}"
    );
}

#[test]
fn a_store_of_files_needs_all_its_keys() {
    let store = [
        "outputs.s3.bucket=b",
        "outputs.s3.access_key_id=i",
        "outputs.s3.secret_access_key=s3cret",
    ];
    assert!(load("", &[], &store).is_ok());
    for (missing, key) in store.iter().enumerate() {
        let mut some = store.to_vec();
        some.remove(missing);
        let key = key.split('=').next().unwrap();
        let told = error("", &[], &some);
        assert!(
            told.starts_with(&format!("`{key}` (by default): ")),
            "{told}"
        );
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn files_of_our_own_lie_beside_the_database_or_the_master_key() {
    for (flags, expected) in [
        (&[][..], "data"),
        (
            &["database.url=sqlite:///var/lib/forge/f.db"],
            "/var/lib/forge",
        ),
        (&["database.url=sqlite://f.db"], "."),
        (&["database.url=postgres://db/forge"], "data"),
        (
            &[
                "database.url=postgres://db/forge",
                "secrets.master_key_file=/etc/forge/master.key",
            ],
            "/etc/forge",
        ),
    ] {
        let config = load("", &[], flags).unwrap();
        assert_eq!(config.data_directory(), Path::new(expected), "{flags:?}");
    }
}

#[test]
fn no_error_repeats_a_value_that_may_be_a_secret() {
    for told in [
        error("[database]\nurl = 'postgres://u:s3cret@h:port/d'", &[], &[]),
        error("[database]\nurl = \"postgres://u:s3cret@h/d", &[], &[]),
        error("amqp = 'amqp://u:s3cret@mq'", &[], &[]),
        error("", &[("FORGE_AMQP", "amqp://u:s3cret@mq")], &[]),
        error("", &[("FORGE_AMQP__URL", "u:s3cret@mq")], &[]),
        error("master_key = ['s3cret']", &[], &[]),
        error("[telemetry]\notlp_headers = 's3cret'", &[], &[]),
        error("[telemetry]\notlp_endpoint = 'http://u:s3cret@h'", &[], &[]),
    ] {
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let told = Config::load(Some(Path::new("/no/such/file.toml")), [], &[]).unwrap_err();
    assert!(told.to_string().starts_with("/no/such/file.toml: "));
    let told = error(
        "[ops]\nlisten = '127.0.0.1:1'\nlisten = '127.0.0.1:2'",
        &[],
        &[],
    );
    assert!(told.starts_with("FILE: line 3: "), "{told}");
}
