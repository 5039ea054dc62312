//! An S3-compatible server of others, in this process: requests are signed and checked.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its work ends the test"
)]

use std::path::PathBuf;

use forge_dispatch::config::Outputs;
use forge_dispatch::config::outputs::S3;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

const BUCKET: &str = "forge";
const KEY_ID: &str = "AKIATEST";
const SECRET: &str = "a secret that is checked";

/// A running server with one empty bucket; it stops when it is dropped.
pub(crate) struct Server {
    root: TempDir,
    endpoint: String,
    _accepting: AbortOnDropHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let served = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    drop(served);
                });
            }
        });
        Self {
            root,
            endpoint,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    /// Where its bucket lies.
    pub(super) fn bucket(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }

    /// Settings that lead to it.
    pub(crate) fn settings(&self) -> Outputs {
        Outputs {
            s3: S3 {
                bucket: Some(BUCKET.to_owned()),
                endpoint: Some(self.endpoint.parse().unwrap()),
                access_key_id: Some(KEY_ID.to_owned()),
                secret_access_key: Some(SecretString::from(SECRET)),
                ..S3::default()
            },
            ..Outputs::default()
        }
    }
}
