//! By what a client can know a certificate that no authority vouches for.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};

/// The SHA-256 of a certificate, and of its public key. Written out: that of the certificate, in
/// pairs of hexadecimal digits with colons between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    certificate: [u8; 32],
    public_key: [u8; 32],
}

impl Fingerprint {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Self {
            certificate: Sha256::digest(certificate).into(),
            public_key: Sha256::digest(parsed.subject_public_key_info()).into(),
        })
    }

    /// The public key's, as `curl --pinnedpubkey` takes it (`sha256//…`). It outlives the renewal
    /// of a self-signed certificate.
    pub fn pin(&self) -> String {
        format!("sha256//{}", STANDARD.encode(self.public_key))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.certificate.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}
