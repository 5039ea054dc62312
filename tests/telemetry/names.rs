//! What metrics there are, where they are told of, and that none grows with the data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use forge_dispatch::domain::latency::BOUNDS_MS;
use forge_dispatch::telemetry::{Metrics, metric};
use regex::Regex;

const NAMES: &str = include_str!("../../src/telemetry/metric.rs");
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");
const RULES: &str = include_str!("../../deploy/prometheus/forge-dispatch.rules.yml");
const RULES_TEST: &str = include_str!("../../deploy/prometheus/forge-dispatch.test.yml");

/// All labels that a metric may carry. Each has a few values that the code knows: a tenant, a
/// subscription or an edition would make a series for each there is, and each that ever was.
pub(super) const LABELS: [&str; 6] = ["class", "outcome", "queue", "state", "table", "to"];

/// What a pattern's first group finds in a text.
fn found<'t>(pattern: &str, text: &'t str) -> BTreeSet<&'t str> {
    let pattern = Regex::new(pattern).unwrap();
    let found = pattern.captures_iter(text);
    found.filter_map(|it| Some(it.get(1)?.as_str())).collect()
}

/// The names of all metrics.
fn metrics() -> BTreeSet<&'static str> {
    let names = found(r#": &str = "(\w+)""#, NAMES);
    assert!(names.len() > 10, "{names:?}");
    names
}

/// The names of all alerts.
fn alerts() -> BTreeSet<&'static str> {
    let alerts = found(r"- alert: (\w+)", RULES);
    assert!(alerts.len() >= 9, "{alerts:?}");
    alerts
}

#[test]
fn statistics_have_the_buckets_of_the_metric() {
    let installed = Metrics::install(None).unwrap();
    ::metrics::histogram!(metric::ATTEMPT_DURATION).record(0.02);
    installed.fold();
    let text = installed.render();
    let bounds = found(
        r#"forge_attempt_duration_seconds_bucket\{le="([\d.]+)"\}"#,
        &text,
    );
    let mut bounds: Vec<f64> = bounds.iter().map(|bound| bound.parse().unwrap()).collect();
    bounds.sort_by(f64::total_cmp);
    let expected = BOUNDS_MS.map(|ms| std::time::Duration::from_millis(ms).as_secs_f64());
    assert_eq!(bounds, expected);
}

#[test]
fn rules_are_about_metrics_that_there_are() {
    let named = found(r"\b(forge_\w+)", RULES);
    let unknown: Vec<_> = named.difference(&metrics()).copied().collect();
    assert!(!named.is_empty() && unknown.is_empty(), "{unknown:?}");
}

#[test]
fn each_alert_has_a_test_and_a_section_that_it_links_to() {
    let tested = found(r"alertname: (\w+)", RULES_TEST);
    assert_eq!(tested, alerts());
    for alert in alerts() {
        let heading = format!("\n### {alert}\n");
        assert!(OPERATIONS.contains(&heading), "no section {alert}");
    }
    let linked = found(r"runbook_url: docs/OPERATIONS\.md#(\w+)\n", RULES);
    let links: BTreeSet<_> = alerts().iter().map(|it| it.to_lowercase()).collect();
    let links: BTreeSet<&str> = links.iter().map(String::as_str).collect();
    assert_eq!(linked, links);
}

#[test]
fn each_metric_is_documented_and_none_beside_them() {
    assert_eq!(found(r"\n\| `(forge_\w+)` \|", OPERATIONS), metrics());
}

#[test]
fn no_metric_has_a_label_that_grows_with_the_data() {
    let mut sources = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut sources,
    );
    let counting = Regex::new(r"(?s)\b(?:counter|gauge|histogram)!\((.*?)\)").unwrap();
    let mut labels = BTreeSet::new();
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        for macro_call in counting.captures_iter(&text) {
            let arguments = macro_call.get(1).unwrap().as_str();
            labels.extend(
                found(r#""(\w+)" =>"#, arguments)
                    .into_iter()
                    .map(str::to_owned),
            );
            assert!(
                arguments.matches("=>").count() == found(r#"("\w+") =>"#, arguments).len(),
                "{}: labels are named where they are given: {arguments}",
                path.display()
            );
        }
    }
    assert_eq!(labels, LABELS.map(str::to_owned).into());
}

fn collect(directory: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|it| it == "rs") {
            sources.push(path);
        }
    }
}
