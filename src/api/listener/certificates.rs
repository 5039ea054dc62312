//! The certificate in use, and its exchange while connections come and go.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::self_signed::{self, SelfSigned};
use super::{Fingerprint, ListenError};
use crate::clock::pause;

/// What is spoken inside TLS, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the certificate comes from.
pub(super) enum Source {
    /// Files that the configuration names.
    Named { certificate: PathBuf, key: PathBuf },
    /// Files that we make.
    Made(SelfSigned),
}

impl Source {
    fn read(&self) -> Result<Loaded, ListenError> {
        match self {
            Self::Named { certificate, key } => {
                read(("api.certificate_file", certificate), ("api.key_file", key))
            }
            Self::Made(own) => read(
                (self_signed::CERTIFICATE, &own.certificate),
                (self_signed::KEY, &own.key),
            ),
        }
    }
}

/// A pair that was read, ready for use.
struct Loaded {
    /// Whole, with its memory of sessions: one that was begun under another certificate is not
    /// taken up again.
    tls: Arc<ServerConfig>,
    fingerprint: Fingerprint,
    /// Of both files, to see whether they changed.
    digest: [u8; 32],
}

/// The certificate in use.
pub(super) struct Certificates {
    source: Source,
    current: RwLock<Loaded>,
    /// What was last said about files that cannot be used, so that it is said once.
    complaint: Mutex<Option<String>>,
}

impl Certificates {
    /// Reads the pair, and makes it first if it is ours to make.
    pub(super) fn open(source: Source) -> Result<Self, ListenError> {
        if let Source::Made(own) = &source {
            own.ensure()?;
        }
        Ok(Self {
            current: RwLock::new(source.read()?),
            source,
            complaint: Mutex::default(),
        })
    }

    /// How TLS is spoken from now on.
    pub(super) fn tls(&self) -> Arc<ServerConfig> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.tls)
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.fingerprint.clone()
    }

    /// Looks at the files again and again. Their contents are compared, not their times: a mounted
    /// secret is exchanged by turning a link.
    pub(super) async fn watch(self: Arc<Self>, interval: Duration) -> Infallible {
        loop {
            pause(interval).await;
            let this = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "the API's certificate could not be looked at");
            }
        }
    }

    fn look(&self) {
        let mut complaint = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.renew_and_read() {
            Ok(loaded) => {
                *complaint = None;
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                if current.digest != loaded.digest {
                    tracing::info!(fingerprint = %loaded.fingerprint, "the API has a new certificate");
                    *current = loaded;
                }
            }
            Err(error) => {
                let told = error.to_string();
                if complaint.as_ref() != Some(&told) {
                    tracing::error!(%error, "the API keeps its certificate: the new one cannot be used");
                    *complaint = Some(told);
                }
            }
        }
    }

    fn renew_and_read(&self) -> Result<Loaded, ListenError> {
        // Files that vanish while we serve are not made anew: somebody may be about to put others.
        if let Source::Made(own) = &self.source
            && own.is_due()
        {
            own.ensure()?;
        }
        self.source.read()
    }
}

/// Reads and checks a pair. Each file comes with what an error calls it; none repeats its text.
fn read(
    (certificate_key, certificate_path): (&'static str, &Path),
    (key_key, key_path): (&'static str, &Path),
) -> Result<Loaded, ListenError> {
    let wrong = |key, path: &Path, reason: &str| ListenError::File {
        key,
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let bytes = |key, path: &Path| {
        fs::read(path).map_err(|error: io::Error| wrong(key, path, &error.to_string()))
    };
    let certificate = bytes(certificate_key, certificate_path)?;
    let key = bytes(key_key, key_path)?;
    let digest = Sha256::new()
        .chain_update(Sha256::digest(&certificate))
        .chain_update(Sha256::digest(&key))
        .finalize()
        .into();
    let of_certificate = |reason: &str| wrong(certificate_key, certificate_path, reason);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| of_certificate("is no PEM"))?;
    let first = chain
        .first()
        .ok_or_else(|| of_certificate("holds no certificate"))?;
    let fingerprint = Fingerprint::of(first).map_err(|error| of_certificate(&error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| wrong(key_key, key_path, "holds no private key in PEM"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_certificate(&format!("does not belong to {}", key_path.display()))
            }
            rustls::Error::InvalidCertificate(_) => of_certificate(&error.to_string()),
            _ => wrong(key_key, key_path, &error.to_string()),
        })?;
    tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Loaded {
        tls: Arc::new(tls),
        fingerprint,
        digest,
    })
}
