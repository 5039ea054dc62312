//! The certificate that we make where none is configured, so that the API speaks TLS from the
//! first start on.
//!
//! The key is made once and kept when the certificate is renewed: who pinned the public key goes
//! on. Of processes that start at once in one directory, the first writes and the others read.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::CertificateError;
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use tempfile::NamedTempFile;
use url::{Host, Url};

use super::ListenError;
use crate::clock::Clock;
use crate::config::Api;
use crate::entropy::Entropy;

/// What errors call the files.
pub(super) const CERTIFICATE: &str =
    "the API's self-signed certificate (`api.certificate_file` names another)";
pub(super) const KEY: &str =
    "the key of the API's self-signed certificate (`api.key_file` names another)";

/// The longest that clients take from an authority of one's own (Apple's rule).
const VALID_DAYS: i64 = 825;
/// How long before its end it is renewed, so that nobody ever sees an expired one.
const RENEW_DAYS: i64 = 7;

/// Where the pair lies, and what the certificate is to say.
pub(super) struct SelfSigned {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    names: Vec<String>,
    /// The name that the certificate must hold whenever it was made: it was configured.
    public_name: Option<String>,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
}

impl SelfSigned {
    pub(super) fn new(
        settings: &Api,
        directory: &Path,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Self {
        let public_name = settings.public_url.as_ref().and_then(host);
        Self {
            certificate: directory.join("api-cert.pem"),
            key: directory.join("api-key.pem"),
            names: names(settings, public_name.as_deref()),
            public_name,
            clock,
            entropy,
        }
    }

    /// Makes what is missing, and renews a certificate that is due.
    pub(super) fn ensure(&self) -> Result<(), ListenError> {
        self.make_directory()?;
        if !self.key.exists() {
            let key = KeyPair::generate()?;
            let draft = self.draft(&key.serialize_pem())?;
            match draft.persist_noclobber(&self.key) {
                Ok(_) => {}
                // Another process was faster: its key is used.
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(file_error(KEY, &self.key, &error.error)),
            }
        }
        let mut key = File::open(&self.key).map_err(|error| file_error(KEY, &self.key, &error))?;
        // One process at a time looks at the certificate and replaces it.
        key.lock()
            .map_err(|error| file_error(KEY, &self.key, &error))?;
        if self.certificate.exists() && !self.is_due() {
            return Ok(());
        }
        let text =
            io::read_to_string(&mut key).map_err(|error| file_error(KEY, &self.key, &error))?;
        // The reason is not passed on: it might quote the key.
        let key = KeyPair::from_pem(&text).map_err(|_| ListenError::File {
            key: KEY,
            path: self.key.clone(),
            reason: "holds no private key in PEM that can be used".to_owned(),
        })?;
        let certificate = self.sign(&key)?;
        self.draft(&certificate)?
            .persist(&self.certificate)
            .map_err(|error| file_error(CERTIFICATE, &self.certificate, &error.error))?;
        Ok(())
    }

    /// Whether the certificate has run out, soon will, or lacks the public name. One that was put
    /// there by somebody else and cannot be judged stays.
    pub(super) fn is_due(&self) -> bool {
        let Ok(certificate) = CertificateDer::from_pem_file(&self.certificate) else {
            return false;
        };
        let soon = self.clock.now() + TimeDelta::days(RENEW_DAYS);
        let judged = judge(&certificate, soon, self.public_name.as_deref());
        matches!(
            judged,
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. }
            ))
        )
    }

    fn sign(&self, key: &KeyPair) -> Result<String, ListenError> {
        let now = self.clock.now();
        let mut params = CertificateParams::new(self.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "forge-dispatch");
        let [from, to] = [now - TimeDelta::days(1), now + TimeDelta::days(VALID_DAYS)]
            .map(|day| rcgen::date_time_ymd(day.year(), small(day.month()), small(day.day())));
        params.not_before = from;
        params.not_after = to;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Of one key there may be several certificates: browsers refuse two with the same number.
        let mut serial: [u8; 16] = self.entropy.bytes();
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok(params.self_signed(key)?.pem())
    }

    /// A whole file beside the ones that it becomes, readable by its owner only.
    fn draft(&self, text: &str) -> Result<NamedTempFile, ListenError> {
        let write = || {
            let mut draft = NamedTempFile::new_in(self.directory())?;
            draft.write_all(text.as_bytes())?;
            draft.as_file().sync_all()?;
            Ok(draft)
        };
        write().map_err(|error| file_error(CERTIFICATE, &self.certificate, &error))
    }

    fn directory(&self) -> &Path {
        self.key.parent().unwrap_or(Path::new("."))
    }

    fn make_directory(&self) -> Result<(), ListenError> {
        let directory = self.directory();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| file_error(CERTIFICATE, directory, &error))
    }
}

/// Whether a client that trusts just this certificate would take it then, for this name.
fn judge(
    certificate: &CertificateDer<'_>,
    then: DateTime<Utc>,
    name: Option<&str>,
) -> Result<(), rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned())?;
    let seconds = u64::try_from(then.timestamp()).unwrap_or_default();
    verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &roots,
        &[],
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .all,
    )?;
    if let Some(name) = name.and_then(|name| ServerName::try_from(name).ok()) {
        verify_server_name(&parsed, &name)?;
    }
    Ok(())
}

/// The names by which this machine may be called.
fn names(settings: &Api, public_name: Option<&str>) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let listen = settings.listen.ip();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    let uname = rustix::system::uname();
    let machine = uname.nodename().to_string_lossy();
    if ServerName::try_from(&*machine).is_ok() {
        names.push(machine.to_lowercase());
    }
    names.extend(public_name.map(str::to_owned));
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

fn host(url: &Url) -> Option<String> {
    url.host().map(|host| match host {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

/// Of a month or a day.
fn small(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(1)
}

fn file_error(key: &'static str, path: &Path, error: &io::Error) -> ListenError {
    ListenError::File {
        key,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
