//! SIGKILL around a submit: before its commit, and before or after its publication and the broker's
//! confirm. Whoever heard no answer submits again with the same key, and in the end the broker and the
//! subscriber have been told of each edition under one id.
//!
//! What is promised is at least once, with an id to tell copies by. A second copy on the broker is what
//! a kill between a publication and its confirm leaves, and nothing else does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use forge_dispatch::clock::pause;
use forge_dispatch::config::Amqp;
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::entropy::Entropy;
use http::StatusCode;
use lapin::message::Delivery;
use lapin::types::FieldTable;
use secrecy::ExposeSecret;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::api::told::{blueprint, edition, tell};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::event;
use crate::harness::keys::{client, key};
use crate::harness::program::{Binary, settings};
use crate::harness::proxy::{Proxy, Way};
use crate::harness::receiver::Receiver;
use crate::harness::services::amqp_url;
use crate::harness::{eventually, queues, simple};
use crate::outbox::rig::{Core, ids};

on_both_databases!(a_submit_is_told_under_one_id_wherever_the_program_is_killed,);

const PATIENCE: Duration = Duration::from_mins(1);

/// Of the moments that are drawn.
const SEED: u64 = 5;
const DRAWN: usize = 6;

/// About as long as a submit takes here, and its publication.
const LATEST: Duration = Duration::from_millis(60);

/// All that a submit asks for.
const FILLED: &str = r#"{"summary":{"values":{"rate":1.50}}}"#;

/// When the program is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The edition is another's until the program is gone.
    BeforeTheCommit,
    /// The broker hears nothing.
    BeforeThePublication,
    /// The broker has it, and its confirm is on the way.
    BeforeTheConfirm,
    /// Nothing is left to publish.
    AfterTheConfirm,
    /// So long after it was asked.
    After(Duration),
}

impl Moment {
    fn all() -> Vec<Self> {
        let entropy = Entropy::seeded(SEED);
        let drawn = || Self::After(LATEST.mul_f64(entropy.unit()));
        let mut moments = vec![
            Self::BeforeTheCommit,
            Self::BeforeThePublication,
            Self::BeforeTheConfirm,
            Self::AfterTheConfirm,
        ];
        moments.extend(std::iter::repeat_with(drawn).take(DRAWN));
        moments
    }
}

/// The program, killed so many times, and who hears of it.
struct Scene<'a> {
    db: &'a TestDatabase,
    amqp: Amqp,
    proxy: Proxy,
    program: Binary,
    kills: usize,
    core: Core,
    /// What the broker was told so far.
    told: Vec<Delivery>,
    http: reqwest::Client,
    receiver: Receiver,
}

impl<'a> Scene<'a> {
    async fn start(db: &'a TestDatabase, editions: usize, dir: &std::path::Path) -> Self {
        let mut config = settings(db.url());
        config.amqp = queues::unique().await;
        let amqp = config.amqp.clone();
        let core = Core::bound(&amqp, "edition.submitted", FieldTable::default()).await;
        let proxy = Proxy::to(&amqp_url().await).await;
        config.amqp.url = Some(proxy.url().into());
        let receiver = Receiver::ok();
        simple::subscribe(&*db.store, &receiver.url("/hook")).await;
        tell(&db.store, &[blueprint("default", "pr_1", "bp_1")]).await;
        let editions: Vec<_> = (0..editions)
            .map(|number| edition("default", "pr_1", "bp_1", &id_of(number), 1, FILLED))
            .collect();
        tell(&db.store, &editions).await;
        let scopes = [Scope::ReadEditions, Scope::WriteEditions];
        let http = client(&key(&*db.store, &scopes).await);
        let program = Binary::serve(&config, dir);
        Self {
            db,
            amqp,
            proxy,
            program,
            kills: 0,
            core,
            told: Vec::new(),
            http,
            receiver,
        }
    }

    /// A request to the program as it runs now.
    async fn url(&self, path: &str) -> String {
        self.program.logged("\"ready\"").await;
        let starting = self.program.logged("\"starting\"").await;
        let starting: Value = serde_json::from_str(&starting).unwrap();
        format!("http://{}{path}", starting["api"].as_str().unwrap())
    }

    /// Submits, and answers what is answered, if anything is.
    async fn submit(&self, edition: &str) -> impl Future<Output = Option<Bytes>> + Send + 'static {
        let url = self.url(&format!("/v1/editions/{edition}/submit")).await;
        let request = self.http.post(url).header("idempotency-key", edition);
        async {
            let answer = request.send().await.ok()?;
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                // It waited for so long that the database counts as away.
                return None;
            }
            assert_eq!(answer.status(), StatusCode::OK);
            answer.bytes().await.ok()
        }
    }

    /// Waits until the relay of this run of the program leads.
    async fn leads(&self) {
        // Time passes.
        let led_until = match self.db.kind {
            Kind::Sqlite => "0",
            Kind::Postgres => "now()",
        };
        let taken = format!("lease where name = 'outbox' and fence > {}", self.kills);
        if self.db.count(&taken).await == 0 {
            let pass = format!("update lease set until = {led_until} where name = 'outbox'");
            self.db.tamper(&pass).await;
        }
        eventually(PATIENCE, "the relay leads", async || {
            self.db.count(&taken).await == 1
        })
        .await;
    }

    /// Waits until nothing is left to publish.
    async fn published(&self) {
        eventually(PATIENCE, "the outbox is empty", async || {
            self.db.count("outbox").await == 0
        })
        .await;
    }

    /// Takes what the broker has until it has told of so many editions.
    async fn told_of(&mut self, editions: usize) {
        let what = format!("{editions} editions are told of");
        self.core
            .take_until(&what, &mut self.told, |told| {
                by_edition(told).len() >= editions
            })
            .await;
    }

    /// Kills the program around the submit of so many-th edition, and has it finish its work.
    async fn round(&mut self, number: usize, moment: Moment) {
        let edition = id_of(number);
        self.leads().await;
        let mut taken = None;
        match moment {
            Moment::BeforeTheCommit => taken = Some(Taken::edition(self.db, &edition).await),
            Moment::BeforeThePublication => self.proxy.hold_up(Way::ToServer),
            Moment::BeforeTheConfirm => self.proxy.hold_up(Way::ToProgram),
            Moment::AfterTheConfirm | Moment::After(_) => {}
        }
        let mut first = tokio::spawn(self.submit(&edition).await);
        match moment {
            Moment::BeforeTheCommit => pause(LATEST).await,
            Moment::After(time) => pause(time).await,
            Moment::BeforeThePublication | Moment::BeforeTheConfirm | Moment::AfterTheConfirm => {
                assert!((&mut first).await.unwrap().is_some(), "it is committed");
                first = tokio::spawn(async { None });
            }
        }
        match moment {
            Moment::BeforeTheConfirm => self.told_of(number + 1).await,
            Moment::AfterTheConfirm => self.published().await,
            _ => {}
        }
        self.program.kill();
        self.kills += 1;
        let first = first.await.unwrap();
        assert!(moment != Moment::BeforeTheCommit || first.is_none());
        drop(taken);
        self.proxy.cut_and_let_pass();
        self.program.start_again();
        let again = self.submit(&edition).await.await;
        let again = again.expect("a repeat is answered");
        assert!(first.is_none_or(|first| first == again), "{moment:?}");
        self.leads().await;
        self.published().await;
        self.told_of(number + 1).await;
    }
}

async fn a_submit_is_told_under_one_id_wherever_the_program_is_killed(db: &TestDatabase) {
    let moments = Moment::all();
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(db, moments.len(), dir.path()).await;
    for (number, moment) in moments.iter().enumerate() {
        scene.round(number, *moment).await;
    }
    while let Some(message) = scene.core.next().await {
        scene.told.push(message);
    }
    let told = by_edition(&scene.told);
    assert_eq!(told.len(), moments.len());
    for (number, moment) in moments.iter().enumerate() {
        let ids = &told[&id_of(number)];
        assert!(ids.iter().all(|id| *id == ids[0]), "{moment:?}: {ids:?}");
        let copies = match moment {
            Moment::BeforeTheConfirm => 2..=2,
            Moment::After(_) => 1..=2,
            _ => 1..=1,
        };
        assert!(copies.contains(&ids.len()), "{moment:?}: {ids:?}");
    }
    drop(told);
    delivered(&scene, &moments).await;
    come_back(&scene, &moments).await;
    scene.program.terminate();
    assert!(scene.program.ended().await.success());
    queues::check_empty(&scene.amqp).await;
}

/// The subscriber has each under the same id as the broker, and so has the feed, once.
async fn delivered(scene: &Scene<'_>, moments: &[Moment]) {
    let expected: BTreeMap<String, String> = by_edition(&scene.told)
        .into_iter()
        .map(|(edition, ids)| (edition, ids[0].clone()))
        .collect();
    let received = || -> Vec<(String, String)> {
        let requests = scene.receiver.received();
        let of = |request: &std::sync::Arc<crate::harness::receiver::Received>| {
            let edition = request.json()["data"]["edition_id"].as_str()?.to_owned();
            Some((edition, request.webhook_id().to_owned()))
        };
        requests.iter().filter_map(of).collect()
    };
    // What was sent by a killed program is sent again when its lease has ended.
    eventually(PATIENCE, "all editions are delivered", async || {
        received().into_iter().collect::<BTreeMap<_, _>>().len() == moments.len()
    })
    .await;
    for (edition, id) in received() {
        assert_eq!(expected[&edition], id, "{edition}");
    }
    let feed = scene
        .url("/v1/events?type=edition.submitted&limit=500")
        .await;
    let feed = scene.http.get(feed).send().await.unwrap();
    let feed: Value = serde_json::from_slice(&feed.bytes().await.unwrap()).unwrap();
    let mut items: Vec<_> = feed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect();
    items.sort_unstable();
    let mut ids: Vec<_> = expected.into_values().collect();
    ids.sort_unstable();
    assert_eq!(items, ids);
}

/// Somebody routes all of it back to us: it is known, and the subscriber hears of nothing but what is
/// new behind it.
async fn come_back(scene: &Scene<'_>, moments: &[Moment]) {
    queues::declared(&scene.amqp).await;
    eventually(PATIENCE, "nothing is left to deliver", async || {
        let depth = scene.db.store.queue_depth().await.unwrap();
        depth.pending + depth.in_flight == 0
    })
    .await;
    let before = scene.receiver.count();
    for message in &scene.told {
        scene.core.tell(&scene.amqp, &message.data).await;
    }
    let news = event();
    scene.core.tell(&scene.amqp, news.text().as_bytes()).await;
    let arrived = scene.receiver.wait_for(
        |requests| {
            let mut types = requests
                .iter()
                .map(|request| request.json()["type"].clone());
            types.any(|kind| kind == "edition.archived")
        },
        PATIENCE,
    );
    arrived.await.expect("what is new is delivered");
    let kept = i64::try_from(moments.len() + 1).unwrap();
    assert_eq!(scene.db.count("event").await, kept);
    assert_eq!(scene.receiver.count(), before + 1, "(deliveries)");
}

fn id_of(number: usize) -> String {
    format!("ed_{number}")
}

/// The ids under which editions were told of.
fn by_edition(told: &[Delivery]) -> BTreeMap<String, Vec<String>> {
    let mut by_edition: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (message, id) in told.iter().zip(ids(told)) {
        let envelope: Value = serde_json::from_slice(&message.data).unwrap();
        assert_eq!(envelope["id"], *id);
        let edition = envelope["data"]["edition_id"].as_str().unwrap().to_owned();
        by_edition.entry(edition).or_default().push(id);
    }
    by_edition
}

/// An edition (on `SQLite`, the whole file) that nobody else can write for as long as this lives.
#[expect(dead_code, reason = "it is what it holds")]
enum Taken {
    File(SqliteConnection),
    Row(PgConnection),
}

impl Taken {
    async fn edition(db: &TestDatabase, id: &str) -> Self {
        let url = db.url();
        let url = url.expose_secret();
        match db.kind {
            Kind::Sqlite => {
                let mut file = SqliteConnection::connect(url).await.unwrap();
                let begun = sqlx::raw_sql("begin immediate").execute(&mut file);
                begun.await.unwrap();
                Self::File(file)
            }
            Kind::Postgres => {
                let mut row = PgConnection::connect(url).await.unwrap();
                let take = format!("begin; select 1 from edition where id = '{id}' for update");
                let taken = sqlx::raw_sql(AssertSqlSafe(take)).execute(&mut row);
                taken.await.unwrap();
                Self::Row(row)
            }
        }
    }
}
