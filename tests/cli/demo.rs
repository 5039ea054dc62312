//! The demo, as the README's first command runs it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::Home;

#[test]
fn a_bounded_demo_delivers_and_verifies_everything_and_shows_retries() {
    let summary = Home::new().json(&["demo", "--events", "200", "--exit"]);
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(number("events"), 200);
    assert!(number("deliveries") > 200, "{summary}");
    assert_eq!(number("succeeded"), number("deliveries"));
    assert_eq!(number("verified"), number("deliveries"));
    assert_eq!(number("failed"), 0);
    assert!(number("attempts") > number("deliveries"), "{summary}");
    assert!(summary["seconds"].is_f64());
}

#[test]
fn a_demo_directory_can_be_used_again() {
    let home = Home::new();
    for _ in 0..2 {
        let summary = home.json(&["demo", "--events", "20", "--exit", "--data", "kept"]);
        assert_eq!(summary["verified"], summary["deliveries"]);
    }
    assert!(home.path().join("kept/forge-dispatch.db").exists());
}

#[test]
fn an_interrupted_demo_ends_with_success() {
    let home = Home::new();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_forge-dispatch"))
        .arg("demo")
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(demo.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.contains("deliveries verified"), "{line}");
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(demo.wait().unwrap().success());
}
