//! `role`: which part of the work this process does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which part of the work this process does. Rows are all that the parts share, so they may be one
/// process or many, on one Postgres (and one RabbitMQ).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// Serves the API.
    Api,
    /// Sends webhooks, publishes what we originate, makes the files of outputs, replays.
    Dispatch,
    /// Takes in what the broker brings.
    Ingest,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::All, Self::Api, Self::Dispatch, Self::Ingest];

    /// The name in the configuration, on the command line and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Api => "api",
            Self::Dispatch => "dispatch",
            Self::Ingest => "ingest",
        }
    }

    /// Whether it serves the API.
    pub fn serves_api(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    /// Whether it sends, and does what is done in the background.
    pub fn dispatches(self) -> bool {
        matches!(self, Self::All | Self::Dispatch)
    }

    /// Whether it takes in what the broker brings.
    pub fn ingests(self) -> bool {
        matches!(self, Self::All | Self::Ingest)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No role has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `all`, `api`, `dispatch` or `ingest`")]
pub struct UnknownRole;

impl TryFrom<String> for Role {
    type Error = UnknownRole;

    fn try_from(text: String) -> Result<Self, UnknownRole> {
        text.parse()
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or(UnknownRole)
    }
}
