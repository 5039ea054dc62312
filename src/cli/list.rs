//! `… list`: one page of what a workspace has.

use clap::Args;
use serde::Serialize;
use type_safe_id::{StaticType, TypeSafeId};

use super::output::List;
use super::parse::{PageArgs, WorkspaceArgs};
use super::{CliError, Context};
use crate::domain::reach::Reach;
use crate::store::{self, Page, PageRequest, Store};

/// Which part of the list.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    page: PageArgs,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// How a list is printed for people.
pub struct Columns<'a, V> {
    /// What it is a list of.
    pub what: &'a str,
    /// The names of the columns.
    pub header: &'a [&'a str],
    /// An item's line.
    pub row: fn(&V) -> Vec<String>,
}

impl ListArgs {
    /// Reads the page and prints it.
    pub async fn print<T: StaticType, Item, V: Serialize>(
        self,
        context: &Context,
        read: impl AsyncFnOnce(
            &dyn Store,
            &Reach,
            PageRequest<TypeSafeId<T>>,
        ) -> store::Result<Page<Item, TypeSafeId<T>>>,
        view: impl Fn(&Item) -> V,
        columns: Columns<'_, V>,
    ) -> Result<(), CliError> {
        let reach = self.workspace.reach()?;
        let request = self.page.request()?;
        let page = context
            .with_store(async |store| Ok(read(&**store, &reach, request).await?))
            .await?;
        let list = List::new(&page, view);
        context.output.print(&list, |list| {
            list.describe(columns.what, columns.header, columns.row)
        })
    }
}
