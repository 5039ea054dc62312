//! An edition as a file.
//!
//! Pages of rows are read on one side and written by a thread of its own on the other; between them
//! stand at most [`PAGES_AHEAD`] pages, so that memory does not grow with the edition.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::io::ReaderStream;

use super::cell::{Cell, Columns};
use super::csv::CsvDocument;
use super::error::RenderError;
use super::scratch::{Overflow, Scratch};
use super::source::{At, Outline, Source, SourceError};
use super::xlsx::{self, XlsxDocument};
use crate::config;
use crate::domain::blueprint::{Blueprint, Section, SectionKind};
use crate::domain::edition::Row;
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::domain::output::OutputFormat;
use crate::domain::values::Values;
use crate::store::FileError;

/// The most rows that are asked for at once.
const ROWS_AT_ONCE: usize = 500;

/// The most pages that wait to be written.
const PAGES_AHEAD: usize = 2;

/// How much of a finished file is read at once.
const READ_AT_ONCE: usize = 64 * 1024;

/// Makes files of editions, a few at a time.
#[derive(Debug)]
pub struct Renderer {
    directory: PathBuf,
    max_bytes: u64,
    max_rows_of_sheet: u32,
    turns: Arc<Semaphore>,
}

/// An edition, rendered.
#[derive(Debug)]
pub struct Rendered {
    /// The version that it shows.
    pub version: i64,
    /// What the file is: `csv`, `xlsx`, or `zip`.
    pub format: OutputFormat,
    file: File,
}

/// What takes the sections of an edition, one after the other.
pub(super) trait Document {
    /// Begins a section.
    fn begin(&mut self, section: &Section) -> Result<(), RenderError>;

    /// Writes a row of it, a cell for each field.
    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), RenderError>;

    /// Ends the last section: the whole file, at its beginning.
    fn finish(self: Box<Self>) -> Result<File, RenderError>;
}

/// What goes from the reading side to the writing one.
enum Part {
    /// The section of this place begins.
    Section(usize),
    /// Rows of it.
    Rows(Vec<Row>),
    /// The one row of a single section.
    Single(Values),
    /// All was sent. Without it nothing is finished: whoever read broke off.
    End,
}

impl Renderer {
    /// Renders under these limits; what is not finished lies in `directory`, without a name.
    pub fn new(settings: &config::Outputs, directory: PathBuf) -> Self {
        Self {
            directory,
            max_bytes: settings.max_file_bytes,
            max_rows_of_sheet: xlsx::MAX_ROWS,
            turns: Arc::new(Semaphore::new(settings.concurrency)),
        }
    }

    /// The same with another limit for the rows of a sheet, for tests.
    #[must_use]
    pub fn with_max_rows_of_sheet(mut self, most: u32) -> Self {
        self.max_rows_of_sheet = most;
        self
    }

    /// Renders an edition as it is now, when it is its turn. `made_at` is what the file says of
    /// itself.
    pub async fn render(
        &self,
        source: &dyn Source,
        workspace: &WorkspaceId,
        edition: &EditionId,
        format: &OutputFormat,
        made_at: DateTime<Utc>,
    ) -> Result<Rendered, RenderError> {
        if !format.is_made_here() {
            return Err(RenderError::NotMadeHere(format.clone()));
        }
        // The thread holds its turn to its own end, also when nobody waits for it any more.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let Outline { edition, blueprint } = source.outline(workspace, edition).await?;
        let at = At {
            workspace: workspace.clone(),
            edition: edition.id.clone(),
            version: edition.version,
        };
        let blueprint = Arc::new(blueprint);
        let overflow = Overflow::default();
        let (sender, parts) = mpsc::channel(PAGES_AHEAD);
        let empty = self.plan(format, &blueprint, made_at, &overflow);
        let writing = tokio::task::spawn_blocking({
            let blueprint = Arc::clone(&blueprint);
            move || {
                let _turn = turn;
                write(empty()?, &blueprint, parts)
            }
        });
        let fed = feed(source, &at, &blueprint, sender).await;
        let written = writing.await.unwrap_or(Err(RenderError::Broken));
        fed?;
        match written {
            Ok(file) => Ok(Rendered {
                version: edition.version,
                format: file_format(format, &blueprint),
                file,
            }),
            Err(_) if overflow.happened() => Err(RenderError::TooLarge {
                most: self.max_bytes,
            }),
            Err(error) => Err(error),
        }
    }

    /// Makes the empty document, on the thread that writes it.
    fn plan(
        &self,
        format: &OutputFormat,
        blueprint: &Blueprint,
        made_at: DateTime<Utc>,
        overflow: &Overflow,
    ) -> impl FnOnce() -> Result<Box<dyn Document>, RenderError> + Send + 'static {
        let (directory, most, overflow) =
            (self.directory.clone(), self.max_bytes, overflow.clone());
        let (sections, max_rows) = (blueprint.sections.len(), self.max_rows_of_sheet);
        let xlsx = *format == OutputFormat::Xlsx;
        move || {
            let scratch = Scratch::create(&directory, most, overflow).map_err(RenderError::Io)?;
            Ok(if xlsx {
                Box::new(XlsxDocument::new(scratch, &directory, made_at, max_rows)?)
            } else {
                Box::new(CsvDocument::new(scratch, sections))
            })
        }
    }
}

impl Rendered {
    /// The bytes of the file, from its beginning, as [`FileStore::keep`] takes them.
    ///
    /// [`FileStore::keep`]: super::FileStore::keep
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, FileError>> + Send + Unpin {
        let file = tokio::fs::File::from_std(self.file);
        ReaderStream::with_capacity(file, READ_AT_ONCE).map_err(FileError::unavailable)
    }
}

/// What the file of an output of this format is.
fn file_format(format: &OutputFormat, blueprint: &Blueprint) -> OutputFormat {
    match format {
        OutputFormat::Csv if blueprint.sections.len() > 1 => OutputFormat::Other(Arc::from("zip")),
        format => format.clone(),
    }
}

/// Reads all sections and hands them over. A writer that has ended says itself why.
async fn feed(
    source: &dyn Source,
    at: &At,
    blueprint: &Blueprint,
    parts: mpsc::Sender<Part>,
) -> Result<(), SourceError> {
    for (place, section) in blueprint.sections.iter().enumerate() {
        if parts.send(Part::Section(place)).await.is_err() {
            return Ok(());
        }
        match section.kind {
            SectionKind::Single => {
                let values = source.single(at, &section.name).await?;
                if parts.send(Part::Single(values)).await.is_err() {
                    return Ok(());
                }
            }
            SectionKind::Repeating => {
                let mut after = None;
                loop {
                    let page = source.rows(at, &section.name, after, ROWS_AT_ONCE).await?;
                    if parts.send(Part::Rows(page.rows)).await.is_err() {
                        return Ok(());
                    }
                    if page.next.is_none() {
                        break;
                    }
                    after = page.next;
                }
            }
        }
    }
    drop(parts.send(Part::End).await);
    Ok(())
}

/// Writes what comes, to the end.
fn write(
    mut document: Box<dyn Document>,
    blueprint: &Blueprint,
    mut parts: mpsc::Receiver<Part>,
) -> Result<File, RenderError> {
    let mut columns = None;
    while let Some(part) = parts.blocking_recv() {
        match part {
            Part::Section(place) => {
                let section = blueprint.sections.get(place).ok_or(RenderError::Broken)?;
                document.begin(section)?;
                columns = Some(Columns::of(section));
            }
            Part::Rows(rows) => {
                let columns = columns.as_ref().ok_or(RenderError::Broken)?;
                for row in &rows {
                    document.row(&columns.cells(&row.values)?)?;
                }
            }
            Part::Single(values) => {
                let columns = columns.as_ref().ok_or(RenderError::Broken)?;
                document.row(&columns.cells(&values)?)?;
            }
            Part::End => return document.finish(),
        }
    }
    Err(RenderError::Abandoned)
}
