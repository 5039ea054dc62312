//! How to look at the demo over its API.

use std::path::PathBuf;

use anyhow::Context as _;

use super::stage::Stage;
use crate::domain::api_key::{ApiKeySpec, KeyLimits, Scope};
use crate::domain::edition::{EditionStatus, SectionContent};
use crate::domain::key_text::KeyText;
use crate::domain::output::OutputFormat;
use crate::domain::snapshot::{Snapshot, State};
use crate::store::{NewApiKey, OutputRecord};

/// What the key may do: read all but what is an admin's.
const SCOPES: [Scope; 5] = [
    Scope::ReadEditions,
    Scope::ReadBlueprints,
    Scope::ReadOutputs,
    Scope::ReadWorkspace,
    Scope::ReadWebhooks,
];

/// Where the API of the demo is.
pub(super) struct Door {
    /// On this port of this machine.
    pub(super) port: u16,
    /// Where its certificate is kept.
    pub(super) certificate: PathBuf,
}

impl Stage {
    /// Makes a key that only reads, and ends within a day.
    pub(super) async fn reading_key(&self) -> anyhow::Result<KeyText> {
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
        let new = NewApiKey {
            id: text.id(),
            workspace: self.workspace.clone(),
            spec,
            digest: text.digest(),
        };
        let created = self.store.create_api_key(&new, &self.act(), None).await?;
        created.created()?;
        Ok(text)
    }
}

/// What was seeded, and lines to copy that show it over the API. The key is shown here only.
pub(super) fn text(
    seed: &[Snapshot],
    made: &[OutputRecord],
    door: &Door,
    key: &KeyText,
) -> anyhow::Result<String> {
    let count = |what: fn(&State) -> bool| seed.iter().filter(|told| what(&told.state)).count();
    let editions = || {
        seed.iter().filter_map(|told| match &told.state {
            State::Edition(edition) => Some(edition),
            _ => None,
        })
    };
    let rows: usize = editions()
        .flat_map(|edition| &edition.content)
        .map(|(_, content)| match content {
            SectionContent::Single(_) => 0,
            SectionContent::Repeating(rows) => rows.len(),
        })
        .sum();
    let shown = editions()
        .find(|edition| edition.edition.status != EditionStatus::Closed)
        .context("no edition to show")?;
    let (section, _) = (shown.content.iter())
        .find(|(_, content)| matches!(content, SectionContent::Repeating(_)))
        .context("no rows to show")?;
    let workbook = made
        .iter()
        .find(|record| record.output.format == OutputFormat::Xlsx)
        .map_or("", |record| record.output.id.as_str());
    let curl = r#"curl --cacert "$CERT" -H "Authorization: Bearer $KEY""#;
    Ok(format!(
        "Seeded: {projects} projects, {editions} editions with {rows} rows, {outputs} outputs.\n\
         The API is at https://localhost:{port}; this key only reads, for a day.\n\
         In another terminal: an edition, its rows, what happens to it next, a workbook.\n\
         \n\
         KEY=\\\n{key}\n\
         CERT='{certificate}'\n\
         API=https://localhost:{port}/v1\n\
         {curl} \\\n  \"$API/editions/{edition}\"\n\
         {curl} -H 'Accept: text/csv' \\\n  \"$API/editions/{edition}/sections/{section}/rows\"\n\
         {curl} \\\n  \"$API/events?edition={edition}&after=latest&wait=30\"\n\
         {curl} -OJ \\\n  \"$API/outputs/{workbook}/download\"\n",
        projects = count(|state| matches!(state, State::Project(_))),
        editions = editions().count(),
        outputs = count(|state| matches!(state, State::Output(_))),
        port = door.port,
        key = key.expose(),
        certificate = door.certificate.display(),
        edition = shown.edition.id,
    ))
}
