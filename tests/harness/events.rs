//! Events and subscriptions for tests, with as little to say as possible.

#![cfg(test)]

use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::audit::Act;
use forge_dispatch::domain::event::Event;
use forge_dispatch::domain::headers::CustomHeaders;
use forge_dispatch::domain::ids::{ProjectId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::subscription::{
    BodyFormat, Ordering, Subscription, SubscriptionSpec, TargetUrl,
};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{NewSubscription, Result, Store};

/// An envelope to be: what is not said is something plain, and its identity is its own.
pub(crate) struct EventBuilder {
    id: String,
    source: String,
    event_type: String,
    workspace: String,
    project: Option<String>,
    time: String,
    data: String,
}

/// An `edition.archived` (a type whose data owes us no form) of workspace `default`.
pub(crate) fn event() -> EventBuilder {
    EventBuilder {
        id: format!("{:032x}", u128::from_le_bytes(Entropy::system().bytes())),
        source: "/report-forge".to_owned(),
        event_type: "edition.archived".to_owned(),
        workspace: "default".to_owned(),
        project: None,
        time: "2026-05-01T09:00:00.25Z".to_owned(),
        data: "{}".to_owned(),
    }
}

/// So many of them.
pub(crate) fn events(count: usize) -> Vec<Arc<Payload>> {
    (0..count).map(|_| event().build()).collect()
}

impl EventBuilder {
    pub(crate) fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub(crate) fn source(mut self, source: &str) -> Self {
        source.clone_into(&mut self.source);
        self
    }

    pub(crate) fn event_type(mut self, event_type: &str) -> Self {
        event_type.clone_into(&mut self.event_type);
        self
    }

    pub(crate) fn workspace(mut self, workspace: &str) -> Self {
        workspace.clone_into(&mut self.workspace);
        self
    }

    pub(crate) fn project(mut self, project: &str) -> Self {
        self.project = Some(project.to_owned());
        self
    }

    /// When it happened.
    pub(crate) fn time(mut self, time: DateTime<Utc>) -> Self {
        self.time = time.to_rfc3339();
        self
    }

    /// The JSON text of `data`, taken as it is.
    pub(crate) fn data(mut self, json: &str) -> Self {
        json.clone_into(&mut self.data);
        self
    }

    /// The envelope's text.
    pub(crate) fn text(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let project = self.project.as_ref().map_or(String::new(), |id| {
            format!(r#","projectid":{}"#, quoted(id))
        });
        format!(
            r#"{{"specversion":"1.0","id":{},"source":{},"type":{},"workspaceid":{}{project},"time":"{}","data":{}}}"#,
            quoted(&self.id),
            quoted(&self.source),
            quoted(&self.event_type),
            quoted(&self.workspace),
            self.time,
            self.data
        )
    }

    /// The event under a new id of ours.
    pub(crate) fn build(&self) -> Arc<Payload> {
        self.build_at(SystemClock.now())
    }

    /// The same, come at this instant.
    pub(crate) fn build_at(&self, now: DateTime<Utc>) -> Arc<Payload> {
        let id = Entropy::system().id(now);
        let event = Event::decode(self.text().as_bytes(), id, now).unwrap();
        Arc::new(Payload::new(event))
    }
}

/// What is asked of a subscription: these types, nothing special.
pub(crate) fn spec(event_types: &[&str]) -> SubscriptionSpec {
    SubscriptionSpec {
        url: TargetUrl::new("https://receiver.example/hook").unwrap(),
        description: String::new(),
        event_types: event_types
            .iter()
            .map(|filter| filter.parse().unwrap())
            .collect(),
        project_ids: None,
        format: BodyFormat::Standard,
        headers: CustomHeaders::default(),
        max_concurrency: None,
        rate_limit: None,
        retry_schedule: None,
        ordering: Ordering::default(),
    }
}

/// The same, for these projects only.
pub(crate) fn spec_for_projects(event_types: &[&str], projects: &[&str]) -> SubscriptionSpec {
    SubscriptionSpec {
        project_ids: Some(
            projects
                .iter()
                .map(|project| ProjectId::new(project).unwrap())
                .collect(),
        ),
        ..spec(event_types)
    }
}

/// A registration under new ids and with a new secret.
pub(crate) fn registration(workspace: &WorkspaceId, spec: SubscriptionSpec) -> NewSubscription {
    let (entropy, now) = (Entropy::system(), SystemClock.now());
    NewSubscription {
        id: entropy.id(now),
        workspace: workspace.clone(),
        spec,
        secret_id: entropy.id(now),
        secret: SigningSecret::generate(entropy.bytes()),
    }
}

/// Registers a subscription.
pub(crate) async fn register(store: &dyn Store, new: &NewSubscription) -> Result<Subscription> {
    register_as(store, new, &act()).await
}

/// Registers a subscription under these circumstances.
pub(crate) async fn register_as(
    store: &dyn Store,
    new: &NewSubscription,
    act: &Act,
) -> Result<Subscription> {
    store.create_subscription(new, act, None).await?.created()
}

/// The circumstances of a change by somebody at the command line.
pub(crate) fn act() -> Act {
    Act::on_command_line(Entropy::system().id(SystemClock.now()))
}

/// The part of a workspace that is in these projects.
pub(crate) fn reach(workspace: &WorkspaceId, projects: &[&str]) -> Reach {
    let projects = projects.iter().map(|id| ProjectId::new(id).unwrap());
    Reach {
        projects: Some(projects.collect()),
        ..Reach::all(workspace)
    }
}

/// A workspace by name.
pub(crate) fn workspace(name: &str) -> WorkspaceId {
    WorkspaceId::new(name).unwrap()
}
