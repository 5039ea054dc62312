//! An edition in memory, and what renders it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its work ends the test"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::DateTime;
use forge_dispatch::config::Outputs;
use forge_dispatch::domain::blueprint::{
    Blueprint, Bounds, Field, FieldType, Section, SectionKind,
};
use forge_dispatch::domain::edition::{Content, Edition, EditionStatus, Row, SectionContent};
use forge_dispatch::domain::ids::{BlueprintId, EditionId, ProjectId, RowId, WorkspaceId};
use forge_dispatch::domain::output::OutputFormat;
use forge_dispatch::domain::values::Values;
use forge_dispatch::outputs::{
    At, Outline, RenderError, Rendered, Renderer, RowPage, Source, SourceError,
};
use futures::TryStreamExt;
use tempfile::TempDir;

/// The version of every edition here.
pub(super) const VERSION: i64 = 7;

/// A field without rules.
pub(super) fn field(name: &str, label: Option<&str>, field_type: FieldType) -> Field {
    Field {
        name: name.to_owned(),
        label: label.map(str::to_owned),
        field_type,
        required: false,
        bounds: Bounds::default(),
        pattern: None,
    }
}

/// A section, and the JSON objects that it holds: one for each row, or the one.
pub(super) fn section(
    name: &str,
    label: Option<&str>,
    kind: SectionKind,
    fields: Vec<Field>,
    held: &[&str],
) -> (Section, SectionContent) {
    let section = Section {
        name: name.to_owned(),
        label: label.map(str::to_owned),
        kind,
        fields,
    };
    let mut values = held.iter().map(|text| Values::parse(text).unwrap());
    let content = match kind {
        SectionKind::Single => SectionContent::Single(values.next().unwrap_or_default()),
        SectionKind::Repeating => {
            let row = |(number, values)| Row {
                id: RowId::new(&format!("r{number}")).unwrap(),
                values,
            };
            SectionContent::Repeating((0..).zip(values).map(row).collect())
        }
    };
    (section, content)
}

/// An edition in memory.
pub(super) struct Given {
    pub(super) outline: Outline,
    pub(super) content: Content,
    /// How often rows were asked for.
    pub(super) pages: AtomicUsize,
    /// From which page on the edition is another.
    pub(super) changes_at: usize,
    /// The most rows that a page gives, whatever is asked for.
    pub(super) rows_a_page: usize,
}

impl Given {
    pub(super) fn new(sections: Vec<(Section, SectionContent)>) -> Self {
        let id = |text: &str| ProjectId::new(text).unwrap();
        let named = |(section, content): &(Section, SectionContent)| {
            (section.name.clone(), content.clone())
        };
        let content = sections.iter().map(named).collect();
        let blueprint = Blueprint {
            id: BlueprintId::new("bp").unwrap(),
            project: id("pr"),
            name: "Report".to_owned(),
            sections: sections.into_iter().map(|(section, _)| section).collect(),
            outputs: Vec::new(),
        };
        let edition = Edition {
            id: EditionId::new("ed").unwrap(),
            project: id("pr"),
            blueprint: blueprint.id.clone(),
            name: "May".to_owned(),
            status: EditionStatus::Approved,
            status_changed_at: DateTime::UNIX_EPOCH,
            period: None,
            assignee: None,
            version: VERSION,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        };
        Self {
            outline: Outline { edition, blueprint },
            content,
            pages: AtomicUsize::new(0),
            changes_at: usize::MAX,
            rows_a_page: usize::MAX,
        }
    }

    fn content(&self, section: &str) -> &SectionContent {
        let mut named = self.content.iter();
        &named.find(|(name, _)| name == section).unwrap().1
    }
}

#[async_trait]
impl Source for Given {
    async fn outline(&self, _: &WorkspaceId, edition: &EditionId) -> Result<Outline, SourceError> {
        if *edition == self.outline.edition.id {
            Ok(self.outline.clone())
        } else {
            Err(SourceError::Missing)
        }
    }

    async fn single(&self, at: &At, section: &str) -> Result<Values, SourceError> {
        assert_eq!(at.version, VERSION);
        match self.content(section) {
            SectionContent::Single(values) => Ok(values.clone()),
            SectionContent::Repeating(_) => panic!("{section} has rows"),
        }
    }

    async fn rows(
        &self,
        at: &At,
        section: &str,
        after: Option<i64>,
        limit: usize,
    ) -> Result<RowPage, SourceError> {
        assert_eq!(at.version, VERSION);
        if self.pages.fetch_add(1, Ordering::SeqCst) >= self.changes_at {
            return Err(SourceError::Changed);
        }
        let SectionContent::Repeating(rows) = self.content(section) else {
            panic!("{section} has no rows");
        };
        let from = after.map_or(0, |after| usize::try_from(after).unwrap());
        let until = rows.len().min(from + limit.min(self.rows_a_page));
        Ok(RowPage {
            rows: rows[from..until].to_vec(),
            next: (until < rows.len()).then(|| i64::try_from(until).unwrap()),
        })
    }
}

/// A renderer, and the directory that it works in.
pub(super) struct Workshop {
    pub(super) renderer: Renderer,
    pub(super) directory: TempDir,
}

impl Workshop {
    pub(super) fn new(settings: &Outputs) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            renderer: Renderer::new(settings, directory.path().to_owned()),
            directory,
        }
    }

    pub(super) async fn render(
        &self,
        source: &dyn Source,
        format: &str,
    ) -> Result<Rendered, RenderError> {
        let format = OutputFormat::parse(format).unwrap();
        let (workspace, edition) = (WorkspaceId::default(), EditionId::new("ed").unwrap());
        let made_at = DateTime::from_timestamp(1_777_626_000, 0).unwrap();
        self.renderer
            .render(source, &workspace, &edition, &format, made_at)
            .await
    }

    /// The whole file, and what it is.
    pub(super) async fn bytes(&self, source: &dyn Source, format: &str) -> (Vec<u8>, String) {
        let rendered = self.render(source, format).await.unwrap();
        assert_eq!(rendered.version, VERSION);
        let format = rendered.format.to_string();
        let pieces: Vec<_> = rendered.into_stream().try_collect().await.unwrap();
        (pieces.concat(), format)
    }
}

impl Default for Workshop {
    fn default() -> Self {
        Self::new(&Outputs::default())
    }
}

/// One section of texts, a row for each of them.
pub(super) fn texts(texts: &[String]) -> Given {
    let rows: Vec<String> = texts
        .iter()
        .map(|text| serde_json::json!({ "text": text }).to_string())
        .collect();
    let held: Vec<&str> = rows.iter().map(String::as_str).collect();
    let fields = vec![field("text", None, FieldType::LongText)];
    Given::new(vec![section(
        "texts",
        None,
        SectionKind::Repeating,
        fields,
        &held,
    )])
}
