//! Values of the command line that the domain checks: each error names its field.

use std::fmt::{self, Display};
use std::str::FromStr;

use chrono::{DateTime, Utc};
use clap::Args;
use type_safe_id::{StaticType, TypeSafeId};

use crate::domain::filter::EventType;
use crate::domain::headers::CustomHeaders;
use crate::domain::ids::{ProjectId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::retry::RetrySchedule;
use crate::domain::subscription::FieldError;
use crate::store::PageRequest;

/// Reads a value by its own rules.
pub fn value<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<T, FieldError> {
    text.parse()
        .map_err(|error: T::Err| FieldError::new(field, format!("`{text}` {error}")))
}

/// Reads the projects that something is restricted to; none named means no restriction.
pub fn project_ids(texts: &[String]) -> Result<Option<Vec<ProjectId>>, FieldError> {
    let projects = texts
        .iter()
        .map(|text| value("project_ids", text))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((!projects.is_empty()).then_some(projects))
}

/// Reads one event type: no filter over them.
pub fn event_type(text: &str) -> Result<EventType, FieldError> {
    EventType::new(text).map_err(|error| FieldError::new("type", format!("`{text}` {error}")))
}

/// Reads an instant: a time of RFC 3339, or how long ago.
pub fn time(
    field: &'static str,
    text: &str,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, FieldError> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let ago = humantime::parse_duration(text).ok();
    ago.and_then(|ago| chrono::Duration::from_std(ago).ok())
        .and_then(|ago| now.checked_sub_signed(ago))
        .ok_or_else(|| {
            let rule = "is no time; write it as `2026-05-01T09:00:00Z`, or how long ago: `2h`";
            FieldError::new(field, format!("`{text}` {rule}"))
        })
}

/// Reads headers as they are written in a request. A value may be a credential and is not repeated.
pub fn headers(texts: &[String]) -> Result<CustomHeaders, FieldError> {
    let pairs = texts
        .iter()
        .map(|text| {
            let (name, value) = text
                .split_once(':')
                .ok_or_else(|| FieldError::new("headers", "must be written as `Name: value`"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    CustomHeaders::new(pairs)
}

/// Reads the delays between attempts: `5s,5m,1h`, or `none` for one attempt and no more.
pub fn retry_schedule(text: &str) -> Result<RetrySchedule, FieldError> {
    let wrong = |reason: String| FieldError::new("retry_schedule", reason);
    if text == "none" {
        return Ok(RetrySchedule::none());
    }
    let delays = text
        .split(',')
        .map(|delay| {
            humantime::parse_duration(delay.trim()).map_err(|_| {
                wrong(format!(
                    "`{delay}` is no duration; write the delays as `5s,5m,1h`, or `none`"
                ))
            })
        })
        .collect::<Result<_, _>>()?;
    RetrySchedule::new(delays).map_err(|error| wrong(error.to_string()))
}

/// Reads an id of ours.
pub fn id<T: StaticType>(field: &'static str, text: &str) -> Result<TypeSafeId<T>, FieldError> {
    text.parse().map_err(|_| {
        FieldError::new(
            field,
            format!("`{text}` is no id of the form {}_…", T::TYPE),
        )
    })
}

/// Which workspace.
#[derive(Clone, Debug, Args)]
pub struct WorkspaceArgs {
    /// The workspace.
    #[arg(long, value_name = "ID", default_value = "default")]
    workspace: String,
}

impl WorkspaceArgs {
    /// Its id.
    pub fn id(&self) -> Result<WorkspaceId, FieldError> {
        value("workspace", &self.workspace)
    }

    /// All of it.
    pub fn reach(&self) -> Result<Reach, FieldError> {
        Ok(Reach::all(&self.id()?))
    }
}

impl fmt::Display for WorkspaceArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.workspace)
    }
}

/// Which part of a list.
#[derive(Clone, Debug, Args)]
pub struct PageArgs {
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,

    /// Begin behind this id: the `next_cursor` of the page before.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

impl PageArgs {
    /// The request to the store.
    pub fn request<T: StaticType>(&self) -> Result<PageRequest<TypeSafeId<T>>, FieldError> {
        let after = self.after.as_deref();
        Ok(PageRequest {
            limit: usize::from(self.limit),
            after: after.map(|text| id("after", text)).transpose()?,
        })
    }
}
