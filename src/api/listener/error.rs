//! Why the API cannot be served.

use std::io;
use std::path::PathBuf;

/// Why the API cannot be served. No text of a key is ever in it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A file of the certificate cannot be used.
    #[error("{key} {}: {reason}", path.display())]
    File {
        /// What names the file: a key of the configuration, or that it is one that we make.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A self-signed certificate cannot be made.
    #[error("a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// The port takes no connections any more.
    #[error("api.listen: {0}")]
    Accept(#[source] io::Error),
}
