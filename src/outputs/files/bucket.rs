//! An S3-compatible store.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use secrecy::ExposeSecret;

use super::FilesError;
use crate::config::Egress;
use crate::config::outputs::S3;
use crate::egress::client::for_configured_host;

/// How long a request is tried again that met a fault of the store's.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is.
const TRIES: usize = 4;

/// The client for the bucket. Its address comes from the configuration and from nowhere else, so it
/// may lie inside; certificate authorities are those of webhooks.
pub(super) fn open(
    settings: &S3,
    bucket: &str,
    egress: &Egress,
) -> Result<Arc<dyn ObjectStore>, FilesError> {
    let client = for_configured_host(egress)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&settings.region)
        .with_http_connector(Connector(client))
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: TRIES,
            retry_timeout: PATIENCE,
        });
    if let Some(endpoint) = &settings.endpoint {
        builder = builder
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_allow_http(endpoint.scheme() == "http");
    }
    if let Some(id) = &settings.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &settings.secret_access_key {
        builder = builder.with_secret_access_key(secret.expose_secret());
    }
    let bucket = builder.build().map_err(FilesError::Bucket)?;
    Ok(match &settings.prefix {
        Some(prefix) => Arc::new(PrefixStore::new(bucket, prefix.as_str())),
        None => Arc::new(bucket),
    })
}

/// Gives the library our own client, with our own trust in certificates.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}
