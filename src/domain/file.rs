//! The file of an output, as it is kept: under which key, and how it is known to be whole.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use sha2::{Digest, Sha256};
use url::Url;

use super::hex::hex;
use super::ids::{FileId, OutputId, WorkspaceId};
use super::output::OutputFormat;

/// How many bytes of a SHA-256 stand for an id of the core's in a key: no two ids meet in them, by
/// chance or by design.
const DIGEST_BYTES: usize = 16;

/// Where a file is kept: `workspace/output/file.format`.
///
/// The core's ids are any text at all (`../..` among it), so their digests stand for them. Each file
/// that is made has a key of its own: a download that is under way goes on reading the file that it
/// began with when the output is made again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(Arc<str>);

impl FileKey {
    /// The key of a new file. `format` is that of the file: a CSV output of several sections is
    /// kept as `zip`.
    pub fn new(
        workspace: &WorkspaceId,
        output: &OutputId,
        file: FileId,
        format: &OutputFormat,
    ) -> Self {
        let (workspace, output) = (digest(workspace.as_str()), digest(output.as_str()));
        Self(Arc::from(format!("{workspace}/{output}/{file}.{format}")))
    }

    /// Reads a key back; `None` for what [`Self::new`] never makes.
    pub fn parse(text: &str) -> Option<Self> {
        let (directory, name) = text.rsplit_once('/')?;
        let (workspace, output) = directory.split_once('/')?;
        let (file, format) = name.split_once('.')?;
        let known = is_digest(workspace)
            && is_digest(output)
            && file
                .parse::<FileId>()
                .is_ok_and(|id| id.to_string() == file)
            && OutputFormat::parse(format).is_some_and(|known| known.as_str() == format);
        known.then(|| Self(Arc::from(text)))
    }

    /// The key as it is kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the file is, in the word that file names end with.
    pub fn extension(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, format)| format)
    }

    /// What the file is, in the word that HTTP has for it. What a browser would run (HTML, SVG) is
    /// called bytes: it came from elsewhere and is served from our own address.
    pub fn media_type(&self) -> &'static str {
        match self.extension() {
            "csv" => "text/csv; charset=utf-8",
            "zip" => "application/zip",
            "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            "pdf" => "application/pdf",
            "json" => "application/json",
            _ => "application/octet-stream",
        }
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file that is kept whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// Where.
    pub key: FileKey,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Where the file of an output is read, with a key: an address, or a path of this deployment where it
/// was not told its own address.
pub fn download_url(public: Option<&Url>, output: &OutputId) -> String {
    format!("{}/download", output_url(public, output))
}

/// Where an output itself is read.
pub fn output_url(public: Option<&Url>, output: &OutputId) -> String {
    let base = public.map_or("", |url| url.as_str().trim_end_matches('/'));
    format!("{base}/v1/outputs/{}", segment(output.as_str()))
}

/// A text as a segment of a path (RFC 3986 §3.3): what is not unreserved is encoded.
fn segment(text: &str) -> PercentEncode<'_> {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, RESERVED)
}

fn digest(id: &str) -> String {
    hex(&Sha256::digest(id.as_bytes())[..DIGEST_BYTES])
}

fn is_digest(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 2 * DIGEST_BYTES && text.bytes().all(is_hex)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::super::ids::new_id;
    use super::*;

    fn key(workspace: &str, output: &str, format: &str) -> FileKey {
        FileKey::new(
            &WorkspaceId::new(workspace).unwrap(),
            &OutputId::new(output).unwrap(),
            new_id(DateTime::UNIX_EPOCH, [1; 10]),
            &OutputFormat::parse(format).unwrap(),
        )
    }

    #[test]
    fn tenants_and_outputs_are_apart() {
        let directory = |workspace, output| {
            let key = key(workspace, output, "csv");
            key.as_str().rsplit_once('/').unwrap().0.to_owned()
        };
        assert_ne!(directory("a", "o"), directory("b", "o"));
        assert_ne!(directory("a", "o"), directory("a", "p"));
        assert_ne!(directory("a/b", "o"), directory("a", "b/o"));
    }

    #[test]
    fn an_address_leads_to_the_file_whatever_the_id_holds() {
        let id = OutputId::new("out/ä ?1.x").unwrap();
        let path = "/v1/outputs/out%2F%C3%A4%20%3F1.x/download";
        assert_eq!(download_url(None, &id), path);
        for public in ["https://forge.example", "https://forge.example/"] {
            let url = Url::parse(public).unwrap();
            let expected = format!("https://forge.example{path}");
            assert_eq!(download_url(Some(&url), &id), expected);
        }
        let below = Url::parse("https://forge.example/reports/").unwrap();
        let url = download_url(Some(&below), &OutputId::new("o").unwrap());
        assert_eq!(url, "https://forge.example/reports/v1/outputs/o/download");
    }

    #[test]
    fn what_no_file_has_is_no_key() {
        let good = key("w", "o", "csv").as_str().to_owned();
        assert_eq!(FileKey::parse(&good).unwrap().as_str(), good);
        for bad in [
            String::new(),
            good.replace('/', ""),
            good.to_uppercase(),
            format!("/{good}"),
            format!("x/{good}"),
            format!("{good}#1"),
            format!("{good}/../x"),
            good.replace(".csv", ".excel"),
            good.replace(".csv", ""),
            good.replace("fil_", "evt_"),
        ] {
            assert_eq!(FileKey::parse(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_id_chooses_a_part_of_the_path(workspace in "\\PC{1,60}", output in "\\PC{1,60}") {
            let key = key(&workspace, &output, "xlsx");
            let plain = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._".contains(&byte)
            };
            prop_assert!(key.as_str().bytes().all(plain), "{key}");
            prop_assert_eq!(key.as_str().split('/').count(), 3);
            prop_assert!(!key.as_str().contains(".."));
            prop_assert_eq!(FileKey::parse(key.as_str()), Some(key.clone()));
            prop_assert_eq!(key.extension(), "xlsx");
        }
    }
}
