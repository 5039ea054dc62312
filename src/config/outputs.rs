//! `[outputs]`: where the files of outputs are kept, and what may be fetched of the core.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{duration, redact};

/// `[outputs]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outputs {
    /// The directory that keeps files, and those under way; only the latter where a bucket of
    /// [`S3`] is named. Absent: `outputs` beside our other files.
    pub directory: Option<PathBuf>,
    /// The hosts that files of the core's may be fetched from.
    pub core_hosts: Vec<CoreHost>,
    /// The largest file, made or fetched, in bytes.
    pub max_file_bytes: u64,
    /// Files made at once, in this process.
    pub concurrency: usize,
    /// For a file of the core's, from dialling to its last byte.
    #[serde(with = "duration")]
    pub fetch_timeout: Duration,
    /// How long the core has to make what only it can make; after that, it failed.
    #[serde(with = "duration")]
    pub core_timeout: Duration,
    /// The S3-compatible store that keeps files instead of a directory.
    pub s3: S3,
}

impl Default for Outputs {
    fn default() -> Self {
        Self {
            directory: None,
            core_hosts: Vec::new(),
            max_file_bytes: 256 * 1024 * 1024,
            concurrency: 2,
            fetch_timeout: Duration::from_mins(5),
            core_timeout: Duration::from_hours(24),
            s3: S3::default(),
        }
    }
}

/// `[outputs.s3]`: used where a bucket is named.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// The bucket. It must be there already.
    pub bucket: Option<String>,
    /// Where the store is; absent: Amazon's, in the region.
    pub endpoint: Option<Url>,
    /// The region that requests are signed for.
    pub region: String,
    /// Who asks.
    pub access_key_id: Option<String>,
    /// What requests are signed with: never printed.
    #[serde(serialize_with = "redact::hidden")]
    pub secret_access_key: Option<SecretString>,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            bucket: None,
            endpoint: None,
            region: "us-east-1".to_owned(),
            access_key_id: None,
            secret_access_key: None,
        }
    }
}

/// A host of the core's: `files.forge.example`, or with a port other than 443
/// `files.forge.example:8443`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct CoreHost {
    host: Host<String>,
    port: u16,
}

/// The port of https.
const HTTPS: u16 = 443;

impl CoreHost {
    /// Whether a URL leads there.
    pub fn is_of(&self, url: &Url) -> bool {
        url.host().map(|host| host.to_owned()).as_ref() == Some(&self.host)
            && url.port_or_known_default() == Some(self.port)
    }
}

impl FromStr for CoreHost {
    type Err = String;

    /// Reads a host as a URL would have it, so that both compare in one spelling.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "`{text}` is no host; write it as `files.forge.example` or `files.forge.example:8443`"
            )
        };
        let url = Url::parse(&format!("https://{text}")).map_err(|_| wrong())?;
        let bare = url.path() == "/"
            && !text.ends_with('/')
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match url.host() {
            Some(host) if bare => Ok(Self {
                host: host.to_owned(),
                port: url.port().unwrap_or(HTTPS),
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for CoreHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            HTTPS => self.host.fmt(f),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

impl TryFrom<String> for CoreHost {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CoreHost> for String {
    fn from(host: CoreHost) -> Self {
        host.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_that_host_and_port_and_no_other() {
        let is_of = |host: &str, url: &str| {
            let host: CoreHost = host.parse().unwrap();
            host.is_of(&url.parse().unwrap())
        };
        assert!(is_of("files.example", "https://files.example/a?b"));
        assert!(is_of("FILES.example", "https://files.EXAMPLE:443/"));
        assert!(is_of("files.example:8443", "https://files.example:8443/"));
        assert!(is_of("[::1]:8443", "https://[0:0::1]:8443/"));
        for url in [
            "https://files.example:8443/",
            "https://files.example.evil.example/",
            "https://evil.example/files.example",
            "https://files.example@evil.example/",
            "https://sub.files.example/",
            "https://files.example./",
        ] {
            assert!(!is_of("files.example", url), "{url}");
        }
    }

    #[test]
    fn what_is_more_than_a_host_is_refused() {
        for text in [
            "",
            "https://files.example",
            "files.example/",
            "files.example/a",
            "files.example?a",
            "files.example#a",
            "me@files.example",
            "files.example:port",
            "files example",
        ] {
            assert!(text.parse::<CoreHost>().is_err(), "{text}");
        }
        let host: CoreHost = "Files.Example:443".parse().unwrap();
        assert_eq!(host.to_string(), "files.example");
    }
}
