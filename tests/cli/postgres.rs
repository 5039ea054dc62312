//! The command line on a shared database: nothing changes its schema by the way.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use super::{Home, stable};
use crate::harness::services;

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// An empty database of the test's own.
struct Database {
    server: String,
    name: String,
}

impl Database {
    async fn create() -> Self {
        let server = services::postgres_url().await;
        let name = format!("cli_{}", uuid::Uuid::from_bytes(random()).simple());
        run(&server, format!("create database {name}")).await;
        Self { server, name }
    }

    fn home(&self, key: &str) -> Home {
        let mut url = Url::parse(&self.server).unwrap();
        url.set_path(&self.name);
        Home::new()
            .with("FORGE_DATABASE__URL", url.as_str())
            .with("FORGE_MASTER_KEY", key)
    }

    async fn remove(self) {
        let statement = format!("drop database {} with (force)", self.name);
        run(&self.server, statement).await;
    }
}

fn random() -> [u8; 16] {
    forge_dispatch::entropy::Entropy::system().bytes()
}

async fn run(server: &str, statement: String) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn commands_wait_for_migrate_and_then_work_under_the_same_key_only() {
    let database = Database::create().await;
    let home = database.home(KEY);
    let told = home.fails(1, &["subscriptions", "list"]);
    assert!(told.ends_with("run `forge-dispatch migrate`\n"), "{told}");

    assert_eq!(home.ok(&["migrate"]), "the postgres schema is up to date\n");
    let id = home.subscribe("*");
    home.publish("a.b");
    let list = home.json(&["deliveries", "list", "--subscription", &id]);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        stable(&home.ok(&["subscriptions", "delete", &id])),
        "deleted sub_ID\n"
    );

    let args = ["keys", "create", "--name", "ERP", "--scope", "admin"];
    let key = home.json(&[&args as &[&str], &["--expires-in", "90d"]].concat());
    let id = key["id"].as_str().unwrap();
    assert_eq!(home.json(&["keys", "show", id])["status"], "active");
    assert_eq!(
        stable(&home.ok(&["keys", "revoke", id])),
        "revoked key_ID\n"
    );
    let listed = &home.json(&["keys", "list"])["data"][0];
    assert_eq!(
        (&listed["id"], &listed["status"]),
        (&key["id"], &"revoked".into())
    );

    let stranger = database.home(OTHER_KEY);
    for args in [&["migrate"] as &[&str], &["subscriptions", "list"]] {
        let told = stranger.fails(2, args);
        assert!(
            told.contains("is not the one that this database was made with"),
            "{told}"
        );
    }
    database.remove().await;
}

#[test]
fn a_database_that_is_away_is_code_1_and_its_password_is_not_told() {
    let home = Home::new()
        .with(
            "FORGE_DATABASE__URL",
            "postgres://forge:s3cret@127.0.0.1:1/forge",
        )
        .with("FORGE_MASTER_KEY", KEY);
    let told = home.fails(1, &["subscriptions", "list"]);
    assert!(
        told.starts_with("error: the database is unavailable"),
        "{told}"
    );
    assert!(!told.contains("s3cret") && !told.contains(KEY), "{told}");
}
