//! Statements that carry many rows.
//!
//! A statement costs a hand-over to the connection's thread and back, so rows are sent together, as
//! a list of bound values. (Measured at a third of the cost of `json_each` over hex ids, and a sixth
//! of it with 10 kB bodies.) The text of such a statement is long, and finding it prepared means
//! comparing it: it is made once for each of a few sizes, and never again.
//!
//! Values are bound in the order in which they stand, without numbers: a numbered parameter is
//! looked up by its name, one after the other. So the list comes first, in a `with`, and what is the
//! same for all rows stands behind it and is bound once.

use std::sync::{Arc, OnceLock};

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::error::store_error;
use crate::store::Result;

/// How many rows one statement carries, largest first. Few sizes, so that few statements are
/// prepared and all stay in the connection's cache; the largest is where more rows no longer made it
/// faster.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// A statement whose values are being bound.
pub(super) type Statement = Query<'static, Sqlite, SqliteArguments>;

/// A statement that carries a list of rows.
pub(super) struct Bulk {
    before: &'static str,
    row: &'static str,
    after: &'static str,
    texts: [OnceLock<Arc<str>>; SIZES.len()],
}

impl Bulk {
    /// The text before the list, that of one row, and the text behind the list.
    pub(super) const fn new(before: &'static str, row: &'static str, after: &'static str) -> Self {
        Self {
            before,
            row,
            after,
            texts: [const { OnceLock::new() }; SIZES.len()],
        }
    }

    /// The statements that carry these rows. `bind_row` binds what is written in the list's row,
    /// `bind_rest` what stands behind the list.
    pub(super) fn statements<'r, T>(
        &'static self,
        mut rows: &'r [T],
        mut bind_row: impl FnMut(Statement, &'r T) -> Statement,
        bind_rest: impl Fn(Statement) -> Statement,
    ) -> impl Iterator<Item = Statement> {
        std::iter::from_fn(move || {
            let (size, text) = SIZES
                .into_iter()
                .zip(&self.texts)
                .find(|(size, _)| *size <= rows.len())?;
            let (part, rest) = rows.split_at(size);
            rows = rest;
            let text = text.get_or_init(|| self.text(size));
            let statement = sqlx::query(AssertSqlSafe(Arc::clone(text)));
            Some(bind_rest(part.iter().fold(statement, &mut bind_row)))
        })
    }

    fn text(&self, size: usize) -> Arc<str> {
        let rows = vec![self.row; size].join(", ");
        [self.before, &rows, self.after].concat().into()
    }
}

/// Runs them; answers how many rows they changed.
pub(super) async fn execute(
    transaction: &mut SqliteConnection,
    statements: impl Iterator<Item = Statement>,
) -> Result<usize> {
    let mut changed = 0;
    for statement in statements {
        let done = statement
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        changed += usize::try_from(done.rows_affected()).unwrap_or(usize::MAX);
    }
    Ok(changed)
}

/// Runs them; answers what they found.
pub(super) async fn fetch(
    transaction: &mut SqliteConnection,
    statements: impl Iterator<Item = Statement>,
) -> Result<Vec<SqliteRow>> {
    let mut found = Vec::new();
    for statement in statements {
        let rows = statement.fetch_all(&mut *transaction).await;
        found.append(&mut rows.map_err(store_error)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use sqlx::Execute;

    use super::*;

    #[test]
    fn all_rows_are_carried_in_order_and_in_few_sizes() {
        static LIST: Bulk = Bulk::new("values ", "(?)", "");
        for length in [0, 1, 3, 255, 256, 500, 5_000] {
            let rows: Vec<usize> = (0..length).collect();
            let bound = RefCell::new(Vec::new());
            let bind = |statement, row: &usize| {
                bound.borrow_mut().push(*row);
                statement
            };
            let sizes: Vec<usize> = LIST
                .statements(&rows, bind, |statement| statement)
                .map(|statement| statement.sql().as_str().matches('?').count())
                .collect();
            assert_eq!(*bound.borrow(), rows);
            assert_eq!(sizes.iter().sum::<usize>(), length);
            assert!(sizes.iter().all(|size| SIZES.contains(size)));
        }
    }

    #[test]
    fn the_text_is_laid_out_as_it_is_given() {
        let list = Bulk::new("select * from (values ", "(?, 1)", ") where a = ?");
        assert_eq!(
            &*list.text(2),
            "select * from (values (?, 1), (?, 1)) where a = ?"
        );
    }
}
