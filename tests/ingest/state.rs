//! What the core says of its entities, over the broker and through the whole program: what clients
//! read then.

use forge_dispatch::config::Amqp;
use forge_dispatch::domain::edition::SectionContent;
use forge_dispatch::domain::ids::{EditionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::Whole;
use lapin::types::AMQPValue;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Operator, PATIENCE};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::program::{InProcess, settings};
use crate::harness::publisher::publish_to;
use crate::harness::{eventually, queues};

on_both_databases!(
    a_snapshot_is_what_clients_read,
    what_is_known_already_changes_nothing,
    what_is_no_snapshot_goes_to_the_dead_letters_and_the_rest_is_taken,
    what_the_database_refuses_goes_to_the_dead_letters_alone,
    a_large_edition_arrives_whole,
);

/// The program with a corner of the broker to itself.
struct Scene {
    amqp: Amqp,
    program: InProcess,
}

impl Scene {
    async fn start(db: &TestDatabase) -> Self {
        let mut config = settings(db.url());
        config.amqp = queues::unique().await;
        let amqp = config.amqp.clone();
        let program = InProcess::start(config).await;
        queues::declared(&amqp).await;
        Self { amqp, program }
    }

    /// As the core does it, each confirmed.
    async fn tell(&self, bodies: &[Vec<u8>]) {
        let messages: Vec<_> = bodies
            .iter()
            .map(|body| ("edition.snapshot", body.as_slice()))
            .collect();
        publish_to(&self.amqp, &self.amqp.snapshots_exchange, &messages).await;
    }

    /// The body of an answer of the ops port.
    async fn ops(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.program.ops).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// How many snapshots had this outcome, in this process.
    async fn counted(&self, outcome: &str) -> u64 {
        let metrics = self.ops("/metrics").await;
        let name = format!("forge_snapshots_total{{outcome=\"{outcome}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("it is counted from the start").parse().unwrap()
    }

    /// Takes so many dead letters, and answers each one's body and the reason that it was given.
    async fn letters(&self, count: usize) -> Vec<(Vec<u8>, String)> {
        let broker = Operator::connect(self.amqp.url.as_ref().unwrap().expose_secret()).await;
        let mut letters = Vec::new();
        for _ in 0..count {
            let letter = broker.take(&self.amqp.dead_letter_queue).await.delivery;
            let headers = letter.properties.headers().clone().unwrap();
            let text = |name: &str| match headers.inner().get(name) {
                Some(AMQPValue::LongString(text)) => text.to_string(),
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(text("x-forge-queue"), self.amqp.snapshots_queue);
            letters.push((letter.data, text("x-forge-reason")));
        }
        letters
    }

    /// Nothing is left on the broker.
    async fn end(self) {
        queues::drained(&self.amqp, PATIENCE).await;
        self.program.stop().await.unwrap();
        queues::check_empty(&self.amqp).await;
    }
}

fn reach() -> Reach {
    Reach::all(&WorkspaceId::default())
}

fn envelope(kind: &str, data: &Value) -> Vec<u8> {
    json!({
        "specversion": "1.0", "id": "1", "source": "/report-forge", "type": kind,
        "time": "2026-05-01T09:00:00Z", "data": data,
    })
    .to_string()
    .into_bytes()
}

/// An edition at this version, named after it, with these rows in a section.
fn edition(id: &str, version: i64, name: &str, rows: &[Value]) -> Vec<u8> {
    let data = json!({
        "id": id, "version": version, "project_id": "pr_1", "blueprint_id": "bp_1", "name": name,
        "status": "draft", "status_changed_at": "2026-04-01T00:00:00Z",
        "created_at": "2026-04-01T00:00:00Z", "sections": {"costs": {"rows": rows}},
    });
    envelope("edition.snapshot", &data)
}

/// What the edition is called, as another process reads it.
async fn name(db: &TestDatabase, id: &str) -> Option<String> {
    let id = EditionId::new(id).unwrap();
    let record = db.replica.edition(&reach(), &id).await.unwrap();
    record.map(|record| record.edition.name)
}

async fn until_named(db: &TestDatabase, id: &str, expected: &str) {
    let what = format!("{id} is read as `{expected}`");
    eventually(PATIENCE, &what, async || {
        name(db, id).await.as_deref() == Some(expected)
    })
    .await;
}

async fn a_snapshot_is_what_clients_read(db: &TestDatabase) {
    let scene = Scene::start(db).await;
    let accepted = scene.counted("accepted").await;
    let ready: Value = serde_json::from_str(&scene.ops("/readyz").await).unwrap();
    assert_eq!(ready["parts"]["snapshots"], json!({"status": "up"}));

    scene.tell(&[edition("ed_1", 1, "April", &[])]).await;
    until_named(db, "ed_1", "April").await;
    scene.tell(&[edition("ed_1", 2, "April, again", &[])]).await;
    until_named(db, "ed_1", "April, again").await;
    let gone = envelope("edition.deleted", &json!({"id": "ed_1", "version": 3}));
    scene.tell(&[gone]).await;
    eventually(PATIENCE, "it is gone", async || {
        name(db, "ed_1").await.is_none()
    })
    .await;
    assert!(scene.counted("accepted").await >= accepted + 3);
    scene.end().await;
}

async fn what_is_known_already_changes_nothing(db: &TestDatabase) {
    let scene = Scene::start(db).await;
    let duplicates = scene.counted("duplicate").await;
    scene.tell(&[edition("ed_1", 2, "second", &[])]).await;
    until_named(db, "ed_1", "second").await;
    let again = edition("ed_1", 2, "second, otherwise", &[]);
    scene.tell(&[again, edition("ed_1", 1, "first", &[])]).await;
    eventually(PATIENCE, "both were looked at", async || {
        scene.counted("duplicate").await >= duplicates + 2
    })
    .await;
    assert_eq!(name(db, "ed_1").await.as_deref(), Some("second"));
    scene.end().await;
}

async fn what_is_no_snapshot_goes_to_the_dead_letters_and_the_rest_is_taken(db: &TestDatabase) {
    let scene = Scene::start(db).await;
    let dead = scene.counted("dead_lettered").await;
    let lacking = envelope("edition.snapshot", &json!({"id": "ed_2"}));
    let event = envelope("edition.archived", &json!({"edition_id": "ed_2"}));
    let bad = [
        (b"{garbage".to_vec(), "not JSON"),
        (lacking, "`data"),
        (event, "neither a snapshot nor a deletion"),
    ];
    let mut bodies: Vec<_> = bad.iter().map(|(body, _)| body.clone()).collect();
    bodies.push(edition("ed_1", 1, "behind them", &[]));
    scene.tell(&bodies).await;
    until_named(db, "ed_1", "behind them").await;

    let mut letters = scene.letters(bad.len()).await;
    for (body, expected) in bad {
        let place = letters.iter().position(|(letter, _)| *letter == body);
        let (_, reason) = letters.remove(place.expect("it is among the dead letters"));
        assert!(reason.contains(expected), "{reason}");
    }
    assert!(scene.counted("dead_lettered").await >= dead + 3);
    scene.end().await;
}

async fn what_the_database_refuses_goes_to_the_dead_letters_alone(db: &TestDatabase) {
    let scene = Scene::start(db).await;
    db.tamper(match db.kind {
        Kind::Sqlite => {
            "create trigger refuse_poison before insert on edition
             when new.id like 'poison%'
             begin select raise(abort, 'poisonous'); end"
        }
        Kind::Postgres => {
            "create function refuse_poison() returns trigger language plpgsql as $$
             begin
                 if new.id like 'poison%' then
                     raise exception 'poisonous' using errcode = '22023';
                 end if;
                 return new;
             end $$;
             create trigger refuse_poison before insert on edition
             for each row execute function refuse_poison()"
        }
    })
    .await;
    let poison = edition("poison", 1, "bad", &[]);
    let mut bodies: Vec<_> = (0..20)
        .map(|n| edition(&format!("ed_{n}"), 1, "good", &[]))
        .collect();
    bodies.insert(9, poison.clone());
    scene.tell(&bodies).await;
    for n in 0..20 {
        until_named(db, &format!("ed_{n}"), "good").await;
    }
    let (body, reason) = scene.letters(1).await.remove(0);
    assert_eq!(body, poison);
    assert!(reason.contains("poisonous"), "{reason}");
    assert_eq!(name(db, "poison").await, None);
    scene.end().await;
}

async fn a_large_edition_arrives_whole(db: &TestDatabase) {
    const ROWS: usize = 1_000;
    let filler = "x".repeat(10_000);
    let rows: Vec<_> = (0..ROWS)
        .map(|n| json!({"id": format!("r{n}"), "values": {"n": n, "text": filler}}))
        .collect();
    let large = edition("ed_1", 1, "large", &rows);
    assert!(large.len() > 10_000_000, "{}", large.len());
    let scene = Scene::start(db).await;
    scene.tell(&[large, edition("ed_2", 1, "small", &[])]).await;
    until_named(db, "ed_1", "large").await;
    until_named(db, "ed_2", "small").await;
    let id = EditionId::new("ed_1").unwrap();
    let whole = db.replica.content(&reach(), &id, 20_000_000).await.unwrap();
    let Some(Whole::Content(_, content)) = whole else {
        panic!("it is not read whole");
    };
    let [(section, SectionContent::Repeating(kept))] = content.as_slice() else {
        panic!("it has one section, of rows");
    };
    assert_eq!(section, "costs");
    assert_eq!(kept.len(), ROWS);
    for (row, told) in kept.iter().zip(&rows) {
        assert_eq!(row.id.as_str(), told["id"]);
        let values: Value = serde_json::from_str(row.values.as_str()).unwrap();
        assert_eq!(values, told["values"]);
    }
    scene.end().await;
}
