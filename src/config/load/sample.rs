//! docs/config.sample.toml is the configuration's documentation: held to be complete.

use super::*;

const SAMPLE: &str = include_str!("../../../docs/config.sample.toml");

fn load(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), [], &[]).unwrap()
}

/// The sample with the keys that are commented out put in.
fn with_optional_keys() -> String {
    let is_key = |line: &str| {
        line.strip_prefix("# ")
            .and_then(|rest| rest.split_once(" = "))
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let lines: Vec<&str> = SAMPLE
        .lines()
        .map(|line| if is_key(line) { &line[2..] } else { line })
        .collect();
    lines.join("\n")
}

#[test]
fn the_sample_holds_the_defaults() {
    let json = |config: &Config| serde_json::to_value(config).unwrap();
    assert_eq!(json(&load(SAMPLE)), json(&Config::default()));
}

#[test]
fn the_sample_names_every_key_and_no_other() {
    let text = with_optional_keys();
    load(&text);
    let table: toml::Table = text.parse().unwrap();
    let mut layers = Layers::new();
    layers.add_table("", table, &Origin::Flag);
    let named: Vec<&str> = layers.values.keys().map(String::as_str).collect();
    let known: Vec<&str> = layers.shape.keys().collect();
    assert_eq!(named, known);
}
