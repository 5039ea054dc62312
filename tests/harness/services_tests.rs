//! The servers themselves: they keep what they are given, and are shared by those who ask.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::services::{PostgresServer, amqp_url, postgres_url};

#[tokio::test]
async fn a_postgres_of_ones_own_keeps_its_data_and_address_over_a_stop_and_a_kill() {
    let mut server = PostgresServer::start().await;
    for table in ["before_the_stop", "before_the_kill"] {
        let mut connection = PgConnection::connect(server.url())
            .await
            .expect("it serves");
        let statement = format!("create table {table} (n int)");
        connection
            .execute(AssertSqlSafe(statement))
            .await
            .expect("it takes a table");
        assert!(server.id().is_some());
        match table {
            "before_the_stop" => server.stop().await,
            _ => server.kill().await,
        }
        assert_eq!(server.id(), None);
        assert!(PgConnection::connect(server.url()).await.is_err());
        server.start_again().await;
    }
    let mut connection = PgConnection::connect(server.url())
        .await
        .expect("it serves");
    connection
        .execute("select * from before_the_stop, before_the_kill")
        .await
        .expect("both tables are there");
}

#[tokio::test]
async fn the_shared_servers_are_the_same_for_all_who_ask() {
    assert_eq!(amqp_url().await, amqp_url().await);
    assert_eq!(postgres_url().await, postgres_url().await);
    PgConnection::connect(&postgres_url().await)
        .await
        .expect("it serves");
}
