//! `config check`, `config show`, and what a wrong configuration gets.

use std::fs;

use insta::assert_snapshot;

use super::Home;

#[test]
fn the_defaults_are_right() {
    let home = Home::new();
    assert_snapshot!(home.ok(&["config", "check"]), @"the configuration is right");
    assert_snapshot!(home.json(&["config", "check"]), @r#"{"valid":true}"#);
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        0,
        "nothing is made by looking"
    );
}

#[test]
fn an_unknown_key_in_the_file_is_code_2_and_named() {
    let home = Home::new();
    fs::write(
        home.path().join("forge.toml"),
        "[dispatch]\nconcurency = 3\n",
    )
    .unwrap();
    for command in ["check", "show"] {
        let told = home.fails(2, &["config", command, "--config", "forge.toml"]);
        assert!(
            told.contains("`dispatch.concurency` (in forge.toml): no such key"),
            "{told}"
        );
    }
    let told = home.fails(2, &["subscriptions", "list", "--config", "forge.toml"]);
    assert!(told.contains("`dispatch.concurency`"), "{told}");
}

#[test]
fn a_wrong_variable_is_code_2_and_named() {
    let home = Home::new()
        .with("FORGE_EGRESS__TIMEOUT", "soon")
        .with("FORGE_DATABASE_URL", "sqlite://x");
    let told = home.fails(2, &["config", "check"]);
    assert!(
        told.contains("`database_url` (in FORGE_DATABASE_URL): no such key"),
        "{told}"
    );

    let home = Home::new().with("FORGE_EGRESS__TIMEOUT", "soon");
    assert_snapshot!(home.fails(2, &["config", "check"]), @r"
    error: the configuration is wrong
    `egress.timeout` (in FORGE_EGRESS__TIMEOUT): `soon` is no duration; write it as `100ms`, `5s` or `2h`
    ");
}

#[test]
fn values_that_do_not_fit_together_are_told_all_at_once() {
    let told = Home::new().fails(
        2,
        &[
            "config",
            "check",
            "--set",
            "dispatch.lease=10s",
            "--set",
            "dispatch.concurrency=0",
        ],
    );
    for key in [
        "`dispatch.lease`",
        "`dispatch.concurrency`",
        "`dispatch.subscription_concurrency`",
    ] {
        assert!(told.contains(key), "{key}: {told}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let told = Home::new().fails(2, &["config", "check", "--config", "none.toml"]);
    assert!(told.contains("none.toml: No such file"), "{told}");
}

#[test]
fn what_is_shown_is_effective_readable_again_and_without_secrets() {
    let home = Home::new()
        .with("FORGE_DATABASE__URL", "postgres://forge:s3cret@db/forge")
        .with("FORGE_AMQP__URL", "amqp://forge:s3cret@mq:5672/%2f")
        .with("FORGE_MASTER_KEY", "s3cret")
        .with("FORGE_OUTPUTS__S3__BUCKET", "forge")
        .with("FORGE_OUTPUTS__S3__ACCESS_KEY_ID", "AKIA1")
        .with("FORGE_OUTPUTS__S3__SECRET_ACCESS_KEY", "s3cret")
        .with("FORGE_OUTPUTS__CORE_HOSTS", "files.example:8443")
        .with("FORGE_EGRESS__ALLOW", "127.0.0.0/8,10.0.0.0/8:8080");
    let shown = home.ok(&["config", "show", "--set", "retry.schedule=1s,1m 30s"]);
    assert!(!shown.contains("s3cret"), "{shown}");
    for line in [
        r#"master_key = "***""#,
        r#"url = "postgres://forge:***@db/forge""#,
        r#"url = "amqp://forge:***@mq:5672/%2f""#,
        r#"allow = ["127.0.0.0/8", "10.0.0.0/8:8080"]"#,
        r#"schedule = ["1s", "1m 30s"]"#,
        r#"core_hosts = ["files.example:8443"]"#,
        r#"secret_access_key = "***""#,
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let document = home.json(&["config", "show"]);
    assert_eq!(document["amqp"]["url"], "amqp://forge:***@mq:5672/%2f");
    assert!(!document.to_string().contains("s3cret"));

    fs::write(home.path().join("again.toml"), &shown).unwrap();
    let plain = Home::new();
    let path = home.path().join("again.toml");
    assert_eq!(
        plain.ok(&["config", "show", "--config", path.to_str().unwrap()]),
        shown
    );
}
