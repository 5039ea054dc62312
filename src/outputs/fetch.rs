//! Takes a file of the core's, once, to where files are kept.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use url::Url;

use super::files::FileStore;
use crate::config::Outputs;
use crate::config::outputs::CoreHost;
use crate::domain::file::{FileKey, KeptFile};
use crate::egress::client::Download;
use crate::egress::{SendError, WebhookClient};
use crate::store::FileError;

/// Fetches files of the core's.
pub struct Fetcher {
    client: Arc<WebhookClient>,
    files: Arc<FileStore>,
    hosts: Vec<CoreHost>,
    timeout: Duration,
    max_bytes: u64,
}

/// Why a file of the core's could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is none that files are taken from. It is not repeated: it may carry a token.
    #[error("the download URL {0}")]
    Refused(&'static str),

    /// Nothing, or not all of it, came.
    #[error("the core's file: {0}")]
    Request(#[from] SendError),

    /// The answer is no file.
    #[error("the core answered with {0}")]
    Status(u16),

    /// It is too large, or cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

impl FetchError {
    /// Whether another try would end the same.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) | Self::File(FileError::TooLarge { .. }) => true,
            // Redirects are among them: they are not followed.
            Self::Status(status) => *status < 500 && !matches!(status, 408 | 425 | 429),
            Self::Request(_) | Self::File(_) => false,
        }
    }
}

impl Fetcher {
    /// Fetches under these limits, by this client, to these files.
    pub fn new(settings: &Outputs, client: Arc<WebhookClient>, files: Arc<FileStore>) -> Self {
        Self {
            client,
            files,
            hosts: settings.core_hosts.clone(),
            timeout: settings.fetch_timeout,
            max_bytes: settings.max_file_bytes,
        }
    }

    /// Whether a file would be fetched from there; before it is, and when an event names it.
    pub fn check(&self, url: &str) -> Result<Url, FetchError> {
        let url = Url::parse(url).map_err(|_| FetchError::Refused("is no URL"))?;
        if url.scheme() != "https" {
            return Err(FetchError::Refused("is not https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Refused("holds a user name or a password"));
        }
        if !self.hosts.iter().any(|host| host.is_of(&url)) {
            return Err(FetchError::Refused(
                "leads to a host that `outputs.core_hosts` does not name",
            ));
        }
        Ok(url)
    }

    /// Takes the file that the URL leads to, all of it, and keeps it under the key.
    pub async fn fetch(&self, url: &str, key: &FileKey) -> Result<KeptFile, FetchError> {
        let url = self.check(url)?;
        let download = self.client.download(&url, self.timeout).await?;
        if download.status != 200 {
            return Err(FetchError::Status(download.status));
        }
        // Where it says so itself, nothing of it need be read.
        if download
            .length
            .is_some_and(|length| length > self.max_bytes)
        {
            let most = self.max_bytes;
            return Err(FileError::TooLarge { most }.into());
        }
        let content = stream::try_unfold(download, |mut download: Download| async move {
            let piece = download.next().await?;
            Ok::<_, FetchError>(piece.map(|piece| (piece, download)))
        });
        self.files.keep(key, Box::pin(content)).await
    }
}
