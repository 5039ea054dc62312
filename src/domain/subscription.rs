//! A webhook subscription: which events, of which projects, go where and in which form.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::circuit::CircuitState;
use super::event::Event;
use super::filter::{EventFilter, EventType};
use super::headers::CustomHeaders;
use super::ids::{EditionId, ProjectId, SubscriptionId, WorkspaceId};
use super::retry::RetrySchedule;

/// The longest target URL, in bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// The longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 500;

/// The most event types, and the most projects, that one subscription may name.
pub const MAX_FILTERS: usize = 100;

/// The body that a subscription gets (product.md §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyFormat {
    /// `{"type","timestamp","data"}`, as Standard Webhooks recommends.
    #[default]
    Standard,
    /// `{"event","organisation_id","project_id","timestamp","data"}`, signed a second time.
    Kazinex,
    /// The CloudEvents envelope as it arrived (`application/cloudevents+json`).
    CloudEvents,
}

impl BodyFormat {
    /// The name in the database, the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Kazinex => "kazinex",
            Self::CloudEvents => "cloudevents",
        }
    }
}

impl fmt::Display for BodyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BodyFormat {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Standard, Self::Kazinex, Self::CloudEvents]
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| {
                FieldError::new("format", "must be `standard`, `kazinex` or `cloudevents`")
            })
    }
}

/// Whether deliveries wait for one another (product.md §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ordering {
    /// None waits for another.
    #[default]
    #[serde(rename = "none")]
    Unordered,
    /// Those of an edition go one by one, in the order in which their events were accepted.
    #[serde(rename = "edition")]
    ByEdition,
}

impl Ordering {
    /// All of them, for parsers and documents.
    pub const ALL: [Self; 2] = [Self::Unordered, Self::ByEdition];

    /// The name in the database, the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unordered => "none",
            Self::ByEdition => "edition",
        }
    }
}

impl fmt::Display for Ordering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Ordering {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|ordering| ordering.as_str() == text)
            .ok_or_else(|| FieldError::new("ordering", "must be `none` or `edition`"))
    }
}

/// A value that breaks a rule: the field's name as clients know it, and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// The field's name, the same in the API, on the command line and in the docs.
    pub field: &'static str,
    /// The rule it breaks, in words for a person. Never holds a secret.
    pub reason: String,
}

impl FieldError {
    /// Names the field and the rule.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self {
            field,
            reason: reason.into(),
        }
    }
}

/// Where deliveries go: an absolute `https` or `http` URL with a host and without credentials.
///
/// Whether the address may be dialled is not known here; `egress::guard` decides that at
/// registration and again at every connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TargetUrl(Url);

impl TargetUrl {
    /// Checks the form of the URL.
    pub fn new(text: &str) -> Result<Self, FieldError> {
        let wrong = |reason: &str| FieldError::new("url", reason);
        if text.len() > MAX_URL_BYTES {
            return Err(wrong("must be at most 2048 bytes"));
        }
        let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
        // Percent encoding makes it longer, and what is kept must be readable again.
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(wrong("must be at most 2048 bytes in percent encoding"));
        }
        if !matches!(url.scheme(), "https" | "http") {
            return Err(wrong("must be an https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not hold credentials"));
        }
        if url.fragment().is_some() {
            return Err(wrong("must not hold a fragment"));
        }
        match url.host() {
            None | Some(Host::Domain("")) => Err(wrong("must name a host")),
            Some(_) => Ok(Self(url)),
        }
    }

    /// The parsed URL. Spellings of one address (octal, decimal, hex) are one by now.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The host, for logs: a path or query may hold a token.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a subscription no longer gets anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionStatus {
    /// Gets what it asks for.
    Active,
    /// Gets nothing; its pending deliveries wait unclaimed.
    Disabled {
        /// Why, in words for an admin.
        reason: String,
    },
}

impl SubscriptionStatus {
    /// Disabled by an admin, who says why.
    pub fn disabled(reason: &str) -> Result<Self, FieldError> {
        let fits = reason.chars().count() <= MAX_DESCRIPTION_CHARS;
        let prints = !reason.chars().any(char::is_control);
        let reason = reason.trim();
        if !fits || !prints || reason.is_empty() {
            return Err(FieldError::new(
                "disabled_reason",
                "must be 1 to 500 characters, none of them a control character",
            ));
        }
        Ok(Self::Disabled {
            reason: reason.to_owned(),
        })
    }

    /// The name in the database and the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled { .. } => "disabled",
        }
    }

    /// The reason, where there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Active => None,
            Self::Disabled { reason } => Some(reason),
        }
    }
}

/// What an admin says of a subscription, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionSpec {
    /// Where to send.
    pub url: TargetUrl,
    /// A note for people.
    pub description: String,
    /// Which event types; at least one.
    pub event_types: Vec<EventFilter>,
    /// Only these projects; `None` means all, and events without a project too.
    pub project_ids: Option<Vec<ProjectId>>,
    /// Which body.
    pub format: BodyFormat,
    /// What goes with each delivery beside our own headers.
    pub headers: CustomHeaders,
    /// Requests in flight at once, from all replicas together; `None` is the deployment's default.
    pub max_concurrency: Option<NonZeroU32>,
    /// Deliveries a second, from all replicas together; `None` is no limit.
    pub rate_limit: Option<NonZeroU32>,
    /// When to try again; `None` is the deployment's schedule.
    pub retry_schedule: Option<RetrySchedule>,
    /// Whether deliveries wait for one another.
    pub ordering: Ordering,
}

impl SubscriptionSpec {
    /// Checks what the types cannot say.
    pub fn check(&self) -> Result<(), FieldError> {
        if self.event_types.is_empty() {
            return Err(FieldError::new(
                "event_types",
                "must name at least one event type",
            ));
        }
        if self.event_types.len() > MAX_FILTERS {
            return Err(FieldError::new(
                "event_types",
                "must name at most 100 event types",
            ));
        }
        match &self.project_ids {
            Some(projects) if projects.is_empty() => {
                return Err(FieldError::new(
                    "project_ids",
                    "must name at least one project, or be left out",
                ));
            }
            Some(projects) if projects.len() > MAX_FILTERS => {
                return Err(FieldError::new(
                    "project_ids",
                    "must name at most 100 projects",
                ));
            }
            _ => {}
        }
        if self.description.chars().count() > MAX_DESCRIPTION_CHARS {
            return Err(FieldError::new(
                "description",
                "must be at most 500 characters",
            ));
        }
        if self.description.contains('\0') {
            return Err(FieldError::new("description", "must not hold NUL"));
        }
        Ok(())
    }

    /// Whether the event is one of those asked for.
    pub fn wants(&self, event: &Event) -> bool {
        self.wants_type(&event.event_type) && self.wants_project(event.project.as_ref())
    }

    /// Whether events of this type are among those asked for.
    pub fn wants_type(&self, event_type: &EventType) -> bool {
        let mut filters = self.event_types.iter();
        filters.any(|filter| filter.matches(event_type))
    }

    /// The edition at whose gate a delivery of the event waits its turn; `None` waits for nobody. What
    /// is told of our own work is of no edition, whatever its subject.
    pub fn gate<'e>(&self, event: &'e Event) -> Option<&'e EditionId> {
        match self.ordering {
            Ordering::ByEdition if !event.event_type.is_operational() => event.edition.as_ref(),
            Ordering::ByEdition | Ordering::Unordered => None,
        }
    }

    /// Whether events of this project are among those asked for; `None` is of no project.
    pub fn wants_project(&self, project: Option<&ProjectId>) -> bool {
        match (&self.project_ids, project) {
            (None, _) => true,
            (Some(wanted), Some(project)) => wanted.contains(project),
            (Some(_), None) => false,
        }
    }
}

/// A subscription as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The tenant it belongs to.
    pub workspace: WorkspaceId,
    /// What was asked for.
    pub spec: SubscriptionSpec,
    /// Whether it is served.
    pub status: SubscriptionStatus,
    /// Whether its receiver is left alone for a while. Changes without a new version.
    pub circuit: CircuitState,
    /// From when on it has missed events, or may have; `None` while it is active.
    pub missing_since: Option<DateTime<Utc>>,
    /// Grows with every change; a change says which version it was made from.
    pub version: i64,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, by whomever.
    pub updated_at: DateTime<Utc>,
}

impl Subscription {
    /// Whether an event of this workspace goes to this subscription now.
    pub fn receives(&self, event: &Event) -> bool {
        self.status == SubscriptionStatus::Active
            && self.workspace == event.workspace
            && self.spec.wants(event)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::ids::new_id;
    use super::*;

    pub(crate) fn spec(event_types: &[&str], projects: Option<&[&str]>) -> SubscriptionSpec {
        SubscriptionSpec {
            url: TargetUrl::new("https://receiver.example/hook").unwrap(),
            description: String::new(),
            event_types: event_types
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            project_ids: projects
                .map(|ids| ids.iter().map(|id| ProjectId::new(id).unwrap()).collect()),
            format: BodyFormat::Standard,
            headers: CustomHeaders::default(),
            max_concurrency: None,
            rate_limit: None,
            retry_schedule: None,
            ordering: Ordering::default(),
        }
    }

    fn event(event_type: &str, project: Option<&str>) -> Event {
        let now = DateTime::UNIX_EPOCH;
        let project = project.map_or(String::new(), |id| format!(r#","projectid":"{id}""#));
        let text = format!(
            r#"{{"specversion":"1.0","id":"1","source":"s","type":"{event_type}"{project}}}"#
        );
        Event::decode(text.as_bytes(), new_id(now, [0; 10]), now).unwrap()
    }

    #[test]
    fn the_project_list_is_optional_and_strict() {
        let all = spec(&["*"], None);
        let one = spec(&["*"], Some(&["pr_1"]));
        assert!(all.wants(&event("x.y", None)) && all.wants(&event("x.y", Some("pr_2"))));
        assert!(one.wants(&event("x.y", Some("pr_1"))));
        assert!(!one.wants(&event("x.y", Some("pr_2"))));
        assert!(
            !one.wants(&event("x.y", None)),
            "no project matches no project filter"
        );
    }

    #[test]
    fn any_of_the_types_is_enough() {
        let two = spec(&["edition.approved", "output.*"], None);
        assert!(!two.wants(&event("edition.archived", None)));
        assert!(two.wants(&event("output.deleted.late", None)));
    }

    #[test]
    fn a_disabled_subscription_and_another_workspace_receive_nothing() {
        let now = DateTime::UNIX_EPOCH;
        let mut subscription = Subscription {
            id: new_id(now, [1; 10]),
            workspace: WorkspaceId::default(),
            spec: spec(&["*"], None),
            status: SubscriptionStatus::Active,
            circuit: CircuitState::Closed,
            missing_since: None,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        assert!(subscription.receives(&event("x", None)));
        subscription.workspace = WorkspaceId::new("ws_2").unwrap();
        assert!(!subscription.receives(&event("x", None)));
        subscription.workspace = WorkspaceId::default();
        subscription.status = SubscriptionStatus::Disabled {
            reason: "asked".into(),
        };
        assert!(!subscription.receives(&event("x", None)));
    }

    #[test]
    fn a_bad_url_is_refused_with_the_reason() {
        for (url, reason) in [
            ("", "is no URL"),
            ("receiver.example/hook", "is no URL"),
            ("ftp://receiver.example/", "must be an https URL"),
            ("file:///etc/passwd", "must be an https URL"),
            (
                "https://user:pw@receiver.example/",
                "must not hold credentials",
            ),
            ("https://receiver.example/#part", "must not hold a fragment"),
            ("https://", "is no URL"),
        ] {
            let error = TargetUrl::new(url).unwrap_err();
            assert_eq!(error.field, "url");
            assert!(error.reason.starts_with(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_url_that_is_taken_can_be_read_again() {
        let with_path =
            |length| TargetUrl::new(&format!("https://x.example/{}", "é".repeat(length)));
        let longest = with_path(300).unwrap();
        assert_eq!(TargetUrl::new(&longest.to_string()).unwrap(), longest);
        assert!(with_path(400).is_err(), "800 bytes that become 2,400");
    }

    #[test]
    fn an_empty_list_names_its_field() {
        assert_eq!(spec(&[], None).check().unwrap_err().field, "event_types");
        assert_eq!(
            spec(&["*"], Some(&[])).check().unwrap_err().field,
            "project_ids"
        );
    }
}
