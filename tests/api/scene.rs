//! A workspace with something in it: a subscription for a project, an event of that project, and its
//! delivery; a blueprint of the project, an edition of that, and an output.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::ids::{DeliveryId, EventId, ReplayId, SubscriptionId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{Leasing, Store};
use http::StatusCode;
use serde_json::json;

use super::outputs;
use super::rig::{Key, Rig};
use super::told::{blueprint, edition, output, tell};

pub(crate) struct Scene {
    pub(crate) project: String,
    pub(crate) subscription: String,
    pub(crate) event: String,
    pub(crate) delivery: String,
    /// Of the project's own, and not under way any more.
    pub(crate) replay: String,
    pub(crate) blueprint: String,
    pub(crate) edition: String,
    pub(crate) output: String,
}

/// The section whose rows an edition here has.
pub(crate) const SECTION: &str = "costs";

/// One of those rows.
pub(crate) const ROW: &str = "r1";

/// What an edition here holds.
const HELD: &str = r#"{"summary":{"values":{"note":"all well","rate":1.50}},
    "costs":{"rows":[{"id":"r1","values":{"item":"Steel","amount":12.50}},{"id":"r2","values":{}}]}}"#;

impl Scene {
    pub(crate) async fn in_workspace(rig: &Rig, workspace: &str, project: &str) -> Self {
        let scopes = [
            Scope::ReadWebhooks,
            Scope::WriteWebhooks,
            Scope::ReadEditions,
        ];
        let key = rig
            .key(Key {
                workspace,
                ..Key::with(&scopes)
            })
            .await;
        let body = json!({
            "url": "http://127.0.0.1:9/hook",
            "event_types": ["edition.*"],
            "project_ids": [project],
        });
        let made = rig.post(&key, "/v1/subscriptions", &body).await.json();
        let subscription = made["id"].as_str().unwrap().to_owned();
        let event = accept(&rig.store, workspace, Some(project)).await;
        let path = format!("/v1/deliveries?subscription_id={subscription}");
        let page = rig.get(&key, &path).await.json();
        let delivery = page["data"][0]["id"].as_str().unwrap().to_owned();
        let replay = replay(rig, workspace, project).await;
        let [of_project, of_it, of_that] =
            ["bp", "ed", "out"].map(|kind| format!("{kind}_{project}"));
        let told = [
            blueprint(workspace, project, &of_project),
            edition(workspace, project, &of_project, &of_it, 1, HELD),
            output(
                workspace,
                project,
                &of_it,
                &of_that,
                1,
                r#""status":"queued""#,
            ),
        ];
        tell(&rig.store, &told).await;
        Self {
            blueprint: of_project,
            edition: of_it,
            output: of_that,
            project: project.to_owned(),
            replay,
            subscription,
            event: event.to_string(),
            delivery,
        }
    }

    /// The same, with the file that its output has by then, made of an edition that is approved.
    pub(crate) async fn with_file(rig: &Rig, workspace: &str, project: &str) -> Self {
        let scene = Self::in_workspace(rig, workspace, project).await;
        let edition = format!("done_{project}");
        let output = format!("file_{project}");
        let told = [
            outputs::approved(
                workspace,
                project,
                &scene.blueprint,
                &edition,
                "April",
                HELD,
            ),
            outputs::output(workspace, project, &edition, &output, "Figures", "csv"),
        ];
        tell(&rig.store, &told).await;
        outputs::make(rig, workspace, &output, b"content").await;
        Self { output, ..scene }
    }

    /// The id that a path of the document asks for.
    pub(crate) fn id_for(&self, path: &str) -> String {
        let id = match kind_of(path) {
            "subscriptions" => &self.subscription,
            "deliveries" => &self.delivery,
            "replays" => &self.replay,
            "events" => &self.event,
            "projects" => &self.project,
            "blueprints" => &self.blueprint,
            "editions" => &self.edition,
            "outputs" => &self.output,
            other => panic!("nothing of {other} is here: {path}"),
        };
        id.clone()
    }

    /// One of that kind that does not exist.
    pub(crate) fn missing_id_for(path: &str) -> String {
        let (entropy, now) = (Entropy::system(), SystemClock.now());
        match kind_of(path) {
            "subscriptions" => {
                let id: SubscriptionId = entropy.id(now);
                id.to_string()
            }
            "replays" => {
                let id: ReplayId = entropy.id(now);
                id.to_string()
            }
            "deliveries" => {
                let id: DeliveryId = entropy.id(now);
                id.to_string()
            }
            "events" => {
                let id: EventId = entropy.id(now);
                id.to_string()
            }
            _ => "nowhere".to_owned(),
        }
    }
}

/// A replay of what failed in a project, cancelled before anything was done.
async fn replay(rig: &Rig, workspace: &str, project: &str) -> String {
    let key = rig
        .key(Key {
            workspace,
            projects: Some(&[project]),
            ..Key::with(&[Scope::WriteWebhooks])
        })
        .await;
    let made = rig.post(&key, "/v1/replays", &json!({"filter": {}})).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let cancel = format!("/v1/replays/{id}/cancel");
    let cancelled = rig.post(&key, &cancel, &json!({})).await;
    assert_eq!(cancelled.status, StatusCode::OK);
    id
}

/// What the id in a path is of: `/v1/editions/{id}/outputs` has that of an edition.
fn kind_of(path: &str) -> &str {
    path.split('/').nth(2).unwrap()
}

/// Accepts an event as the core publishes it; nobody delivers it.
pub(crate) async fn accept(
    store: &Arc<dyn Store>,
    workspace: &str,
    project: Option<&str>,
) -> EventId {
    let entropy = Entropy::system();
    let now = SystemClock.now();
    let id: EventId = entropy.id(now);
    let project = project.map_or(String::new(), |id| format!(r#","projectid":"{id}""#));
    let text = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/core","type":"edition.archived",
            "subject":"ed_1","workspaceid":"{workspace}"{project},"data":{{"b":1,"a":[1.50]}}}}"#
    );
    let payload = Arc::new(Payload::decode(text.as_bytes(), id, now).unwrap());
    let leasing = Leasing {
        owner: entropy.id(now),
        lease: Duration::from_mins(1),
    };
    store
        .accept(&[payload], leasing, &NoDispatch)
        .await
        .unwrap();
    id
}
