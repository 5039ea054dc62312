//! Help, usage, the database and its master key.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use super::Home;

#[test]
fn help_goes_to_standard_output_and_tells_the_exit_codes() {
    let help = Home::new().ok(&["--help"]);
    for told in [
        "subscriptions",
        "Exit codes:",
        "  2  wrong usage",
        "  3  no such",
    ] {
        assert!(help.contains(told), "{told}");
    }
    assert!(
        Home::new()
            .ok(&["--version"])
            .starts_with("forge-dispatch ")
    );
}

#[test]
fn wrong_usage_is_code_2() {
    for args in [
        &["nonsense"] as &[&str],
        &[],
        &["subscriptions", "create", "--event-type", "*"],
        &["subscriptions", "create", "--url", "https://9.9.9.9"],
        &["deliveries", "list", "--limit", "0"],
        &["deliveries", "list", "--limit", "501"],
        &["demo", "--exit"],
    ] {
        Home::new().fails(2, args);
    }
}

#[test]
fn a_role_that_cannot_work_is_said_before_anything_is_begun() {
    for (args, told) in [
        (
            &["serve", "--role", "sender"] as &[&str],
            "`role` (in --set): must be `all`, `api`, `dispatch` or `ingest`",
        ),
        (
            &["serve", "--role", "api"],
            "`role` (in --set): must be `all` with SQLite: one file, one process",
        ),
        (
            &[
                "serve",
                "--role",
                "ingest",
                "--set",
                "database.url=postgres://localhost/forge",
            ],
            "`amqp.url` (by default): must be set where `role` is `ingest`",
        ),
    ] {
        let home = Home::new();
        let error = home.fails(2, args);
        assert!(error.contains(told), "{error}");
        assert!(!home.path().join("data").exists());
    }
}

#[test]
fn every_subcommand_takes_the_global_options_anywhere() {
    let home = Home::new();
    fs::write(home.path().join("forge.toml"), "[log]\nfilter = 'warn'").unwrap();
    home.ok(&["--config", "forge.toml", "--json", "migrate"]);
    home.ok(&["subscriptions", "list", "--json", "--config", "forge.toml"]);
}

#[test]
fn migrate_makes_a_private_database_and_may_be_repeated() {
    let home = Home::new();
    assert_snapshot!(home.ok(&["migrate"]), @"the sqlite schema is up to date");
    assert_snapshot!(home.json(&["migrate"]), @r#"{"database":"sqlite","schema":"current"}"#);
    for file in ["master.key", "forge-dispatch.db"] {
        let metadata = fs::metadata(home.path().join("data").join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{file}");
    }
}

#[test]
fn processes_that_start_at_once_in_an_empty_place_agree_on_one_key() {
    let home = Home::new();
    std::thread::scope(|scope| {
        let starts = [(); 6].map(|()| scope.spawn(|| home.ok(&["migrate"])));
        for start in starts {
            start.join().unwrap();
        }
    });
    home.subscribe("*");
}

#[test]
fn a_database_without_its_key_is_refused() {
    let home = Home::new();
    home.ok(&["migrate"]);
    fs::remove_file(home.path().join("data/master.key")).unwrap();
    assert_snapshot!(
        home.fails(2, &["subscriptions", "list"]),
        @"error: master key: data/master.key is missing; a new key could not open what is sealed in this database"
    );
    assert!(!home.path().join("data/master.key").exists());
}

#[test]
fn a_database_under_another_key_is_refused() {
    let home = Home::new();
    home.ok(&["migrate"]);
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let home = home.with("FORGE_MASTER_KEY", key);
    let told = home.fails(2, &["subscriptions", "list"]);
    assert!(
        told.contains("is not the one that this database was made with"),
        "{told}"
    );
    assert!(!told.contains(key));
}

#[test]
fn a_malformed_key_is_refused_without_being_repeated() {
    let home = Home::new().with("FORGE_MASTER_KEY", "s3cret");
    home.fails(2, &["config", "check"]);
    assert_snapshot!(home.fails(2, &["migrate"]), @"error: master key: FORGE_MASTER_KEY, or the key file, must hold 32 bytes in base64");
}

#[test]
fn postgres_needs_a_master_key() {
    let home = Home::new().with(
        "FORGE_DATABASE__URL",
        "postgres://u:s3cret@127.0.0.1:1/forge",
    );
    assert_snapshot!(
        home.fails(2, &["migrate"]),
        @"error: master key: is missing: set FORGE_MASTER_KEY, or secrets.master_key_file"
    );
}
