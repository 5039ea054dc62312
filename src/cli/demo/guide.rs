//! How to look at the demo over its API.

use std::path::PathBuf;

use super::stage::Stage;
use crate::domain::api_key::{ApiKeySpec, KeyLimits, Scope};
use crate::domain::key_text::KeyText;
use crate::store::NewApiKey;

/// What the key may do: read what the demo shows.
const SCOPES: [Scope; 4] = [
    Scope::ReadEditions,
    Scope::ReadBlueprints,
    Scope::ReadOutputs,
    Scope::ReadWorkspace,
];

/// Where the API of the demo is.
pub(super) struct Door {
    /// On this port of this machine.
    pub(super) port: u16,
    /// Where its certificate is kept.
    pub(super) certificate: PathBuf,
}

impl Stage {
    /// Makes a key that ends within a day, and says how to use it: the only time that it is shown.
    pub(super) async fn guide(&self, door: &Door) -> anyhow::Result<String> {
        let entropy = &self.surroundings.entropy;
        let now = self.surroundings.clock.now();
        let text = KeyText::generate(entropy.id(now), entropy.bytes());
        let spec = ApiKeySpec {
            name: "demo".to_owned(),
            scopes: SCOPES.into_iter().collect(),
            project_ids: None,
            expires_at: Some(now + chrono::Days::new(1)),
            limits: KeyLimits::default(),
        };
        spec.check(now)?;
        let new = NewApiKey {
            id: text.id(),
            workspace: self.workspace.clone(),
            spec,
            digest: text.digest(),
        };
        let created = self.store.create_api_key(&new, &self.act(), None).await?;
        created.created()?;
        Ok(format!(
            "The API is at https://localhost:{port}. Its editions, as they move (the key only reads, and ends in a day):\n\n\
             curl --cacert '{certificate}' -H 'Authorization: Bearer {key}' 'https://localhost:{port}/v1/editions'\n",
            port = door.port,
            certificate = door.certificate.display(),
            key = text.expose(),
        ))
    }
}
