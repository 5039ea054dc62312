//! How a renderer reads, and when it gives up.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forge_dispatch::config::Outputs;
use forge_dispatch::domain::ids::{EditionId, WorkspaceId};
use forge_dispatch::outputs::{At, Outline, RenderError, RowPage, Source, SourceError};

use super::files::Place;
use super::fixture::{Given, Workshop, texts};
use crate::harness::eventually;

fn many(count: usize) -> Given {
    let given: Vec<String> = (0..count).map(|number| format!("text {number}")).collect();
    texts(&given)
}

fn is_empty(directory: &Path) -> bool {
    directory.read_dir().unwrap().next().is_none()
}

#[tokio::test]
async fn rows_come_page_by_page_and_in_order() {
    let workshop = Workshop::default();
    for (rows_a_page, pages) in [(usize::MAX, 3), (7, 179)] {
        let given = Given {
            rows_a_page,
            ..many(1_250)
        };
        let (bytes, _) = workshop.bytes(&given, "csv").await;
        let expected = (0..1_250)
            .map(|number| format!("text {number}\r\n"))
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            format!("text\r\n{expected}")
        );
        assert_eq!(given.pages.load(Ordering::SeqCst), pages);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rendered_can_be_kept() {
    let (workshop, place) = (Workshop::default(), Place::directory(&Outputs::default()));
    let (expected, _) = workshop.bytes(&many(1_250), "csv").await;
    let rendered = workshop.render(&many(1_250), "csv").await.unwrap();
    let key = place.key("o");
    let kept = place
        .files
        .keep(&key, rendered.into_stream())
        .await
        .unwrap();
    assert!(place.read(&key, 0, kept.size).await.unwrap() == expected);
}

#[tokio::test]
async fn an_edition_that_changes_meanwhile_is_not_shown_in_part() {
    let workshop = Workshop::default();
    for format in ["csv", "xlsx"] {
        let given = Given {
            changes_at: 1,
            ..many(1_250)
        };
        let error = workshop.render(&given, format).await.unwrap_err();
        assert!(
            matches!(error, RenderError::Source(SourceError::Changed)),
            "{error}"
        );
        assert!(!error.is_final(), "it is rendered anew");
    }
    assert!(is_empty(workshop.directory.path()));
}

#[tokio::test]
async fn a_file_that_would_be_too_large_is_given_up() {
    let settings = Outputs {
        max_file_bytes: 20_000,
        ..Outputs::default()
    };
    let workshop = Workshop::new(&settings);
    // Of a kind that no compression makes small.
    let given: Vec<String> = (0..4_000_u64)
        .map(|number| {
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
            format!("{:x}", mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        })
        .collect();
    for format in ["csv", "xlsx"] {
        let error = workshop.render(&texts(&given), format).await.unwrap_err();
        assert!(
            matches!(error, RenderError::TooLarge { most: 20_000 }),
            "{format}: {error}"
        );
        assert!(error.is_final());
    }
    assert!(is_empty(workshop.directory.path()));
    assert!(workshop.render(&texts(&given[..100]), "csv").await.is_ok());
}

#[tokio::test]
async fn what_is_not_made_here_or_not_there_is_told() {
    let workshop = Workshop::default();
    let error = workshop.render(&many(1), "pdf").await.unwrap_err();
    assert!(matches!(error, RenderError::NotMadeHere(_)));
    let (workspace, other) = (WorkspaceId::default(), EditionId::new("other").unwrap());
    let csv = forge_dispatch::domain::output::OutputFormat::Csv;
    let error = workshop
        .renderer
        .render(
            &many(1),
            &workspace,
            &other,
            &csv,
            chrono::DateTime::UNIX_EPOCH,
        )
        .await
        .unwrap_err();
    assert!(matches!(error, RenderError::Source(SourceError::Missing)));
    assert!(error.is_final());
}

/// Never gives the second page.
struct Stuck(Given);

#[async_trait::async_trait]
impl Source for Stuck {
    async fn outline(&self, w: &WorkspaceId, edition: &EditionId) -> Result<Outline, SourceError> {
        self.0.outline(w, edition).await
    }

    async fn single(
        &self,
        at: &At,
        section: &str,
    ) -> Result<forge_dispatch::domain::values::Values, SourceError> {
        self.0.single(at, section).await
    }

    async fn rows(
        &self,
        at: &At,
        section: &str,
        after: Option<i64>,
        limit: usize,
    ) -> Result<RowPage, SourceError> {
        if after.is_some() {
            std::future::pending::<()>().await;
        }
        self.0.rows(at, section, after, limit).await
    }
}

#[tokio::test]
async fn a_rendering_that_nobody_waits_for_gives_its_turn_back() {
    let settings = Outputs {
        concurrency: 1,
        ..Outputs::default()
    };
    let workshop = Workshop::new(&settings);
    let stuck = Stuck(many(1_250));
    tokio::select! {
        _ = workshop.render(&stuck, "csv") => panic!("it is stuck"),
        () = eventually(Duration::from_secs(20), "the first page was read", async || {
            stuck.0.pages.load(Ordering::SeqCst) == 1
        }) => {}
    }
    let one = many(1);
    let next = tokio::time::timeout(Duration::from_secs(20), workshop.bytes(&one, "csv"));
    assert_eq!(next.await.unwrap().0, b"text\r\ntext 0\r\n");
}
